//! Pages as they were last read, shown while Postgres is not available.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::response::Response;
use maud::html;
use time::OffsetDateTime;

use crate::console::answer;
use crate::console::auth::{Sender, session_of};
use crate::console::pages::exact_time;
use crate::console::problem::Problem;
use crate::console::state::Console;

/// The most pages.
const PAGES: usize = 100;
/// The most bytes of a page that is kept.
const PAGE_BYTES: usize = 256 << 10;

/// Whose page of which address it is. Only the session that has read a page sees it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::console) struct Key {
    form_token: String,
    address: String,
}

/// Returns the key of the page that a request asks for; `None` without a session.
pub(in crate::console) fn key(
    console: &Console,
    (headers, sender): (&HeaderMap, &Sender),
    address: &str,
) -> Option<Key> {
    Some(Key {
        form_token: session_of(console, headers, sender)?.form,
        address: address.to_owned(),
    })
}

/// The pages, the newest first.
#[derive(Debug, Default)]
pub(in crate::console) struct Snapshots(Mutex<VecDeque<(Key, Snapshot)>>);

#[derive(Debug, Clone)]
struct Snapshot {
    page: Bytes,
    at: OffsetDateTime,
}

impl Snapshots {
    /// Keeps a page.
    pub(in crate::console) fn keep(&self, key: Key, page: Bytes) {
        if page.len() > PAGE_BYTES {
            return;
        }
        let at = OffsetDateTime::now_utc();
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|(kept, _)| *kept != key);
        pages.push_front((key, Snapshot { page, at }));
        pages.truncate(PAGES);
    }

    /// Returns the page as it was, with the problem, and with nothing that could be pressed.
    pub(in crate::console) fn show(&self, key: &Key, problem: &Problem) -> Option<Response> {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, kept) = pages.iter().find(|(kept, _)| kept == key)?;
        let page = std::str::from_utf8(&kept.page).ok()?;
        let mut response = answer::text_page(dimmed(page, kept.at, problem)?);
        answer::finish_problem(&mut response, problem);
        Some(response)
    }
}

/// Returns a page whose controls are disabled, below a sentence that says why.
fn dimmed(page: &str, at: OffsetDateTime, problem: &Problem) -> Option<String> {
    let (before, rest) = page.split_once("<main")?;
    let (attributes, rest) = rest.split_once('>')?;
    let (content, after) = rest.rsplit_once("</main>")?;
    let why = html! {
        p.problem role="alert" data-away="" {
            (problem.title) ". This is the page as of " (exact_time(at)) "; nothing can be changed meanwhile. " (problem.hint)
        }
    };
    Some(format!(
        "{before}<main{attributes}>{}<fieldset class=\"snapshot\" disabled>{content}</fieldset></main>{after}",
        why.into_string()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key {
            form_token: "t".to_owned(),
            address: format!("/jobs/{number}"),
        }
    }

    #[test]
    fn a_page_is_shown_as_it_was_with_its_controls_disabled() {
        let snapshots = Snapshots::default();
        let page = "<body><main id=\"main\"><p>text</p><form></form></main></body>";
        snapshots.keep(key(1), Bytes::from_static(page.as_bytes()));
        let problem = Problem::postgres_away("x");
        let shown = snapshots.show(&key(1), &problem).expect("a page");
        assert_eq!(shown.status(), 503);
        assert!(snapshots.show(&key(2), &problem).is_none());
        let text = dimmed(page, OffsetDateTime::UNIX_EPOCH, &problem).expect("a page");
        assert!(text.contains("disabled><p>text</p><form></form></fieldset></main>"));
        assert!(text.contains("Postgres is not available"), "{text}");
    }

    #[test]
    fn the_number_and_the_size_of_pages_are_limited() {
        let snapshots = Snapshots::default();
        for number in 0..=PAGES {
            snapshots.keep(key(number), Bytes::from_static(b"x"));
        }
        let long = Bytes::from(vec![b'x'; PAGE_BYTES + 1]);
        snapshots.keep(key(0), long);
        let pages = snapshots.0.lock().expect("not poisoned");
        assert_eq!(pages.len(), PAGES);
        assert!(!pages.iter().any(|(kept, _)| *kept == key(0)));
    }
}
