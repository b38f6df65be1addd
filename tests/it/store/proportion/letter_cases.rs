//! The parameters of the statements that read dead letters.

use super::cases::{Case, WINDOW, case};

pub(super) const OF_LETTERS: &[Case] = &[
    case("wanted_replays::TAKE", "", 10, 4),
    case(
        "letter_list::OPEN_OF_CODE",
        "9223372036854775807, 50, 'usual'",
        10,
        2,
    ),
    case("letter_list::OPEN_IDS", "9223372036854775807, 5000", 10, 2),
    case("letter_list::IDS", "9223372036854775807, 5000", 10, 2),
    case(
        "letter_list::AMONG",
        "numbers(5000), NULL, 'shop-7', 50",
        WINDOW,
        0,
    ),
];
