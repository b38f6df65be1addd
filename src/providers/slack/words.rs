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

/// The error codes, each after `slack.`, so that the text is the fault's code for a permanent one.
const WORDS: [(&str, Meaning); 73] = [
    ("slack.access_denied", Never(PERMISSION)),
    ("slack.accesslimited", Never(WORKSPACE)),
    ("slack.account_inactive", Never(TOKEN)),
    ("slack.agent_prompt_display_not_allowed", Never(DEFECT)),
    ("slack.app_access_restricted", Never(WORKSPACE)),
    ("slack.as_user_not_supported", Never(DEFECT)),
    ("slack.attachment_payload_limit_exceeded", Never(DEFECT)),
    ("slack.cannot_reply_to_message", Never(DEFECT)),
    ("slack.channel_not_found", Never(CHANNEL)),
    ("slack.deprecated_endpoint", Never(DEFECT)),
    ("slack.draft_already_deleted", Never(DEFECT)),
    ("slack.draft_already_sent", Never(DEFECT)),
    ("slack.draft_has_conflict", Never(DEFECT)),
    ("slack.draft_not_found", Never(DEFECT)),
    ("slack.duplicate_channel_not_found", Never(DEFECT)),
    ("slack.duplicate_message_not_found", Never(DEFECT)),
    ("slack.ekm_access_denied", Never(WORKSPACE)),
    ("slack.enterprise_is_restricted", Never(WORKSPACE)),
    ("slack.external_channel_migrating", Later),
    ("slack.fatal_error", Unproven),
    ("slack.internal_error", Unproven),
    ("slack.invalid_arg_name", Never(DEFECT)),
    ("slack.invalid_arguments", Never(DEFECT)),
    ("slack.invalid_array_arg", Never(DEFECT)),
    ("slack.invalid_auth", Never(TOKEN)),
    ("slack.invalid_blocks", Never(DEFECT)),
    ("slack.invalid_blocks_format", Never(DEFECT)),
    ("slack.invalid_charset", Never(DEFECT)),
    ("slack.invalid_form_data", Never(DEFECT)),
    ("slack.invalid_json", Never(DEFECT)),
    ("slack.invalid_metadata_format", Never(DEFECT)),
    ("slack.invalid_metadata_schema", Never(DEFECT)),
    ("slack.invalid_post_type", Never(DEFECT)),
    ("slack.is_archived", Never(ARCHIVED)),
    ("slack.json_not_object", Never(DEFECT)),
    ("slack.markdown_text_conflict", Never(DEFECT)),
    ("slack.message_limit_exceeded", Later),
    (
        "slack.messages_tab_disabled",
        Never(
            "Switch the app's Messages tab on (App Home), or register another channel; then retry.",
        ),
    ),
    ("slack.metadata_must_be_sent_from_app", Never(DEFECT)),
    ("slack.metadata_too_large", Never(DEFECT)),
    ("slack.method_deprecated", Never(DEFECT)),
    ("slack.missing_file_data", Never(DEFECT)),
    ("slack.missing_post_type", Never(DEFECT)),
    ("slack.missing_scope", Never(PERMISSION)),
    ("slack.msg_blocks_too_long", Never(DEFECT)),
    ("slack.msg_too_long", Never(DEFECT)),
    ("slack.no_permission", Never(PERMISSION)),
    ("slack.no_text", Never(DEFECT)),
    ("slack.not_allowed_token_type", Never(TOKEN)),
    ("slack.not_authed", Never(TOKEN)),
    ("slack.not_in_channel", Never(INVITE)),
    ("slack.org_login_required", Later),
    ("slack.rate_limited", TooMany),
    ("slack.ratelimited", TooMany),
    ("slack.request_timeout", Later),
    ("slack.restricted_action", Never(PERMISSION)),
    (
        "slack.restricted_action_non_threadable_channel",
        Never(CHANNEL),
    ),
    (
        "slack.restricted_action_read_only_channel",
        Never(PERMISSION),
    ),
    ("slack.restricted_action_thread_locked", Never(CHANNEL)),
    (
        "slack.restricted_action_thread_only_channel",
        Never(CHANNEL),
    ),
    ("slack.send_on_behalf_not_allowed", Never(PERMISSION)),
    ("slack.service_unavailable", Unproven),
    (
        "slack.slack_connect_canvas_sharing_blocked",
        Never(WORKSPACE),
    ),
    (
        "slack.slack_connect_file_link_sharing_blocked",
        Never(WORKSPACE),
    ),
    (
        "slack.slack_connect_lists_sharing_blocked",
        Never(WORKSPACE),
    ),
    ("slack.team_access_not_granted", Never(TOKEN)),
    ("slack.team_added_to_org", Later),
    ("slack.team_not_found", Never(CHANNEL)),
    ("slack.token_expired", Never(TOKEN)),
    ("slack.token_revoked", Never(TOKEN)),
    ("slack.too_many_attachments", Never(DEFECT)),
    ("slack.too_many_contact_cards", Never(DEFECT)),
    ("slack.two_factor_setup_required", Never(WORKSPACE)),
];

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
    let known = WORDS
        .iter()
        .find(|(code, _)| code.strip_prefix("slack.") == Some(word));
    let (code, class, certainty, hint) = match known {
        Some((code, Never(hint))) => (*code, Class::Permanent, Certainty::NotDone, (*hint).into()),
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
    use crate::providers::http_fault::provider;

    static SLACK: Provider = provider!("slack");

    fn of(word: &str) -> Refusal {
        refusal(&SLACK, word, None, None)
    }

    #[test]
    fn every_listed_code_is_listed_once_and_recognized() {
        for (code, _) in WORDS {
            let word = code.strip_prefix("slack.").unwrap();
            assert_eq!(
                WORDS.iter().filter(|(other, _)| *other == code).count(),
                1,
                "{word}"
            );
            let refusal = of(word);
            assert_ne!(refusal.class, Class::Unrecognized, "{word}");
            assert_eq!(refusal.said, word);
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
