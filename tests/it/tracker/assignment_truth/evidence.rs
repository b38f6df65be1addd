//! The state after all work is done, and the checks on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use dispatch_worker::devkit::simulator::state::{Revision, State, WorkItem, work_item_key};

use super::people::People;
use super::scene;
use crate::support::TestWorld;

/// Records every decrease of a revision number, with triggers.
pub(super) async fn watch(world: &TestWorld) {
    const SQL: &str = "
        CREATE TABLE went_down (what text NOT NULL);
        CREATE FUNCTION take_down() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            INSERT INTO went_down VALUES (format('%s: %s to %s', TG_TABLE_NAME, OLD, NEW));
            RETURN NULL;
        END
        $$;
        CREATE TRIGGER take_down AFTER UPDATE ON group_links FOR EACH ROW
            WHEN (NEW.applied_rev < OLD.applied_rev OR NEW.status_rev < OLD.status_rev) EXECUTE FUNCTION take_down();
        CREATE TRIGGER take_down AFTER UPDATE ON group_assignees FOR EACH ROW
            WHEN (NEW.decided_at < OLD.decided_at) EXECUTE FUNCTION take_down();";
    world.database.rows(SQL).await;
}

/// A decision that changed a group's assignee.
struct Decision {
    group: String,
    work_item: i64,
    rev: i64,
}

/// Everything that the checks read.
pub(super) struct Evidence {
    tracker: State,
    /// The assignees of groups, by short id.
    assignees: BTreeMap<String, Option<String>>,
    decisions: Vec<Decision>,
    /// The number of links that were found behind their group.
    behind: usize,
    went_down: Vec<Vec<String>>,
    seen: BTreeSet<String>,
    /// Every PATCH that had an effect.
    patches: Vec<String>,
    ledger: BTreeMap<String, Vec<String>>,
}

impl Evidence {
    pub(super) async fn gather(world: &TestWorld) -> Self {
        const ASSIGNEES: &str = "
            SELECT g.short_id, e.email FROM issue_groups g LEFT JOIN group_assignees a ON a.group_id = g.id
            LEFT JOIN user_emails e ON e.user_id = a.user_id";
        const DECISIONS: &str = "
            SELECT g.short_id, e.work_item_id, a.rev FROM activities a JOIN issue_groups g ON g.id = a.group_id
            JOIN external_issues e ON e.id = a.external_issue_id WHERE a.kind IN ('assigned', 'unassigned') ORDER BY a.id";
        const BEHIND: &str = "
            SELECT coalesce(sum(json_array_length(output -> 'behind')), 0) FROM checkpoints WHERE stage = 'update_assignments'";
        const LEDGER: &str = "
            SELECT split_part(resource, ':', 3), format('%s %s %s', intent_at, state, detail) FROM effects
            WHERE resource IS NOT NULL ORDER BY intent_at";
        let rows = async |sql: &str| world.database.rows(sql).await;
        let number = |text: &String| text.parse().expect("a number");
        let assignee =
            |row: &Vec<String>| (row[0].clone(), (row[1] != "-").then(|| row[1].clone()));
        let decision = |row: &Vec<String>| Decision {
            group: row[0].clone(),
            work_item: number(&row[1]),
            rev: number(&row[2]),
        };
        let mut ledger: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in rows(LEDGER).await {
            ledger
                .entry(row[0].clone())
                .or_default()
                .push(row[1].clone());
        }
        let effects = world.witness().into_iter().filter(|entry| entry.effect);
        Self {
            tracker: world
                .simulator()
                .await
                .client
                .state()
                .await
                .expect("the simulator returns its state"),
            assignees: rows(ASSIGNEES).await.iter().map(assignee).collect(),
            decisions: rows(DECISIONS).await.iter().map(decision).collect(),
            behind: world.database.one(BEHIND).await.parse().expect("a number"),
            went_down: rows("SELECT what FROM went_down").await,
            seen: rows("SELECT event_id FROM seen_events")
                .await
                .into_iter()
                .flatten()
                .collect(),
            patches: effects.map(|entry| entry.key.unwrap_or_default()).collect(),
            ledger,
        }
    }

    /// Panics with every violation.
    pub(super) fn check(&self, people: &People<'_>) {
        let mut wrong = String::new();
        for (group, items) in scene::groups() {
            let expected = self.last_word(&items);
            let assignee = &self.assignees[&group];
            let in_tracker: Vec<_> = items
                .iter()
                .map(|item| &self.item(*item).current().assigned_to)
                .collect();
            if assignee != expected || in_tracker.iter().any(|assignee| *assignee != expected) {
                writeln!(
                    wrong,
                    "{group}: {assignee:?}, its items {in_tracker:?}, expected {expected:?}"
                )
                .expect("a string takes text");
                self.append_history(&group, &items, &mut wrong);
            }
        }
        assert!(wrong.is_empty(), "wrong assignees:\n{wrong}");
        assert!(
            self.went_down.is_empty(),
            "revision numbers decreased: {:?}",
            self.went_down
        );
        assert!(
            self.seen == people.published,
            "seen events and published events differ"
        );
        self.check_decisions();
        self.check_patches();
    }

    /// Checks that only changes by people decide, and each revision at most once.
    fn check_decisions(&self) {
        let mut deciding = BTreeSet::new();
        for Decision {
            group,
            work_item,
            rev,
        } in &self.decisions
        {
            let revision = self
                .item(*work_item)
                .revisions
                .iter()
                .find(|revision| revision.rev == *rev);
            let revision = revision.expect("a decision names an existing revision");
            assert!(
                is_by_a_person(revision),
                "{group} follows the worker's own write: {work_item} at {rev}"
            );
            assert!(
                deciding.insert((group, work_item, rev)),
                "{group} follows {work_item} at {rev} twice"
            );
        }
        assert!(
            deciding.len() > scene::groups().len(),
            "too few decisions: {}",
            deciding.len()
        );
    }

    /// Checks that there is no ping-pong: each change of a group of three is written to at most
    /// two others, and each link that was found behind its group is written once.
    fn check_patches(&self) {
        let of_three: BTreeSet<String> = scene::groups()
            .into_iter()
            .filter(|(_, items)| items.len() == 3)
            .map(|(id, _)| id)
            .collect();
        let changes = self
            .decisions
            .iter()
            .filter(|decision| of_three.contains(&decision.group))
            .count();
        let most = 2 * changes + self.behind;
        assert!(
            (1..=most).contains(&self.patches.len()),
            "{} PATCHes, at most {most}",
            self.patches.len()
        );
        let written: BTreeSet<&str> = self.patches.iter().map(String::as_str).collect();
        assert_eq!(
            written.len(),
            self.patches.len(),
            "a revision was overwritten twice"
        );
    }

    /// Checks that the events of the worker's own changes have changed nothing.
    pub(super) fn check_nothing_moved(&self, after: &Self) {
        assert_eq!(
            self.patches.len(),
            after.patches.len(),
            "PATCHes after all work was done"
        );
        assert_eq!(
            self.decisions.len(),
            after.decisions.len(),
            "decisions after all work was done"
        );
        assert!(
            after.seen.len() > self.seen.len() || self.patches.is_empty(),
            "the worker's own events were handled"
        );
    }

    /// Returns the assignee that was set by the last person to change one of the work items.
    fn last_word(&self, items: &[i64]) -> &Option<String> {
        let revisions = items
            .iter()
            .flat_map(|item| self.item(*item).revisions.iter());
        let last = revisions
            .filter(|revision| is_by_a_person(revision))
            .max_by_key(|revision| revision.changed_date);
        &last
            .expect("every item has a revision by a person")
            .assigned_to
    }

    fn item(&self, id: i64) -> &WorkItem {
        &self.tracker.work_items[&work_item_key(scene::ACCOUNT, id)]
    }

    /// Appends the history of a group with a wrong assignee.
    fn append_history(&self, group: &str, items: &[i64], story: &mut String) {
        for item in items {
            for revision in self.item(*item).revisions.iter().rev().take(6) {
                let Revision {
                    rev,
                    assigned_to,
                    changed_by,
                    changed_date,
                    ..
                } = revision;
                writeln!(
                    story,
                    "    {item} at {rev}: {assigned_to:?} by {changed_by}, {changed_date}"
                )
                .expect("a string takes text");
            }
            for effect in self
                .ledger
                .get(&item.to_string())
                .into_iter()
                .flatten()
                .rev()
                .take(4)
            {
                writeln!(story, "    ledger of {item}: {effect}").expect("a string takes text");
            }
        }
        for Decision { work_item, rev, .. } in self
            .decisions
            .iter()
            .filter(|decision| decision.group == group)
        {
            writeln!(story, "    decided by {work_item} at {rev}").expect("a string takes text");
        }
    }
}

fn is_by_a_person(revision: &Revision) -> bool {
    revision.changed_by != scene::BOT
}
