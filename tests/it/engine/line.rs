//! The complete pipeline, from a producer's message to the delivered messages.

use std::time::Duration;

use dispatch_worker::job::JobState;

use crate::support::{Checks, TestWorld, WorkerOptions, acme};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_assignment_in_azure_devops_reaches_the_group_its_other_work_item_and_the_destinations()
{
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    let job = world.wait_job_state("one", JobState::Succeeded, SOON).await;
    let view = world.job_view(job.id).await;
    assert_eq!(
        (view.checkpoints.len(), view.children.len()),
        (10, 4),
        "{view:#?}"
    );
    let assignee =
        "SELECT u.name FROM group_assignees a JOIN users u ON u.id = a.user_id JOIN issue_groups g ON g.id = a.group_id
        WHERE g.short_id = 'WEB-1'";
    assert_eq!(world.database.one(assignee).await, "Ann");
    let assignees = world.simulator().await.client.assignees().await.unwrap();
    assert_eq!(
        assignees[&format!("{}:{}", acme::ACCOUNT, acme::OTHER_ITEM)].as_deref(),
        Some(acme::ANN)
    );
    let effects = world.witness().iter().filter(|entry| entry.effect).count();
    assert_eq!(effects, 4, "one PATCH and three messages");
    Checks::default().hold(&world).await;
}
