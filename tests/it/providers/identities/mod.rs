//! Token refresh at Microsoft Entra: once for all replicas, saved before use. A person is asked
//! only if nothing else helps.

mod crashes;
mod refusals;

use std::collections::BTreeSet;
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

use crate::support::{BINARY, Checks, TestWorld, WorkerOptions, WorkerProcess, acme};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expires_soon_is_refreshed_ahead_and_stays_in_use_until_then() {
    let world = scene(acme::TOKEN, PAST, Options::default()).await;
    let soon = "UPDATE identities SET token_expires_at = now() + interval '4 minutes'";
    world.database.rows(soon).await;
    let unavailable = FaultRule::new(FaultKind::ServerError)
        .provider(Provider::Entra)
        .times(1);
    world
        .simulator()
        .await
        .client
        .fault(&unavailable)
        .await
        .unwrap();
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
