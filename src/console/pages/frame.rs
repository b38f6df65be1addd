//! What every page has around its content.

use maud::{DOCTYPE, Markup, html};
use uuid::Uuid;

use crate::console::auth::SignedIn;

/// The pages of the navigation: path, name, and the key that follows `g`.
const NAVIGATION: &[(&str, &str, char)] = &[
    ("/", "Overview", 'o'),
    ("/jobs", "Jobs", 'j'),
    ("/stuck", "Stuck", 's'),
    ("/groups", "Failures", 'g'),
    ("/campaigns", "Campaigns", 'c'),
    ("/controls", "Controls", 'h'),
    ("/dead-letters", "Dead letters", 'd'),
    ("/audit", "Audit", 'a'),
];

/// The frame of a person's pages.
pub(in crate::console) struct Frame<'a> {
    who: &'a SignedIn,
}

impl<'a> Frame<'a> {
    /// Creates the frame for a person.
    pub(in crate::console) const fn of(who: &'a SignedIn) -> Self {
        Self { who }
    }

    /// Returns a page with the title.
    pub(in crate::console) fn page(&self, title: &str, content: &Markup) -> Markup {
        let token = &self.who.token;
        let form_token = self.form_token();
        document(
            title,
            &html! {
                header.top {
                    a.skip href="#main" { "Skip to the content" }
                    nav aria-label="Pages" {
                        @for (path, name, key) in NAVIGATION {
                            a href=(path) data-go=(key) { (name) }
                        }
                    }
                    form.search action="/jobs" role="search" {
                        input type="search" name="q" placeholder="id, key, or state:parked org:acme" aria-label="Search jobs" data-key="/";
                    }
                    form.who method="post" action="/sign-out" {
                        input type="hidden" name="form_token" value=(form_token);
                        span { (token.name) " (" (token.role.word()) ")" }
                        button.plain type="submit" { "Sign out" }
                    }
                }
                main #main { (content) }
            },
        )
    }

    /// Returns a form that changes something, with its own fields and the reason.
    pub(super) fn form(&self, action: &str, title: &str, fields: &Markup) -> Markup {
        let id = format!("reason-{}", Uuid::now_v7().simple());
        html! {
            form method="post" action=(action) {
                input type="hidden" name="form_token" value=(self.form_token());
                input type="hidden" name="key" value=(Uuid::now_v7());
                (fields)
                label for=(id) { "Reason, for the audit log" }
                input id=(id) name="reason" required maxlength="500" autocomplete="off";
                button type="submit" { (title) }
            }
        }
    }

    /// Returns the token of forms of this session; empty for a program, which has none.
    pub(in crate::console) fn form_token(&self) -> &str {
        self.who
            .session
            .as_ref()
            .map_or("", |session| session.form.as_str())
    }
}

/// Returns a page for somebody who has not signed in.
pub(in crate::console) fn bare(title: &str, content: &Markup) -> Markup {
    document(title, &html! { main #main.narrow { (content) } })
}

fn document(title: &str, body: &Markup) -> Markup {
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
            body { (body) }
        }
    }
}
