//! The test data: a hundred work items of one account, most in groups of three or one, some in no
//! group.

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::state::{Options, State, stable_uuid};
use dispatch_worker::devkit::simulator::witness::Provider;
use dispatch_worker::tracker::TrackerDocument;
use serde_json::{Value, json};

use crate::support::TestWorld;

/// The account name in URLs.
pub(super) const ACCOUNT: &str = "contoso";
/// The e-mail address of the identity that the worker acts as.
pub(super) const BOT: &str = "bot@acme.example";
/// The shared secret of every event.
pub(super) const HOOK_SECRET: &str = "canary-hook-secret";

const ITEMS: i64 = 100;
/// The number of groups of three. The items after them have a group each, except for the last
/// [`UNLINKED`] ones.
const TRIPLES: i64 = 20;
const UNLINKED: i64 = 10;
const PEOPLE: [&str; 5] = ["ann", "bob", "cem", "dağ", "eve"];
const PROJECT: &str = "Web";
const TOKEN: &str = "canary-access-token";
/// The work items whose PATCHes take effect without an answer: until the outcome is known, only
/// the ledger shows who wrote them.
const LOSSY: [&str; 2] = ["/workitems/1", "/workitems/4"];
/// The number of slow reads of work items, and their latency in milliseconds; what was read before
/// may be stale afterwards.
const SLOW_LOOKS: u64 = 60;
const LOOK_MILLIS: u64 = 80;
/// The latency of every answer, which makes races likely.
const LATENCY_MILLIS: u64 = 2;

/// Returns the ids of the work items.
pub(super) fn items() -> impl Iterator<Item = i64> {
    1..=ITEMS
}

/// Returns the unique names of the people who change work items and are assigned to them.
pub(super) fn people() -> impl Iterator<Item = String> {
    PEOPLE.iter().map(|name| format!("{name}@acme.example"))
}

/// Returns the account id.
pub(super) fn account_id() -> String {
    stable_uuid(&format!("account {ACCOUNT}")).to_string()
}

/// Returns the groups: short ids and work items.
pub(super) fn groups() -> Vec<(String, Vec<i64>)> {
    let triples = (0..TRIPLES).map(|n| vec![3 * n + 1, 3 * n + 2, 3 * n + 3]);
    let singles = (3 * TRIPLES + 1..=ITEMS - UNLINKED).map(|item| vec![item]);
    triples
        .chain(singles)
        .map(|items| (format!("WEB-{}", items[0]), items))
        .collect()
}

/// Loads the test data into the simulator and the tracker.
pub(super) async fn set(world: &TestWorld) {
    let simulator = world.simulator().await;
    simulator
        .client
        .load_state(&providers())
        .await
        .expect("the simulator accepts the state");
    for items in LOSSY {
        let rule = FaultRule::new(FaultKind::LoseAnswer)
            .provider(Provider::AzureDevops)
            .method("PATCH")
            .path_contains(items);
        simulator
            .client
            .fault(&rule)
            .await
            .expect("the simulator accepts the fault");
    }
    let slow = FaultRule::new(FaultKind::Slow)
        .provider(Provider::AzureDevops)
        .path_contains("workitemsbatch");
    let slow = slow.millis(LOOK_MILLIS).times(SLOW_LOOKS);
    simulator
        .client
        .fault(&slow)
        .await
        .expect("the simulator accepts the fault");
    world.import(&document()).await;
}

/// Asserts that every fault was met; otherwise the run proves less than it claims.
pub(super) async fn faults_have_happened(world: &TestWorld) {
    let faults = world
        .simulator()
        .await
        .client
        .faults()
        .await
        .expect("the simulator lists its faults");
    assert!(faults.iter().all(|fault| fault.hits > 0), "{faults:?}");
}

fn providers() -> State {
    let mut state = State::new().user("Bot", BOT).token(TOKEN, BOT);
    for person in people() {
        state = state.user(&person, &person);
    }
    let state = state.account(ACCOUNT, PROJECT);
    let mut state = items().fold(state, |state, id| {
        state.bug(ACCOUNT, PROJECT, id, "It is slow", None)
    });
    state.options = Options {
        latency_millis: LATENCY_MILLIS,
        ..Options::default()
    };
    state
}

fn document() -> TrackerDocument {
    let people: Vec<String> = people().collect();
    let users: Vec<Value> = people
        .iter()
        .map(|email| json!({"name": email, "emails": [email]}))
        .collect();
    let group = |(short_id, items): (String, Vec<i64>)| {
        let links: Vec<Value> = items
            .iter()
            .map(|id| json!({"account_id": account_id(), "work_item_id": id}))
            .collect();
        json!({"short_id": short_id, "title": short_id, "links": links})
    };
    let groups: Vec<Value> = groups().into_iter().map(group).collect();
    let everything =
        json!({"assignee_inbound": true, "assignee_outbound": true, "status_inbound": true});
    let document = json!({
        "users": users,
        "integrations": [{"account_id": account_id(), "account_name": ACCOUNT, "hook_secrets": [HOOK_SECRET]}],
        "organizations": [{
            "slug": "acme", "name": "Acme",
            "identities": [{"name": "bot", "access_token": TOKEN, "expires_at": "2099-01-01T00:00:00Z"}],
            "installations": [{"account_id": account_id(), "identity": "bot", "settings": everything}],
            "projects": [{"slug": "web", "name": "Web", "members": people, "groups": groups}]
        }]
    });
    serde_json::from_value(document).expect("a tracker document")
}
