//! Refreshes of tokens, and the causes for which jobs wait.

use dispatch_worker::fault::{Class, Fault};
use dispatch_worker::tracker::{
    NewTokens, RefreshTurn, SealedTracker, TrackerFault, cause_present, destination_cause,
    identity_cause, installation_cause,
};
use secrecy::{ExposeSecret, SecretString};

use super::MINUTE;
use crate::tracker::fixture::World;

/// Returns tokens as Microsoft Entra issues them, valid for an hour.
fn tokens(refresh: Option<&str>, after_refusal: bool) -> NewTokens {
    NewTokens {
        access_token: SecretString::from("access-2"),
        refresh_token: refresh.map(SecretString::from),
        expires_in: MINUTE * 60,
        after_refusal,
    }
}

/// Returns a statement that inserts jobs that wait for a cause.
fn waiting_jobs(count: u32, cause: &str) -> String {
    format!(
        "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, wait_reason, wait_key,
             wait_observed)
         SELECT gen_random_uuid(), 'dispatch', 'tests', cause || n, 'acme', 1, '{{}}', 'waiting', 'fetch_states',
                'reauthentication', cause, 1
         FROM generate_series(1, {count}) AS n, (VALUES ('{cause}')) AS given (cause)"
    )
}

async fn take_turn(sealed: &SealedTracker, identity: i64, version: i64) -> RefreshTurn {
    sealed
        .take_refresh_turn(identity, version, MINUTE, None)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_turn_to_refresh_expires_and_a_late_worker_does_not_end_the_next_one() {
    let world = World::new().await;
    let (id, tracker, sealed) = (world.identity().await, &world.tracker, &world.sealed);
    let turn = async |version| take_turn(sealed, id, version).await;
    let RefreshTurn::Yours(first) = turn(1).await else {
        panic!("no other worker has the turn")
    };
    world
        .sql("UPDATE identities SET refreshing_until = now()")
        .await;
    let RefreshTurn::Yours(second) = turn(1).await else {
        panic!("a turn expires")
    };
    tracker
        .end_refresh_turn(id, &first, Some("invalid_grant"))
        .await
        .unwrap();
    assert!(
        matches!(turn(1).await, RefreshTurn::Taken),
        "a late worker does not end the next turn"
    );
    tracker.end_refresh_turn(id, &second, None).await.unwrap();
    assert!(matches!(turn(1).await, RefreshTurn::Yours(_)));
}

#[tokio::test]
async fn one_worker_refreshes_an_identity_and_the_others_wait_for_the_new_version() {
    let world = World::new().await;
    let (id, sealed) = (world.identity().await, &world.sealed);
    let turn = async |version| take_turn(sealed, id, version).await;
    let RefreshTurn::Yours(first) = turn(1).await else {
        panic!("no other worker has the turn")
    };
    assert_eq!(first.refresh_token.expose_secret(), "refresh-1");
    assert!(matches!(turn(1).await, RefreshTurn::Taken));
    assert!(
        sealed
            .save_tokens(id, 1, &tokens(Some("refresh-2"), false))
            .await
            .unwrap()
    );
    assert!(
        !sealed
            .save_tokens(id, 1, &tokens(None, false))
            .await
            .unwrap(),
        "a late worker does not save"
    );
    let token = sealed.access_token(id).await.unwrap().unwrap();
    assert_eq!(
        (token.token.expose_secret(), token.version),
        ("access-2", 2)
    );
    assert!(
        token.ends_in > time::Duration::seconds(3500) && token.ends_in <= time::Duration::HOUR,
        "{}",
        token.ends_in
    );
    assert!(matches!(turn(1).await, RefreshTurn::Moved));
    assert!(
        sealed
            .save_tokens(id, 2, &tokens(None, false))
            .await
            .unwrap()
    );
    let RefreshTurn::Yours(third) = turn(3).await else {
        panic!("saving the tokens ends the turn")
    };
    assert_eq!(
        third.refresh_token.expose_secret(),
        "refresh-2",
        "without a new refresh token the old one stays"
    );
    world
        .sql("UPDATE identities SET refresh_token = NULL, refreshing_until = NULL")
        .await;
    assert!(matches!(turn(3).await, RefreshTurn::NoRefreshToken));
}

#[tokio::test]
async fn a_refused_refresh_is_not_repeated_at_once() {
    let world = World::new().await;
    let (id, tracker, sealed) = (world.identity().await, &world.tracker, &world.sealed);
    let hour = Some(60 * MINUTE);
    let turn = async |version, within| {
        sealed
            .take_refresh_turn(id, version, MINUTE, within)
            .await
            .unwrap()
    };
    let RefreshTurn::Yours(first) = turn(1, hour).await else {
        panic!("no other worker has the turn")
    };
    tracker
        .end_refresh_turn(id, &first, Some("invalid_grant"))
        .await
        .unwrap();
    let RefreshTurn::Refused(Some(said)) = turn(1, None).await else {
        panic!("it was refused a moment ago")
    };
    assert_eq!(said, "invalid_grant");
    world
        .sql("UPDATE identities SET refresh_refused_at = now() - interval '61 seconds'")
        .await;
    assert!(
        matches!(turn(1, hour).await, RefreshTurn::Yours(_)),
        "a refresh that returned no tokens does not count"
    );
    assert!(
        sealed
            .save_tokens(id, 1, &tokens(Some("refresh-2"), true))
            .await
            .unwrap()
    );
    assert!(matches!(turn(2, hour).await, RefreshTurn::RefusedAgain));
    let RefreshTurn::Yours(second) = turn(2, None).await else {
        panic!("the expiry of the token is another reason")
    };
    tracker.end_refresh_turn(id, &second, None).await.unwrap();
    world
        .sql("UPDATE identities SET access_refused_at = now() - interval '11 minutes'")
        .await;
    let RefreshTurn::Yours(third) = turn(2, Some(10 * MINUTE)).await else {
        panic!("a later refusal has another reason")
    };
    tracker.end_refresh_turn(id, &third, None).await.unwrap();
    assert!(matches!(turn(2, hour).await, RefreshTurn::RefusedAgain));
    world
        .sql("UPDATE identities SET access_refused_at = now() - interval '61 minutes'")
        .await;
    assert!(matches!(turn(2, hour).await, RefreshTurn::Yours(_)));
}

#[tokio::test]
async fn saved_tokens_make_the_jobs_that_wait_for_them_due() {
    let world = World::new().await;
    let (id, sealed) = (world.identity().await, &world.sealed);
    let other = world.sql(&waiting_jobs(3, &identity_cause(id + 1))).await;
    assert_eq!(
        world
            .sql(&waiting_jobs(501, &identity_cause(id)))
            .await
            .len()
            + other.len(),
        0
    );
    let states = "SELECT state, wait_key IS NULL, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2";
    assert!(
        !sealed
            .save_tokens(id, 7, &tokens(None, false))
            .await
            .unwrap()
    );
    assert_eq!(
        world.sql(states).await,
        ["waiting|f|504"],
        "nothing was saved"
    );
    assert!(
        sealed
            .save_tokens(id, 1, &tokens(None, false))
            .await
            .unwrap()
    );
    assert_eq!(
        world.sql(states).await,
        ["ready|t|500", "waiting|f|4"],
        "one page is released at once"
    );
    assert_eq!(
        world.sql("SELECT cause, up_to FROM releases").await,
        [format!("{}|1", identity_cause(id))],
        "and the rest is recorded"
    );
}

#[tokio::test]
async fn a_cause_is_present_until_it_is_removed_and_cannot_be_removed_while_it_is_tested() {
    let world = World::new().await;
    let identity: i64 = world
        .one("SELECT id FROM identities")
        .await
        .parse()
        .unwrap();
    let destination: i64 = world
        .one("SELECT min(id) FROM destinations")
        .await
        .parse()
        .unwrap();
    let installation = installation_cause(world.integration().await, world.organization().await);
    let mut client = world.database.pool.get().await.unwrap();
    let tx = client.transaction().await.unwrap();
    for (key, observed, expected) in [
        (identity_cause(identity), 1, Some(true)),
        (identity_cause(identity), 0, Some(false)),
        (identity_cause(-1), 1, Some(false)),
        (installation.clone(), 0, Some(false)),
        (destination_cause(destination), 0, Some(false)),
        ("schema:2".to_owned(), 0, None),
    ] {
        assert_eq!(
            cause_present(&tx, &key, observed).await.unwrap(),
            expected,
            "{key}"
        );
    }
    let other = world.database.pool.get().await.unwrap();
    let change = "SET lock_timeout = '50ms'; UPDATE identities SET version = 2";
    let refused = TrackerFault::from(other.batch_execute(change).await.unwrap_err());
    assert_eq!(refused.class(), Class::Infrastructure);
    tx.commit().await.unwrap();
    other.batch_execute(change).await.unwrap();
    let disable = "UPDATE organization_integrations SET disabled = true; UPDATE destinations SET disabled = true";
    other.batch_execute(disable).await.unwrap();
    let tx = client.transaction().await.unwrap();
    assert_eq!(
        cause_present(&tx, &identity_cause(identity), 1)
            .await
            .unwrap(),
        Some(false)
    );
    for key in [installation, destination_cause(destination)] {
        assert_eq!(
            cause_present(&tx, &key, 0).await.unwrap(),
            Some(true),
            "{key}"
        );
    }
}
