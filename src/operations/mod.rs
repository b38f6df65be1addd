//! ★ What a person can do, a file for each action. Each action checks the actor's permission and
//! the precondition, makes the change and writes the audit row, in one transaction; an action of
//! more transactions writes an audit row before the first and one after the last. The command line
//! calls these functions, and so does everything else that acts for a person. What producers do by
//! message, cancelling and configuring a job, stands in the store, which the worker calls.
//!
//! The words of the audit log are [`Action`](crate::store::Action), and what a role permits is
//! decided there.

mod abort_campaign;
mod ask_for_replay;
mod cancel;
mod cancel_many;
mod choose_account;
mod configure;
mod create_token;
mod diff;
mod discard;
mod discard_many;
mod edit_input;
mod end_control;
mod end_kill_switch;
mod erase;
mod error;
mod explain;
mod export_secrets;
mod fix_letter;
mod hold;
mod hold_scope;
mod import_tracker;
mod inputs;
mod mark_effect;
mod note_group;
mod park;
mod pause;
mod pause_campaign;
mod place_kill_switch;
mod possible;
mod preview_campaign;
mod record_export;
mod register_destination;
mod register_identity;
mod register_integration;
mod register_producer;
mod release;
mod remove_producer;
mod replay;
mod rerun;
mod restart;
mod resume;
mod resume_campaign;
mod retry;
mod revoke_token;
mod rotate_destination_secret;
mod rotate_hook_secret;
mod rotate_keys;
mod set_tokens;
mod show_raw;
mod skip;
mod start_campaign;
mod step_campaign;
mod switch_destination;
mod switch_integration;
mod test_destination;
mod unmask;
mod within_input;
mod would_accept;

pub use abort_campaign::abort_campaign;
pub use ask_for_replay::{ask_for_replay, replay_obstacle};
pub use cancel::cancel;
pub use cancel_many::{CancelledMany, cancel_many};
pub use choose_account::{Offer, choose_account, offer};
pub use configure::configure;
pub use create_token::{TokenSettings, create_token, token_digest};
pub use diff::{PathChange, diff};
pub use discard::discard;
pub use discard_many::discard_many;
pub use edit_input::{Edited, VERSIONS, edit_input, preview_edit, restore_input};
pub use end_control::end_control;
pub use end_kill_switch::end_kill_switch;
pub use erase::{Erased, Erasing};
pub use error::OperationError;
pub use explain::{Audience, Explained, explain};
pub use export_secrets::export_secrets;
pub use fix_letter::{LetterFix, fix_dead_letter, preview_letter_fix};
pub use hold::hold;
pub use hold_scope::{check_scope, name_of_scope};
pub use import_tracker::import_tracker;
pub use inputs::{EarlierInput, JobInputs, inputs};
pub use mark_effect::{Found, mark_effect};
pub use note_group::{GroupNote, note_group};
pub use park::park;
pub use pause::pause;
pub use pause_campaign::pause_campaign;
pub use place_kill_switch::{CheckedKillSwitch, place_kill_switch};
pub use possible::{JobAction, Possible, possible};
pub use preview_campaign::{CampaignPreview, HoldInTheWay, RefusedJobs, preview_campaign};
pub use record_export::record_export;
pub use register_destination::{CheckedDestination, DestinationSettings, register_destination};
pub use register_identity::register_identity;
pub use register_integration::{IntegrationSettings, register_integration};
pub use register_producer::{SharedSource, register_producer, shared_sources};
pub use release::release;
pub use remove_producer::remove_producer;
pub use replay::{Replayed, Replayer, replay, replay_wanted};
pub use rerun::{effects_that_may_repeat, rerun};
pub use resume::resume;
pub use resume_campaign::resume_campaign;
pub use retry::retry;
pub use revoke_token::revoke_token;
pub use rotate_destination_secret::{CheckedSecret, rotate_destination_secret};
pub use rotate_hook_secret::rotate_hook_secret;
pub use rotate_keys::{
    KeyCount, Resealed, Rotation, Unopened, key_counts, rotate_keys, sealed_columns,
};
pub use set_tokens::set_tokens;
pub use show_raw::show_raw;
pub use skip::skip;
pub use start_campaign::start_campaign;
pub use step_campaign::step_campaign;
pub use switch_destination::switch_destination;
pub use switch_integration::switch_integration;
pub use test_destination::test_destination;
pub use unmask::{Unmasked, unmask};
pub use would_accept::{Acceptance, Candidate, would_accept};

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, to_value};

use crate::store::{Actor, Released};
use crate::tracker::RowChange;

/// A changed row, and the jobs that the change released.
#[derive(Debug)]
pub struct Registered<R> {
    /// The row before and after.
    pub row: RowChange<R>,
    /// The released jobs.
    pub released: Released,
}

/// Returns the row before and after for the audit log, or `None` if nothing changed.
fn states<R: Serialize + PartialEq>(
    row: &RowChange<R>,
) -> Result<Option<(Value, Value)>, OperationError> {
    if row.before.as_ref() == Some(&row.after) {
        return Ok(None);
    }
    Ok(Some((to_value(&row.before)?, to_value(&row.after)?)))
}

/// The longest control, so that a forgotten one ends.
const LONGEST_CONTROL: Duration = Duration::from_hours(7 * 24);

/// Checks the length of a control, and returns its reason, which every worker and every command
/// shows.
fn control_terms(actor: &Actor, length: Duration) -> Result<&str, OperationError> {
    if length < Duration::from_secs(1) || length > LONGEST_CONTROL {
        return Err(OperationError::Invalid(format!(
            "expected a length of 1 s to 7 d, got {} s; use 1h for example",
            length.as_secs()
        )));
    }
    let reason = actor.reason.as_deref().map_or("", str::trim);
    if reason.is_empty() {
        return Err(OperationError::Invalid(
            "expected a reason, got none; use --reason".to_owned(),
        ));
    }
    Ok(reason)
}
