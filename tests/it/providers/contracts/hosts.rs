//! The default hosts of the program against the table. The witness log cannot show this, as the
//! simulator replaces all hosts.

use clap::{Args as _, Command};
use dispatch_worker::config::ProviderLinks;
use dispatch_worker::providers::azure_devops::Hosts;
use dispatch_worker::providers::contract::Fact;

use super::is_at;
use super::table::table;

#[test]
fn every_default_host_of_the_program_is_the_host_in_the_table() {
    let Hosts {
        profile,
        accounts,
        graph,
        search,
        core,
    } = Hosts::default();
    assert_eq!(accounts, None, "accounts and profiles have the same host");
    let hosts = [
        ("azure_devops_profile_url", profile),
        ("azure_devops_graph_url", graph),
        ("azure_devops_search_url", search),
        ("azure_devops_url", core),
    ];
    for (setting, host) in hosts {
        assert_eq!(default_of(setting), Some(host), "{setting}");
    }
    let wrong: Vec<String> = table()
        .filter_map(|fact| differs(fact, default_of))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_default_with_another_host_is_reported() {
    let row = |name: &str| table().find(|fact| fact.name == name).expect("a row");
    let difference = |name: &str, default: &str| differs(row(name), |_| Some(default.to_owned()));
    assert_eq!(
        difference("search", "https://almsearch.dev.azure.com"),
        None
    );
    assert!(difference("search", "https://dev.azure.com").is_some());
    assert!(difference("message of a bot", "https://discord.com/api/v9").is_some());
    assert_eq!(
        difference(
            "refresh of a token",
            "https://login.microsoftonline.com/common/oauth2/v2.0/token"
        ),
        None
    );
    assert!(
        difference(
            "refresh of a token",
            "https://login.microsoftonline.com/common/oauth2/token"
        )
        .is_some()
    );
    assert!(
        differs(row("search"), |_| None).is_some(),
        "there is no such setting"
    );
    assert_eq!(
        difference("webhook", "https://example.com"),
        None,
        "a receiver chooses its own address"
    );
}

/// Returns the default of a setting, regardless of this process's environment.
fn default_of(setting: &str) -> Option<String> {
    let command = ProviderLinks::augment_args(Command::new("program"));
    let argument = command
        .get_arguments()
        .find(|argument| argument.get_id() == setting)?;
    Some(argument.get_default_values().first()?.to_str()?.to_owned())
}

/// Returns the difference if the default is neither the base of the row nor its whole address.
fn differs(fact: &Fact, default_of: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (setting, base) = (fact.vendor.setting?, fact.vendor.base?);
    let default = default_of(setting).unwrap_or_default();
    let rest = default.strip_prefix(base);
    let is_right = rest.is_some_and(|rest| rest.is_empty() || is_at(fact, rest));
    (!is_right).then(|| {
        format!(
            "{}: `{setting}` is `{default}` by default, and the vendor serves it at {base}",
            fact.name
        )
    })
}
