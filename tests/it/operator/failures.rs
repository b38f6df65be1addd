//! Failure groups, and the filters of lists of jobs.

use dispatch_worker::fault::{FailureKind, fingerprint};
use dispatch_worker::job::JobState;
use dispatch_worker::operations::{GroupNote, note_group};
use dispatch_worker::store::{
    Actor, CodeFilter, Dimension, GroupFilter, GroupPage, GroupStatus, JobFilter, Role,
    SightingCursor, Store,
};
use time::OffsetDateTime;

use crate::support::TestDatabase;

const KIND: FailureKind<'_> = FailureKind {
    pipeline: "dispatch",
    stage: "search_issues",
    code: "slack.x",
    destination: None,
};

/// Inserts jobs by number: 1 to 8 are parked at `search_issues` by replica 2 (version 2), 9 and 10
/// are due again after such a failure, 11 to 20 have passed the stage, nine of them on replica 1
/// (version 1). Job 21 waits for a cause, job 22 runs.
const FILL: &str = "
    INSERT INTO replicas (version, host, pid, lanes, alive_until) VALUES ('1', 'h', 1, '{}', now()), ('2', 'h', 1, '{}', now());
    CREATE FUNCTION job(n bigint) RETURNS uuid LANGUAGE sql AS $$
        SELECT (left(first_job_id_of(now() - interval '1 hour')::text, 24) || lpad(to_hex(n), 12, '0'))::uuid $$;
    INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, owner, wait_reason, wait_key,
        wait_observed, error_code, error_message, fingerprint, first_failed_at, finished_at)
    SELECT job(n), 'dispatch', 'shop', 'k-' || n, CASE WHEN n <= 5 THEN 'acme' ELSE 'globex' END, 1, '{}',
        CASE WHEN n <= 8 THEN 'parked' WHEN n <= 10 THEN 'ready' WHEN n <= 20 THEN 'succeeded' WHEN n = 21 THEN 'waiting'
            ELSE 'running' END,
        CASE WHEN n <= 10 THEN 'search_issues' ELSE 'send_follow_ups' END, CASE WHEN n = 22 THEN 2 END,
        CASE WHEN n = 21 THEN 'reauthentication' END, CASE WHEN n = 21 THEN 'identity:7' END, CASE WHEN n = 21 THEN 3 END,
        CASE WHEN n <= 10 THEN 'slack.x' END, CASE WHEN n <= 10 THEN 'no room' END, CASE WHEN n <= 10 THEN '{fingerprint}' END,
        CASE WHEN n <= 10 THEN now() END, CASE WHEN n BETWEEN 11 AND 20 THEN now() END
    FROM generate_series(1, 22) n;
    INSERT INTO job_keys (source, dedupe_key, job_id, digest) SELECT source, dedupe_key, id, sha256('x') FROM jobs;
    INSERT INTO attempts (job_id, generation, stage, attempt, outcome, error_code, message, duration_ms, replica, epoch, fingerprint)
    SELECT job(n), 1, 'search_issues', 1, 'parked', 'slack.x', 'no room', 1, 2, 1, '{fingerprint}' FROM generate_series(1, 10) n;
    INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at)
    SELECT job(n), 1, 'search_issues', 1, '{}', 1, 1, CASE WHEN n = 11 THEN 2 ELSE 1 END, now() FROM generate_series(11, 20) n";

async fn filled() -> (TestDatabase, Store, String) {
    let database = TestDatabase::new().await;
    let fingerprint = fingerprint(&KIND, "there is no room `Ann`");
    database
        .rows(&FILL.replace("{fingerprint}", &fingerprint))
        .await;
    let store = Store::new(database.pool.clone());
    (database, store, fingerprint)
}

/// Runs the duty until it has read everything.
async fn see(store: &Store, cursor: &mut SightingCursor) {
    let now = OffsetDateTime::now_utc;
    while store.see_failures(now(), cursor).await.expect("a round") {}
}

const FIRST: GroupPage = GroupPage {
    after: None,
    limit: 50,
};

#[test]
fn a_name_in_a_message_does_not_split_a_group() {
    assert_eq!(
        fingerprint(&KIND, "there is no room `Ann`"),
        fingerprint(&KIND, "there is no room `Bob Lee`")
    );
}

#[tokio::test]
async fn a_group_names_whom_it_hits_and_the_version_that_fails() {
    let (_database, store, fingerprint) = filled().await;
    see(&store, &mut SightingCursor::default()).await;
    let listed = store.failure_groups(&GroupFilter::default(), &FIRST).await;
    let groups = listed.expect("groups").groups;
    let [group] = groups.as_slice() else {
        panic!("{groups:?}")
    };
    assert_eq!(
        (
            &group.fingerprint,
            group.status,
            group.first_version.as_deref()
        ),
        (&fingerprint, GroupStatus::New, Some("2"))
    );
    assert_eq!((group.parked.at_least(), group.retrying.at_least()), (8, 2));
    assert_eq!(group.most_hit, ["acme", "globex"]);
    assert_eq!((group.trend.last_hour, group.trend.hour_before), (10, 0));
    let difference = store
        .group_difference(&fingerprint)
        .await
        .expect("an answer");
    let difference = difference.expect("a group");
    assert_eq!((difference.jobs_in_group, difference.other_jobs), (10, 10));
    let version = difference
        .differences
        .iter()
        .find(|found| found.dimension == Dimension::Version)
        .expect("a version");
    assert_eq!(version.value, "2");
    assert!((version.in_group - 1.0).abs() < 1e-9 && (version.in_others - 0.1).abs() < 1e-9);
    assert!(
        store
            .group_difference("nobody")
            .await
            .expect("an answer")
            .is_none()
    );
}

#[tokio::test]
async fn a_parked_job_without_a_recorded_attempt_has_a_group() {
    let (database, store, fingerprint) = filled().await;
    database.rows("DELETE FROM attempts").await;
    see(&store, &mut SightingCursor::default()).await;
    let group = store.failure_group(&fingerprint).await.expect("an answer");
    let group = group.expect("a group");
    assert_eq!((group.parked.at_least(), group.first_version), (8, None));
}

#[tokio::test]
async fn a_resolved_group_regresses_when_it_is_seen_again() {
    let (database, store, fingerprint) = filled().await;
    let mut cursor = SightingCursor::default();
    see(&store, &mut cursor).await;
    let actor = Actor {
        who: "olga".to_owned(),
        role: Role::Admin,
        reason: None,
        request: None,
    };
    let changes = GroupNote {
        owner: Some("ann".to_owned()),
        resolved: Some(true),
        ..GroupNote::default()
    };
    for expected in [true, false] {
        let changed = note_group(&store, &actor, &fingerprint, &changes).await;
        assert_eq!(changed.expect("it is stored"), expected);
    }
    let status = async || {
        let group = store.failure_group(&fingerprint).await.expect("an answer");
        let group = group.expect("a group");
        (group.status, group.owner)
    };
    let owner = || Some("ann".to_owned());
    see(&store, &mut cursor).await;
    assert_eq!(status().await, (GroupStatus::Resolved, owner()));
    database
        .rows("INSERT INTO attempts SELECT job_id, generation, stage, 2, outcome, error_code, message, duration_ms, replica, epoch, \
               now(), fingerprint FROM attempts LIMIT 1")
        .await;
    see(&store, &mut cursor).await;
    assert_eq!(status().await, (GroupStatus::Regressed, owner()));
    let muted = GroupNote {
        muted_until: Some(OffsetDateTime::now_utc() + time::Duration::hours(1)),
        ..GroupNote::default()
    };
    note_group(&store, &actor, &fingerprint, &muted)
        .await
        .expect("it is stored");
    assert_eq!(status().await.0, GroupStatus::Muted);
    let audit = database
        .rows("SELECT count(*) FROM audit_log WHERE action = 'failure_group.note'")
        .await;
    assert_eq!(audit, [["2"]]);
}

/// Returns a filter with a condition.
fn with(set: impl FnOnce(&mut JobFilter)) -> JobFilter {
    let mut filter = JobFilter {
        limit: 50,
        ..JobFilter::default()
    };
    set(&mut filter);
    filter
}

fn codes(texts: &[&str]) -> Vec<CodeFilter> {
    let codes = texts.iter().map(|text| text.parse());
    codes.collect::<Result<_, _>>().expect("codes")
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.into()).collect()
}

fn of(states: &[JobState], filter: JobFilter) -> JobFilter {
    JobFilter {
        states: states.to_vec(),
        ..filter
    }
}

/// Returns filters, each with the number of its jobs.
fn filters(group: &str) -> Vec<(i64, JobFilter)> {
    let group = || Some(group.to_owned());
    let parked = |filter| of(&[JobState::Parked], filter);
    let ago = |hours| Some(OffsetDateTime::now_utc() - time::Duration::hours(hours));
    vec![
        (22, with(|_| ())),
        (10, with(|f| f.error_codes = codes(&["slack.x"]))),
        (8, parked(with(|f| f.error_codes = codes(&["slack.*"])))),
        (0, with(|f| f.error_codes = codes(&["discord.*"]))),
        (10, with(|f| f.fingerprint = group())),
        (8, parked(with(|f| f.fingerprint = group()))),
        (
            5,
            with(|f| (f.fingerprint, f.organizations) = (group(), texts(&["acme"]))),
        ),
        (1, with(|f| f.dedupe_key = Some("k-7".to_owned()))),
        (1, with(|f| f.replica = Some(2))),
        (1, with(|f| f.cause = Some("identity:7".to_owned()))),
        (10, with(|f| f.stages = texts(&["search_issues"]))),
        (5, parked(with(|f| f.organizations = texts(&["acme"])))),
        (0, parked(with(|f| f.organizations = texts(&["nobody"])))),
        (0, with(|f| f.since = ago(0))),
        (22, with(|f| f.since = ago(2))),
        (0, with(|f| f.work_item = Some(17))),
    ]
}

/// Returns filters with several values of a condition.
fn wide_filters() -> Vec<(i64, JobFilter)> {
    let halted = [JobState::Waiting, JobState::Parked];
    let live = [JobState::Waiting, JobState::Parked, JobState::Running];
    let some_done = [JobState::Parked, JobState::Succeeded];
    let both = || texts(&["acme", "globex"]);
    let slack = || codes(&["slack.*", "slack.x", "discord.*"]);
    vec![
        (10, with(|f| f.error_codes = slack())),
        (8, of(&some_done, with(|f| f.error_codes = slack()))),
        (
            22,
            with(|f| f.stages = texts(&["search_issues", "send_follow_ups"])),
        ),
        (9, of(&halted, with(|_| ()))),
        (10, of(&live, with(|_| ()))),
        (18, of(&some_done, with(|_| ()))),
        (
            8,
            of(&[JobState::Parked], with(|f| f.organizations = both())),
        ),
        (
            4,
            of(
                &halted,
                with(|f| f.organizations = texts(&["globex", "nobody"])),
            ),
        ),
        (
            1,
            of(&halted, with(|f| f.cause = Some("identity:7".to_owned()))),
        ),
        (
            22,
            with(|f| (f.sources, f.pipelines) = (texts(&["shop", "x"]), texts(&["dispatch"]))),
        ),
    ]
}

#[tokio::test]
async fn the_pages_of_several_states_have_each_job_once() {
    let (_database, store, _) = filled().await;
    let mut page = JobFilter {
        states: vec![JobState::Waiting, JobState::Parked, JobState::Running],
        limit: 3,
        ..JobFilter::default()
    };
    let mut keys = Vec::new();
    loop {
        let jobs = store.jobs(&page).await.expect("a page").jobs;
        page.before = jobs.last().map(|job| job.id);
        keys.extend(jobs.into_iter().map(|job| job.dedupe_key));
        if page.before.is_none() {
            break;
        }
    }
    let expected = [22, 21, 8, 7, 6, 5, 4, 3, 2, 1].map(|n| format!("k-{n}"));
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn every_filter_finds_its_jobs() {
    let (_database, store, fingerprint) = filled().await;
    for (expected, filter) in filters(&fingerprint).into_iter().chain(wide_filters()) {
        let jobs = store.jobs(&filter).await.expect("a list").jobs.len();
        assert_eq!(i64::try_from(jobs), Ok(expected), "{filter:?}");
    }
    let open = store.open_jobs(None).await.expect("a count");
    assert_eq!((open.parked.at_least(), open.ready.at_least()), (8, 2));
    let of_acme = store.open_jobs(Some("acme")).await.expect("a count");
    assert_eq!((of_acme.parked.at_least(), of_acme.is_complete), (5, true));
}

#[tokio::test]
async fn a_work_item_finds_the_jobs_that_changed_it_or_its_group() {
    let (database, store, _) = filled().await;
    database
        .rows("CREATE FUNCTION keyed(key text) RETURNS uuid LANGUAGE sql AS 'SELECT id FROM jobs WHERE dedupe_key = key';
            INSERT INTO organizations (slug, name) VALUES ('acme', 'Acme');
            INSERT INTO projects (organization_id, slug, name) VALUES (1, 'web', 'Web');
            INSERT INTO integrations (account_id, account_name) VALUES ('a-1', 'fabrikam');
            INSERT INTO external_issues (integration_id, work_item_id) VALUES (1, 17), (1, 18);
            INSERT INTO issue_groups (project_id, short_id, title) VALUES (1, 'WEB-1', 'slow');
            INSERT INTO group_links (group_id, external_issue_id) VALUES (1, 1);
            INSERT INTO activities (group_id, kind, external_issue_id, rev, job_id) VALUES (1, 'resolved', 1, 1, keyed('k-11'));
            INSERT INTO group_history (group_id, field, after, job_id) VALUES (1, 'status', 'resolved', keyed('k-12'));
            INSERT INTO effects (job_id, key, generation, stage, target, class, state, resource, detail, epoch, deadline_at)
                VALUES (keyed('k-13'), 'k', 1, 's', 't', 'K1', 'confirmed', 'work_item:1:17', '{}', 1, now())")
        .await;
    let keys = async |number| {
        let filter = with(|f| f.work_item = Some(number));
        let jobs = store.jobs(&filter).await.expect("a list").jobs;
        jobs.into_iter()
            .map(|job| job.dedupe_key)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(17).await, ["k-13", "k-12", "k-11"]);
    assert!(keys(18).await.is_empty());
}
