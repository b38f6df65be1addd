//! Drills: every stuck code is produced as a bad night would, with real workers, servers and the
//! simulator of the providers. Each code is found in the API and on the page, the action that its
//! row offers is carried out, and the job finishes.

mod browsers;
mod causes;
mod workers;

use std::time::Duration;

use dispatch_worker::job::{JobId, JobState};
use dispatch_worker::store::{JobRow, Role, StuckCode};
use reqwest::header::LOCATION;
use serde_json::{Value, json};

use super::SOON;
use crate::support::{ConsoleProcess, TestWorld, wait_for};

/// The time limit until the API and the page name a code.
const FOUND_WITHIN: Duration = Duration::from_secs(15);
/// The time limit until events whose first publish met the outage are published.
const AFTER_AN_OUTAGE: Duration = Duration::from_secs(60);

/// A world with a console, and a person in a browser who is also a program.
struct Night {
    world: TestWorld,
    console: ConsoleProcess,
    token: String,
    cookie: String,
}

impl Night {
    async fn of(world: TestWorld) -> Self {
        let console = world.console().await;
        let token = world.token(Role::Admin, "olga", &[]).await;
        let cookie = console.sign_in(&token).await;
        Self {
            world,
            console,
            token,
            cookie,
        }
    }

    /// Waits until the API and the page name the code with the job as an example. Returns the page,
    /// which says what to do.
    async fn finds(&self, code: StuckCode, job: JobId, next: &str) -> String {
        let word = code.word();
        let found = wait_for(word, FOUND_WITHIN, async || {
            let rows = self.console.json(&self.token, "/stuck").await;
            let rows = rows.as_array().expect("a list").clone();
            let row = rows.into_iter().find(|row| row["code"] == word);
            let row = row.expect("a row of each code");
            let examples = row["examples"].as_array().expect("a list");
            if examples.iter().any(|one| one["id"] == json!(job)) {
                Ok(row)
            } else {
                Err(row.to_string())
            }
        })
        .await;
        let offered = found["next"].as_str().expect("a text");
        assert!(offered.contains(next), "{word}: {offered}");
        assert!(found["count"]["n"].as_i64() > Some(0), "{found}");
        let page = self.page(&format!("/stuck?code={word}")).await;
        let all = self.page("/stuck").await;
        for part in [
            &format!("<code>{word}</code>"),
            &format!("href=\"/jobs/{job}\""),
            next,
        ] {
            assert!(page.contains(part), "{word}: {part} is not in {page}");
            assert!(all.contains(part), "{word}: {part} is not in {all}");
        }
        page
    }

    /// Waits until the API counts no job of these codes, and asserts that their pages name none.
    async fn are_gone(&self, codes: &[StuckCode]) {
        for code in codes {
            let path = format!("/stuck?code={}", code.word());
            wait_for(&format!("the end of {code:?}"), FOUND_WITHIN, async || {
                let row = self.console.json(&self.token, &path).await;
                if row[0]["count"]["n"] == 0 {
                    Ok(())
                } else {
                    Err(row.to_string())
                }
            })
            .await;
            let page = self.page(&path).await;
            assert!(!page.contains("href=\"/jobs/"), "{code:?}: {page}");
        }
    }

    async fn page(&self, path: &str) -> String {
        self.console.page(&self.cookie, path).await
    }

    /// Follows the button of a page to a confirmation, and submits its form.
    async fn presses(&self, page: &str, link: &str, fields: &[(&str, &str)]) {
        let button = format!("href=\"{}\"", link.replace('&', "&amp;"));
        assert!(page.contains(&button), "{link} is not on {page}");
        let confirm = self.page(link).await;
        let action = confirm
            .split("method=\"post\" action=\"")
            .filter_map(|form| form.split('"').next())
            .find(|action| action.starts_with("/jobs/"))
            .unwrap_or_else(|| panic!("{link} has no form: {confirm}"));
        self.submits(&confirm, action, fields).await;
    }

    /// Submits a form of a page, with a reason.
    async fn submits(&self, page: &str, action: &str, fields: &[(&str, &str)]) {
        let fields = [&[("reason", "drill")], fields].concat();
        let submitted = self.console.submit(&self.cookie, page, action, &fields);
        let answer = submitted.await;
        assert_eq!(answer.status(), 303, "{action}: {:?}", answer.text().await);
        assert!(answer.headers().contains_key(LOCATION));
    }

    /// Retries a job through the API.
    async fn retries(&self, job: JobId) {
        let path = format!("/jobs/{job}/retry");
        let reason = json!({"reason": "drill"});
        let answer = self.console.post(&self.token, &path, &reason).await;
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer["changed"], true, "{answer}");
    }

    async fn succeeds(&self, key: &str) {
        let state = JobState::Succeeded;
        self.world.wait_job_state(key, state, SOON).await;
    }

    /// Returns the only follow-up of a job, once its row fulfils the condition.
    async fn follow_up(&self, key: &str, is_there: impl Fn(&JobRow) -> bool) -> JobId {
        wait_for(&format!("the follow-up of {key}"), SOON, async || {
            let parent = self.world.job_by_key(key).await.ok_or("no job yet")?;
            let children = self.world.job_view(parent.id).await.children;
            match children.as_slice() {
                [child] if is_there(child) => Ok(child.id),
                others => Err(format!("{} with {others:?}", parent.state)),
            }
        })
        .await
    }
}
