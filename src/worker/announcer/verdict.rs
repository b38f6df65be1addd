//! Decides what becomes of an event or a reply after an attempt to publish it. Pure.

use std::time::Duration;

use crate::job::JobId;
use crate::store::{Announcement, Unsettled};

/// The most times that a reply which may have arrived is published. An event has as many, by
/// [`EVENT_DELAYS`].
const MOST_TRIES: i32 = 3;
/// The delays before an event is published for the second and the third time.
const EVENT_DELAYS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];
/// The delay before a reply is published again; doubled each time, up to [`LONGEST_REPLY_DELAY`].
const REPLY_DELAY: Duration = Duration::from_secs(5);
const LONGEST_REPLY_DELAY: Duration = Duration::from_secs(600);

/// What became of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Every queue that the message is routed to has it.
    Confirmed,
    /// A queue has refused it; others may have it.
    Refused,
    /// No confirm arrived in time: the message may have arrived.
    Unconfirmed,
    /// The message is routed to no queue.
    Returned,
    /// The message was not sent, or the connection was lost before an answer arrived.
    Unsent,
    /// The message was not sent: its queue gets nothing for this time.
    Held(Duration),
}

/// The kind of a dropped message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Event,
    Reply,
}

/// Why a message is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    Refused,
    Unconfirmed,
    Returned,
    TooOld,
}

/// An event or a reply that is no longer published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dropped {
    pub(super) what: What,
    pub(super) why: Why,
    /// The job; `None` for a message that did not become one.
    pub(super) job: Option<JobId>,
}

/// The new state of an announcement.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settled {
    /// Whether the announcement is over and its row can be deleted.
    pub(super) is_over: bool,
    /// The state to store; `None` also where the row has that state already.
    pub(super) rest: Option<Unsettled>,
    pub(super) dropped: Vec<Dropped>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Over,
    Dropped(Why),
    /// Published again after this time; a try was used.
    Repeat(Duration),
    /// Published after this time; no try was used.
    PutOff(Duration),
    /// Published when its row is due; no try was used.
    Leave,
}

/// Returns the new state of an announcement from the fates of its event and its reply; `None` for
/// one that it does not have.
pub(super) fn settled(
    announcement: &Announcement,
    event: Option<Fate>,
    reply: Option<Fate>,
) -> Settled {
    let event = event.map_or(Verdict::Over, |fate| of_event(fate, announcement.tries));
    let reply = reply.map_or(Verdict::Over, |fate| {
        of_reply(fate, announcement.reply_tries, announcement.is_old)
    });
    let dropped = [(What::Event, event), (What::Reply, reply)]
        .into_iter()
        .filter_map(|(what, verdict)| match verdict {
            Verdict::Dropped(why) => Some(Dropped {
                what,
                why,
                job: announcement.job,
            }),
            Verdict::Over | Verdict::Repeat(_) | Verdict::PutOff(_) | Verdict::Leave => None,
        });
    let (event_over, reply_over) = (event.is_over(), reply.is_over());
    let rest = Unsettled {
        id: announcement.id,
        tries: announcement.tries + event.tries(),
        reply_tries: announcement.reply_tries + reply.tries(),
        event_over,
        reply_over,
        after: sooner(event, reply),
    };
    let had = (
        announcement.routing_key.is_none(),
        announcement.reply_to.is_none(),
    );
    let is_tried = event.tries() + reply.tries() > 0;
    let is_news = is_tried || rest.after.is_some() || had != (event_over, reply_over);
    let is_over = event_over && reply_over;
    Settled {
        is_over,
        dropped: dropped.collect(),
        rest: (!is_over && is_news).then_some(rest),
    }
}

/// Judges an event. A nack or a missing confirm does not prove that no subscriber has the event,
/// so it is repeated only twice.
fn of_event(fate: Fate, tries: i32) -> Verdict {
    let again = |why| match usize::try_from(tries)
        .ok()
        .and_then(|tries| EVENT_DELAYS.get(tries))
    {
        Some(delay) => Verdict::Repeat(*delay),
        None => Verdict::Dropped(why),
    };
    match fate {
        Fate::Confirmed => Verdict::Over,
        Fate::Refused => again(Why::Refused),
        Fate::Unconfirmed => again(Why::Unconfirmed),
        Fate::Returned => Verdict::Dropped(Why::Returned),
        Fate::Unsent => Verdict::Leave,
        Fate::Held(delay) => Verdict::PutOff(delay),
    }
}

/// Judges a reply, which goes to one queue. A refused reply has not arrived: it is repeated until
/// it is an hour old. A reply without a confirm may have arrived.
fn of_reply(fate: Fate, tries: i32, is_old: bool) -> Verdict {
    match fate {
        Fate::Confirmed => Verdict::Over,
        Fate::Refused if is_old => Verdict::Dropped(Why::Refused),
        Fate::Unconfirmed if tries + 1 >= MOST_TRIES => Verdict::Dropped(Why::Unconfirmed),
        Fate::Refused | Fate::Unconfirmed => {
            let doubled = u32::try_from(tries)
                .ok()
                .and_then(|tries| 2_u32.checked_pow(tries));
            let delay = REPLY_DELAY.saturating_mul(doubled.unwrap_or(u32::MAX));
            Verdict::Repeat(delay.min(LONGEST_REPLY_DELAY))
        }
        Fate::Returned => Verdict::Dropped(Why::Returned),
        Fate::Unsent => Verdict::Leave,
        Fate::Held(delay) => Verdict::PutOff(delay),
    }
}

/// Returns the earlier of two delays, so an event does not wait for the reply of its job.
fn sooner(event: Verdict, reply: Verdict) -> Option<Duration> {
    match (event, reply) {
        (Verdict::Leave, _) | (_, Verdict::Leave) => None,
        (event, reply) => [event, reply].into_iter().filter_map(Verdict::delay).min(),
    }
}

impl Verdict {
    const fn is_over(self) -> bool {
        matches!(self, Self::Over | Self::Dropped(_))
    }

    const fn tries(self) -> i32 {
        matches!(self, Self::Repeat(_)) as i32
    }

    const fn delay(self) -> Option<Duration> {
        match self {
            Self::Repeat(delay) | Self::PutOff(delay) => Some(delay),
            Self::Over | Self::Dropped(_) | Self::Leave => None,
        }
    }
}

impl What {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Reply => "reply",
        }
    }
}

impl Why {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unconfirmed => "unconfirmed",
            Self::Returned => "returned",
            Self::TooOld => "too_old",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(tries: i32, reply_tries: i32, is_old: bool) -> Announcement {
        Announcement {
            id: 7,
            job: None,
            routing_key: Some("job.succeeded".to_owned()),
            reply_to: Some("answers".to_owned()),
            correlation_id: None,
            traceparent: None,
            tracestate: None,
            body: Vec::new(),
            is_old,
            tries,
            reply_tries,
        }
    }

    #[test]
    fn an_event_that_is_refused_or_not_confirmed_is_published_three_times_and_then_dropped() {
        for (fate, why) in [
            (Fate::Refused, Why::Refused),
            (Fate::Unconfirmed, Why::Unconfirmed),
        ] {
            let verdicts: Vec<Verdict> = (0..4).map(|tries| of_event(fate, tries)).collect();
            let dropped = Verdict::Dropped(why);
            assert_eq!(
                verdicts,
                [
                    Verdict::Repeat(EVENT_DELAYS[0]),
                    Verdict::Repeat(EVENT_DELAYS[1]),
                    dropped,
                    dropped
                ]
            );
        }
    }

    #[test]
    fn a_reply_that_is_refused_is_repeated_for_an_hour_with_growing_delays() {
        let delays: Vec<Duration> = (0..40)
            .filter_map(|tries| of_reply(Fate::Refused, tries, false).delay())
            .collect();
        assert_eq!(delays.len(), 40, "however often");
        assert!(
            delays.is_sorted() && delays[0] == REPLY_DELAY && delays[39] == LONGEST_REPLY_DELAY,
            "{delays:?}"
        );
        assert_eq!(
            of_reply(Fate::Refused, 1, true),
            Verdict::Dropped(Why::Refused)
        );
    }

    #[test]
    fn a_reply_that_may_have_arrived_is_published_three_times_at_most() {
        let published: Vec<bool> = (0..4)
            .map(|tries| of_reply(Fate::Unconfirmed, tries, true).is_over())
            .collect();
        assert_eq!(published, [false, false, true, true]);
        assert_eq!(
            of_reply(Fate::Returned, 0, false),
            Verdict::Dropped(Why::Returned)
        );
    }

    #[test]
    fn an_unsent_message_uses_no_attempt() {
        let held = Duration::from_secs(30);
        for tries in 0..10 {
            for verdict in [
                of_event(Fate::Unsent, tries),
                of_reply(Fate::Unsent, tries, true),
            ] {
                assert_eq!(verdict, Verdict::Leave);
            }
            assert_eq!(
                of_reply(Fate::Held(held), tries, true),
                Verdict::PutOff(held)
            );
        }
        assert_eq!(
            settled(
                &announcement(1, 1, false),
                Some(Fate::Unsent),
                Some(Fate::Unsent)
            ),
            Settled::default()
        );
    }

    #[test]
    fn an_event_and_its_reply_are_judged_apart_and_the_event_does_not_wait() {
        let rest = |tries, reply_tries, event_over, reply_over, after: Option<Duration>| {
            Some(Unsettled {
                id: 7,
                tries,
                reply_tries,
                event_over,
                reply_over,
                after,
            })
        };
        let held = Duration::from_secs(300);
        for (event, reply, right) in [
            (
                Fate::Confirmed,
                Fate::Held(held),
                rest(0, 0, true, false, Some(held)),
            ),
            (
                Fate::Refused,
                Fate::Held(held),
                rest(1, 0, false, false, Some(EVENT_DELAYS[0])),
            ),
            (
                Fate::Refused,
                Fate::Confirmed,
                rest(1, 0, false, true, Some(EVENT_DELAYS[0])),
            ),
            (
                Fate::Confirmed,
                Fate::Refused,
                rest(0, 1, true, false, Some(REPLY_DELAY)),
            ),
            (Fate::Confirmed, Fate::Unsent, rest(0, 0, true, false, None)),
            (Fate::Unsent, Fate::Refused, rest(0, 1, false, false, None)),
            (Fate::Confirmed, Fate::Confirmed, None),
            (Fate::Confirmed, Fate::Returned, None),
        ] {
            let judged = settled(&announcement(0, 0, false), Some(event), Some(reply));
            assert_eq!(
                (judged.is_over, &judged.rest),
                (right.is_none(), &right),
                "{event:?} {reply:?}"
            );
            assert_eq!(judged.dropped.len(), usize::from(reply == Fate::Returned));
        }
        let last = settled(
            &announcement(2, 2, false),
            Some(Fate::Refused),
            Some(Fate::Unconfirmed),
        );
        let (event, reply) = ((What::Event, Why::Refused), (What::Reply, Why::Unconfirmed));
        assert!(
            last.is_over
                && last
                    .dropped
                    .iter()
                    .map(|one| (one.what, one.why))
                    .eq([event, reply]),
            "{last:?}"
        );
    }
}
