//! What every page has around its content.

use std::sync::atomic::{AtomicU32, Ordering};

use maud::{DOCTYPE, Markup, html};
use uuid::Uuid;

use crate::console::auth::SignedIn;
use crate::console::live;

/// The pages of the navigation: path, name, and the key that follows `g`.
const NAVIGATION: &[(&str, &str, char)] = &[
    ("/", "Overview", 'o'),
    ("/jobs", "Jobs", 'j'),
    ("/stuck", "Stuck", 's'),
    ("/groups", "Failures", 'g'),
    ("/campaigns", "Campaigns", 'c'),
    ("/controls", "Controls", 'h'),
    ("/fleet", "Fleet", 'f'),
    ("/dead-letters", "Dead letters", 'd'),
    ("/audit", "Audit", 'a'),
];

/// The keys of every page; those of the navigation follow `g`.
const KEYS: [(&str, &str); 10] = [
    ("/", "Search"),
    ("j k", "Next row, previous row"),
    ("Enter", "Open the row"),
    ("x", "Select the row"),
    ("r", "Retry the job"),
    ("[ ]", "Newer page, older page"),
    (".", "Live on or off"),
    ("t", "Local times or UTC"),
    ("?", "These keys"),
    ("Esc", "Close"),
];

/// The frame of a person's pages.
pub(in crate::console) struct Frame<'a> {
    who: &'a SignedIn,
    /// Names this rendering in the keys of its forms.
    render: String,
    forms: AtomicU32,
}

impl<'a> Frame<'a> {
    /// Creates the frame for a person.
    pub(in crate::console) fn of(who: &'a SignedIn) -> Self {
        Self {
            who,
            render: Uuid::now_v7().simple().to_string(),
            forms: AtomicU32::new(0),
        }
    }

    /// Returns a page with the title, which follows what it shows: part by part if its content has
    /// parts, otherwise as a whole.
    pub(in crate::console) fn page(&self, title: &str, content: &Markup) -> Markup {
        let body = if live::has_parts(&content.0) {
            self.body(content)
        } else {
            self.body(&html! { div data-part="content" { (content) } })
        };
        let versions = live::versions(&body.0, &self.render);
        document(title, &versions, &body)
    }

    /// Returns a page that stays as it is: what a person confirms there must not change meanwhile.
    pub(in crate::console) fn still(&self, title: &str, content: &Markup) -> Markup {
        document(title, "", &self.body(content))
    }

    fn body(&self, content: &Markup) -> Markup {
        let token = &self.who.token;
        let form_token = self.form_token();
        let session = self.who.session.as_ref();
        let is_of_proxy = session.is_some_and(|session| session.is_of_proxy);
        html! {
                header.top {
                    a.skip href="#main" { "Skip to the content" }
                    nav data-part="nav" aria-label="Pages" {
                        @for (path, name, key) in NAVIGATION {
                            a href=(path) data-go=(key) { (name) }
                        }
                    }
                    form.search action="/jobs" role="search" {
                        input type="search" name="q" placeholder="id, key, work item, or state:parked since:2h" aria-label="Search jobs" data-key="/";
                    }
                    form.who method="post" action="/sign-out" {
                        input type="hidden" name="form_token" value=(form_token);
                        span { (token.name) " (" (token.role.word()) ")" }
                        @if !is_of_proxy { button.plain type="submit" { "Sign out" } }
                    }
                }
                (self.bar())
                main #main { (content) }
                (live::as_of())
                (keys())
        }
    }

    /// Returns what is in force. Who did it and why is for those who see every organization.
    fn bar(&self) -> Markup {
        html! {
            aside.in-force data-part="bar" role="status" aria-label="In force" {
                @for line in &self.who.bar.lines {
                    p {
                        (line.text) " "
                        @if self.who.sees_all() {
                            @if let Some(detail) = &line.detail { span.hint { (detail) } " " }
                            a href=(line.path) { (line.link) }
                        }
                    }
                }
            }
        }
    }

    /// Returns a form that changes something, with its own fields and the reason; without anything
    /// that could be pressed while nothing can be changed.
    pub(super) fn form(&self, action: &str, title: &str, fields: &Markup) -> Markup {
        if self.who.bar.is_read_only {
            return html! { button disabled { (title) } };
        }
        let hidden = self.hidden();
        let id = format!("reason-{}", self.forms.load(Ordering::Relaxed));
        html! {
            form method="post" action=(action) {
                (hidden)
                (fields)
                label for=(id) { "Reason, for the audit log" }
                input id=(id) name="reason" required maxlength="500" autocomplete="off";
                button type="submit" { (title) }
            }
        }
    }

    /// Returns the fields that each form has: the token of the session, and a key, so that a second
    /// click changes nothing.
    pub(super) fn hidden(&self) -> Markup {
        let before = self.forms.fetch_add(1, Ordering::Relaxed);
        let key = format!("{}-{}", self.render, before + 1);
        html! {
            input type="hidden" name="form_token" value=(self.form_token());
            input type="hidden" name="key" value=(key);
        }
    }

    /// Returns the token of forms of this session; empty for a program, which has none.
    fn form_token(&self) -> &str {
        self.who
            .session
            .as_ref()
            .map_or("", |session| session.form.as_str())
    }
}

/// Returns a page for somebody who has not signed in.
pub(in crate::console) fn bare(title: &str, content: &Markup) -> Markup {
    document(title, "", &html! { main #main.narrow { (content) } })
}

fn document(title: &str, versions: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – dispatch" }
                link rel="icon" href="/assets/icon.svg";
                link rel="stylesheet" href="/assets/console.css";
                script src="/assets/console.js" defer {}
            }
            body data-versions=(versions) { (body) }
        }
    }
}

/// What the keys do, shown by the script.
fn keys() -> Markup {
    html! {
        p #live .hint role="status" {}
        dialog #keys aria-label="Keys" {
            dl.facts {
                @for (key, does) in KEYS { dt { kbd { (key) } } dd { (does) } }
                @for (_, name, key) in NAVIGATION { dt { kbd { "g " (key) } } dd { (name) } }
            }
            label { input type="checkbox" checked; " Keys are on" }
            form method="dialog" { button { "Close" } }
        }
    }
}
