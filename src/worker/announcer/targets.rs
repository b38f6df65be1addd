//! Tracks each target that messages are published to: whether it confirms, and how many messages
//! may be sent to it. Pure; takes its clock as an argument.
//!
//! A reply queue that does not confirm gets nothing for some time, and is then probed with one
//! message at a time. Events cannot be held back from one subscriber: while one subscriber leaves
//! them unconfirmed, the wait for their confirms is short, until one arrives again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// How long a message waits for its confirm.
pub(super) const CONFIRM: Duration = Duration::from_secs(5);
/// How long an event waits for its confirm while events are not confirmed; one event at a time,
/// the probe, waits for [`CONFIRM`].
const SHORT_CONFIRM: Duration = Duration::from_millis(20);
/// The most messages in flight. RabbitMQ accepts 400 for a queue that does not answer before it
/// stops reading the connection.
const IN_FLIGHT: usize = 256;
/// The most messages in flight after [`SILENT`] messages without one confirm: fewer than stop a
/// channel at a quorum queue.
const IN_FLIGHT_SILENT: usize = 8;
const SILENT: usize = 24;
/// The most replies in flight to a queue that has not confirmed one yet; doubled by each confirm,
/// up to [`MOST_REPLIES`].
const FIRST_REPLIES: usize = 4;
const MOST_REPLIES: usize = 128;
/// The most messages that wait for others to the same queue.
const WAITING: usize = 4096;
/// The most targets that are tracked.
const KNOWN: usize = 1024;
/// How long a reply queue that does not confirm gets nothing; doubled each time, up to
/// [`LONGEST_CLOSED`].
const CLOSED: Duration = Duration::from_secs(30);
const LONGEST_CLOSED: Duration = Duration::from_secs(600);

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To an exchange, by routing key.
    Events,
    /// To queues.
    Replies,
}

/// Whether a message may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Now; it counts as in flight.
    Send(Sending),
    /// Not before others to the same target have been answered.
    Wait,
    /// Not before this time has passed.
    Held(Duration),
}

/// How a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sending {
    /// How long the message waits for its confirm.
    pub(super) patience: Duration,
    /// Whether the message probes a target that has stopped confirming.
    is_probe: bool,
}

/// How a target reacted to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// The target answered, whatever the answer.
    Answered,
    /// No confirm arrived in time.
    Silent,
    /// The message was not sent.
    None,
    /// The connection was lost, or there is none: the connection may have caused the earlier
    /// silence.
    Lost,
}

/// How a reaction changed the state of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Same,
    /// The target has stopped confirming.
    Silent,
    /// The target confirms again.
    Confirms,
}

/// All targets of one connection. `W` is a message that waits.
pub(super) struct Targets<W> {
    kind: Kind,
    known: HashMap<String, Target<W>>,
    /// The number of messages in a row, to any target, that were not confirmed.
    silent_in_a_row: usize,
    waiting: usize,
}

struct Target<W> {
    in_flight: usize,
    allowed: usize,
    /// The number of messages without a confirm since the last answer; those in flight together
    /// count once.
    silences: u32,
    is_probed: bool,
    closed_until: Option<Instant>,
    waiting: VecDeque<W>,
}

impl<W> Target<W> {
    const fn new() -> Self {
        let waiting = VecDeque::new();
        Self {
            in_flight: 0,
            allowed: FIRST_REPLIES,
            silences: 0,
            is_probed: false,
            closed_until: None,
            waiting,
        }
    }

    fn admit(&self, kind: Kind, now: Instant) -> Admission {
        let held = self
            .closed_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let is_silent = self.silences > 0;
        match kind {
            Kind::Events if is_silent && self.is_probed => Admission::Send(Sending {
                patience: SHORT_CONFIRM,
                is_probe: false,
            }),
            Kind::Replies if !held.is_zero() => Admission::Held(held),
            Kind::Replies if is_silent && self.in_flight > 0 => Admission::Held(CONFIRM),
            Kind::Replies if self.in_flight >= self.allowed => Admission::Wait,
            Kind::Events | Kind::Replies => Admission::Send(Sending {
                patience: CONFIRM,
                is_probe: is_silent,
            }),
        }
    }

    fn react(&mut self, kind: Kind, reaction: Reaction, now: Instant) -> Change {
        let was_silent = self.silences > 0;
        match reaction {
            Reaction::None | Reaction::Lost => Change::Same,
            Reaction::Answered => {
                self.silences = 0;
                self.closed_until = None;
                self.allowed = self.allowed.saturating_mul(2).min(MOST_REPLIES);
                if was_silent {
                    Change::Confirms
                } else {
                    Change::Same
                }
            }
            // The first of several messages in flight has closed the queue.
            Reaction::Silent if self.closed_until.is_some_and(|until| until > now) => Change::Same,
            Reaction::Silent => {
                self.closed_until =
                    (kind == Kind::Replies).then(|| now + closed_for(self.silences));
                self.silences = self.silences.saturating_add(1);
                self.allowed = FIRST_REPLIES;
                if was_silent {
                    Change::Same
                } else {
                    Change::Silent
                }
            }
        }
    }
}

/// Returns how long a queue gets nothing after `silences` earlier silences.
fn closed_for(silences: u32) -> Duration {
    CLOSED
        .saturating_mul(2_u32.saturating_pow(silences))
        .min(LONGEST_CLOSED)
}

impl<W> Targets<W> {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            known: HashMap::new(),
            silent_in_a_row: 0,
            waiting: 0,
        }
    }

    /// Returns the most messages that may be in flight on the connection.
    pub(super) const fn in_flight_at_most(&self) -> usize {
        if self.silent_in_a_row < SILENT {
            IN_FLIGHT
        } else {
            IN_FLIGHT_SILENT
        }
    }

    /// Decides whether a message may be sent to a target now.
    pub(super) fn admit(&mut self, place: &str, now: Instant) -> Admission {
        if !self.known.contains_key(place) {
            if self.known.len() >= KNOWN {
                self.forget_one(now);
            }
            self.known.insert(place.to_owned(), Target::new());
        }
        let target = self.known.get_mut(place).expect("it was put there");
        let admission = if target.waiting.is_empty() {
            target.admit(self.kind, now)
        } else {
            Admission::Wait
        };
        sent(target, admission)
    }

    /// Queues a message that was admitted as [`Admission::Wait`], or returns it where too many
    /// wait.
    pub(super) fn wait(&mut self, place: &str, message: W) -> Option<W> {
        let Some(target) = self.known.get_mut(place).filter(|_| self.waiting < WAITING) else {
            return Some(message);
        };
        self.waiting += 1;
        target.waiting.push_back(message);
        None
    }

    /// Records how a target reacted to a message that was admitted.
    pub(super) fn react(
        &mut self,
        place: &str,
        sending: Sending,
        reaction: Reaction,
        now: Instant,
    ) -> Change {
        match reaction {
            Reaction::Answered => self.silent_in_a_row = 0,
            Reaction::Silent => self.silent_in_a_row = self.silent_in_a_row.saturating_add(1),
            Reaction::Lost => self.forgive(),
            Reaction::None => {}
        }
        let Some(target) = self.known.get_mut(place) else {
            return Change::Same;
        };
        target.in_flight = target.in_flight.saturating_sub(1);
        target.is_probed &= !sending.is_probe;
        target.react(self.kind, reaction, now)
    }

    /// Returns the next message that waits for this target, if it need not wait any longer.
    /// Without room, a message is sent only if no other is in flight to the target, because then
    /// no other reaction would let the rest continue.
    pub(super) fn next(
        &mut self,
        place: &str,
        has_room: bool,
        now: Instant,
    ) -> Option<(W, Admission)> {
        let target = self.known.get_mut(place)?;
        let admission = target.admit(self.kind, now);
        match admission {
            Admission::Wait => return None,
            Admission::Send(_) if !has_room && target.in_flight > 0 => return None,
            Admission::Send(_) | Admission::Held(_) => {}
        }
        let message = target.waiting.pop_front()?;
        self.waiting -= 1;
        Some((message, sent(target, admission)))
    }

    fn forgive(&mut self) {
        self.silent_in_a_row = 0;
        for target in self.known.values_mut() {
            (target.silences, target.closed_until) = (0, None);
        }
    }

    /// Makes room by forgetting an idle target: one that confirms or, if there is none, the one
    /// that is probed next. There is always an idle one, because fewer messages can be in flight
    /// than targets are tracked.
    fn forget_one(&mut self, now: Instant) {
        let idle = self
            .known
            .iter()
            .filter(|(_, target)| target.in_flight == 0 && target.waiting.is_empty());
        let one = idle.min_by_key(|(_, target)| {
            (target.silences > 0).then(|| target.closed_until.unwrap_or(now))
        });
        if let Some(place) = one.map(|(place, _)| place.clone()) {
            self.known.remove(&place);
        }
    }
}

fn sent<W>(target: &mut Target<W>, admission: Admission) -> Admission {
    if let Admission::Send(sending) = admission {
        target.in_flight += 1;
        target.is_probed |= sending.is_probe;
    }
    admission
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sending(admission: Admission) -> Sending {
        match admission {
            Admission::Send(sending) => sending,
            Admission::Wait | Admission::Held(_) => panic!("{admission:?}"),
        }
    }

    /// Sends one message, which is not confirmed.
    fn silence(targets: &mut Targets<u8>, place: &str, now: Instant) -> Change {
        let one = sending(targets.admit(place, now));
        targets.react(place, one, Reaction::Silent, now)
    }

    #[test]
    fn a_reply_queue_that_does_not_confirm_is_suspended_and_then_probed_with_one_message() {
        let (mut targets, start) = (Targets::<u8>::new(Kind::Replies), Instant::now());
        let first: Vec<Sending> = (0..FIRST_REPLIES)
            .map(|_| sending(targets.admit("bad", start)))
            .collect();
        assert_eq!(
            targets.admit("bad", start),
            Admission::Wait,
            "a few at first"
        );
        for (number, one) in first.into_iter().enumerate() {
            let change = targets.react("bad", one, Reaction::Silent, start);
            assert_eq!(
                change,
                if number == 0 {
                    Change::Silent
                } else {
                    Change::Same
                }
            );
        }
        assert_eq!(
            targets.admit("bad", start),
            Admission::Held(CLOSED),
            "four silences at once close it once"
        );
        assert_eq!(
            sending(targets.admit("good", start)).patience,
            CONFIRM,
            "another queue is not affected"
        );
        let later = start + CLOSED;
        let probe = sending(targets.admit("bad", later));
        assert_eq!(
            targets.admit("bad", later),
            Admission::Held(CONFIRM),
            "one at a time"
        );
        assert_eq!(
            targets.react("bad", probe, Reaction::Silent, later),
            Change::Same
        );
        assert_eq!(
            targets.admit("bad", later),
            Admission::Held(2 * CLOSED),
            "and for longer"
        );
        let last = sending(targets.admit("bad", later + 2 * CLOSED));
        assert_eq!(
            targets.react("bad", last, Reaction::Answered, later),
            Change::Confirms
        );
        for _ in 0..2 * FIRST_REPLIES {
            sending(targets.admit("bad", later));
        }
    }

    #[test]
    fn closings_grow_to_ten_minutes() {
        assert!(
            (0..40).map(closed_for).is_sorted()
                && closed_for(0) == CLOSED
                && closed_for(39) == LONGEST_CLOSED
        );
    }

    #[test]
    fn replies_to_one_queue_wait_for_those_before_them_in_order_and_for_so_many_at_most() {
        let (mut targets, now) = (Targets::new(Kind::Replies), Instant::now());
        let first: Vec<Sending> = (0..FIRST_REPLIES)
            .map(|_| sending(targets.admit("q", now)))
            .collect();
        assert!(
            (0..WAITING).all(|number| targets.admit("q", now) == Admission::Wait
                && targets.wait("q", number).is_none())
        );
        assert_eq!(targets.wait("q", 7), Some(7), "too many wait");
        assert_eq!(targets.next("q", true, now), None);
        targets.react("q", first[0], Reaction::Answered, now);
        let next: Vec<usize> = std::iter::from_fn(|| targets.next("q", true, now))
            .map(|(message, _)| message)
            .collect();
        assert_eq!(
            next,
            [0, 1, 2, 3, 4],
            "one was answered, and the limit is doubled"
        );
        targets.react("q", first[1], Reaction::Answered, now);
        assert_eq!(targets.next("q", false, now), None, "there is no room");
        for one in &first[2..] {
            targets.react("q", *one, Reaction::Silent, now);
        }
        assert_eq!(
            targets.next("q", true, now),
            Some((5, Admission::Held(CLOSED))),
            "nothing waits for a queue that is left alone"
        );
    }

    #[test]
    fn unconfirmed_events_are_probed_one_at_a_time_and_the_others_are_awaited_briefly() {
        let (mut targets, now) = (Targets::<u8>::new(Kind::Events), Instant::now());
        assert_eq!(silence(&mut targets, "job.parked", now), Change::Silent);
        let probe = sending(targets.admit("job.parked", now));
        assert_eq!(probe.patience, CONFIRM);
        assert_eq!(
            sending(targets.admit("job.parked", now)).patience,
            SHORT_CONFIRM
        );
        assert_eq!(
            sending(targets.admit("job.succeeded", now)).patience,
            CONFIRM,
            "other events are waited for"
        );
        assert_eq!(
            targets.react("job.parked", probe, Reaction::Answered, now),
            Change::Confirms
        );
        assert_eq!(sending(targets.admit("job.parked", now)).patience, CONFIRM);
    }

    #[test]
    fn few_messages_are_in_flight_while_no_confirm_comes_at_all() {
        let (mut targets, now) = (Targets::<u8>::new(Kind::Events), Instant::now());
        for _ in 0..SILENT {
            assert_eq!(targets.in_flight_at_most(), IN_FLIGHT);
            silence(&mut targets, "job.accepted", now);
        }
        assert_eq!(targets.in_flight_at_most(), IN_FLIGHT_SILENT);
        let one = sending(targets.admit("job.parked", now));
        targets.react("job.parked", one, Reaction::Answered, now);
        assert_eq!(targets.in_flight_at_most(), IN_FLIGHT);
    }

    #[test]
    fn a_silence_that_may_have_been_the_connection_s_is_forgotten_with_it() {
        let (mut targets, now) = (Targets::<u8>::new(Kind::Replies), Instant::now());
        silence(&mut targets, "answers", now);
        let one = sending(targets.admit("others", now));
        assert_eq!(
            targets.react("others", one, Reaction::Lost, now),
            Change::Same
        );
        assert_eq!(sending(targets.admit("answers", now)), one);
    }

    #[test]
    fn so_many_places_are_known_and_those_that_are_well_are_forgotten_first() {
        let (mut targets, now) = (Targets::<u8>::new(Kind::Replies), Instant::now());
        silence(&mut targets, "bad", now);
        for number in 0..2 * KNOWN {
            let one = sending(targets.admit(&format!("queue {number}"), now));
            targets.react(&format!("queue {number}"), one, Reaction::Answered, now);
        }
        assert_eq!(targets.known.len(), KNOWN);
        assert_eq!(targets.admit("bad", now), Admission::Held(CLOSED));
    }
}
