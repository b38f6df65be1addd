//! Every command that changes something writes a row to the audit log, to which Postgres adds the
//! login and the client address.

use std::collections::BTreeSet;

use serde_json::json;

use crate::house::documents::commands;
use crate::operator::dead_letters::{letter, message};
use crate::support::{TestWorld, WORKER, acme};

/// Commands that change no row of the database, or whose record is the worker's own rows.
const NOT_AUDITED: &[&str] = &[
    "dispatch audit list",
    "dispatch campaigns list",
    "dispatch campaigns preview",
    "dispatch campaigns report",
    "dispatch campaigns show",
    "dispatch check",
    "dispatch console",
    "dispatch completions",
    "dispatch dead-letters list",
    "dispatch demo",
    "dispatch destinations list",
    "dispatch failures list",
    "dispatch failures show",
    "dispatch holds list",
    "dispatch identities list",
    "dispatch identities test",
    "dispatch integrations list",
    "dispatch integrations test",
    "dispatch jobs explain",
    "dispatch jobs list",
    "dispatch jobs show",
    "dispatch keys list",
    "dispatch man",
    "dispatch killswitch list",
    "dispatch lanes",
    "dispatch pipelines",
    "dispatch reference",
    "dispatch producers list",
    "dispatch producers usage",
    "dispatch replicas",
    "dispatch publish",
    "dispatch schema",
    "dispatch settings",
    "dispatch tokens list",
    "dispatch stuck",
    "dispatch topology check",
    "dispatch topology declare",
    "dispatch worker",
];
/// The number of the kill switch that a case places: a hold and a pause come before it.
const KILL_SWITCH: i64 = 3;
/// The role that owns the database of a test.
const OWNER: &str = "postgres";

/// A command, its input, and the expected audit row.
struct Case {
    line: String,
    stdin: String,
    /// The expected `action login`.
    right: String,
}

fn case(line: &str, stdin: &str, action: &str, login: &str) -> Case {
    Case {
        line: line.to_owned(),
        stdin: stdin.to_owned(),
        right: format!("{action} {login}"),
    }
}

/// The options of an identity and of a destination that do not exist yet.
const NEW: &str = "--organization acme --name new";

/// Returns the cases, in an order in which each one has something to change.
async fn cases(world: &TestWorld) -> Vec<Case> {
    let account = acme::account_id();
    let url = format!("{}/webhook/{}", world.simulator().await.url, acme::KEYED);
    let mut letters = Vec::new();
    let group = "INSERT INTO failure_groups (fingerprint, pipeline, stage, error_code, sample)
        VALUES ('f-1', 'dispatch', 'check_account', 'x.y', 'text')";
    world.database.rows(group).await;
    for key in ["replayed", "discarded", "shown", "fixed"] {
        letters.push(letter(world, &message(key)).await);
    }
    [
        of_accounts(&account),
        of_destinations(&url),
        of_campaigns(),
        of_jobs(&account),
        of_one_job(),
        of_letters_and_the_rest(&letters),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn of_accounts(account: &str) -> Vec<Case> {
    let tokens = json!({"access_token": acme::TOKEN, "expires_in": 3600}).to_string();
    let robot = json!({"name": "robot", "access_token": "t", "expires_at": "2099-01-01T00:00:00Z"});
    let globex =
        json!({"organizations": [{"slug": "globex", "name": "Globex", "identities": [robot]}]})
            .to_string();
    vec![
        case("tracker import -", &globex, "tracker.import", OWNER),
        case(
            "tracker export --with-secrets",
            "",
            "tracker.export_secrets",
            OWNER,
        ),
        case(
            &format!("identities register {NEW}"),
            &tokens,
            "identity.register",
            OWNER,
        ),
        case(
            &format!("identities set-tokens {NEW}"),
            &tokens,
            "identity.set_tokens",
            OWNER,
        ),
        case(
            "integrations register --organization globex --account-id A-9 --account-name x --identity robot --yes",
            "",
            "integration.register",
            OWNER,
        ),
        case(
            &format!("integrations disable {account} --organization acme --yes"),
            "",
            "integration.disable",
            OWNER,
        ),
        case(
            &format!("integrations enable {account} --organization acme --yes"),
            "",
            "integration.enable",
            OWNER,
        ),
        case(
            &format!("integrations rotate-secret {account} --yes"),
            "canary-new-hook",
            "integration.rotate_secret",
            OWNER,
        ),
    ]
}

fn of_destinations(url: &str) -> Vec<Case> {
    let config = json!({"url": url, "honours_webhook_id": true});
    vec![
        case(
            &format!(
                "destinations register {NEW} --kind webhook --config {config} --secret-file - --yes"
            ),
            acme::WEBHOOK_SECRET,
            "destination.register",
            OWNER,
        ),
        case(
            "destinations disable new --organization acme --yes",
            "",
            "destination.disable",
            OWNER,
        ),
        case(
            "destinations enable new --organization acme --yes",
            "",
            "destination.enable",
            OWNER,
        ),
        case(
            "destinations test new --organization acme",
            "",
            "destination.test",
            OWNER,
        ),
        case(
            "destinations rotate-secret new --organization acme --yes",
            acme::NEW_WEBHOOK_SECRET,
            "destination.rotate_secret",
            OWNER,
        ),
    ]
}

fn of_jobs(account: &str) -> Vec<Case> {
    let job = |key: &str| format!("--source {} --key {key} --yes", acme::SOURCE);
    vec![
        case(
            "holds place acme|webhook|7 --reason x --yes",
            "",
            "hold.place",
            WORKER,
        ),
        case(
            "holds release acme|webhook|7 --reason x --yes",
            "",
            "hold.release",
            WORKER,
        ),
        case("pause --reason x --yes", "", "controls.pause", WORKER),
        case("resume --reason x --yes", "", "controls.resume", WORKER),
        case(
            "killswitch place --organization acme --source nobody --action park --reason x --yes",
            "",
            "controls.place_kill_switch",
            WORKER,
        ),
        case(
            &format!("killswitch end {KILL_SWITCH} --reason x --yes"),
            "",
            "controls.end_kill_switch",
            WORKER,
        ),
        case(
            &format!("jobs retry {}", job("parked")),
            "",
            "retry",
            WORKER,
        ),
        case(
            &format!("jobs configure {} --account {account}", job("asks")),
            "",
            "configure",
            WORKER,
        ),
        case(
            &format!("jobs cancel {}", job("asks")),
            "",
            "cancel",
            WORKER,
        ),
    ]
}

/// Actions by hand on one job.
fn of_one_job() -> Vec<Case> {
    let job = format!("--source {} --key acted --yes", acme::SOURCE);
    let edited = json!({"schema": 1, "source": "tests", "dedupe_key": "acted", "organization": "acme", "notify": []}).to_string();
    let checked = json!({"organization_id": 1, "account": {"missing": "no_account"}, "acting_as": "installation"}).to_string();
    vec![
        case(&format!("jobs park {job}"), "", "park", WORKER),
        case(&format!("jobs unmask {job}"), "", "unmask", WORKER),
        case(
            &format!("jobs rerun {job} --stage check_account"),
            "",
            "rerun",
            WORKER,
        ),
        case(
            &format!("jobs edit {job} --input -"),
            &edited,
            "input.edit",
            WORKER,
        ),
        case(
            &format!("jobs restore {job} --version 1"),
            "",
            "input.restore",
            WORKER,
        ),
        case(
            &format!("jobs skip {job} --stage check_account --output -"),
            &checked,
            "skip",
            WORKER,
        ),
        case(
            &format!("jobs effect {job} --effect unsure --not-done"),
            "",
            "effect.mark",
            WORKER,
        ),
    ]
}

/// No worker runs, so the campaign acts on no job.
fn of_campaigns() -> Vec<Case> {
    let change = |verb: &str| {
        case(
            &format!("campaigns {verb} 1 --reason x --yes"),
            "",
            &format!("campaign.{verb}"),
            WORKER,
        )
    };
    vec![
        case(
            "campaigns start --action retry --state parked --reason x --yes",
            "",
            "campaign.start",
            WORKER,
        ),
        change("pause"),
        change("resume"),
        change("abort"),
    ]
}

fn of_letters_and_the_rest(letters: &[i64]) -> Vec<Case> {
    vec![
        case(
            &format!("dead-letters replay {} --yes", letters[0]),
            "",
            "dead_letter.replay",
            WORKER,
        ),
        case(
            &format!("dead-letters discard {} --yes", letters[1]),
            "",
            "dead_letter.discard",
            WORKER,
        ),
        case(
            &format!("dead-letters show {} --raw", letters[2]),
            "",
            "dead_letter.show_raw",
            WORKER,
        ),
        case(
            &format!("dead-letters fix {} --body - --yes", letters[3]),
            &message("corrected").to_string(),
            "dead_letter.fix",
            WORKER,
        ),
        case(
            "tokens create ann --role viewer --yes",
            "",
            "token.create",
            WORKER,
        ),
        case("tokens revoke ann --yes", "", "token.revoke", WORKER),
        case(
            "failures note f-1 --owner ann --yes",
            "",
            "failure_group.note",
            WORKER,
        ),
        case("keys rotate --yes", "", "keys.rotate", WORKER),
        case(
            "producers register shop --source shop --organization acme --yes",
            "",
            "producer.register",
            OWNER,
        ),
        case("producers remove shop --yes", "", "producer.remove", OWNER),
        case(
            &format!("erase person {} --yes", acme::ANN),
            "",
            "erase.person",
            OWNER,
        ),
        case(
            "erase organization globex --yes",
            "",
            "erase.organization",
            OWNER,
        ),
        case("migrate", "", "migrate", OWNER),
    ]
}

/// Inserts three jobs: a parked one, one that waits for an account, and one with an effect.
async fn prepare(world: &TestWorld) {
    world
        .database
        .rows(
            "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, wait_reason, wait_key)
             VALUES (gen_random_uuid(), 'dispatch', 'tests', 'parked', 'acme', 1, '{}', 'parked', 'check_account', NULL, NULL),
                (gen_random_uuid(), 'dispatch', 'tests', 'asks', 'acme', 1, '{}', 'waiting', 'check_account', 'configuration', 'k'),
                (gen_random_uuid(), 'dispatch', 'tests', 'acted', 'acme', 1, '{\"schema\": 1, \"source\": \"tests\",
                    \"dedupe_key\": \"acted\", \"organization\": \"acme\", \"events\": [], \"not_before\": null, \"deadline\": null}', 'ready', 'check_account', NULL, NULL);
             INSERT INTO effects (job_id, key, generation, stage, target, class, state, detail, epoch, deadline_at)
             SELECT id, 'unsure', 1, 'check_account', 't', 'K3', 'unknown', '{}', 1, now() FROM jobs WHERE dedupe_key = 'acted';
             INSERT INTO job_keys (source, dedupe_key, job_id, digest) SELECT source, dedupe_key, id, sha256('x') FROM jobs",
        )
        .await;
}

#[tokio::test]
async fn every_command_that_changes_something_writes_an_audit_row_with_the_login_and_the_client_address()
 {
    let world = TestWorld::acme().await;
    prepare(&world).await;
    let cases = cases(&world).await;
    let tried = |command: &String| {
        cases
            .iter()
            .any(|case| format!("dispatch {} ", case.line).starts_with(&format!("{command} ")))
    };
    let neither: BTreeSet<String> = commands()
        .into_iter()
        .filter(|command| !tried(command) && !NOT_AUDITED.contains(&command.as_str()))
        .collect();
    assert_eq!(
        neither,
        BTreeSet::new(),
        "commands that are neither in cases() nor in NOT_AUDITED"
    );
    for Case { line, stdin, right } in &cases {
        let arguments: Vec<&str> = line.split(' ').collect();
        let mut command = world
            .dispatch(&arguments)
            .stdin(stdin.as_str())
            .prints_secrets();
        if line == "migrate" {
            command = command.env(
                "DISPATCH_WORKER_LOGIN",
                &format!("{}_audited:canary-audited", world.database.name),
            );
        }
        let last = world
            .database
            .one("SELECT coalesce(max(id), 0) FROM audit_log")
            .await;
        let said = command.said().await;
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
        let rows = format!(
            "SELECT replace(action, 'migrate.worker_login', 'migrate') || ' ' || login, who, role, address, at > now() - interval '1 minute'
             FROM audit_log WHERE id > {last} ORDER BY id LIMIT 1"
        );
        assert_eq!(
            world.database.rows(&rows).await,
            [[right.as_str(), "olga", "admin", "127.0.0.1", "t"]],
            "{line}"
        );
    }
    let imported =
        "SELECT after -> 'rows' ->> 'organizations' FROM audit_log WHERE action = 'tracker.import'";
    assert_eq!(
        world.database.one(imported).await,
        "1",
        "the row contains the counts"
    );
    // The first import restores what was erased; the second one changes nothing.
    for _ in 0..2 {
        let again = world
            .dispatch(&["tracker", "import", "-"])
            .stdin(cases[0].stdin.as_str())
            .said()
            .await;
        assert_eq!(again.code, Some(0), "{again:?}");
    }
    let count = "SELECT count(*) FROM audit_log WHERE action = 'tracker.import'";
    assert_eq!(
        world.database.one(count).await,
        "2",
        "an import without changes writes no row"
    );
    world
        .database
        .rows(&format!("DROP ROLE {}_audited", world.database.name))
        .await;
}

#[tokio::test]
async fn an_import_whose_audit_row_cannot_be_written_changes_nothing() {
    let world = TestWorld::new().await;
    world
        .database
        .rows("ALTER TABLE audit_log ADD CHECK (action <> 'tracker.import')")
        .await;
    let document = json!({"organizations": [{"slug": "globex", "name": "Globex"}]}).to_string();
    let said = world
        .dispatch(&["tracker", "import", "-"])
        .stdin(document)
        .said()
        .await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM organizations")
            .await,
        "0"
    );
}
