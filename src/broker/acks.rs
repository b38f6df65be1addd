//! Batched acks of one channel: deliveries finished while the last ack was being sent are acked
//! together.
//!
//! **Invariant:** an ack of several deliveries names an outstanding one, and covers none that is
//! in hand.

use std::collections::BTreeMap;

use lapin::Channel;
use lapin::options::BasicAckOptions;
use tokio::sync::mpsc;

use crate::fault::chain;

/// The sender with which a delivery reports that it is finished. The channel's prefetch bounds the
/// number of values.
pub(super) type Done = mpsc::UnboundedSender<u64>;

/// The deliveries of one channel that are not acked.
#[derive(Debug, Default)]
struct Outstanding(BTreeMap<u64, bool>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ack {
    tag: u64,
    /// Also acks all outstanding deliveries before this one.
    multiple: bool,
}

/// Batches the acks of one channel.
pub(super) struct Acks {
    channel: Channel,
    outstanding: Outstanding,
    done: mpsc::UnboundedReceiver<u64>,
    sender: Done,
}

impl Acks {
    pub(super) fn of(channel: Channel) -> Self {
        let (sender, done) = mpsc::unbounded_channel();
        Self {
            channel,
            outstanding: Outstanding::default(),
            done,
            sender,
        }
    }

    /// Registers a delivery. Returns the sender with which it reports that it is finished.
    pub(super) fn delivered(&mut self, tag: u64) -> Done {
        self.outstanding.0.insert(tag, false);
        self.sender.clone()
    }

    /// Waits until a delivery is finished. Is cancellation-safe.
    pub(super) async fn next(&mut self) -> u64 {
        self.done.recv().await.expect("`self` holds a sender")
    }

    /// Acks `first`, if given, and all deliveries finished by now. A delivery that can no longer
    /// be acked, because its connection is gone, is delivered again and finds its row finished.
    pub(super) async fn send(&mut self, first: Option<u64>) {
        first.into_iter().for_each(|tag| self.outstanding.done(tag));
        while let Ok(tag) = self.done.try_recv() {
            self.outstanding.done(tag);
        }
        for Ack { tag, multiple } in self.outstanding.take() {
            if let Err(error) = self
                .channel
                .basic_ack(tag, BasicAckOptions { multiple })
                .await
            {
                tracing::debug!(
                    error = chain(&error),
                    "an ack was lost with its channel; the message is redelivered"
                );
            }
        }
    }
}

impl Outstanding {
    fn done(&mut self, tag: u64) {
        if let Some(done) = self.0.get_mut(&tag) {
            *done = true;
        }
    }

    /// Returns the acks that can be sent now: one for the oldest deliveries without a gap, and one
    /// for each finished delivery behind one that is still in hand. Each names an outstanding tag,
    /// because the broker closes the channel on any other.
    fn take(&mut self) -> Vec<Ack> {
        let oldest = self
            .0
            .iter()
            .take_while(|(_, done)| **done)
            .map(|(tag, _)| *tag);
        let (last, number) = oldest.fold((None, 0), |(_, number), tag| (Some(tag), number + 1));
        let mut acks: Vec<Ack> = last
            .into_iter()
            .map(|tag| Ack {
                tag,
                multiple: number > 1,
            })
            .collect();
        let behind = self
            .0
            .iter()
            .skip(number)
            .filter(|(_, done)| **done)
            .map(|(tag, _)| Ack {
                tag: *tag,
                multiple: false,
            });
        acks.extend(behind);
        self.0.retain(|_, done| !*done);
        acks
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn outstanding(tags: &[u64], done: &[u64]) -> Outstanding {
        let mut outstanding = Outstanding(tags.iter().map(|tag| (*tag, false)).collect());
        done.iter().for_each(|tag| outstanding.done(*tag));
        outstanding
    }

    #[test]
    fn the_oldest_without_a_gap_are_one_ack_and_those_behind_a_gap_one_each() {
        let one = |tag| Ack {
            tag,
            multiple: false,
        };
        let mut all = outstanding(&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 5]);
        assert_eq!(
            all.take(),
            [
                Ack {
                    tag: 3,
                    multiple: true
                },
                one(5)
            ]
        );
        assert_eq!(all.take(), []);
        all.done(4);
        assert_eq!(all.take(), [one(4)], "5 is acked already");
        all.done(99);
        assert_eq!(all.take(), [], "nobody has delivered it");
    }

    proptest! {
        /// Checks from the broker's side: every ack names an outstanding tag, and no delivery in
        /// hand is acked.
        #[test]
        fn acks_never_name_what_is_not_outstanding_nor_cover_what_is_in_hand(
            steps in proptest::collection::vec((0_usize..20, any::<bool>()), 1..60)
        ) {
            let mut ours = Outstanding((1..=20).map(|tag| (tag, false)).collect());
            let mut broker: BTreeSet<u64> = (1..=20).collect();
            let mut done = BTreeSet::new();
            for (n, flush) in steps {
                let tag = n as u64 + 1;
                ours.done(tag);
                done.insert(tag);
                if !flush {
                    continue;
                }
                for ack in ours.take() {
                    prop_assert!(broker.contains(&ack.tag), "{ack:?}");
                    let covered: Vec<u64> = broker.iter().copied().filter(|tag| *tag == ack.tag || (ack.multiple && *tag < ack.tag)).collect();
                    prop_assert!(covered.iter().all(|tag| done.contains(tag)), "{ack:?} covers {covered:?}");
                    covered.iter().for_each(|tag| { broker.remove(tag); });
                }
                prop_assert!(broker.iter().all(|tag| !done.contains(tag)), "all that is done is acked");
            }
        }
    }
}
