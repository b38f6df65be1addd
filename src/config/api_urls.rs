//! The settings for the addresses of the channels' APIs, one for each channel that describes one.

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::providers::channel::CHANNELS;
use crate::providers::kind::{ApiSetting, ApiUrls};

/// Returns the help text for a channel's kind.
#[must_use]
pub fn channel_kinds_help() -> String {
    let mut names: Vec<&str> = CHANNELS.iter().map(|kind| kind.name()).collect();
    let last = names.pop().unwrap_or_default();
    format!("Kind of channel: {} or {last}", names.join(", "))
}

impl Args for ApiUrls {
    fn augment_args(command: Command) -> Command {
        let settings = CHANNELS.iter().filter_map(|kind| kind.api.as_ref());
        command.args(settings.map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ApiUrls {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self::from_settings(|setting| {
            matches
                .get_one::<String>(&setting.id())
                .map_or(setting.default, String::as_str)
                .to_owned()
        }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn argument(setting: &ApiSetting) -> Arg {
    let id = setting.id();
    Arg::new(id.clone())
        .long(id.replace('_', "-"))
        .env(setting.variable)
        .default_value(setting.default)
        .value_name("URL")
        .help(setting.help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::slack;

    #[test]
    fn every_api_has_a_flag_and_its_vendor_s_address_by_default() {
        let parsed = |words: &[&str]| {
            let command = ApiUrls::augment_args(Command::new("x"));
            let matches = command.try_get_matches_from(words).unwrap();
            ApiUrls::from_arg_matches(&matches).unwrap()
        };
        assert_eq!(parsed(&["x"]), ApiUrls::default());
        let moved = parsed(&["x", "--slack-url", "https://slack.example/api"]);
        assert_eq!(moved.of(&slack::KIND), "https://slack.example/api");
    }
}
