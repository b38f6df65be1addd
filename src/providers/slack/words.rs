//! The meaning of Slack's error codes for a refused message: the complete list of errors of
//! `chat.postMessage` (<https://docs.slack.dev/reference/methods/chat.postMessage/#errors>), and
//! the few that Slack's own clients and other methods document (`external_channel_migrating`,
//! `invalid_json`, `json_not_object`, `msg_too_long`).
//!
//! Slack may add codes at any time. A job with a code that is not listed here is retried a few
//! times, then parked with the code.

use std::time::Duration;

use crate::fault::{Certainty, Class};
use crate::providers::channel::Refusal;
use crate::providers::http_fault::Provider;
use crate::providers::scrub::scrub;
use crate::providers::text::cut;

const TOKEN: &str = "Register the destination again with a bot token that Slack accepts.";
const CHANNEL: &str =
    "Register the destination again with the id of a channel that the bot can see.";
const ARCHIVED: &str = "Unarchive the channel, or register another one; then retry.";
const INVITE: &str = "Invite the bot to the channel; then retry.";
const PERMISSION: &str =
    "Give the bot the scope `chat:write`, and permission to post in this channel.";
const WORKSPACE: &str = "A setting of the Slack workspace forbids it: let its administrators allow this app here, or register another \
                         channel; then retry.";
const DEFECT: &str =
    "This is a defect of the worker: Slack does not accept the format of the message.";
const PATIENCE: &str = "Slack is busy or unavailable; the job is retried automatically.";

/// The limit for an unknown error code in a hint.
const WORD_CHARACTERS: usize = 100;

/// The meaning of an error code for the message.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    /// Permanent; the text is the hint for an operator.
    Never(&'static str),
    /// Transient; nothing was posted.
    Later,
    /// As `Later`, because of a rate limit.
    TooMany,
    /// Transient; the message may have been posted.
    Unproven,
}
use Meaning::{Later, Never, TooMany, Unproven};

/// The meaning of each error code. A permanent one is the fault's code, too.
struct Word {
    word: &'static str,
    code: &'static str,
    meaning: Meaning,
}

macro_rules! words {
    ($($word:literal => $meaning:expr,)*) => {
        &[$(Word {
            word: $word,
            code: concat!("slack.", $word),
            meaning: $meaning,
        }),*]
    };
}

const WORDS: &[Word] = words! {
    "access_denied" => Never(PERMISSION),
    "accesslimited" => Never(WORKSPACE),
    "account_inactive" => Never(TOKEN),
    "agent_prompt_display_not_allowed" => Never(DEFECT),
    "app_access_restricted" => Never(WORKSPACE),
    "as_user_not_supported" => Never(DEFECT),
    "attachment_payload_limit_exceeded" => Never(DEFECT),
    "cannot_reply_to_message" => Never(DEFECT),
    "channel_not_found" => Never(CHANNEL),
    "deprecated_endpoint" => Never(DEFECT),
    "draft_already_deleted" => Never(DEFECT),
    "draft_already_sent" => Never(DEFECT),
    "draft_has_conflict" => Never(DEFECT),
    "draft_not_found" => Never(DEFECT),
    "duplicate_channel_not_found" => Never(DEFECT),
    "duplicate_message_not_found" => Never(DEFECT),
    "ekm_access_denied" => Never(WORKSPACE),
    "enterprise_is_restricted" => Never(WORKSPACE),
    "external_channel_migrating" => Later,
    "fatal_error" => Unproven,
    "internal_error" => Unproven,
    "invalid_arg_name" => Never(DEFECT),
    "invalid_arguments" => Never(DEFECT),
    "invalid_array_arg" => Never(DEFECT),
    "invalid_auth" => Never(TOKEN),
    "invalid_blocks" => Never(DEFECT),
    "invalid_blocks_format" => Never(DEFECT),
    "invalid_charset" => Never(DEFECT),
    "invalid_form_data" => Never(DEFECT),
    "invalid_json" => Never(DEFECT),
    "invalid_metadata_format" => Never(DEFECT),
    "invalid_metadata_schema" => Never(DEFECT),
    "invalid_post_type" => Never(DEFECT),
    "is_archived" => Never(ARCHIVED),
    "json_not_object" => Never(DEFECT),
    "markdown_text_conflict" => Never(DEFECT),
    "message_limit_exceeded" => Later,
    "messages_tab_disabled" => Never(
        "Switch the app's Messages tab on (App Home), or register another channel; then retry."
    ),
    "metadata_must_be_sent_from_app" => Never(DEFECT),
    "metadata_too_large" => Never(DEFECT),
    "method_deprecated" => Never(DEFECT),
    "missing_file_data" => Never(DEFECT),
    "missing_post_type" => Never(DEFECT),
    "missing_scope" => Never(PERMISSION),
    "msg_blocks_too_long" => Never(DEFECT),
    "msg_too_long" => Never(DEFECT),
    "no_permission" => Never(PERMISSION),
    "no_text" => Never(DEFECT),
    "not_allowed_token_type" => Never(TOKEN),
    "not_authed" => Never(TOKEN),
    "not_in_channel" => Never(INVITE),
    "org_login_required" => Later,
    "rate_limited" => TooMany,
    "ratelimited" => TooMany,
    "request_timeout" => Later,
    "restricted_action" => Never(PERMISSION),
    "restricted_action_non_threadable_channel" => Never(CHANNEL),
    "restricted_action_read_only_channel" => Never(PERMISSION),
    "restricted_action_thread_locked" => Never(CHANNEL),
    "restricted_action_thread_only_channel" => Never(CHANNEL),
    "send_on_behalf_not_allowed" => Never(PERMISSION),
    "service_unavailable" => Unproven,
    "slack_connect_canvas_sharing_blocked" => Never(WORKSPACE),
    "slack_connect_file_link_sharing_blocked" => Never(WORKSPACE),
    "slack_connect_lists_sharing_blocked" => Never(WORKSPACE),
    "team_access_not_granted" => Never(TOKEN),
    "team_added_to_org" => Later,
    "team_not_found" => Never(CHANNEL),
    "token_expired" => Never(TOKEN),
    "token_revoked" => Never(TOKEN),
    "too_many_attachments" => Never(DEFECT),
    "too_many_contact_cards" => Never(DEFECT),
    "two_factor_setup_required" => Never(WORKSPACE),
};

/// Returns the refusal that an answer with `"ok": false` means. `needed` is the missing scope, if
/// Slack states it.
///
/// According to the vendor, a part of the call may have been done after `internal_error` and
/// `fatal_error`; `request_timeout` means that the body did not arrive. An unknown code is a
/// refusal, too, because of `"ok": false`.
pub(super) fn refusal(
    provider: &'static Provider,
    word: &str,
    needed: Option<&str>,
    retry_after: Option<Duration>,
) -> Refusal {
    let codes = &provider.codes;
    let transient = Class::Transient { retry_after };
    let known = WORDS.iter().find(|known| known.word == word);
    let meaning = known.map(|known| (known.code, known.meaning));
    let (code, class, certainty, hint) = match meaning {
        Some((code, Never(hint))) => (code, Class::Permanent, Certainty::NotDone, hint.into()),
        Some((_, Later)) => (
            codes.try_later,
            transient,
            Certainty::NotDone,
            PATIENCE.into(),
        ),
        Some((_, TooMany)) => (
            codes.rate_limited,
            Class::RateLimited { retry_after },
            Certainty::NotDone,
            PATIENCE.into(),
        ),
        Some((_, Unproven)) => (
            codes.server_error,
            transient,
            Certainty::Unknown,
            PATIENCE.into(),
        ),
        None => {
            let word = cut(&scrub(word), WORD_CHARACTERS);
            let hint = format!(
                "Look up `{word}` in the list of errors of Slack's chat.postMessage; then retry."
            );
            (
                codes.unrecognized,
                Class::Unrecognized,
                Certainty::NotDone,
                hint.into(),
            )
        }
    };
    let said = needed.map_or_else(
        || scrub(word),
        |needed| scrub(&format!("{word} (needed: {needed})")),
    );
    Refusal {
        provider,
        code,
        said,
        class,
        certainty,
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use crate::providers::channel::ChannelFault;
    use crate::providers::slack::SLACK;

    fn of(word: &str) -> Refusal {
        refusal(&SLACK, word, None, None)
    }

    #[test]
    fn every_listed_code_is_listed_once_and_recognized() {
        for Word { word, code, .. } in WORDS {
            assert_eq!(*code, format!("{}.{word}", SLACK.name));
            assert_eq!(
                WORDS.iter().filter(|other| other.word == *word).count(),
                1,
                "{word}"
            );
            let refusal = of(word);
            assert_ne!(refusal.class, Class::Unrecognized, "{word}");
            assert_eq!(refusal.said, *word);
        }
    }

    #[test]
    fn transient_codes_are_retried() {
        let transient = Class::Transient { retry_after: None };
        for word in [
            "external_channel_migrating",
            "team_added_to_org",
            "org_login_required",
            "message_limit_exceeded",
        ] {
            let Refusal {
                code,
                class,
                certainty,
                ..
            } = of(word);
            assert_eq!(
                (code, class, certainty),
                ("slack.try_later", transient.clone(), Certainty::NotDone),
                "{word}"
            );
        }
    }

    #[test]
    fn an_unlisted_code_is_unrecognized_and_shown_in_message_and_hint() {
        let fault = ChannelFault::from(of("channel_on_holiday"));
        assert_eq!(
            (fault.code(), fault.class()),
            ("slack.unrecognized", Class::Unrecognized)
        );
        assert!(
            fault.to_string().contains("channel_on_holiday")
                && fault.hint().contains("channel_on_holiday"),
            "{fault}"
        );
    }

    #[test]
    fn a_missing_scope_is_shown() {
        let fault = ChannelFault::from(refusal(&SLACK, "missing_scope", Some("chat:write"), None));
        assert_eq!(fault.code(), "slack.missing_scope");
        assert!(fault.to_string().contains("chat:write"), "{fault}");
    }
}
