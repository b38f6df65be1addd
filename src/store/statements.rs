//! The statements that run in a loop or behind a command, for the test that checks how many rows
//! each of them reads. Statements that find a single row by its full key are not listed.

use super::{
    backlog, cancel_many, causes, control_list, controls, dead_letters, discard_many, due, headers,
    inspect, kill_preview, listing, overdue, parked, quotas, releases, resolve, takeover,
};

/// Statements of workers, which run repeatedly on long-lived connections; each by its name: module
/// and constant.
pub const IN_LOOPS: &[(&str, &str)] = &[
    ("controls::IN_FORCE", controls::IN_FORCE),
    ("controls::PRESENT", controls::PRESENT),
    ("controls::OVER", controls::OVER),
    ("controls::STEP", controls::STEP),
    ("backlog::JOBS_FROM_START", backlog::JOBS_FROM_START),
    ("backlog::JOBS_AFTER", backlog::JOBS_AFTER),
    ("backlog::LETTERS_AFTER", backlog::LETTERS_AFTER),
    ("due::DUE", due::DUE),
    ("headers::UNSEALED", headers::UNSEALED),
    ("due::STALE", due::STALE),
    ("due::UNSTAMP_OF", due::UNSTAMP_OF),
    ("due::UNSTAMP_ENDED", due::UNSTAMP_ENDED),
    ("takeover::FREE", takeover::FREE),
    ("overdue::OVERDUE", overdue::OVERDUE),
    ("parked::FINGERPRINTS", parked::FINGERPRINTS),
    ("quotas::JOBS_OF_PRODUCER", quotas::JOBS_OF_PRODUCER),
    (
        "quotas::JOBS_WITHOUT_PRODUCER",
        quotas::JOBS_WITHOUT_PRODUCER,
    ),
    ("quotas::JOBS_OF_ORGANIZATION", quotas::JOBS_OF_ORGANIZATION),
    ("quotas::LETTERS_OF_PRODUCER", quotas::LETTERS_OF_PRODUCER),
    (
        "quotas::LETTERS_WITHOUT_PRODUCER",
        quotas::LETTERS_WITHOUT_PRODUCER,
    ),
    ("quotas::KEYS_OF_PRODUCER", quotas::KEYS_OF_PRODUCER),
    (
        "quotas::KEYS_WITHOUT_PRODUCER",
        quotas::KEYS_WITHOUT_PRODUCER,
    ),
    ("quotas::PROMISED", quotas::PROMISED),
    ("quotas::FORGET", quotas::FORGET),
    ("releases::BEGIN", releases::BEGIN),
    ("releases::RELEASE", releases::RELEASE),
    ("releases::TURN", releases::TURN),
    ("releases::STEP", releases::STEP),
    ("releases::MOVE", releases::MOVE),
    ("releases::END", releases::END),
    ("causes::CAUSES", causes::CAUSES),
];

/// Statements of commands, by their names; a command has connections of its own.
pub const BEHIND_COMMANDS: &[(&str, &str)] = &[
    ("cancel_many::PAGE", cancel_many::PAGE),
    ("cancel_many::PAGE_HALTED", cancel_many::PAGE_HALTED),
    ("controls::SHOWN", controls::SHOWN),
    ("controls::OF_SCOPE", controls::OF_SCOPE),
    ("controls::END", controls::END),
    ("control_list::SHOWN", control_list::SHOWN),
    ("kill_preview::OPEN", kill_preview::OPEN),
    ("kill_preview::RECENT", kill_preview::RECENT),
    ("kill_preview::DETAILS", kill_preview::DETAILS),
    ("dead_letters::LIST", dead_letters::LIST),
    ("dead_letters::LIST_OPEN", dead_letters::LIST_OPEN),
    ("discard_many::LOOK", discard_many::LOOK),
    ("inspect::SHOW", inspect::SHOW),
    ("inspect::BY_KEY", inspect::BY_KEY),
    ("inspect::CHECKPOINTS", inspect::CHECKPOINTS),
    ("inspect::ATTEMPTS", inspect::ATTEMPTS),
    ("inspect::EFFECTS", inspect::EFFECTS),
    ("listing::NEWEST", listing::NEWEST),
    ("listing::NEWEST_EDGE", listing::NEWEST_EDGE),
    ("listing::WAITING", listing::WAITING),
    ("listing::WAITING_EDGE", listing::WAITING_EDGE),
    ("listing::PARKED", listing::PARKED),
    ("listing::PARKED_EDGE", listing::PARKED_EDGE),
    ("listing::FOLLOW_UPS", listing::FOLLOW_UPS),
    ("listing::FOLLOW_UPS_EDGE", listing::FOLLOW_UPS_EDGE),
    ("listing::RUNNING", listing::RUNNING),
    ("releases::WAITING", releases::WAITING),
    ("resolve::OPEN", resolve::OPEN),
    ("resolve::OPEN_OF_CODE", resolve::OPEN_OF_CODE),
    ("resolve::COUNT", resolve::COUNT),
    ("resolve::COUNT_OF_CODE", resolve::COUNT_OF_CODE),
];
