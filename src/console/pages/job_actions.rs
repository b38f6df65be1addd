//! What can be done with a job: each action with a link to the page that asks for its reason, or why
//! it is not possible.

use maud::{Markup, html};

use crate::console::auth::SignedIn;
use crate::operations::{JobAction, Possible, possible};
use crate::pipelines::registry;
use crate::store::{Action, JobRow, Timeline};

/// An action as pages name it.
pub(super) struct Asked {
    pub(super) action: JobAction,
    /// What its permission and its row in the audit log are called.
    pub(super) audit: Action,
    /// The last part of the path of its confirmation.
    pub(super) word: &'static str,
    /// The last part of the path of its form.
    pub(super) post: &'static str,
    pub(super) title: &'static str,
    /// What it does.
    pub(super) about: &'static str,
}

const fn asked(
    action: JobAction,
    audit: Action,
    word: &'static str,
    title: &'static str,
    about: &'static str,
) -> Asked {
    Asked {
        action,
        audit,
        word,
        post: word,
        title,
        about,
    }
}

/// Every action of [`JobAction::ALL`].
pub(super) const ASKED: &[Asked] = &[
    asked(
        JobAction::Retry,
        Action::Retry,
        "retry",
        "Retry",
        "The job is due now, with all its attempts, and continues at the stage where it stopped. If the outcome of an effect \
         is unknown, it may happen twice.",
    ),
    asked(
        JobAction::Configure,
        Action::Configure,
        "configure",
        "Choose the account",
        "The job starts again at its first stage, with this account.",
    ),
    asked(
        JobAction::Park,
        Action::Park,
        "park",
        "Park",
        "Nothing of the job runs until a person retries it. A running stage commits nothing.",
    ),
    asked(
        JobAction::Cancel,
        Action::Cancel,
        "cancel",
        "Cancel",
        "The job ends, and so do its open follow-ups. What it has done stays done.",
    ),
    asked(
        JobAction::Rerun,
        Action::Rerun,
        "rerun",
        "Run again from a stage",
        "The job runs again from this stage on, as a new generation. Earlier stages keep their results; open follow-ups are \
         cancelled.",
    ),
    asked(
        JobAction::Skip,
        Action::SkipStage,
        "skip",
        "Skip the stage",
        "The stage due is passed with this output. It makes nothing: no change, no follow-up, no effect.",
    ),
    asked(
        JobAction::MarkEffect,
        Action::MarkEffect,
        "effect",
        "Mark an effect",
        "Records what you have found out at the provider. An effect of the stage due that is done passes the stage; one that \
         is not done makes the job due.",
    ),
    Asked {
        post: "unmask",
        ..asked(
            JobAction::EditInput,
            Action::EditInput,
            "edit",
            "Edit the input",
            "Shows the input in full as a form. That you see it is recorded in the audit log. The job starts again at its first \
             stage when you replace the input.",
        )
    },
    asked(
        JobAction::RestoreInput,
        Action::RestoreInput,
        "restore",
        "Restore an earlier input",
        "The job starts again at its first stage, with this input.",
    ),
    asked(
        JobAction::Unmask,
        Action::Unmask,
        "unmask",
        "Show the input and outputs in full",
        "Shows what may name people, once, without secrets. That you see it is recorded in the audit log.",
    ),
];

/// Returns the actions on a job that the reader's role permits.
pub(super) fn actions(timeline: &Timeline, who: &SignedIn) -> Markup {
    if who.bar.is_read_only {
        return html! { section #actions data-part="actions" { p.hint { "No action is possible: see above." } } };
    }
    let role = who.token.role;
    let row = &timeline.job;
    let all = possible(row);
    let permitted = |asked: &&Asked| role.may(asked.audit);
    let mut refused = Vec::new();
    let mut links = Vec::new();
    for asked in ASKED.iter().filter(permitted) {
        match obstacle(&all, asked.action) {
            Some(why) => refused.push((asked.title, why)),
            None => links.push(link(asked, timeline)),
        }
    }
    let others: Vec<&str> = ASKED
        .iter()
        .filter(|asked| !role.may(asked.audit))
        .map(|asked| asked.title)
        .collect();
    html! {
        section #actions data-part="actions" {
            nav.actions aria-label="Actions" { @for link in links { (link) } }
            @if !refused.is_empty() {
                details {
                    summary { "Not possible now" }
                    dl.facts { @for (title, why) in refused { dt { (title) } dd { (why) } } }
                }
            }
            @if !others.is_empty() { p.hint { "Your role, " (role.word()) ", does not permit: " (others.join(", ")) "." } }
        }
    }
}

/// Returns why an action is not possible.
pub(super) fn obstacle(all: &[Possible], action: JobAction) -> Option<&str> {
    let found = all.iter().find(|one| one.action == action);
    found.and_then(|one| one.obstacle.as_deref())
}

fn link(asked: &Asked, timeline: &Timeline) -> Markup {
    let row = &timeline.job;
    let path = format!("/jobs/{}/confirm/{}", row.id, asked.word);
    match asked.action {
        JobAction::Rerun => from_stage(&path, row),
        JobAction::MarkEffect if timeline.effects.iter().any(|one| one.is_open(row.now)) => {
            html! { a.button href="#effects" { (asked.title) } }
        }
        JobAction::RestoreInput => html! { a.button href="#data" { (asked.title) } },
        JobAction::MarkEffect => html! {},
        _ => {
            html! { a.button href=(path) data-key=[(asked.action == JobAction::Retry).then_some("r")] { (asked.title) } }
        }
    }
}

/// Returns a form that asks for a stage; it leads to the page that asks for the reason.
pub(super) fn from_stage(path: &str, row: &JobRow) -> Markup {
    let registry = registry();
    let stages: Vec<&str> = registry
        .get(&row.pipeline)
        .into_iter()
        .flat_map(|pipeline| pipeline.stages())
        .filter(|stage| !stage.off_path)
        .map(|stage| stage.name)
        .collect();
    html! {
        form.inline action=(path) {
            select name="stage" aria-label="Stage" {
                @for stage in stages { option value=(stage) selected[stage == row.stage] { (stage) } }
            }
            button type="submit" { "Run again from here" }
        }
    }
}
