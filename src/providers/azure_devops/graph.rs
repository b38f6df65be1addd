//! Users
//! (<https://learn.microsoft.com/rest/api/azure/devops/graph/users/list?view=azure-devops-rest-7.1>).

use reqwest::Method;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{AzureDevOps, AzureDevOpsFault, CONTINUATION, Caller, List, Operation, address};
use crate::providers::http::BATCH_BODY_BYTES;

/// This area is still a preview in 7.1.
const API_VERSION: &str = "7.1-preview.1";
/// The most pages that are searched; the vendor returns some hundred users per page.
pub(super) const PAGES: usize = 200;
/// The most users with the same addresses that are kept. More would not help to choose one.
const CANDIDATES: usize = 16;
/// The prefix that the vendor gives an identity whose principal name another one has taken over.
const CONFLICT: &str = "OIDCONFLICT_";

/// A user of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphUser {
    /// The vendor's id of the user.
    pub descriptor: String,
    /// The name for `System.AssignedTo`; empty if the vendor returns none.
    #[serde(alias = "principalName", default, deserialize_with = "or_empty")]
    pub principal_name: String,
    /// The e-mail address; empty if the vendor returns none.
    #[serde(alias = "mailAddress", default, deserialize_with = "or_empty")]
    pub mail_address: String,
    /// The display name; empty if the vendor returns none.
    #[serde(alias = "displayName", default, deserialize_with = "or_empty")]
    pub display_name: String,
    /// Whether the user is deleted or disabled in its origin.
    #[serde(alias = "isDeletedInOrigin", default, deserialize_with = "or_false")]
    pub is_deleted: bool,
}

fn or_false<'de, D: serde::Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

fn or_empty<'de, D: serde::Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// The quality of a user's match with an address; the best match is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    /// The user is deleted, or another identity has taken over its name.
    is_stale: bool,
    /// The e-mail address matches, not the principal name.
    is_by_mail: bool,
}

impl GraphUser {
    /// Returns the match with one of `wanted` (lower case), if there is one.
    fn matches(&self, wanted: &[String]) -> Option<Match> {
        let is_one = |name: &str| !name.is_empty() && wanted.contains(&name.to_lowercase());
        let is_by_mail = !is_one(&self.principal_name);
        let is_stale = self.is_deleted || self.principal_name.starts_with(CONFLICT);
        (!is_by_mail || is_one(&self.mail_address)).then_some(Match {
            is_stale,
            is_by_mail,
        })
    }
}

/// The result of a search for a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundUser {
    /// No user matches.
    Nobody,
    /// One user matches, or matches better than all others: an exact principal name is better than
    /// an e-mail address, and a live user is better than a deleted one or one whose name another
    /// identity has taken over.
    One(GraphUser),
    /// Several users match equally: their principal names, or descriptors where these are missing.
    Several(Vec<String>),
}

/// A search for the user with one of some addresses, page by page. It can be stored between two
/// pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsersSearch {
    /// The addresses in lower case, sorted.
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

/// One page of users.
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
        let url = address(
            &to.graph,
            &[self.account, "_apis", "graph", "users"],
            &query,
        )?;
        let answer = to
            .fetch(
                caller,
                to.call(Method::GET, url).body_limit(BATCH_BODY_BYTES),
            )
            .await?;
        let users = answer
            .json::<List<'_, GraphUser>>()?
            .readable()
            .map_err(|error| answer.malformed(&error.to_string()))?;
        let next = answer
            .header(CONTINUATION.as_str())
            .filter(|token| !token.is_empty())
            .map(str::to_owned);
        Ok(Users { users, next })
    }
}

impl UsersSearch {
    /// Creates a search for the user whose principal name or e-mail address is one of `emails`,
    /// regardless of case. Returns `None` if `emails` has no address.
    #[must_use]
    pub fn new(emails: &[String]) -> Option<Self> {
        let mut wanted: Vec<String> = emails
            .iter()
            .map(|email| email.trim().to_lowercase())
            .collect();
        wanted.retain(|email| !email.is_empty());
        wanted.sort_unstable();
        wanted.dedup();
        let search = Self {
            wanted,
            next: None,
            pages: 0,
            is_over: false,
            candidates: Vec::new(),
        };
        (!search.wanted.is_empty()).then_some(search)
    }

    /// Returns whether both search for the same addresses.
    #[must_use]
    pub fn is_for_the_same(&self, other: &Self) -> bool {
        self.wanted == other.wanted
    }

    /// Returns the next page, or `None` at the end of the search. If there are more pages than are
    /// searched, the users found so far are the result.
    ///
    /// # Errors
    /// [`AzureDevOpsFault::TooManyUsers`] if no user was found on these pages.
    pub fn next<'a>(&'a self, account: &'a str) -> Result<Option<UsersPage<'a>>, AzureDevOpsFault> {
        match self.is_over {
            true => Ok(None),
            false if self.pages >= PAGES && self.candidates.is_empty() => {
                Err(AzureDevOpsFault::TooManyUsers(PAGES))
            }
            false if self.pages >= PAGES => Ok(None),
            false => Ok(Some(UsersPage {
                account,
                next: self.next.as_deref(),
            })),
        }
    }

    /// Adds the users of a page. In a search for one address, a live user with exactly this
    /// principal name ends the search: no other match can be better or equal.
    pub fn take(&mut self, page: Users) {
        for user in page.users {
            let Some(is) = user.matches(&self.wanted) else {
                continue;
            };
            self.is_over |= self.wanted.len() == 1
                && is
                    == Match {
                        is_stale: false,
                        is_by_mail: false,
                    };
            if self.candidates.len() < CANDIDATES || self.is_over {
                self.candidates.push(user);
            }
        }
        self.pages += 1;
        self.is_over |= page.next.is_none();
        self.next = page.next;
    }

    /// Returns the result of the search.
    #[must_use]
    pub fn found(self) -> FoundUser {
        let Some(best) = self
            .candidates
            .iter()
            .filter_map(|user| user.matches(&self.wanted))
            .min()
        else {
            return FoundUser::Nobody;
        };
        let is_best = |user: &GraphUser| user.matches(&self.wanted) == Some(best);
        let mut alike: Vec<GraphUser> = self
            .candidates
            .iter()
            .filter(|user| is_best(user))
            .cloned()
            .collect();
        if alike.len() == 1 {
            return FoundUser::One(alike.remove(0));
        }
        let name = |user: &GraphUser| {
            if user.principal_name.is_empty() {
                user.descriptor.clone()
            } else {
                user.principal_name.clone()
            }
        };
        FoundUser::Several(alike.iter().map(name).collect())
    }
}

impl AzureDevOps {
    /// Returns the result of the same search by the same tenant (its row id) in the last five
    /// minutes.
    #[must_use]
    pub fn known_user(
        &self,
        organization_id: i64,
        account: &str,
        search: &UsersSearch,
    ) -> Option<FoundUser> {
        self.users
            .get(organization_id, &key(account, search), Instant::now())
    }

    /// Remembers the result of a search by a tenant (its row id) for five minutes.
    pub fn remember_user(
        &self,
        organization_id: i64,
        account: &str,
        search: &UsersSearch,
        found: &FoundUser,
    ) {
        self.users.put(
            organization_id,
            key(account, search),
            found.clone(),
            Instant::now(),
        );
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
                search.take(Users {
                    users,
                    next: (number + 1 < count).then(|| "more".to_owned()),
                });
            }
        }
        assert_eq!(search.next("a").unwrap().map(|page| page.account), None);
        search.found()
    }

    const ANN: &str = "ann@field.example";

    #[test]
    fn a_principal_name_is_preferred_to_a_mail_address_and_a_live_user_to_a_stale_one() {
        let live = user("Ann@field.example", "other@field.example");
        let by_mail = user("ann.smith@corp.example", ANN);
        let conflict = user("OIDCONFLICT_UpnReuse_4d7f_ann@field.example", ANN);
        let deleted = GraphUser {
            is_deleted: true,
            ..user(ANN, ANN)
        };
        for pages in [
            vec![
                vec![conflict.clone(), by_mail.clone()],
                vec![deleted.clone(), live.clone()],
            ],
            vec![
                vec![live.clone()],
                vec![conflict.clone(), deleted.clone(), by_mail.clone()],
            ],
        ] {
            assert_eq!(found(&[ANN], pages), FoundUser::One(live.clone()));
        }
        assert_eq!(
            found(
                &[ANN],
                vec![vec![conflict.clone(), by_mail.clone(), deleted]]
            ),
            FoundUser::One(by_mail)
        );
        assert_eq!(
            found(&[ANN], vec![vec![conflict.clone()]]),
            FoundUser::One(conflict),
            "there is no better match"
        );
    }

    #[test]
    fn several_equal_matches_are_listed_and_none_is_chosen() {
        let pages = || {
            vec![
                vec![user("a@corp.example", ANN)],
                vec![
                    user("b@corp.example", ANN),
                    user("c@corp.example", "x@y.example"),
                ],
            ]
        };
        assert_eq!(
            found(&[ANN], pages()),
            FoundUser::Several(vec!["a@corp.example".into(), "b@corp.example".into()])
        );
        let of_two = vec![vec![
            user("a@field.example", ""),
            user("b@field.example", ""),
        ]];
        let several = found(&["a@field.example", "b@field.example"], of_two);
        assert_eq!(
            several,
            FoundUser::Several(vec!["a@field.example".into(), "b@field.example".into()])
        );
        assert_eq!(
            found(&[ANN], vec![vec![user("x@y.example", "")]]),
            FoundUser::Nobody
        );
    }

    #[test]
    fn candidates_are_limited_and_an_exact_match_after_the_limit_is_found() {
        let users: Vec<GraphUser> = (0..100)
            .map(|number| user(&format!("p{number}@corp.example"), ANN))
            .collect();
        let FoundUser::Several(names) = found(&[ANN], vec![users.clone()]) else {
            panic!("no match is better than the others")
        };
        assert_eq!(names.len(), CANDIDATES);
        assert_eq!(
            found(&[ANN], vec![users, vec![user(ANN, "")]]),
            FoundUser::One(user(ANN, ""))
        );
    }
}
