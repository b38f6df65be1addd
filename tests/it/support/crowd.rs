//! Many jobs about many work items, for tests under load.

use std::ops::Range;

use dispatch_worker::devkit::simulator::state::State;
use dispatch_worker::tracker::TrackerDocument;
use serde_json::{Value, json};

use super::acme;
use super::world::TestWorld;

/// Groups of two work items each.
const GROUPS: i64 = 200;
const ITEMS: Range<i64> = 1_000..1_000 + 2 * GROUPS;

/// Gives a world the work items and their groups.
pub(crate) async fn gather(world: &TestWorld) {
    let simulator = world.simulator().await;
    let state = ITEMS.fold(acme::providers(), |state: State, id| {
        state.bug(acme::ACCOUNT, acme::PROJECT, id, "Something is slow", None)
    });
    let loaded = simulator.client.load_state(&state).await;
    loaded.expect("the simulator accepts the state");
    world
        .import(&with_groups(acme::document(&simulator.url)))
        .await;
}

/// Adds a group for every two work items.
fn with_groups(mut document: TrackerDocument) -> TrackerDocument {
    let groups = &mut document.organizations[0].projects[0].groups;
    for item in ITEMS.step_by(2) {
        let mut group = groups[0].clone();
        group.short_id = format!("WEB-{item}");
        for (link, work_item_id) in group.links.iter_mut().zip(item..) {
            link.work_item_id = work_item_id;
        }
        groups.push(group);
    }
    document
}

/// Returns a job about the next work item, whose assignee alternates, that notifies nobody.
pub(crate) async fn job(world: &TestWorld, name: &str, number: usize) -> Value {
    let place = i64::try_from(number).expect("it is small");
    let to = if place / (2 * GROUPS) % 2 == 0 {
        acme::ANN
    } else {
        acme::BOB
    };
    let event = world
        .assign(ITEMS.start + place % (2 * GROUPS), Some(to))
        .await;
    let mut job = acme::job(&format!("{name}-{number}"), &event);
    job["notify"] = json!([]);
    job
}
