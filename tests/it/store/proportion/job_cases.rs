//! The parameters of the statements that read one job.

use super::cases::{COUNT, Case, case, empty};

pub(super) const OF_ONE_JOB: &[Case] = &[
    case("inspect::SHOW", "job(held_to() + 100)", 520, 4),
    case("inspect::BY_KEY", "'shop-7', 'k-7'", 520, 4),
    case("inspect::CHECKPOINTS", "job(7)", 10, 4),
    case("inspect::ATTEMPTS", "job(7)", 10, 4),
    case("inspect::EFFECTS", "job(7)", 10, 4),
    case("job_places::IN_CAMPAIGNS", "job(7), 500", 1_010, 4),
    case("job_places::UNPUBLISHED", "job(7), 2000, 50", 2_010, 4),
    case("timeline::CHECKPOINTS", "job(7), 200", 10, 4),
    case("timeline::ATTEMPTS", "job(7), 400", 10, 4),
    case("timeline::EFFECTS", "job(7), 200", 10, 4),
    case("timeline::ENDS", "job(7), '{9,10,11}', 200", 10, 4),
    // A bitmap scan counts an entry of the index and its row.
    case(
        "timeline::COUNTS",
        "job(held_to() + 1), 10001",
        2 * COUNT,
        0,
    ),
    empty(
        "timeline::WORST",
        "job(held_to() + 1), 10001, 20",
        2 * COUNT,
    ),
];
