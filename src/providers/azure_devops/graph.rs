//! Users (<https://learn.microsoft.com/rest/api/azure/devops/graph/users/list?view=azure-devops-rest-7.1>).

use reqwest::Method;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{AzureDevOps, AzureDevOpsFault, CONTINUATION, Caller, List, Operation, address};
use crate::providers::http::BATCH_BODY_BYTES;

/// This area is still a preview in 7.1.
const API_VERSION: &str = "7.1-preview.1";
/// Pages looked through; the vendor puts some hundred users on one.
pub(super) const PAGES: usize = 200;
/// Users that answer to the same addresses, at most: more are not told apart either.
const CANDIDATES: usize = 16;
/// How the vendor names an identity whose principal name another one has taken over.
const CONFLICT: &str = "OIDCONFLICT_";

/// A user of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphUser {
    /// The vendor's own id of the user.
    pub descriptor: String,
    /// What `System.AssignedTo` takes; empty where the vendor gives none.
    #[serde(alias = "principalName", default, deserialize_with = "or_empty")]
    pub principal_name: String,
    /// The e-mail address; empty where the vendor gives none.
    #[serde(alias = "mailAddress", default, deserialize_with = "or_empty")]
    pub mail_address: String,
    /// As people read it; empty where the vendor gives none.
    #[serde(alias = "displayName", default, deserialize_with = "or_empty")]
    pub display_name: String,
    /// Deleted or disabled where it comes from.
    #[serde(alias = "isDeletedInOrigin", default, deserialize_with = "or_false")]
    pub is_deleted: bool,
}

fn or_false<'de, D: serde::Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

fn or_empty<'de, D: serde::Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// How well a user answers to an address; the best one is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    /// Deleted, or an identity whose name another one has taken over.
    is_stale: bool,
    /// By e-mail address, not by principal name.
    is_by_mail: bool,
}

impl GraphUser {
    /// How it answers to one of `wanted` (lower case), if it does.
    fn matches(&self, wanted: &[String]) -> Option<Match> {
        let is_one = |name: &str| !name.is_empty() && wanted.contains(&name.to_lowercase());
        let is_by_mail = !is_one(&self.principal_name);
        let is_stale = self.is_deleted || self.principal_name.starts_with(CONFLICT);
        (!is_by_mail || is_one(&self.mail_address)).then_some(Match { is_stale, is_by_mail })
    }
}

/// Who answers to an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundUser {
    /// Nobody.
    Nobody,
    /// One user, or one who does so better than all others: by an exact principal name before an e-mail address, live ones before
    /// deleted ones and those whose name another one has taken over.
    One(GraphUser),
    /// Several alike: their names, or what stands for them.
    Several(Vec<String>),
}

/// A search for the user who answers to some addresses, page by page. It can be stored between two pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsersSearch {
    /// Addresses in lower case, sorted.
    wanted: Vec<String>,
    next: Option<String>,
    pages: usize,
    is_over: bool,
    candidates: Vec<GraphUser>,
}

/// `GET …/_apis/graph/users`: one page.
#[derive(Debug, Clone, Copy)]
pub struct UsersPage<'a> {
    /// The `{organization}` segment.
    pub account: &'a str,
    next: Option<&'a str>,
}

/// What a page brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Users {
    users: Vec<GraphUser>,
    next: Option<String>,
}

impl Operation for UsersPage<'_> {
    type Output = Users;

    async fn send(&self, to: &AzureDevOps, caller: Caller<'_>) -> Result<Users, AzureDevOpsFault> {
        let mut query = vec![("api-version", API_VERSION)];
        query.extend(self.next.map(|token| ("continuationToken", token)));
        let url = address(&to.graph, &[self.account, "_apis", "graph", "users"], &query)?;
        let answer = to.fetch(caller, to.call(Method::GET, url).body_limit(BATCH_BODY_BYTES)).await?;
        let users = answer.json::<List<'_, GraphUser>>()?.readable().map_err(|error| answer.malformed(&error.to_string()))?;
        let next = answer.header(CONTINUATION.as_str()).filter(|token| !token.is_empty()).map(str::to_owned);
        Ok(Users { users, next })
    }
}

impl UsersSearch {
    /// For the user whose principal name or e-mail address is one of `emails`, whatever the case. `None`: there is nothing to look
    /// for.
    #[must_use]
    pub fn new(emails: &[String]) -> Option<Self> {
        let mut wanted: Vec<String> = emails.iter().map(|email| email.trim().to_lowercase()).collect();
        wanted.retain(|email| !email.is_empty());
        wanted.sort_unstable();
        wanted.dedup();
        let search = Self { wanted, next: None, pages: 0, is_over: false, candidates: Vec::new() };
        (!search.wanted.is_empty()).then_some(search)
    }

    /// Whether it looks for the same addresses.
    #[must_use]
    pub fn is_for_the_same(&self, other: &Self) -> bool {
        self.wanted == other.wanted
    }

    /// The page to ask for, unless it is over. Where there are more pages than are looked through, whoever was found has to do.
    ///
    /// # Errors
    /// [`AzureDevOpsFault::TooManyUsers`] where nobody was found on all of them.
    pub fn next<'a>(&'a self, account: &'a str) -> Result<Option<UsersPage<'a>>, AzureDevOpsFault> {
        match self.is_over {
            true => Ok(None),
            false if self.pages >= PAGES && self.candidates.is_empty() => Err(AzureDevOpsFault::TooManyUsers(PAGES)),
            false if self.pages >= PAGES => Ok(None),
            false => Ok(Some(UsersPage { account, next: self.next.as_deref() })),
        }
    }

    /// Takes a page over. A live user with exactly the wanted principal name ends the search where one address is wanted: there is
    /// none better, and none like it.
    pub fn take(&mut self, page: Users) {
        for user in page.users {
            let Some(is) = user.matches(&self.wanted) else { continue };
            self.is_over |= self.wanted.len() == 1 && is == Match { is_stale: false, is_by_mail: false };
            if self.candidates.len() < CANDIDATES || self.is_over {
                self.candidates.push(user);
            }
        }
        self.pages += 1;
        self.is_over |= page.next.is_none();
        self.next = page.next;
    }

    /// Who was found.
    #[must_use]
    pub fn found(self) -> FoundUser {
        let Some(best) = self.candidates.iter().filter_map(|user| user.matches(&self.wanted)).min() else {
            return FoundUser::Nobody;
        };
        let is_best = |user: &GraphUser| user.matches(&self.wanted) == Some(best);
        let mut alike: Vec<GraphUser> = self.candidates.iter().filter(|user| is_best(user)).cloned().collect();
        if alike.len() == 1 {
            return FoundUser::One(alike.remove(0));
        }
        let name =
            |user: &GraphUser| if user.principal_name.is_empty() { user.descriptor.clone() } else { user.principal_name.clone() };
        FoundUser::Several(alike.iter().map(name).collect())
    }
}

impl AzureDevOps {
    /// Who was found for this search in the last five minutes, by the tenant (its row id) who asks.
    #[must_use]
    pub fn known_user(&self, organization_id: i64, account: &str, search: &UsersSearch) -> Option<FoundUser> {
        self.users.get(organization_id, &key(account, search), Instant::now())
    }

    /// Remembers for a tenant (its row id) who was found, for five minutes.
    pub fn remember_user(&self, organization_id: i64, account: &str, search: &UsersSearch, found: &FoundUser) {
        self.users.put(organization_id, key(account, search), found.clone(), Instant::now());
    }
}

fn key(account: &str, search: &UsersSearch) -> (String, Vec<String>) {
    (account.to_lowercase(), search.wanted.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(principal_name: &str, mail_address: &str) -> GraphUser {
        GraphUser {
            descriptor: format!("aad.{principal_name}"),
            principal_name: principal_name.to_owned(),
            mail_address: mail_address.to_owned(),
            display_name: String::new(),
            is_deleted: false,
        }
    }

    fn found(emails: &[&str], pages: Vec<Vec<GraphUser>>) -> FoundUser {
        let emails: Vec<String> = emails.iter().map(|&email| email.to_owned()).collect();
        let mut search = UsersSearch::new(&emails).unwrap();
        let count = pages.len();
        for (number, users) in pages.into_iter().enumerate() {
            if search.next("a").unwrap().is_some() {
                search.take(Users { users, next: (number + 1 < count).then(|| "more".to_owned()) });
            }
        }
        assert_eq!(search.next("a").unwrap().map(|page| page.account), None);
        search.found()
    }

    const ANN: &str = "ann@field.example";

    #[test]
    fn an_exact_principal_name_wins_over_a_mail_address_and_a_live_user_over_a_stale_one() {
        let live = user("Ann@field.example", "other@field.example");
        let by_mail = user("ann.smith@corp.example", ANN);
        let conflict = user("OIDCONFLICT_UpnReuse_4d7f_ann@field.example", ANN);
        let deleted = GraphUser { is_deleted: true, ..user(ANN, ANN) };
        for pages in [
            vec![vec![conflict.clone(), by_mail.clone()], vec![deleted.clone(), live.clone()]],
            vec![vec![live.clone()], vec![conflict.clone(), deleted.clone(), by_mail.clone()]],
        ] {
            assert_eq!(found(&[ANN], pages), FoundUser::One(live.clone()));
        }
        assert_eq!(found(&[ANN], vec![vec![conflict.clone(), by_mail.clone(), deleted]]), FoundUser::One(by_mail));
        assert_eq!(found(&[ANN], vec![vec![conflict.clone()]]), FoundUser::One(conflict), "there is nobody better");
    }

    #[test]
    fn several_alike_are_named_and_nobody_is_chosen() {
        let pages =
            || vec![vec![user("a@corp.example", ANN)], vec![user("b@corp.example", ANN), user("c@corp.example", "x@y.example")]];
        assert_eq!(found(&[ANN], pages()), FoundUser::Several(vec!["a@corp.example".into(), "b@corp.example".into()]));
        let of_two = vec![vec![user("a@field.example", ""), user("b@field.example", "")]];
        let several = found(&["a@field.example", "b@field.example"], of_two);
        assert_eq!(several, FoundUser::Several(vec!["a@field.example".into(), "b@field.example".into()]));
        assert_eq!(found(&[ANN], vec![vec![user("x@y.example", "")]]), FoundUser::Nobody);
    }

    #[test]
    fn candidates_have_a_limit_and_the_exact_one_is_found_behind_it() {
        let crowd: Vec<GraphUser> = (0..100).map(|number| user(&format!("p{number}@corp.example"), ANN)).collect();
        let FoundUser::Several(names) = found(&[ANN], vec![crowd.clone()]) else { panic!("nobody is better than the others") };
        assert_eq!(names.len(), CANDIDATES);
        assert_eq!(found(&[ANN], vec![crowd, vec![user(ANN, "")]]), FoundUser::One(user(ANN, "")));
    }
}
