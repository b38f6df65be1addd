//! The actions that a campaign can repeat.

use super::super::audit::Action;

/// Declares [`BulkAction`] with the stored word and the audited action of each.
macro_rules! bulk_actions {
    ($($(#[$doc:meta])* $name:ident = $word:literal => $action:ident,)+) => {
        /// An action that a campaign can repeat for each of its jobs. The words are stored.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum BulkAction {
            $($(#[$doc])* $name,)+
        }

        impl BulkAction {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$name),+];
            /// Their stored words.
            pub(super) const WORDS: &[&str] = &[$($word),+];

            /// Returns the stored word.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }

            /// Returns the action that is audited for each job.
            #[must_use]
            pub const fn audited(self) -> Action {
                match self {
                    $(Self::$name => Action::$action,)+
                }
            }
        }
    };
}

bulk_actions! {
    /// As `dispatch jobs retry`.
    Retry = "retry" => Retry,
    /// As `dispatch jobs cancel`.
    Cancel = "cancel" => Cancel,
    /// As `dispatch jobs park`.
    Park = "park" => Park,
}

impl BulkAction {
    /// Returns whether effects of a job can be repeated by it.
    #[must_use]
    pub const fn repeats_effects(self) -> bool {
        match self {
            Self::Retry => true,
            Self::Cancel | Self::Park => false,
        }
    }

    /// Returns whether its outcome is known when it is done: no stage has to run.
    pub(super) const fn is_done_at_once(self) -> bool {
        match self {
            Self::Retry => false,
            Self::Cancel | Self::Park => true,
        }
    }

    pub(super) fn of_word(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|action| action.word() == word)
    }
}

impl std::str::FromStr for BulkAction {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::of_word(word).ok_or_else(|| {
            let known = Self::WORDS.join(", ");
            format!("expected one of the actions {known}, got `{word}`; use one of them")
        })
    }
}
