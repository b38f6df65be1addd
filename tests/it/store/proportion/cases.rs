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
const fn case(
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
const fn empty(statement: &'static str, arguments: &'static str, at_most: u64) -> Case {
    Case {
        statement,
        arguments,
        at_most,
        for_each: 0,
        returns: false,
    }
}

/// The limit of a count that stops at 10,001 rows.
const COUNT: u64 = 10_050;
/// The limit of a page of 500 jobs that are released: found, locked, changed.
const PAGE: u64 = 1_600;
/// The limit of a page of 50 jobs, found in an index first, and of the replicas that may own them.
const LIST: u64 = 700;
/// The limit of a window of 5,000 jobs, likewise.
const WINDOW: u64 = 10_600;
/// The limit of a window of 5,000 jobs, read once for the selection and once for the window's end.
const PREVIEW: u64 = 20_100;
/// The limit of the end of such a window.
const EDGE: u64 = 5_010;
/// The limit of all running jobs, read twice, and of the replicas.
const RUNNING: u64 = 2_200;

/// The limit of a page of a count, and of the row at which it ends.
const COUNTED: u64 = 2_050;
/// The limit of a count that hops over the organizations.
const DUE: u64 = COUNT + 2_100;
/// The limit of 128 jobs of as many organizations: each organization is skipped to, and its job
/// found, locked, changed.
const WOKEN: u64 = 700;

pub(super) const CASES: &[Case] = &[
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
    case("load::WOKEN", "10001", COUNT, 0),
    case("load::RUNNING", "10001", COUNT, 0),
    case("load::WAITING", "10001", COUNT, 0),
    case("load::PARKED", "10001", COUNT, 0),
    case("samples::FORGET", "1000", 10, 4),
    case("samples::SINCE", "now() - interval '1 hour', 10000", 10, 2),
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
    case("dead_letters::LIST", "9223372036854775807, 50", 10, 2),
    case("dead_letters::LIST_OPEN", "9223372036854775807, 50", 10, 2),
    case("inspect::SHOW", "job(held_to() + 100)", 520, 4),
    case("inspect::BY_KEY", "'shop-7', 'k-7'", 520, 4),
    case("inspect::CHECKPOINTS", "job(7)", 10, 4),
    case("inspect::ATTEMPTS", "job(7)", 10, 4),
    case("inspect::EFFECTS", "job(7)", 10, 4),
    case(
        "listing::NEWEST",
        "job(1000000000), job(0), NULL, NULL, NULL, NULL, 50",
        520,
        4,
    ),
    case(
        "listing::NEWEST",
        "job(done_to()), job(done_to() - 5000), NULL, 'org-7', NULL, NULL, 50",
        WINDOW + 520,
        2,
    ),
    case(
        "listing::NEWEST",
        "job(1000000000), job(jobs() - 49), NULL, NULL, NULL, NULL, 50",
        LIST,
        2,
    ),
    case(
        "listing::NEWEST",
        "job(done_to()), job(done_to() - 5000), NULL, 'org-7', NULL, NULL, 50",
        WINDOW,
        2,
    ),
    case(
        "listing::NEWEST",
        "job(done_to()), job(done_to() - 5000), 'dispatch', NULL, 'shop-7', 'succeeded', 50",
        WINDOW,
        2,
    ),
    empty(
        "listing::NEWEST",
        "job(done_to()), job(done_to() - 5000), NULL, 'nobody', NULL, NULL, 50",
        WINDOW,
    ),
    case("listing::NEWEST_EDGE", "job(1000000000), 49", 60, 0),
    case("listing::NEWEST_EDGE", "job(1000000000), 4999", EDGE, 0),
    case(
        "listing::WAITING",
        "job(1000000000), job(waiting_to() - 49), NULL, NULL, NULL, 'waiting', 50",
        LIST,
        2,
    ),
    empty(
        "listing::WAITING",
        "job(held_to() + 5001), job(held_to() + 1), NULL, 'nobody', NULL, 'waiting', 50",
        WINDOW,
    ),
    case("listing::WAITING_EDGE", "job(1000000000), 49", 60, 0),
    case("listing::WAITING_EDGE", "job(1000000000), 4999", EDGE, 0),
    case(
        "listing::PARKED",
        "job(1000000000), job(parked_to() - 49), NULL, NULL, NULL, 'parked', 50",
        LIST,
        2,
    ),
    case(
        "listing::PARKED",
        "job(parked_to() + 1), job(parked_to() - 4999), NULL, 'org-7', NULL, 'parked', 50",
        WINDOW,
        2,
    ),
    case("listing::PARKED_EDGE", "job(1000000000), 49", 60, 0),
    case("listing::PARKED_EDGE", "job(1000000000), 4998", EDGE, 0),
    case(
        "listing::FOLLOW_UPS",
        "job(1000000000), job(running_to() + family() - 49), NULL, NULL, NULL, NULL, 50, job(held_to() + 1)",
        LIST,
        2,
    ),
    case(
        "listing::FOLLOW_UPS_EDGE",
        "job(1000000000), 49, job(held_to() + 1)",
        60,
        0,
    ),
    case(
        "listing::FOLLOW_UPS_EDGE",
        "job(1000000000), 4999, job(held_to() + 1)",
        EDGE,
        0,
    ),
    case(
        "listing::RUNNING",
        "job(1000000000), job(0), NULL, NULL, NULL, 'running', 50",
        RUNNING,
        2,
    ),
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
    case("releases::WAITING", "'{identity:1}', 10001", COUNT, 0),
    case(
        "releases::WAITING",
        "'{identity:0,integration:1@1,identity:2}', 10001",
        10,
        2,
    ),
    case("resolve::OPEN", "100", 10, 2),
    case("resolve::OPEN_OF_CODE", "100, 'rare'", 10, 2),
    case("resolve::COUNT", "10001", COUNT, 0),
    case("resolve::COUNT_OF_CODE", "10001, 'rare'", 50, 0),
];
