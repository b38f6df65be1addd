//! Choices of accounts that do not exist.

use serde_json::json;

use super::*;
use crate::support::Checks;

#[tokio::test]
async fn choosing_an_unknown_account_asks_again_and_choosing_a_known_one_continues_the_job() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let mut message = acme::job(
        "choose",
        &world.assign(acme::LONE_ITEM, Some(acme::ANN)).await,
    );
    message["account"] = Value::Null;
    message["notify"] = json!([]);
    world.publish_job(&message).await;
    let id = world
        .wait_job_state("choose", JobState::Waiting, SOON)
        .await
        .id;
    for (generation, account) in [(2, "nobody's"), (3, "../.."), (4, &"x".repeat(255))] {
        world.publish_configure(id, account).await;
        wait_for("the job to ask again", SOON, async || {
            let row = world.job_by_key("choose").await.expect("the job has a row");
            let asks = row.state == JobState::Waiting
                && row.wait_reason.as_deref() == Some("configuration");
            if asks && row.generation == generation {
                Ok(())
            } else {
                Err(format!("{row:?}"))
            }
        })
        .await;
    }
    world.publish_configure(id, &acme::account_id()).await;
    world
        .wait_job_state("choose", JobState::Succeeded, SOON)
        .await;
    assert_eq!(handled(&world, "choose").await, (1, Vec::new()));
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM dead_letters")
            .await,
        "0"
    );
    Checks::default().hold(&world).await;
}
