//! What the tests need of servers that they have not started. It is checked first, since a test
//! that lacks a right fails far from the reason.

use dispatch_worker::store;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// Tests run side by side, and some start several workers.
const CONNECTIONS: i32 = 300;

/// The user behind a request to RabbitMQ's management API. Source:
/// <https://www.rabbitmq.com/docs/http-api-reference#get-apiwhoami>.
#[derive(Deserialize)]
struct WhoAmI {
    tags: Vec<String>,
}

/// Checks the servers behind two URLs and RabbitMQ's management API.
///
/// # Errors
/// What was expected, what came, and what to do.
pub(super) async fn check(database: &str, amqp: &str, management: &str) -> Result<(), String> {
    for (setting, url) in [
        ("DISPATCH_TEST_DATABASE_URL", database),
        ("DISPATCH_TEST_AMQP_URL", amqp),
    ] {
        check_url(setting, url)?;
    }
    check_postgres(database).await?;
    check_rabbitmq(management).await
}

fn check_url(setting: &str, url: &str) -> Result<(), String> {
    let parsed = Url::parse(url).map_err(|error| {
        format!("{setting}: expected a URL scheme://user:password@host:port/name, got one that cannot be parsed ({error})")
    })?;
    if parsed.username().is_empty() || parsed.password().is_none() {
        return Err(format!(
            "{setting}: expected a user and a password in the URL, got none; the tests log in as other users of the same server"
        ));
    }
    Ok(())
}

async fn check_postgres(url: &str) -> Result<(), String> {
    let setting = "DISPATCH_TEST_DATABASE_URL";
    let away = |error: &dyn std::error::Error| {
        format!(
            "{setting}: expected a Postgres that accepts the login, got: {error}; start it, or correct the URL"
        )
    };
    let pool = store::pool(SecretString::from(url.to_owned()), 1).map_err(|error| away(&error))?;
    let client = pool.get().await.map_err(|error| away(&error))?;
    let sql = "SELECT rolsuper, current_setting('max_connections')::int FROM pg_roles WHERE rolname = current_user";
    let row = client
        .query_one(sql, &[])
        .await
        .map_err(|error| away(&error))?;
    let (is_superuser, connections): (bool, i32) = (row.get(0), row.get(1));
    if !is_superuser {
        return Err(format!(
            "{setting}: expected a superuser, got a role that is none; the tests create roles and databases and end connections"
        ));
    }
    if connections < CONNECTIONS {
        return Err(format!(
            "{setting}: expected max_connections of at least {CONNECTIONS}, got {connections}; raise it and restart Postgres"
        ));
    }
    Ok(())
}

async fn check_rabbitmq(management: &str) -> Result<(), String> {
    let setting = "DISPATCH_TEST_AMQP_URL";
    let mut url = Url::parse(management).map_err(|error| error.to_string())?;
    url.set_path("/api/whoami");
    let port = url.port().unwrap_or_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .map_err(|error| error.to_string())?;
    let answer = client.get(url).send().await.map_err(|error| {
        format!(
            "{setting}: expected RabbitMQ's management API on port {port} of the same host, got: {}; enable the plugin rabbitmq_management",
            error.without_url()
        )
    })?;
    let status = answer.status();
    let user: WhoAmI = answer.json().await.map_err(|_| {
        format!("{setting}: expected the management API to accept user and password, got {status}; give the user the tag administrator")
    })?;
    if user.tags.iter().any(|tag| tag == "administrator") {
        return Ok(());
    }
    Err(format!(
        "{setting}: expected a user with the tag administrator, got the tags {:?}; the tests create vhosts and users",
        user.tags
    ))
}

#[test]
fn a_url_without_a_password_is_refused_before_anything_is_tried() {
    let refused = check_url("DISPATCH_TEST_AMQP_URL", "amqp://guest@127.0.0.1:5672/%2f");
    assert!(refused.is_err_and(|why| why.contains("a password in the URL")));
    assert_eq!(
        check_url("X", "amqp://guest:guest@127.0.0.1:5672/%2f"),
        Ok(())
    );
}

#[tokio::test]
async fn servers_of_a_run_meet_what_is_asked_of_servers_of_others() {
    let servers = &super::servers::run().await.servers;
    let management = servers.management_url.as_deref().expect("it has the API");
    check(&servers.database_url, &servers.amqp_url, management)
        .await
        .expect("they meet it");
}

#[tokio::test]
async fn a_login_without_the_rights_that_tests_need_is_named() {
    let run = super::servers::run().await;
    let world = super::TestWorld::new().await;
    let worker = run.worker_url(&world.database.url);
    let why = check_postgres(worker.expose_secret()).await;
    assert!(why.is_err_and(|why| why.contains("expected a superuser")));
    let management = run
        .servers
        .management_url
        .as_deref()
        .expect("it has the API");
    let mut wrong = Url::parse(management).expect("a URL");
    wrong.set_password(Some("wrong")).expect("it takes one");
    let why = check_rabbitmq(wrong.as_str()).await;
    assert!(why.is_err_and(|why| why.contains("got 401")));
}
