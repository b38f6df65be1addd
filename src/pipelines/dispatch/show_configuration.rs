//! Makes a configuration template for a job without a usable account. The job then waits until a
//! person chooses an account.
//!
//! *Needs*: `check_account`; `fetch_states` and `get_accounts` if they have run.
//! *Effects*: none. The engine announces the template with the wait; if a click created the job, a
//! follow-up asks that person.
//! *Safe to repeat*: the stage only combines the output of earlier stages.

use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::check_account::{Account, ActingAs, CheckedAccount};
use super::fetch_states::States;
use super::get_accounts::{Accounts, UsableAccount};
use super::{CheckAccount, FetchStates, GetAccounts};
use crate::engine::{Context, Stage, StageOutcome, StageResult, Then};
use crate::fault::WaitOn;
use crate::job::{JobId, WaitReason, words};
use crate::message::Request;
use crate::pipelines::Dispatch;
use crate::pipelines::messaging::{Choice, Event, Notice, Question};

#[derive(Debug, Clone, Copy)]
pub struct ShowConfiguration;

words! {
    /// Why a job asks for configuration.
    Reason {
        /// The request names no account.
        NoAccount = "no_account",
        /// The account is not installed in the organization.
        UnknownAccount = "unknown_account",
        /// Neither the request nor the installation has an identity.
        NoIdentity = "no_identity",
        /// The organization does not have the identity that the request names.
        UnknownIdentity = "unknown_identity",
        /// The identity may not use any account.
        NoAccounts = "no_accounts",
        /// The identity may use accounts, but not this one.
        AccountNotUsable = "account_not_usable",
    }
}

/// The information that a person needs to choose an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Why the job asks for configuration.
    pub reason: Reason,
    /// Whether it is known that the identity may not use any account.
    pub no_accounts: bool,
    /// The accounts that the identity may use, sorted by name; empty if they are unknown.
    pub choices: Vec<UsableAccount>,
    pub fields: Vec<Field>,
    /// What to do, in a sentence or two.
    pub help: String,
    /// The page of the console on which a person chooses, if its address is known. Whoever has it
    /// may choose, so the reply and the person who clicked get it, and subscribers of events do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The template as a small HTML form.
    pub html: String,
}

/// A field to fill in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The name that `configure` takes.
    pub name: String,
    /// The display name.
    pub label: String,
    pub required: bool,
}

impl Stage for ShowConfiguration {
    type Product = Dispatch;

    const NAME: &'static str = "show_configuration";
    const NEEDS: &'static [&'static str] =
        &[CheckAccount::NAME, FetchStates::NAME, GetAccounts::NAME];
    type Output = Configuration;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let checked = cx.output::<CheckAccount>()?;
        let states = cx.maybe_output::<FetchStates>()?;
        let accounts = cx.maybe_output::<GetAccounts>()?;
        let reason = reason(&checked, states.as_ref(), accounts.as_ref());
        let link = cx.services.links.of(cx.job.into());
        let configuration = configuration(reason, accounts, cx.job.id, link);
        let clicked = cx.payload::<Request>()?.interaction.is_some();
        let children = if clicked {
            vec![question(&configuration, cx.job.id).child()]
        } else {
            Vec::new()
        };
        Ok(StageOutcome::of(configuration)
            .with_children(children)
            .then(until_configured(cx.job.id)))
    }
}

fn until_configured(job: JobId) -> Then {
    let on = WaitOn {
        reason: WaitReason::Configuration,
        key: format!("configuration:{job}"),
        observed: 0,
    };
    Then::Wait {
        on,
        resume_at: CheckAccount::NAME,
    }
}

/// Returns the same question as a message to the person who clicked.
fn question(configuration: &Configuration, job: JobId) -> Notice {
    let choice = |usable: &UsableAccount| Choice {
        account_id: usable.account_id.clone(),
        name: usable.name.clone(),
    };
    let choices = configuration.choices.iter().map(choice).collect();
    let reason = configuration.reason.word().to_owned();
    let help = match &configuration.link {
        Some(link) => format!("Choose on {link}. {}", configuration.help),
        None => configuration.help.clone(),
    };
    Notice::answer(
        job,
        Event::Configuration(Question {
            reason,
            help,
            choices,
        }),
    )
}

fn reason(
    checked: &CheckedAccount,
    states: Option<&States>,
    accounts: Option<&Accounts>,
) -> Reason {
    if let Account::Missing(reason) = checked.account {
        return reason;
    }
    match (states, accounts) {
        (Some(States { account: None, .. }), _) => Reason::UnknownAccount,
        (_, None) if checked.acting_as == ActingAs::Nobody => Reason::UnknownIdentity,
        (_, None) => Reason::NoIdentity,
        (_, Some(known)) if known.accounts.is_empty() => Reason::NoAccounts,
        (_, Some(_)) => Reason::AccountNotUsable,
    }
}

fn configuration(
    reason: Reason,
    accounts: Option<Accounts>,
    job: JobId,
    link: Option<String>,
) -> Configuration {
    let no_accounts = accounts
        .as_ref()
        .is_some_and(|known| known.accounts.is_empty());
    let choices = accounts.map_or_else(Vec::new, |known| known.accounts);
    let fields = vec![Field {
        name: "account".to_owned(),
        label: "Azure DevOps account".to_owned(),
        required: true,
    }];
    let help = help(reason, no_accounts, job);
    let html = form(&choices, &fields, &help, job).into_string();
    Configuration {
        reason,
        no_accounts,
        choices,
        fields,
        help,
        link,
        html,
    }
}

fn help(reason: Reason, no_accounts: bool, job: JobId) -> String {
    let why = match reason {
        Reason::NoAccount => "The request names no Azure DevOps account.",
        Reason::UnknownAccount => {
            "The account is not installed in this organization; import its installation, or choose another one."
        }
        Reason::NoIdentity => {
            "There is no identity to act as; import one for the installation, or choose another account."
        }
        Reason::UnknownIdentity => {
            "The organization does not have the identity that the request names; import it, then choose the account."
        }
        Reason::NoAccounts => "The identity may use no Azure DevOps account.",
        Reason::AccountNotUsable => {
            "The identity may not use this account; choose another one, or give it access."
        }
    };
    let how = if no_accounts {
        "Give the identity access to an account in Azure DevOps first. Then"
    } else {
        "To go on,"
    };
    format!(
        "{why} {how} run `dispatch jobs configure {job} --account ID`, or publish {{schema, job_id, account}} with the routing key `configure`."
    )
}

/// Renders the form. All values are data and are escaped.
fn form(choices: &[UsableAccount], fields: &[Field], help: &str, job: JobId) -> Markup {
    html! {
        form method="post" action=(format!("/api/v1/jobs/{job}/configure")) {
            p { (help) }
            @for field in fields {
                label {
                    (field.label)
                    @if choices.is_empty() {
                        input type="text" name=(field.name) required[field.required];
                    } @else {
                        select name=(field.name) required[field.required] {
                            @for choice in choices {
                                option value=(choice.account_id) { (choice.name) }
                            }
                        }
                    }
                }
            }
            button type="submit" { "Go on" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipelines::dispatch::samples::{account, identity};

    fn found(acting_as: ActingAs) -> CheckedAccount {
        let account = Account::Found {
            integration_id: 3,
            account_id: "acc-1".to_owned(),
        };
        CheckedAccount {
            organization_id: 1,
            account,
            acting_as,
        }
    }

    fn accounts(names: &[&str]) -> Accounts {
        let usable = |name: &&str| UsableAccount {
            account_id: format!("{name}-id"),
            name: (*name).to_owned(),
        };
        Accounts {
            accounts: names.iter().map(usable).collect(),
        }
    }

    #[test]
    fn the_reason_is_the_first_thing_that_is_not_there() {
        let states = States {
            account: Some(account()),
            identity: Some(identity()),
        };
        let no_identity = States {
            account: Some(account()),
            identity: None,
        };
        let gone = States {
            account: None,
            identity: Some(identity()),
        };
        let missing = CheckedAccount {
            account: Account::Missing(Reason::NoAccount),
            ..found(ActingAs::Identity(7))
        };
        let installation = found(ActingAs::Installation);
        assert_eq!(reason(&missing, None, None), Reason::NoAccount);
        assert_eq!(
            reason(&missing, Some(&gone), Some(&accounts(&["a"]))),
            Reason::NoAccount
        );
        assert_eq!(
            reason(&installation, Some(&gone), Some(&accounts(&["a"]))),
            Reason::UnknownAccount
        );
        assert_eq!(
            reason(&installation, Some(&no_identity), None),
            Reason::NoIdentity
        );
        assert_eq!(
            reason(&found(ActingAs::Nobody), Some(&no_identity), None),
            Reason::UnknownIdentity
        );
        assert_eq!(
            reason(&installation, Some(&states), Some(&accounts(&[]))),
            Reason::NoAccounts
        );
        assert_eq!(
            reason(&installation, Some(&states), Some(&accounts(&["a"]))),
            Reason::AccountNotUsable
        );
    }

    #[test]
    fn an_unknown_list_of_accounts_is_not_taken_for_an_empty_one() {
        let job = JobId::fresh();
        let unknown = configuration(Reason::NoAccount, None, job, None);
        assert!(
            !unknown.no_accounts && unknown.choices.is_empty() && unknown.html.contains("<input")
        );
        let empty = configuration(Reason::NoAccounts, Some(accounts(&[])), job, None);
        assert!(empty.no_accounts && empty.help.contains("access to an account"));
    }

    #[test]
    fn a_hostile_account_name_stays_text() {
        let html = configuration(
            Reason::NoAccount,
            Some(accounts(&["<script>\"&"])),
            JobId::fresh(),
            None,
        )
        .html;
        assert!(!html.contains("<script>"), "{html}");
        assert!(
            html.contains(r#"value="&lt;script&gt;&quot;&amp;-id""#),
            "{html}"
        );
    }

    #[test]
    fn only_the_person_who_clicked_reads_the_link_in_the_text() {
        let (job, link) = (
            JobId::fresh(),
            "https://dispatch.example/configure/t".to_owned(),
        );
        let made = configuration(Reason::NoAccount, None, job, Some(link.clone()));
        assert!(!made.help.contains(&link) && !made.html.contains(&link));
        let asked = serde_json::to_string(&question(&made, job).child().payload).unwrap();
        assert!(asked.contains(&format!("Choose on {link}.")), "{asked}");
    }

    #[test]
    fn it_waits_for_its_own_configuration_and_starts_again_at_the_account() {
        let job = JobId::fresh();
        let on = WaitOn {
            reason: WaitReason::Configuration,
            key: format!("configuration:{job}"),
            observed: 0,
        };
        assert_eq!(
            until_configured(job),
            Then::Wait {
                on,
                resume_at: "check_account"
            }
        );
    }
}
