//! The controls in force that concern whole stages: the pause, the holds of lanes, stages and
//! organizations, and the kill switches. Pure: which of them applies to a job's next stage.
//!
//! Holds of destinations and providers are not among them: they stop calls, and the governor of the
//! providers applies them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::control_scope::{ALL, of_lane, of_organization, of_stage};
use super::controls::LiveControl;
use super::matcher::{KillAction, Matcher, Subject};

/// A pause or a hold in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The scope; jobs wait for the key `hold:<scope>`.
    pub scope: String,
    /// Whether it is the pause.
    pub is_pause: bool,
    /// The person who placed it.
    pub who: String,
    /// The reason.
    pub reason: String,
    /// Its end, as stored.
    pub expires_at: OffsetDateTime,
    /// Its end on this process's monotonic clock.
    until: Instant,
}

/// A kill switch in force that this version understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillSwitch {
    /// The number of its control.
    pub id: i64,
    /// The jobs that it stops.
    pub matcher: Matcher,
    /// The person who placed it.
    pub who: String,
    /// The reason.
    pub reason: String,
    /// Its end, as stored.
    pub expires_at: OffsetDateTime,
    until: Instant,
}

/// The control that stops a job's next stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The job is parked or cancelled.
    Kill(&'a KillSwitch),
    /// The job waits.
    Wait(&'a Stop),
}

/// The controls in force, as read at one time.
#[derive(Debug, Default)]
pub struct InForce {
    stops: HashMap<String, Stop>,
    kill_switches: Vec<KillSwitch>,
    /// The numbers of the kill switches that this version does not understand.
    pub not_understood: Vec<i64>,
    read_at: Option<Instant>,
}

impl KillSwitch {
    /// Returns what becomes of a job that it matches.
    #[must_use]
    pub const fn action(&self) -> KillAction {
        self.matcher.action
    }
}

impl InForce {
    /// Takes the controls from rows whose read began at `read_at`.
    #[must_use]
    pub fn of(rows: &[LiveControl], read_at: Instant) -> Self {
        let mut found = Self {
            read_at: Some(read_at),
            ..Self::default()
        };
        for row in rows {
            let until = read_at + row.left();
            match row.kind.as_str() {
                "kill_switch" => found.add_kill_switch(row, until),
                "pause" | "hold" if !row.scope.contains('|') => found.add_stop(row, until),
                _ => {}
            }
        }
        found
    }

    fn add_stop(&mut self, row: &LiveControl, until: Instant) {
        let stop = Stop {
            scope: row.scope.clone(),
            is_pause: row.kind == "pause",
            who: row.who.clone(),
            reason: row.reason.clone(),
            expires_at: row.expires_at,
            until,
        };
        let longer = self
            .stops
            .get(&row.scope)
            .is_some_and(|other| other.until >= until);
        if !longer {
            self.stops.insert(row.scope.clone(), stop);
        }
    }

    fn add_kill_switch(&mut self, row: &LiveControl, until: Instant) {
        match row.matcher.as_deref().and_then(Matcher::read) {
            Some(matcher) => self.kill_switches.push(KillSwitch {
                id: row.id,
                matcher,
                who: row.who.clone(),
                reason: row.reason.clone(),
                expires_at: row.expires_at,
                until,
            }),
            None => self.not_understood.push(row.id),
        }
    }

    /// Returns the control that stops the job's next stage at `now`. A kill switch comes first,
    /// then the pause, then the widest hold.
    #[must_use]
    pub fn verdict(&self, job: &Subject<'_>, now: Instant) -> Option<Verdict<'_>> {
        let kill_switch = self
            .kill_switches
            .iter()
            .find(|switch| now < switch.until && switch.matcher.matches(job));
        if let Some(kill_switch) = kill_switch {
            return Some(Verdict::Kill(kill_switch));
        }
        if self.stops.is_empty() {
            return None;
        }
        [
            ALL.to_owned(),
            of_organization(job.organization),
            of_lane(job.lane),
            of_stage(job.pipeline, job.stage),
        ]
        .iter()
        .find_map(|scope| self.stops.get(scope).filter(|stop| now < stop.until))
        .map(Verdict::Wait)
    }

    /// Returns the pause, if it is in force at `now`.
    #[must_use]
    pub fn pause(&self, now: Instant) -> Option<&Stop> {
        self.stops.get(ALL).filter(|stop| now < stop.until)
    }

    /// Returns whether the controls were read within `age` before `now`.
    #[must_use]
    pub fn is_fresh(&self, now: Instant, age: Duration) -> bool {
        self.read_at
            .is_some_and(|read| now.saturating_duration_since(read) < age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, kind: &str, scope: &str, seconds: i64) -> LiveControl {
        let now = OffsetDateTime::UNIX_EPOCH;
        LiveControl {
            id,
            kind: kind.to_owned(),
            scope: scope.to_owned(),
            matcher: None,
            reason: "reason".to_owned(),
            who: "olga".to_owned(),
            automatic: false,
            expires_at: now + time::Duration::seconds(seconds),
            now,
        }
    }

    fn switch(id: i64, matcher: &str) -> LiveControl {
        LiveControl {
            matcher: Some(matcher.to_owned()),
            ..row(id, "kill_switch", ALL, 60)
        }
    }

    fn job() -> Subject<'static> {
        Subject {
            stage: "fetch_states",
            lane: "dispatch",
            ..Subject::with("dispatch", "acme", "shop", "{}")
        }
    }

    fn scope_found(rows: &[LiveControl]) -> Option<String> {
        let now = Instant::now();
        match InForce::of(rows, now).verdict(&job(), now) {
            Some(Verdict::Wait(stop)) => Some(stop.scope.clone()),
            _ => None,
        }
    }

    #[test]
    fn a_hold_stops_the_jobs_of_its_scope_and_no_others() {
        for right in [
            "organization:acme",
            "lane:dispatch",
            "stage:dispatch/fetch_states",
        ] {
            assert_eq!(
                scope_found(&[row(1, "hold", right, 60)]).as_deref(),
                Some(right)
            );
        }
        for wrong in [
            "organization:umbrella",
            "lane:messaging",
            "stage:dispatch/check_account",
            "stage:messaging/fetch_states",
            "provider:slack",
            "acme|slack|7",
        ] {
            assert_eq!(scope_found(&[row(1, "hold", wrong, 60)]), None, "{wrong}");
        }
        assert_eq!(
            scope_found(&[row(1, "pause", ALL, 60)]).as_deref(),
            Some(ALL)
        );
    }

    #[test]
    fn a_control_ends_by_itself_and_the_longest_of_a_scope_counts() {
        let now = Instant::now();
        let rows = [row(1, "pause", ALL, 60), row(2, "pause", ALL, 10)];
        let in_force = InForce::of(&rows, now);
        assert!(in_force.pause(now + Duration::from_secs(59)).is_some());
        assert!(in_force.pause(now + Duration::from_secs(60)).is_none());
        assert_eq!(
            in_force.verdict(&job(), now + Duration::from_secs(61)),
            None
        );
    }

    #[test]
    fn a_kill_switch_comes_before_the_pause_and_one_that_is_not_understood_matches_nothing() {
        let now = Instant::now();
        let rows = [
            row(1, "pause", ALL, 60),
            switch(
                2,
                r#"{"organization": "acme", "planet": "mars", "action": "park"}"#,
            ),
            row(3, "kill_switch", ALL, 60),
            switch(4, r#"{"organization": "umbrella", "action": "park"}"#),
            switch(5, r#"{"source": "shop", "action": "cancel"}"#),
        ];
        let in_force = InForce::of(&rows, now);
        assert_eq!(in_force.not_understood, [2, 3]);
        let Some(Verdict::Kill(found)) = in_force.verdict(&job(), now) else {
            panic!("no kill switch");
        };
        assert_eq!((found.id, found.action()), (5, KillAction::Cancel));
        let without = InForce::of(&rows[..4], now);
        assert!(matches!(without.verdict(&job(), now), Some(Verdict::Wait(stop)) if stop.is_pause));
    }
}
