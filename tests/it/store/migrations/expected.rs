//! What every migration promises of the rows that are in the database before it.

/// A migration, and its effects on rows.
pub(super) struct Migration {
    pub(super) version: i32,
    /// Statements that insert rows of this version, after it has been applied.
    pub(super) sample: &'static str,
    /// What the migration does to rows. All other rows stay as they are.
    pub(super) changes: &'static [Change],
    pub(super) expected: &'static [Expectation],
}

/// A table whose rows a migration changes or deletes.
pub(super) struct Change {
    pub(super) table: &'static str,
    /// The columns that it changes. In all others, rows stay as they are; rows may be deleted.
    pub(super) columns: &'static [&'static str],
}

/// Statements, and their result after the migration: rows separated by commas with columns
/// separated by spaces and null as `-`; or `refused:` and the violated constraint or the message.
/// The statements are rolled back.
pub(super) struct Expectation {
    pub(super) sql: &'static str,
    pub(super) result: &'static str,
}

const fn expect(sql: &'static str, result: &'static str) -> Expectation {
    Expectation { sql, result }
}

const fn changes(table: &'static str, columns: &'static [&'static str]) -> Change {
    Change { table, columns }
}

macro_rules! migration {
    ($version:literal, $changes:expr, $expected:expr) => {
        Migration {
            version: $version,
            sample: include_str!(concat!("../../sample_data/V", $version, ".sql")),
            changes: $changes,
            expected: $expected,
        }
    };
}

/// All migrations, in order.
pub(super) const MIGRATIONS: &[Migration] = &[
    migration!(1, &[], V1),
    migration!(2, &[], V2),
    migration!(3, &[], V3),
    migration!(4, &[], V4),
    migration!(6, &[], V6),
    migration!(8, &[], V8),
    migration!(9, &[], V9),
    migration!(10, &[], V10),
    migration!(11, &[], V11),
    migration!(12, &[changes("job_keys", &[])], V12),
    migration!(13, &[], V13),
    migration!(14, &[changes("jobs", &["wait_observed"])], V14),
    migration!(15, &[], V15),
    migration!(16, &[], V16),
    migration!(17, &[], V17),
    migration!(18, &[], V18),
    migration!(19, &[], V19),
    migration!(20, &[], V20),
    migration!(21, &[], V21),
    migration!(22, &[], V22),
    migration!(23, &[], V23),
    migration!(24, &[], V24),
    migration!(25, &[], V25),
];

const V1: &[Expectation] = &[
    expect(
        "SELECT count(*) FROM pg_inherits WHERE inhparent::regclass::text IN ('checkpoints', 'attempts', 'effects')",
        "12",
    ),
    expect(
        "SELECT first_job_id_of('2024-01-01 00:00+00')",
        "018cc251-f400-7000-8000-000000000000",
    ),
    expect(
        "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, owner)
         VALUES (gen_random_uuid(), 'dispatch', 's', 'k', 'acme', 1, '{}', 'ready', 'check_account', 1)",
        "refused: jobs_check1",
    ),
];

// Ids are given: a sequence is not rolled back, and the sample rows name the ids from 1.
const V2: &[Expectation] = &[
    expect(
        "INSERT INTO organizations (id, slug, name) OVERRIDING SYSTEM VALUE VALUES (99, '', 'Acme')",
        "refused: organizations_slug_check",
    ),
    expect(
        "INSERT INTO users (id, name) OVERRIDING SYSTEM VALUE VALUES (98, 'Ann'), (99, 'Bob');
         INSERT INTO user_emails (id, user_id, email, verified) OVERRIDING SYSTEM VALUE
         SELECT id, id, 'ann@example.com', true FROM users",
        "refused: user_emails_verified",
    ),
    expect("SELECT count(*) FROM jobs", "8"),
];

const V3: &[Expectation] = &[
    expect(
        "SELECT version, refreshing_until, refresh_refused_at, access_refused_at, imported_sha256 FROM identities",
        "1 - - - -",
    ),
    expect(
        "UPDATE identities SET imported_sha256 = 'short'",
        "refused: identities_imported_sha256_check",
    ),
    expect(
        "SELECT release_waiting('hold|acme|slack|1', 10, 8), release_waiting('hold|acme|slack|1', 10, 7);
         SELECT state, wait_reason FROM jobs WHERE dedupe_key = 'child'",
        "0 1, ready -",
    ),
];

const V4: &[Expectation] = &[
    expect(
        "SELECT resolved_at IS NULL, content_type, app_id, resolution FROM dead_letters ORDER BY id",
        "t - - -, f - - -",
    ),
    expect(
        "UPDATE dead_letters SET resolution = 'discarded' WHERE resolved_at IS NULL",
        "refused: dead_letters_check",
    ),
    expect(
        "UPDATE destinations SET previous_secret = secret",
        "refused: destinations_check",
    ),
];

const V6: &[Expectation] = &[
    expect("SELECT reply_only, traceparent FROM announcements", "f -"),
    expect(
        "INSERT INTO job_keys (source, dedupe_key) VALUES ('checkout', 'nobody')",
        "refused: job_keys_job_or_wish",
    ),
    expect(
        "UPDATE job_keys SET digest = NULL, cancelled_by = 'checkout'",
        "refused: job_keys_job_or_wish",
    ),
];

const V8: &[Expectation] = &[
    expect(
        "SELECT kind, automatic, step, stepped_at FROM controls ORDER BY id",
        "hold f 0 -, pause f 0 -",
    ),
    expect(
        "INSERT INTO controls (kind, scope, reason, who, expires_at) SELECT kind, scope, reason, who, expires_at FROM controls;
         UPDATE controls SET automatic = true",
        "refused: controls_automatic",
    ),
];

const V9: &[Expectation] = &[expect(
    "SELECT count(*) FROM announcements WHERE created_at > now() - interval '1 minute'",
    "2",
)];

const V10: &[Expectation] = &[
    expect(
        "SELECT DISTINCT partial::text, read_again, skipped::text FROM jobs",
        "- f -",
    ),
    expect("SELECT DISTINCT refresh_refusal FROM identities", "-"),
];

const V11: &[Expectation] = &[expect(
    "SELECT tries, reply_tries, count(*) FROM announcements GROUP BY tries, reply_tries",
    "0 0 3",
)];

const V12: &[Expectation] = &[
    // Only an old key whose job is gone is deleted. A cancel before its job has none.
    expect(
        "SELECT dedupe_key FROM job_keys k WHERE NOT EXISTS (SELECT FROM jobs WHERE id = k.job_id) ORDER BY dedupe_key",
        "cancelled-before-its-job, new-without-job",
    ),
    expect("SELECT count(*) FROM job_keys", "9"),
    expect(
        "SELECT DISTINCT time_of_job_id(id) = '2024-01-01 00:00+00' FROM jobs WHERE parent_id IS NULL AND dedupe_key <> 'partial'",
        "t",
    ),
    expect(
        "SELECT parent FROM missing_partitions(now(), 2) WHERE month = '2024-01-01 00:00+00'",
        "checkpoints, attempts, effects",
    ),
    // The rows of a month move out of the default partition.
    expect(
        "SELECT make_partition('checkpoints', '2024-01-15 00:00+00');
         SELECT tableoid::regclass, stage FROM checkpoints",
        "made, checkpoints_202401 check_account",
    ),
    expect(
        "DELETE FROM audit_log WHERE at < now() - interval '365 days'; SELECT action FROM audit_log",
        "job.cancel",
    ),
    expect(
        "DELETE FROM audit_log",
        "refused: audit_log is insert-only; rows may be deleted after 365 days",
    ),
];

const V13: &[Expectation] = &[
    expect(
        "SELECT dedupe_key, woken_by, blamed FROM jobs WHERE woken_at IS NOT NULL ORDER BY dedupe_key",
        "february - -, ready - -, running - -",
    ),
    expect("SELECT DISTINCT process FROM replicas", "-"),
];

const V14: &[Expectation] = &[
    expect(
        "SELECT dedupe_key, wait_reason, wait_observed FROM jobs WHERE state = 'waiting' ORDER BY dedupe_key",
        "child hold 7, newer version 0, parent children -, unobserved reauthentication 0, waits configuration 0",
    ),
    // Jobs that were converted are found by the pass over their cause.
    expect(
        "SELECT begin_release('configuration|acme'), begin_release('reauthentication|1'), begin_release('hold|acme|slack|1', 6);
         SELECT dedupe_key FROM jobs WHERE state = 'waiting' ORDER BY dedupe_key",
        "1 1 0, child, newer, parent",
    ),
    expect(
        "SELECT release_waiting('configuration|acme', 10), release_waiting('hold|acme|slack|1', 10, 7)",
        "1 1",
    ),
];

const V15: &[Expectation] = &[
    expect(
        "SELECT producer FROM jobs UNION SELECT producer FROM job_keys UNION SELECT producer FROM dead_letters",
        "-",
    ),
    expect(
        "INSERT INTO producers (name, sources, organizations) VALUES ('', '{*}', '{*}')",
        "refused: producers_name_check",
    ),
];

const V16: &[Expectation] = &[
    expect(
        "SELECT action, login, address FROM audit_log ORDER BY id",
        "job.retry - -, job.cancel - -",
    ),
    expect(
        "INSERT INTO audit_log (who, role, action, login) VALUES ('olga', 'operator', 'job.retry', 'forged');
         SELECT login = session_user FROM audit_log WHERE login IS NOT NULL",
        "t",
    ),
    expect(
        "TRUNCATE audit_log",
        "refused: audit_log is insert-only; rows may be deleted after 365 days, one by one",
    ),
    expect(
        "SELECT prune_audit(now(), 100); SELECT action FROM audit_log",
        "1, job.cancel",
    ),
    expect(
        "SELECT count(*) FROM missing_partitions(now(), 25)",
        "refused: expected 0 to 24 months ahead, got 25",
    ),
    expect(
        "SELECT make_partition('checkpoints', '2024-02-15 00:00+00');
         SELECT drop_partition('checkpoints', 'checkpoints_202402', now())",
        "made, needed",
    ),
];

const V17: &[Expectation] = &[
    expect(
        "SELECT count(*) FROM dead_letters WHERE sealed_headers IS NULL",
        "4",
    ),
    expect(
        "SELECT changed FROM erase_from_audit(0, 1000, 'ann', 'erased-0123abcd', NULL, NULL, '{}');
         SELECT action, reason, after::text FROM audit_log WHERE reason LIKE '%erased-0123abcd%' ORDER BY id",
        "2, job.retry asked by erased-0123abcd -, destination.update erased-0123abcd has left {\"name\": \"Bob\"}",
    ),
    expect(
        "UPDATE audit_log SET reason = NULL",
        "refused: audit_log is insert-only; rows may be deleted after 365 days",
    ),
];

const V18: &[Expectation] = &[
    expect(
        "SELECT bytes FROM jobs UNION SELECT kept_bytes FROM dead_letters",
        "-",
    ),
    expect(
        "SELECT count(*), count(sealed_body) FROM dead_letters",
        "5 5",
    ),
    expect(
        "INSERT INTO quota_grants VALUES ('producer', 'jobs', 1, -1, 0, now())",
        "refused: quota_grants_rows_check",
    ),
];

const V19: &[Expectation] = &[
    expect("SELECT DISTINCT fingerprint FROM attempts", "-"),
    expect(
        "INSERT INTO failure_groups (fingerprint, pipeline, stage, error_code, sample)
            VALUES (repeat('f', 201), 'dispatch', 'check_account', 'x.y', 'text')",
        "refused: failure_groups_fingerprint_check",
    ),
];

const V20: &[Expectation] = &[
    expect(
        "SELECT count(request_id), count(token) FROM audit_log",
        "0 0",
    ),
    expect(
        "INSERT INTO api_tokens (name, sha256, role, created_by, expires_at)
            VALUES ('x', sha256('x'), 'producer', 'olga', now())",
        "refused: api_tokens_check",
    ),
];

const V21: &[Expectation] = &[
    expect("SELECT count(*) FROM job_inputs", "0"),
    expect(
        "INSERT INTO job_inputs (job_id, version, payload, replaced_by) VALUES (gen_random_uuid(), 0, '{}', 'ann')",
        "refused: job_inputs_version_check",
    ),
];

const V22: &[Expectation] = &[expect(
    "SELECT count(*), count(matcher) FROM controls WHERE kind <> 'kill_switch'",
    "3 0",
)];

const V23: &[Expectation] = &[
    expect(
        "INSERT INTO campaigns (action, filter, who, role, reason, per_second, stop_at_percent, total, next_at, finished_at)
            VALUES ('retry', '{}', 'olga', 'operator', 'reason', 5, 20, 1, now(), now())",
        "refused: campaigns_check",
    ),
    expect(
        "INSERT INTO campaign_items (campaign, n, job_id) SELECT 1, n, '018cc251-f400-7000-8000-000000000007' FROM generate_series(1, 2) n",
        "refused: campaign_items_of_job",
    ),
];

const V24: &[Expectation] = &[
    expect(
        "INSERT INTO samples (replica, data) VALUES (2, '{}'); SELECT count(*) FROM samples WHERE at <= now()",
        "1",
    ),
    expect(
        "INSERT INTO samples (replica, data) VALUES (3, json_build_object('x', repeat('x', 65536)))",
        "refused: samples_data_check",
    ),
];

const V25: &[Expectation] = &[
    expect(
        "SELECT count(replay_wanted_at), count(replay_next_at), count(fixed_at) FROM dead_letters",
        "0 0 0",
    ),
    expect(
        "UPDATE dead_letters SET replay_wanted_at = now(), replay_wanted_by = 'olga', replay_wanted_role = 'admin'",
        "refused: dead_letters_check1",
    ),
];
