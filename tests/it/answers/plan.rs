//! What each call of a tenant's job meets, by chance: most meet something once.

use data_encoding::BASE64URL_NOPAD;
use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::witness::Entry;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::tenant::{Item, PROJECT, Tenant};
use super::{NOBODY, SIGN_IN_PAGE, refusal};
use crate::support::acme;

/// The types of work items, each with states of its own to ask for.
pub(super) const TYPES: [&str; 3] = ["Bug", "Task", "Issue"];
/// Users on one page.
pub(super) const USERS_PAGE: usize = 3;
/// They stand before Ann, who is on the last of three pages.
const OTHERS: [&str; 6] = ["a1", "a2", "a3", "a4", "a5", "a6"];
/// The first work item that the search finds.
pub(super) const FIRST: i64 = 1001;
/// The other one of its group, which the search does not find: Ann is written there.
pub(super) const LINKED: i64 = 18;
/// What Azure DevOps gives and takes at once.
const PAGE: i64 = 200;
/// So many work items are found, by chance.
const FOUND: [i64; 2] = [205, 405];

/// What a call meets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Meets {
    Nothing,
    /// It works, and asks to wait so many seconds before the next one.
    Hold(u32),
    /// It works, after so many milliseconds.
    Slow(u64),
    /// 429 with so many seconds.
    Limited(u64),
    /// The token is not accepted: 401, or 203 with a page.
    Refused(u16),
    /// No answer, until the worker is killed.
    Crash,
}

/// A call that a job makes.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) stage: &'static str,
    pub(super) meets: Meets,
    /// A rule that this call alone fits.
    only: FaultRule,
}

impl Planned {
    /// The rule that makes the call meet it, once.
    pub(super) fn rule(&self) -> Option<FaultRule> {
        let met = match self.meets {
            Meets::Nothing => return None,
            Meets::Hold(seconds) => FaultRule::decorating().header("Retry-After", &seconds.to_string()),
            Meets::Slow(millis) => FaultRule::new(FaultKind::Slow).millis(millis),
            Meets::Limited(seconds) => FaultRule::new(FaultKind::RateLimit).retry_after(seconds),
            Meets::Refused(203) => FaultRule::answering(203, SIGN_IN_PAGE),
            Meets::Refused(status) => refusal(status, "UnauthorizedRequestException", NOBODY),
            Meets::Crash => FaultRule::new(FaultKind::Hang),
        };
        let FaultRule { method, path_contains, query_contains, body_contains, caller, .. } = self.only.clone();
        Some(FaultRule { method, path_contains, query_contains, body_contains, caller, ..met.times(1) })
    }
}

impl Meets {
    /// By chance.
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

    /// How long it holds its job up, in milliseconds.
    const fn cost(self) -> u64 {
        match self {
            Self::Nothing | Self::Refused(_) | Self::Crash => 0,
            Self::Hold(seconds) => seconds as u64 * 1000,
            Self::Slow(millis) => millis,
            Self::Limited(seconds) => seconds * 1000,
        }
    }
}

/// A tenant whose job finds many work items of several types, and writes the assignee of the first to one that it does not find.
pub(super) fn tenant(name: &str, rng: &mut StdRng) -> Tenant {
    let found = FOUND[rng.random_range(0..FOUND.len())];
    let of_type = |id: i64| TYPES[usize::try_from(id).expect("it is small") % TYPES.len()];
    let item = |id: i64| Item { title: "One of many", kind: of_type(id), ..Item::new(id) };
    let items = (FIRST..FIRST + found).map(item).chain([Item::new(LINKED)]).collect();
    let others = OTHERS.map(|name| format!("{name}@field.example")).to_vec();
    Tenant { items, others, groups: vec![vec![FIRST, LINKED]], ..Tenant::new(name) }
}

/// Every call of the tenant's job and of its follow-up, in order, meeting nothing.
fn calls(tenant: &Tenant) -> Vec<Planned> {
    let at = |stage: &'static str, method: &str, path: &str| Planned {
        stage,
        meets: Meets::Nothing,
        only: FaultRule::decorating().method(method).path_contains(path),
    };
    let of_bot = |planned: Planned| Planned { only: planned.only.caller(&tenant.bot()), ..planned };
    let with_body = |planned: Planned, part: &str| Planned { only: planned.only.body_contains(part), ..planned };
    let found = i64::try_from(tenant.items.len() - 1).expect("it is small");
    let begins: Vec<i64> = (0..found).step_by(PAGE as usize).collect();
    let (search, batch) = (tenant.path("/_apis/search/workitemsearchresults"), tenant.path("/_apis/wit/workitemsbatch"));

    let mut calls = vec![of_bot(at("retrieve_user", "GET", acme::PROFILE)), of_bot(at("get_accounts", "GET", "/_apis/accounts"))];
    calls.extend(begins.iter().map(|skip| with_body(at("search_issues", "POST", &search), &format!(r#""$skip":{skip},"#))));
    let ids = |skip: &i64| format!(r#""ids":[{},"#, FIRST + skip);
    calls.extend(begins.iter().map(|skip| with_body(at("process_work_items", "POST", &batch), &ids(skip))));
    calls.extend(
        TYPES.map(|kind| {
            at("process_work_items", "GET", &tenant.path(&format!("/{PROJECT}/_apis/wit/workitemtypes/{kind}/states")))
        }),
    );
    let users = tenant.path("/_apis/graph/users");
    calls.push(at("find_assignee", "GET", &users));
    calls.extend(tenant.others.chunks(USERS_PAGE).map(|page| {
        let token = page.last().map(|name| BASE64URL_NOPAD.encode(name.as_bytes())).unwrap_or_default();
        let page = at("find_assignee", "GET", &users);
        Planned { only: page.only.query_contains(&format!("continuationToken={token}")), ..page }
    }));
    calls.push(with_body(at("patch_work_item", "POST", &batch), &format!(r#""ids":[{LINKED}]"#)));
    calls.push(at("patch_work_item", "PATCH", &tenant.path(&format!("/_apis/wit/workitems/{LINKED}"))));
    calls
}

/// The stage that makes a call of the log.
pub(super) fn stage(entry: &Entry) -> &'static str {
    let ends = |end: &str| entry.path.ends_with(end);
    let looks = entry.key.as_ref().is_some_and(|key| key.ends_with(&format!("@{LINKED}")));
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

/// A plan by chance that holds its job up no longer than this, in milliseconds; with a crash, before and after it.
pub(super) fn plan(tenant: &Tenant, crash: bool, budget: (u64, u64), rng: &mut StdRng) -> Vec<Planned> {
    let mut calls = calls(tenant);
    let crashes_at = if crash { rng.random_range(0..calls.len()) } else { 0 };
    let (mut before, mut after) = budget;
    let mut order: Vec<usize> = (0..calls.len()).collect();
    // No call is more likely than another to find the budget used up.
    order.shuffle(rng);
    let mut is_refused = false;
    for at in order {
        if crash && at == crashes_at {
            calls[at].meets = Meets::Crash;
            continue;
        }
        let meets = Meets::any(rng);
        let left = if at < crashes_at { &mut before } else { &mut after };
        let is_again = matches!(meets, Meets::Refused(_)) && is_refused;
        if meets.cost() <= *left && !is_again {
            *left -= meets.cost();
            is_refused |= matches!(meets, Meets::Refused(_));
            calls[at].meets = meets;
        }
    }
    calls
}
