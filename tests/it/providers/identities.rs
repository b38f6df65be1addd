//! Token refresh at Microsoft Entra: once for all replicas, saved before use. A person is asked
//! only if nothing else helps.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use dispatch_worker::devkit::simulator::admin::TokenChange;
use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::state::{Options, State};
use dispatch_worker::devkit::simulator::witness::{Entry, Provider};
use dispatch_worker::job::JobState;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::{BINARY, Checks, TestWorld, WorkerOptions, WorkerProcess, acme, wait_for};

const SOON: Duration = Duration::from_secs(60);
const CLIENT: &str = "7f3c0d7a-0000-4000-8000-000000000001";
const CLIENT_SECRET: &str = "canary-client-secret";
const ENDED: &str = "canary-ended-access-token";
const REFRESH: &str = "canary-refresh-token-1";
const PAST: &str = "2020-01-01T00:00:00Z";
const SIGABRT: i32 = 6;

/// Creates `acme` with an identity that has a refresh token, and an access token that expires at
/// `expires_at`.
async fn scene(access_token: &str, expires_at: &str, options: Options) -> TestWorld {
    let world = TestWorld::acme().await;
    let simulator = world.simulator().await;
    let mut known = State {
        options,
        ..State::default()
    }
    .entra_client(CLIENT, CLIENT_SECRET);
    known = known.refresh_token(REFRESH, acme::BOT);
    simulator.client.merge_state(&known).await.unwrap();
    let mut document = acme::document(&simulator.url);
    let identity = json!({
        "name": "bot", "access_token": access_token, "refresh_token": REFRESH, "expires_at": expires_at
    });
    document.organizations[0].identities = vec![serde_json::from_value(identity).unwrap()];
    world.import(&document).await;
    world
}

async fn with_ended_token(options: Options) -> TestWorld {
    scene(ENDED, PAST, options).await
}

/// Returns options of a worker with an Entra client.
fn configured() -> WorkerOptions {
    let client = [
        ("DISPATCH_ENTRA_CLIENT_ID", CLIENT),
        ("DISPATCH_ENTRA_CLIENT_SECRET", CLIENT_SECRET),
    ];
    let environment = client
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    WorkerOptions {
        environment,
        ..WorkerOptions::default()
    }
}

/// Publishes a job that only retrieves its user.
async fn publish(world: &TestWorld, key: &str) {
    let mut job = acme::job(key, &Value::Null);
    job["events"] = json!([]);
    world.publish_job(&job).await;
}

async fn succeeds(world: &TestWorld, key: &str) {
    world.wait_job_state(key, JobState::Succeeded, SOON).await;
}

fn refreshes(world: &TestWorld) -> Vec<Entry> {
    world
        .witness()
        .into_iter()
        .filter(|entry| entry.provider == Provider::Entra)
        .collect()
}

/// Returns `saved|access_refused|refresh_refused|free`: the number of saves since [`scene`], the
/// refusals, and whether no refresh is in progress.
async fn row(world: &TestWorld) -> String {
    let sql = "SELECT version - 2, access_refused_at IS NOT NULL, refresh_refused_at IS NOT NULL, refreshing_until IS NULL";
    world
        .database
        .rows(&format!("{sql} FROM identities WHERE name = 'bot'"))
        .await
        .concat()
        .join("|")
}

/// Runs `dispatch identities …` as an operator; returns its answer, or stderr if it fails.
async fn identities(world: &TestWorld, arguments: &[&str], stdin: &Value) -> Result<Value, String> {
    let simulator = &world.simulator().await.url;
    let mut command = Command::new(BINARY);
    command
        .args(["--json", "identities"])
        .args(arguments)
        .env_clear();
    command.env("DISPATCH_DATABASE_URL", world.database.url.expose_secret());
    command
        .env("DISPATCH_KEYRING", world.keyring_setting.expose_secret())
        .env("DISPATCH_USER", "tester");
    command
        .env("DISPATCH_ALLOW_HTTP_LOOPBACK", "true")
        .env("DISPATCH_AZURE_DEVOPS_PROFILE_URL", simulator);
    command.env(
        "DISPATCH_ENTRA_TOKEN_URL",
        format!("{simulator}/organizations/oauth2/v2.0/token"),
    );
    command.envs(configured().environment);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // A command that reads no stdin may have ended.
    drop(pipe.write_all(stdin.to_string().as_bytes()).await);
    drop(pipe);
    let output = child.wait_with_output().await.unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&output.stdout).unwrap())
}

fn of_bot<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--organization", "acme", "--name", "bot"]].concat()
}

/// Stores new, valid tokens by command, as after a sign-in of a person.
async fn sign_in_again(world: &TestWorld) -> Value {
    let fresh = TokenChange {
        token: "canary-fresh".to_owned(),
        user: Some(acme::BOT.to_owned()),
        ..TokenChange::default()
    };
    world.simulator().await.client.token(&fresh).await.unwrap();
    let tokens = json!({"access_token": fresh.token, "refresh_token": "canary-refresh-token-9", "expires_in": 3600});
    identities(
        world,
        &of_bot(&["set-tokens", "--reason", "signed in again"]),
        &tokens,
    )
    .await
    .unwrap()
}

async fn waits_for_the_person(world: &TestWorld, key: &str, why: &str) {
    let row = world.wait_job_state(key, JobState::Waiting, SOON).await;
    assert_eq!(
        (row.wait_reason.as_deref(), row.attempt),
        (Some("reauthentication"), 1)
    );
    let message = row.error_message.unwrap_or_default();
    assert!(message.contains(why), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_with_twenty_jobs_refresh_an_expired_token_once() {
    let world = with_ended_token(Options {
        refresh_tokens_once: true,
        latency_millis: 200,
        ..Options::default()
    })
    .await;
    let keys: Vec<String> = (0..20).map(|n| format!("job-{n}")).collect();
    let few = WorkerOptions {
        concurrency: Some(8),
        ..configured()
    };
    let workers = [world.worker(&few), world.worker(&few)];
    for worker in &workers {
        worker.ready().await;
    }
    for key in &keys {
        publish(&world, key).await;
    }
    for key in &keys {
        succeeds(&world, key).await;
    }
    assert_eq!(
        refreshes(&world).len(),
        1,
        "all other jobs have waited for the refresh"
    );
    assert_eq!(row(&world).await, "1|f|f|t");
    let ran = world
        .database
        .one("SELECT count(DISTINCT replica) FROM checkpoints")
        .await;
    assert_eq!(ran, "2", "both replicas had jobs");
    Checks::default().hold(&world).await;
    no_token_is_found(&world, &workers).await;
}

/// Asserts that neither the imported nor the issued tokens appear anywhere in plaintext.
async fn no_token_is_found(world: &TestWorld, workers: &[WorkerProcess]) {
    let state = world.simulator().await.client.state().await.unwrap();
    let mut tokens: BTreeSet<String> = state
        .tokens
        .into_keys()
        .chain(state.entra.refresh_tokens.into_keys())
        .collect();
    tokens.extend([CLIENT_SECRET.to_owned(), ENDED.to_owned()]);
    assert!(
        tokens
            .iter()
            .any(|token| token.starts_with("canary-sim-access-"))
            && tokens.len() >= 5
    );
    let tables = world
        .database
        .rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        .await
        .concat();
    assert!(
        tables.iter().any(|table| table == "identities"),
        "{tables:?}"
    );
    let mut places: Vec<(String, String)> = workers
        .iter()
        .map(|worker| ("a log".to_owned(), worker.log()))
        .collect();
    for table in tables {
        let rows = world
            .database
            .rows(&format!("SELECT row_to_json(t)::text FROM {table} t"))
            .await
            .concat()
            .join("\n");
        places.push((table, rows));
    }
    for entry in world.witness() {
        places.push((
            "the witness".to_owned(),
            serde_json::to_string(&entry).unwrap(),
        ));
    }
    for (place, text) in places {
        assert!(
            !tokens.iter().any(|token| text.contains(token.as_str())),
            "a token is in {place}"
        );
    }
}

/// Runs a worker that aborts at a crash point of its refresh, and asserts that it had called only
/// Entra by then.
async fn abort_at(world: &TestWorld, point: &str) {
    let crash_at = Some(format!("fetch_states:{point}"));
    let mut worker = world.worker(&WorkerOptions {
        crash_at,
        ..configured()
    });
    publish(world, "one").await;
    let status = worker.wait_exit(SOON).await;
    assert_eq!(status.signal(), Some(SIGABRT), "{status}");
    let called: Vec<Provider> = world.witness().iter().map(|entry| entry.provider).collect();
    assert_eq!(
        called,
        [Provider::Entra],
        "no token was used before it was saved"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_lost_before_they_are_saved_are_requested_again() {
    let world = with_ended_token(Options::default()).await;
    abort_at(&world, "after_refresh_answer").await;
    assert_eq!(
        row(&world).await,
        "0|f|f|f",
        "nothing was saved, and the refresh is still reserved"
    );
    let _second = world.worker(&configured());
    succeeds(&world, "one").await;
    let asked: Vec<Option<String>> = refreshes(&world)
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert!(
        asked.len() == 2 && asked[0] == asked[1],
        "the same refresh token twice: {asked:?}"
    );
    assert_eq!(row(&world).await, "1|f|f|t");
    Checks::default().hold(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_replaces_tokens_that_were_lost_with_a_single_use_refresh_token() {
    let world = with_ended_token(Options {
        refresh_tokens_once: true,
        ..Options::default()
    })
    .await;
    abort_at(&world, "after_refresh_answer").await;
    let _second = world.worker(&configured());
    waits_for_the_person(&world, "one", "invalid_grant (AADSTS50173)").await;
    assert_eq!(row(&world).await, "0|f|t|t");
    publish(&world, "two").await;
    waits_for_the_person(
        &world,
        "two",
        "The provided grant has expired due to it having been used, a fresh auth token is needed. (a moment ago",
    )
    .await;
    assert_eq!(
        refreshes(&world).len(),
        2,
        "the second job did not refresh again"
    );

    let listed = identities(&world, &["list"], &Value::Null).await.unwrap();
    assert_eq!(
        (&listed[0]["jobs_waiting"], &listed[0]["has_refresh_token"]),
        (&json!(2), &json!(true))
    );
    assert!(listed[0]["refresh_refused_at"].is_string());
    let set = sign_in_again(&world).await;
    assert_eq!(
        (&set["jobs_released"], &set["identity"]["version"]),
        (&json!(2), &json!(3))
    );
    succeeds(&world, "one").await;
    succeeds(&world, "two").await;
    let audit = world
        .database
        .rows(
            "SELECT who, action, reason, before ->> 'version', after ->> 'version' FROM audit_log",
        )
        .await;
    assert_eq!(
        audit,
        [["tester", "identity.set_tokens", "signed in again", "2", "3"]]
    );
    let audited = world
        .database
        .one("SELECT row_to_json(a) FROM audit_log a")
        .await;
    assert!(!audited.contains("canary"), "{audited}");
    Checks {
        attempts: &[("fetch_states", "reauthentication")],
    }
    .hold(&world)
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saved_tokens_are_used_after_a_crash() {
    let world = with_ended_token(Options {
        refresh_tokens_once: true,
        ..Options::default()
    })
    .await;
    abort_at(&world, "after_refresh_saved").await;
    assert_eq!(row(&world).await, "1|f|f|t");
    let _second = world.worker(&configured());
    succeeds(&world, "one").await;
    assert_eq!(refreshes(&world).len(), 1);
    Checks::default().hold(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn received_tokens_are_saved_although_the_worker_loses_its_job_meanwhile() {
    let world = with_ended_token(Options {
        refresh_tokens_once: true,
        ..Options::default()
    })
    .await;
    let slow = FaultRule::new(FaultKind::Slow)
        .provider(Provider::Entra)
        .millis(5000)
        .times(1);
    world.simulator().await.client.fault(&slow).await.unwrap();
    let _worker = world.worker(&configured());
    publish(&world, "one").await;
    let is = async |what: &str, sql: &str| {
        wait_for(what, SOON, async || {
            if world.database.one(sql).await == "t" {
                Ok(())
            } else {
                Err("not yet")
            }
        })
        .await;
    };
    is(
        "a refresh to begin",
        "SELECT refreshing_until IS NOT NULL FROM identities WHERE name = 'bot'",
    )
    .await;
    let mut client = world.pool().get().await.unwrap();
    let lock = client.transaction().await.unwrap();
    lock.execute("SELECT FROM identities WHERE name = 'bot' FOR UPDATE", &[])
        .await
        .unwrap();
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    is(
        "the save to wait",
        &format!("{waits} AND query LIKE '%access_token = $3%'"),
    )
    .await;
    world
        .database
        .rows("UPDATE replicas SET alive_until = now() - interval '1 second'")
        .await;
    is("a new incarnation", "SELECT count(*) = 2 FROM replicas").await;
    lock.rollback().await.unwrap();
    succeeds(&world, "one").await;
    assert_eq!(
        (refreshes(&world).len(), row(&world).await.as_str()),
        (1, "1|f|f|t"),
        "the received tokens were not lost"
    );
    Checks::default().hold(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_refused_before_its_expiry_is_refreshed_once() {
    let world = scene(ENDED, "2099-01-01T00:00:00Z", Options::default()).await;
    let _worker = world.worker(&configured());
    publish(&world, "one").await;
    succeeds(&world, "one").await;
    assert_eq!(
        (refreshes(&world).len(), row(&world).await.as_str()),
        (1, "1|t|f|t")
    );
    let profiles = world
        .witness()
        .iter()
        .filter(|entry| entry.path == acme::PROFILE)
        .map(|entry| entry.status)
        .collect::<Vec<_>>();
    assert_eq!(profiles, [Some(401), Some(200)]);
    Checks::default().hold(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_wait_for_a_person_if_the_new_tokens_are_refused_too_and_do_not_refresh_again() {
    let world = scene(
        ENDED,
        "2099-01-01T00:00:00Z",
        Options {
            issued_tokens_refused: true,
            ..Options::default()
        },
    )
    .await;
    let _worker = world.worker(&configured());
    publish(&world, "one").await;
    waits_for_the_person(&world, "one", "Azure DevOps does not accept its token").await;
    publish(&world, "two").await;
    waits_for_the_person(
        &world,
        "two",
        "already refreshed for that reason a short time ago",
    )
    .await;
    assert_eq!(
        (refreshes(&world).len(), row(&world).await.as_str()),
        (1, "1|t|f|t")
    );
    sign_in_again(&world).await;
    succeeds(&world, "one").await;
    succeeds(&world, "two").await;
    Checks {
        attempts: &[("retrieve_user", "reauthentication")],
    }
    .hold(&world)
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_token_endpoint_causes_retries_and_a_refused_client_parks_the_job() {
    let world = with_ended_token(Options::default()).await;
    let ill = FaultRule::new(FaultKind::ServerError)
        .provider(Provider::Entra)
        .times(2);
    world.simulator().await.client.fault(&ill).await.unwrap();
    let mut worker = world.worker(&configured());
    publish(&world, "one").await;
    succeeds(&world, "one").await;
    let attempts = world
        .database
        .rows("SELECT stage, error_code FROM attempts ORDER BY at")
        .await;
    assert_eq!(
        attempts,
        [
            ["fetch_states", "entra.server_error"],
            ["fetch_states", "entra.server_error"]
        ]
    );
    assert_eq!(row(&world).await, "1|f|f|t");
    worker.terminate();
    worker.wait_exit(SOON).await;

    let mut wrong = configured();
    wrong.environment.insert(
        "DISPATCH_ENTRA_CLIENT_SECRET".to_owned(),
        "canary-wrong-secret".to_owned(),
    );
    let _wrong = world.worker(&wrong);
    world
        .database
        .rows("UPDATE identities SET token_expires_at = now()")
        .await;
    publish(&world, "two").await;
    let parked = world.wait_job_state("two", JobState::Parked, SOON).await;
    assert_eq!(parked.error_code.as_deref(), Some("entra.client_refused"));
    assert!(
        parked
            .error_hint
            .is_some_and(|hint| hint.contains("DISPATCH_ENTRA_CLIENT_SECRET"))
    );
    assert!(
        parked
            .error_message
            .is_some_and(|message| !message.contains("canary"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limited_token_endpoint_is_held_and_no_job_uses_an_attempt_meanwhile() {
    let world = with_ended_token(Options::default()).await;
    let busy = FaultRule::new(FaultKind::RateLimit)
        .provider(Provider::Entra)
        .retry_after(3)
        .times(1);
    world.simulator().await.client.fault(&busy).await.unwrap();
    let _worker = world.worker(&configured());
    let keys: Vec<String> = (0..12).map(|number| format!("job-{number}")).collect();
    for key in &keys {
        publish(&world, key).await;
    }
    for key in &keys {
        succeeds(&world, key).await;
    }
    assert_eq!(
        refreshes(&world).len(),
        2,
        "one that was refused, and one for all jobs after the hold"
    );
    let attempts = world
        .database
        .rows("SELECT error_code FROM attempts WHERE error_code <> 'governor.held'")
        .await;
    assert_eq!(
        attempts,
        [["entra.rate_limited"]],
        "only the job that made the request"
    );
    assert_eq!(
        world
            .database
            .one("SELECT max(attempt) FROM checkpoints WHERE stage = 'fetch_states'")
            .await,
        "2"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expires_soon_is_refreshed_ahead_and_stays_in_use_until_then() {
    let world = scene(acme::TOKEN, PAST, Options::default()).await;
    let soon = "UPDATE identities SET token_expires_at = now() + interval '4 minutes'";
    world.database.rows(soon).await;
    let ill = FaultRule::new(FaultKind::ServerError)
        .provider(Provider::Entra)
        .times(1);
    world.simulator().await.client.fault(&ill).await.unwrap();
    let _worker = world.worker(&configured());
    publish(&world, "one").await;
    succeeds(&world, "one").await;
    assert_eq!(
        (refreshes(&world).len(), row(&world).await.as_str()),
        (1, "0|f|f|t")
    );
    publish(&world, "two").await;
    succeeds(&world, "two").await;
    assert_eq!(
        (refreshes(&world).len(), row(&world).await.as_str()),
        (2, "1|f|f|t")
    );
    publish(&world, "three").await;
    succeeds(&world, "three").await;
    assert_eq!(
        refreshes(&world).len(),
        2,
        "the new token is valid for an hour"
    );
    Checks::default().hold(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_with_an_expired_token_wait_without_a_client_and_a_test_with_a_client_releases_them() {
    let world = with_ended_token(Options::default()).await;
    let _worker = world.worker(&WorkerOptions::default());
    publish(&world, "one").await;
    waits_for_the_person(&world, "one", "no client of Microsoft Entra is configured").await;
    let tested = identities(&world, &of_bot(&["test"]), &Value::Null)
        .await
        .unwrap();
    assert_eq!(
        (&tested["refreshed"], &tested["profile"]["display_name"]),
        (&json!(true), &json!("Bot"))
    );
    succeeds(&world, "one").await;
    Checks {
        attempts: &[("fetch_states", "reauthentication")],
    }
    .hold(&world)
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_is_registered_with_a_refresh_token_alone() {
    let world = with_ended_token(Options::default()).await;
    let second = ["--organization", "acme", "--name", "second"];
    let register = [&["register", "--reason", "a second one"], &second[..]].concat();
    let tokens = json!({"refresh_token": REFRESH});
    let registered = identities(&world, &register, &tokens).await.unwrap();
    assert_eq!(
        (
            &registered["identity"]["version"],
            &registered["identity"]["has_refresh_token"]
        ),
        (&json!(1), &json!(true))
    );
    let again = identities(&world, &register, &tokens).await.unwrap_err();
    assert!(
        again.contains("registered already") && again.contains("set-tokens"),
        "{again}"
    );
    let unknown = ["register", "--organization", "nobody", "--name", "bot"];
    let unknown = identities(&world, &unknown, &tokens).await.unwrap_err();
    assert!(
        unknown.contains("no organization `nobody`; use one of: acme"),
        "{unknown}"
    );
    let missing = ["set-tokens", "--organization", "acme", "--name", "third"];
    let missing = identities(&world, &missing, &tokens).await.unwrap_err();
    assert!(
        missing.contains("no identity `third`; use one of: bot, second"),
        "{missing}"
    );

    let tested = identities(&world, &[&["test"], &second[..]].concat(), &Value::Null)
        .await
        .unwrap();
    assert_eq!(
        (&tested["identity"]["version"], &tested["profile"]["email"]),
        (&json!(2), &json!(acme::BOT))
    );
    let listed = identities(&world, &["list", "--organization", "acme"], &Value::Null)
        .await
        .unwrap();
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["name"], &one["version"]))
        .collect();
    assert_eq!(
        names,
        [(&json!("bot"), &json!(2)), (&json!("second"), &json!(2))]
    );
    assert!(
        !listed.to_string().contains("token\":\"") && !listed.to_string().contains("canary"),
        "{listed}"
    );
    let audit = world
        .database
        .rows("SELECT action, before ->> 'version', reason FROM audit_log")
        .await;
    assert_eq!(
        audit,
        [["identity.register", "-", "a second one"]],
        "refused commands write no audit row"
    );
}
