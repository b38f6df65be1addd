//! The parameters of each statement, and the number of rows that it may read.

/// A statement with parameters like those of the program.
pub(super) struct Case {
    /// Its name in the sources.
    pub(super) statement: &'static str,
    /// As in `EXECUTE`.
    pub(super) arguments: &'static str,
    /// Rows that it may read regardless of what it returns.
    pub(super) at_most: u64,
    /// Further rows that it may read for each row that it returns or changes.
    pub(super) for_each: u64,
    /// Whether the statement must return rows: a case that unexpectedly returns none would show
    /// nothing.
    pub(super) returns: bool,
}

/// Returns a case that finds rows.
pub(super) const fn case(
    statement: &'static str,
    arguments: &'static str,
    at_most: u64,
    for_each: u64,
) -> Case {
    Case {
        statement,
        arguments,
        at_most,
        for_each,
        returns: true,
    }
}

/// Returns a case that searches and finds nothing.
pub(super) const fn empty(statement: &'static str, arguments: &'static str, at_most: u64) -> Case {
    Case {
        statement,
        arguments,
        at_most,
        for_each: 0,
        returns: false,
    }
}

/// The limit of a count that stops at 10,001 rows.
pub(super) const COUNT: u64 = 10_050;
/// The limit of a page of 500 jobs that are released: found, locked, changed.
const PAGE: u64 = 1_600;
/// The limit of a page of 50 jobs, found in an index first, and of the replicas that may own them.
const LIST: u64 = 700;
/// The limit of a window of 5,000 jobs, likewise.
pub(super) const WINDOW: u64 = 10_600;
/// The limit of a window of 5,000 jobs, read once for the selection and once for the window's end.
const PREVIEW: u64 = 20_100;
/// The limit of all failure groups, of which there are 2,000, read twice.
const GROUPS: u64 = 4_100;
/// The attempts of a time span: every row, and every block of their index.
const ATTEMPTS: u64 = 41_000;
/// The limit of all running jobs, read twice, and of the replicas.
const RUNNING: u64 = 2_200;

/// The limit of a page of a count, and of the row at which it ends.
const COUNTED: u64 = 2_050;
/// The limit of a count that hops over the organizations.
const DUE: u64 = COUNT + 2_100;
/// The limit of 128 jobs of as many organizations: each organization is skipped to, and its job
/// found, locked, changed.
const WOKEN: u64 = 700;

/// The limit of 1,000 jobs of a snapshot, found in an index first.
const SNAPSHOT: u64 = 2_100;

pub(super) const CASES: &[Case] = &[
    case(
        "campaigns::IDS",
        "100000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, ARRAY[job(1), job(2)]",
        SNAPSHOT,
        0,
    ),
    case(
        "campaigns::INSERT_IDS",
        "100000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, ARRAY[job(1), job(2)], 7",
        SNAPSHOT,
        0,
    ),
    case(
        "campaigns::GROUP",
        "1000, NULL, NULL, NULL, NULL, NULL, 'f-1', NULL, NULL, NULL, NULL",
        SNAPSHOT,
        0,
    ),
    case(
        "campaigns::INSERT_GROUP",
        "1000, NULL, NULL, NULL, NULL, NULL, 'f-1', NULL, NULL, NULL, NULL, 7",
        SNAPSHOT,
        0,
    ),
    case(
        "campaigns::CODE",
        "1000, NULL, NULL, NULL, NULL, NULL, NULL, 'slack.', 'slack/', NULL, NULL",
        SNAPSHOT,
        0,
    ),
    case(
        "campaigns::INSERT_CODE",
        "1000, NULL, NULL, NULL, NULL, NULL, NULL, 'slack.', 'slack/', NULL, NULL, 7",
        SNAPSHOT,
        0,
    ),
    case(
        "campaigns::CAUSE",
        "1000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'identity:1', NULL",
        SNAPSHOT,
        0,
    ),
    case(
        "campaigns::INSERT_CAUSE",
        "1000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'identity:1', NULL, 7",
        SNAPSHOT,
        0,
    ),
    case(
        "campaigns::HALTED",
        "1000, NULL, NULL, NULL, 'parked', NULL, NULL, NULL, NULL, NULL, NULL",
        SNAPSHOT,
        0,
    ),
    case(
        "campaigns::INSERT_HALTED",
        "1000, NULL, NULL, NULL, 'parked', NULL, NULL, NULL, NULL, NULL, NULL, 7",
        SNAPSHOT,
        0,
    ),
    case("campaigns::DUE", "'{retry,cancel}'", 20, 4),
    case("campaigns::MARK", "1, 1001, 'acted', NULL", 10, 4),
    case("campaigns::JUDGE", "1, 1, 1000", 6_000, 0),
    case("campaigns::WAVE", "1, 1, 1000", 3_100, 0),
    case(
        "campaigns::FORGET_ITEMS",
        "now() - interval '90 days', 2000",
        5_000,
        0,
    ),
    case("campaigns::SAMPLE", "ARRAY[job(1), job(2)]", 10, 4),
    case("campaigns::LIST", "9223372036854775807, 50", 10, 2),
    case("campaigns::ITEMS", "1, 500, 100", 10, 2),
    case(
        "campaigns::SINCE",
        "'f-1', 1000, now() - interval '1 day', 1",
        2_500,
        0,
    ),
    empty("campaigns::EFFECTS", "ARRAY[job(1), job(2), job(3)]", 20),
    case("backlog::JOBS_FROM_START", "2000", COUNTED, 0),
    case(
        "backlog::JOBS_AFTER",
        "2000, 'dispatch', 'org-1', now() - interval '1 day', job(0)",
        COUNTED,
        0,
    ),
    case("backlog::LETTERS_AFTER", "2000, 0", COUNTED, 0),
    case("load::DUE_NOW", "'dispatch', 1000, 10001", DUE, 0),
    case("load::NOT_WOKEN", "'dispatch', 10001", COUNT, 0),
    case("load::WOKEN", "'dispatch', 10001", COUNT, 0),
    case("load::RUNNING", "10001", COUNT, 0),
    case("load::WAITING", "10001", COUNT, 0),
    case("load::PARKED", "10001", COUNT, 0),
    case("samples::FORGET", "1000", 10, 4),
    // Of the samples of an hour, 240 of each replica, the times are read, and then one a minute.
    case(
        "samples::SINCE",
        "now() - interval '1 hour', 16000, 6000, 128",
        2_000,
        2,
    ),
    case("samples::NEWEST", "1000, 128", 1_010, 2),
    case("replicas::ENDED", "now() - interval '1 day', 50", 700, 6),
    empty("replicas::ENDED", "now() + interval '1 day', 50", 20),
    case("changes::STARTED", "now() - interval '1 day', 50", 60, 0),
    case(
        "due::DUE",
        "'dispatch', 128, '', 500, 1, '1970-01-01'",
        WOKEN,
        0,
    ),
    case(
        "due::DUE",
        "'dispatch', 128, 'org-2', 500, 1, '1970-01-01'",
        WOKEN,
        0,
    ),
    case("due::DUE", "'nobody', 128, '', 500, 1, '1970-01-01'", 10, 0),
    case("due::STALE", "'dispatch', 64, 600, 1", 20, 4),
    case("due::UNSTAMP_OF", "1, 1000, 0", 20, 4),
    case("due::UNSTAMP_ENDED", "1000", 100, 4),
    case("takeover::FREE", "500, 5, 2, 'crash_loop'", 200, 8),
    case(
        "audit_rows::NEWEST",
        "9223372036854775807, 20000, 50, NULL, NULL, NULL",
        20_100,
        4,
    ),
    case(
        "audit_rows::NEWEST",
        "9223372036854775807, 20000, 50, 'nobody', NULL, now()",
        20_100,
        4,
    ),
    case(
        "audit_rows::OF_JOB",
        "9223372036854775807, 20000, 50, NULL, NULL, NULL, job(7)",
        10,
        4,
    ),
    case(
        "cancel_many::PAGE",
        "now(), NULL, 'org-7', NULL, NULL, NULL, job(0), job(1000000000), 5000",
        PREVIEW,
        0,
    ),
    case(
        "cancel_many::PAGE",
        "now(), 'ready', NULL, 'shop-7', NULL, NULL, job(done_to()), job(1000000000), 5000",
        PREVIEW,
        0,
    ),
    case(
        "cancel_many::PAGE_HALTED",
        "now(), 'parked', 'org-7', NULL, NULL, NULL, job(0), job(1000000000), 5000",
        PREVIEW,
        0,
    ),
    case(
        "cancel_many::PAGE_HALTED",
        "now(), 'waiting', NULL, 'nobody', NULL, NULL, job(0), job(1000000000), 5000",
        PREVIEW,
        0,
    ),
    case(
        "discard_many::LOOK",
        "0, 1000000000, 2000, now(), 'rare', NULL, NULL",
        PREVIEW,
        0,
    ),
    case("failure_sightings::COUNT", "10001", COUNT, 0),
    case("failure_sightings::MAKE_ROOM", "200", GROUPS, 4),
    case(
        "failure_sightings::SEE_ATTEMPTS",
        "now() - interval '2 hours', now() - interval '9 minutes', 100000, 200",
        ATTEMPTS,
        0,
    ),
    case("failure_sightings::SEE_PARKED", "'', 200", 30, 0),
    case(
        "failure_groups::LIST",
        "NULL, '', NULL, NULL, NULL, NULL, NULL, 50",
        GROUPS,
        1,
    ),
    case(
        "failure_groups::LIST",
        "now(), 'f', 'new', 'dispatch', NULL, 'slack.', 'slack.~', 50",
        GROUPS,
        1,
    ),
    case("failure_groups::SHOW", "'f-1'", 10, 1),
    case(
        "failure_groups::HIT",
        "'{f-1,f-2,f-3}', 10001, 5",
        3 * COUNT,
        0,
    ),
    case(
        "failure_groups::TREND",
        "'{f-1,f-2}', 200000",
        2 * ATTEMPTS,
        0,
    ),
    case(
        "group_difference::IN_GROUP",
        "'send_follow_ups', 'f-1', 1000",
        2_100,
        5,
    ),
    case(
        "group_difference::PASSED",
        "'check_account', 'f-2', 1000, 20000, 'dispatch'",
        20_100,
        5,
    ),
    case("headers::UNSEALED", "100", 10, 4),
    case("controls::IN_FORCE", "10000", 20, 2),
    case("controls::SHOWN", "10001, 10000", 20, 4),
    case("controls::OF_SCOPE", "10001, scope()", 20, 2),
    empty("controls::OF_SCOPE", "10001, 'nobody|webhook|1'", 10),
    case("controls::PRESENT", "scope()", 10, 4),
    case("controls::END", "scope()", 10, 4),
    case("controls::OVER", "'', 64", 20, 8),
    case("controls::OVER", "'hold:org-6', 64", 20, 8),
    case("controls::STEP", "1", 10, 2),
    case("control_list::SHOWN", "10001, 10000, 200, ''", 10_000, 4),
    case(
        "control_list::SHOWN",
        "10001, 10000, 200, scope()",
        10_000,
        4,
    ),
    case("kill_preview::OPEN", "5000", 20_100, 1),
    case(
        "kill_preview::RECENT",
        "job(done_to() - 5000), 5000",
        5_010,
        1,
    ),
    case(
        "kill_preview::DETAILS",
        "ARRAY[job(1), job(2)], true, 'org-1', NULL, NULL",
        10,
        4,
    ),
    case("dead_letters::LIST", "9223372036854775807, 50", 10, 2),
    case("dead_letters::LIST_OPEN", "9223372036854775807, 50", 10, 2),
    case(
        "listing::AMONG",
        "some_jobs(1, 5000), '{dispatch}', '{org-7,org-8}', NULL, '{parked,waiting}', NULL, '{slack.,x}', '{slack.~,x}', 'f-1', NULL, NULL, NULL, NULL, 50",
        WINDOW,
        0,
    ),
    case(
        "listing::AMONG",
        "some_jobs(done_to() - 49, done_to()), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 50",
        LIST,
        2,
    ),
    case("open_jobs::OPEN", "10001", 5 * COUNT, 0),
    case("open_jobs::OPEN_OF_ORGANIZATION", "40001, 'org-7'", 500, 0),
    empty("open_jobs::OPEN_OF_ORGANIZATION", "40001, 'nobody'", 500),
    case("ways::NEWEST", "job(done_to()), job(0), 5000", 10, 1),
    empty("ways::NEWEST", "job(1000000000), job(999999999), 5000", 10),
    case("ways::WAITING", "job(1000000000), job(0), 50", 10, 1),
    case("ways::PARKED", "job(1000000000), job(0), 5000", 10, 1),
    case("ways::RUNNING", "job(1000000000), job(0), 50", RUNNING, 0),
    case("ways::OF_REPLICA", "job(1000000000), job(0), 50, 1", 500, 0),
    empty("ways::OF_REPLICA", "job(1000000000), job(0), 50, 499", 10),
    case(
        "ways::FOLLOW_UPS",
        "job(1000000000), job(0), 5000, job(held_to() + 1)",
        10,
        1,
    ),
    case(
        "ways::PARKED_OF_GROUP",
        "job(1000000000), job(0), 5000, 'f-1'",
        10,
        1,
    ),
    empty(
        "ways::PARKED_OF_GROUP",
        "job(1000000000), job(0), 5000, 'f-2'",
        10,
    ),
    case(
        "ways::OF_GROUP",
        "job(1000000000), job(0), 50, 'f-1'",
        10,
        1,
    ),
    case(
        "ways::OF_GROUP",
        "job(1000000000), job(0), 50, 'f-2'",
        10,
        1,
    ),
    case(
        "ways::OF_CODE",
        "job(1000000000), job(0), 50, 'slack.', 'slack.~'",
        120,
        1,
    ),
    case(
        "ways::OF_CODE",
        "job(1000000000), job(0), 50, 'a', 'z'",
        200,
        1,
    ),
    empty(
        "ways::OF_CODE",
        "job(1000000000), job(0), 50, 'discord.', 'discord.~'",
        20,
    ),
    case(
        "ways::OF_CAUSE",
        "job(1000000000), job(0), 50, 'identity:1'",
        200,
        1,
    ),
    empty(
        "ways::OF_CAUSE",
        "job(1000000000), job(0), 50, 'identity:9'",
        20,
    ),
    case("ways::OF_KEY", "job(1000000000), job(0), 50, 'k-7'", 150, 0),
    empty("ways::OF_KEY", "job(1000000000), job(0), 50, 'nobody'", 150),
    case("ways::OPEN_OF_ORGANIZATION", "10001, 'org-7'", 500, 1),
    empty("ways::OPEN_OF_ORGANIZATION", "10001, 'nobody'", 500),
    empty("ways::OF_WORK_ITEM", "10000, 17", 20),
    case("overdue::OVERDUE", "500, 'deadline_exceeded', ''", 20, 4),
    case(
        "parked::FINGERPRINTS",
        "ARRAY[job(1), job(2)], ARRAY['0a', '0b']",
        10,
        4,
    ),
    case("quotas::JOBS_OF_PRODUCER", "2000, 'producer-7'", 2_010, 0),
    empty("quotas::JOBS_OF_PRODUCER", "2000, 'nobody'", 10),
    case("quotas::JOBS_WITHOUT_PRODUCER", "2000", 2_010, 0),
    case("quotas::JOBS_OF_ORGANIZATION", "2000, 'org-7'", 500, 0),
    case("quotas::LETTERS_OF_PRODUCER", "100, 'producer-7'", 110, 0),
    case("quotas::LETTERS_WITHOUT_PRODUCER", "100", 110, 0),
    case("quotas::KEYS_OF_PRODUCER", "100, 'producer-7'", 110, 0),
    case("quotas::KEYS_WITHOUT_PRODUCER", "100", 110, 0),
    case(
        "quotas::PROMISED",
        "'producer/producer-7', 'open', 1",
        20,
        2,
    ),
    case("quotas::FORGET", "10", 20, 4),
    case("releases::BEGIN", "'identity:1', NULL", PAGE, 0),
    case("releases::BEGIN", "'identity:1', 2", PAGE, 0),
    case("releases::BEGIN", "'identity:0', NULL", 10, 0),
    case("releases::RELEASE", "'identity:1', 4", 20, 0),
    case("releases::TURN", "", 10, 4),
    case(
        "releases::STEP",
        "'identity:1', 9223372036854775807, 2, job(0), 500",
        PAGE,
        0,
    ),
    case("releases::MOVE", "'identity:7', 1, job(7)", 10, 4),
    case("releases::END", "'identity:7'", 10, 4),
    case("causes::CAUSES", "'', 0, 100", 10, 3),
    case("causes::CAUSES", "'identity:1', 1, 100", 10, 3),
    case("stuck::OWNER_DEAD", "10001, -60", 600, 4),
    case("stuck::NO_PROGRESS", "10001, 0", 2_200, 0),
    empty("stuck::NO_PROGRESS", "10001, 86400", 2_200),
    case("stuck::RETRYING_LONG", "10001, -60", 20_100, 4),
    empty("stuck::RETRYING_LONG", "10001, 86400", 20_100),
    // A bitmap scan counts an entry of the index and its row.
    case("stuck::PARKED", "10001, 0", 2 * COUNT, 4),
    case(
        "stuck::OF_CODE",
        "10001, 0, 'slack.not_in_channel'",
        COUNT,
        0,
    ),
    empty("stuck::OF_CODE", "10001, 0, 'unknown_outcome'", 10),
    case(
        "stuck::WAITING",
        "10001, '{-60,-60}', '{reauthentication,version}'",
        2 * COUNT,
        0,
    ),
    empty("stuck::WAITING", "10001, '{0}', '{version}'", COUNT),
    case("stuck::HELD", "10001, -60", COUNT, 4),
    case("stuck::NOT_WOKEN", "10001, -60, 1000", 2 * COUNT, 4),
    case(
        "stuck::NO_CONSUMERS",
        "10001, -60, '{dispatch,messaging}', '{dispatch,messaging}'",
        3 * COUNT + 600,
        4,
    ),
    case("releases::WAITING", "'{identity:1}', 10001", COUNT, 0),
    case(
        "releases::WAITING",
        "'{identity:0,integration:1@1,identity:2}', 10001",
        10,
        2,
    ),
    case(
        "repeats::MAY_REPEAT",
        "job(7), '{send_follow_ups}', 10001",
        20,
        4,
    ),
    case("resolve::OPEN", "100", 10, 2),
    case("resolve::OPEN_OF_CODE", "100, 'rare'", 10, 2),
    case("resolve::COUNT", "10001", COUNT, 0),
    case("resolve::COUNT_OF_CODE", "10001, 'rare'", 50, 0),
];
