//! Random fault plans: most calls of a tenant's job meet a fault once.

use data_encoding::BASE64URL_NOPAD;
use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::witness::Entry;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::tenant::{Item, PROJECT, Tenant};
use super::{NOBODY, SIGN_IN_PAGE, refusal};
use crate::support::acme;

/// The types of work items; the states of each type need a request of their own.
pub(super) const TYPES: [&str; 3] = ["Bug", "Task", "Issue"];
/// The page size of users.
pub(super) const USERS_PAGE: usize = 3;
/// Users that sort before Ann, who is on the last of three pages.
const OTHERS: [&str; 6] = ["a1", "a2", "a3", "a4", "a5", "a6"];
/// The first work item that the search finds.
pub(super) const FIRST: i64 = 1001;
/// The other work item of its group, which the search does not find; Ann is written to it.
pub(super) const LINKED: i64 = 18;
/// The page size and batch size of Azure DevOps.
const PAGE: i64 = 200;
/// The possible numbers of work items that the search finds.
const FOUND: [i64; 2] = [205, 405];

/// The fault that a call meets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Meets {
    Nothing,
    /// Success with a Retry-After of so many seconds.
    Hold(u32),
    /// Success after so many milliseconds.
    Slow(u64),
    /// 429 with a Retry-After of so many seconds.
    Limited(u64),
    /// A refused token: 401, or 203 with a sign-in page.
    Refused(u16),
    /// No answer, until the worker is killed.
    Crash,
}

/// A call that a job makes.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) stage: &'static str,
    pub(super) meets: Meets,
    /// A rule that matches this call only.
    only: FaultRule,
}

impl Planned {
    /// Returns the rule that makes the call meet its fault once.
    pub(super) fn rule(&self) -> Option<FaultRule> {
        let met = match self.meets {
            Meets::Nothing => return None,
            Meets::Hold(seconds) => {
                FaultRule::decorating().header("Retry-After", &seconds.to_string())
            }
            Meets::Slow(millis) => FaultRule::new(FaultKind::Slow).millis(millis),
            Meets::Limited(seconds) => FaultRule::new(FaultKind::RateLimit).retry_after(seconds),
            Meets::Refused(203) => FaultRule::answering(203, SIGN_IN_PAGE),
            Meets::Refused(status) => refusal(status, "UnauthorizedRequestException", NOBODY),
            Meets::Crash => FaultRule::new(FaultKind::Hang),
        };
        let FaultRule {
            method,
            path_contains,
            query_contains,
            body_contains,
            caller,
            ..
        } = self.only.clone();
        Some(FaultRule {
            method,
            path_contains,
            query_contains,
            body_contains,
            caller,
            ..met.times(1)
        })
    }
}

impl Meets {
    /// Returns a random fault.
    fn any(rng: &mut StdRng) -> Self {
        match rng.random_range(0..100) {
            0..25 => Self::Hold(1),
            25..35 => Self::Hold(7),
            35..47 => Self::Slow(rng.random_range(2000..=4000)),
            47..60 => Self::Limited(rng.random_range(1..=2)),
            60..68 => Self::Refused(401),
            68..76 => Self::Refused(203),
            _ => Self::Nothing,
        }
    }

    /// Returns the delay of the job in milliseconds.
    const fn cost(self) -> u64 {
        match self {
            Self::Nothing | Self::Refused(_) | Self::Crash => 0,
            Self::Hold(seconds) => seconds as u64 * 1000,
            Self::Slow(millis) => millis,
            Self::Limited(seconds) => seconds * 1000,
        }
    }
}

/// Returns a tenant whose job finds many work items of several types and writes the assignee of
/// the first one to [`LINKED`].
pub(super) fn tenant(name: &str, rng: &mut StdRng) -> Tenant {
    let found = FOUND[rng.random_range(0..FOUND.len())];
    let of_type = |id: i64| TYPES[usize::try_from(id).expect("a small number") % TYPES.len()];
    let item = |id: i64| Item {
        title: "One of many",
        kind: of_type(id),
        ..Item::new(id)
    };
    let items = (FIRST..FIRST + found)
        .map(item)
        .chain([Item::new(LINKED)])
        .collect();
    let others = OTHERS.map(|name| format!("{name}@field.example")).to_vec();
    Tenant {
        items,
        others,
        groups: vec![vec![FIRST, LINKED]],
        ..Tenant::new(name)
    }
}

/// Returns every call of the tenant's job and of its follow-up, in order and without faults.
fn calls(tenant: &Tenant) -> Vec<Planned> {
    let at = |stage: &'static str, method: &str, path: &str| Planned {
        stage,
        meets: Meets::Nothing,
        only: FaultRule::decorating().method(method).path_contains(path),
    };
    let of_bot = |planned: Planned| Planned {
        only: planned.only.caller(&tenant.bot()),
        ..planned
    };
    let with_body = |planned: Planned, part: &str| Planned {
        only: planned.only.body_contains(part),
        ..planned
    };
    let found = i64::try_from(tenant.items.len() - 1).expect("a small number");
    let begins: Vec<i64> = (0..found).step_by(PAGE as usize).collect();
    let (search, batch) = (
        tenant.path("/_apis/search/workitemsearchresults"),
        tenant.path("/_apis/wit/workitemsbatch"),
    );

    let mut calls = vec![
        of_bot(at("retrieve_user", "GET", acme::PROFILE)),
        of_bot(at("get_accounts", "GET", "/_apis/accounts")),
    ];
    calls.extend(begins.iter().map(|skip| {
        with_body(
            at("search_issues", "POST", &search),
            &format!(r#""$skip":{skip},"#),
        )
    }));
    let ids = |skip: &i64| format!(r#""ids":[{},"#, FIRST + skip);
    calls.extend(
        begins
            .iter()
            .map(|skip| with_body(at("process_work_items", "POST", &batch), &ids(skip))),
    );
    calls.extend(TYPES.map(|kind| {
        at(
            "process_work_items",
            "GET",
            &tenant.path(&format!("/{PROJECT}/_apis/wit/workitemtypes/{kind}/states")),
        )
    }));
    let users = tenant.path("/_apis/graph/users");
    calls.push(at("find_assignee", "GET", &users));
    calls.extend(tenant.others.chunks(USERS_PAGE).map(|page| {
        let token = page
            .last()
            .map(|name| BASE64URL_NOPAD.encode(name.as_bytes()))
            .unwrap_or_default();
        let page = at("find_assignee", "GET", &users);
        Planned {
            only: page
                .only
                .query_contains(&format!("continuationToken={token}")),
            ..page
        }
    }));
    calls.push(with_body(
        at("patch_work_item", "POST", &batch),
        &format!(r#""ids":[{LINKED}]"#),
    ));
    calls.push(at(
        "patch_work_item",
        "PATCH",
        &tenant.path(&format!("/_apis/wit/workitems/{LINKED}")),
    ));
    calls
}

/// Returns the stage that made a call of the witness log.
pub(super) fn stage(entry: &Entry) -> &'static str {
    let ends = |end: &str| entry.path.ends_with(end);
    let looks = entry
        .key
        .as_ref()
        .is_some_and(|key| key.ends_with(&format!("@{LINKED}")));
    match entry.method.as_str() {
        "PATCH" => "patch_work_item",
        "POST" if ends("/workitemsearchresults") => "search_issues",
        "POST" if looks => "patch_work_item",
        "GET" if ends("/profiles/me") => "retrieve_user",
        "GET" if ends("/accounts") => "get_accounts",
        "GET" if ends("/graph/users") => "find_assignee",
        _ => "process_work_items",
    }
}

/// Returns a random plan that delays its job by at most the budget in milliseconds; with a crash,
/// before and after the crash.
pub(super) fn plan(
    tenant: &Tenant,
    crash: bool,
    budget: (u64, u64),
    rng: &mut StdRng,
) -> Vec<Planned> {
    let mut calls = calls(tenant);
    let crashes_at = if crash {
        rng.random_range(0..calls.len())
    } else {
        0
    };
    let (mut before, mut after) = budget;
    let mut order: Vec<usize> = (0..calls.len()).collect();
    // Each call is equally likely to find the budget used up.
    order.shuffle(rng);
    let mut is_refused = false;
    for at in order {
        if crash && at == crashes_at {
            calls[at].meets = Meets::Crash;
            continue;
        }
        let meets = Meets::any(rng);
        let left = if at < crashes_at {
            &mut before
        } else {
            &mut after
        };
        let is_again = matches!(meets, Meets::Refused(_)) && is_refused;
        if meets.cost() <= *left && !is_again {
            *left -= meets.cost();
            is_refused |= matches!(meets, Meets::Refused(_));
            calls[at].meets = meets;
        }
    }
    calls
}
