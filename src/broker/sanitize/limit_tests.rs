//! The limits of deliveries: their bodies, their header tables, and the memory of all of them.

use std::collections::{HashMap, VecDeque};

use futures_util::FutureExt;
use futures_util::task::noop_waker_ref;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::fields::DELIVER;
use super::frames::BEGINNING;
use super::tests::{fed, long, short};
use super::*;
use crate::message::{Discarded, HEADERS_LIMIT, MESSAGE_LIMIT};

const BUDGET: u32 = 8 << 20;
const HEADERS: u16 = 1 << 13;

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xce]].concat()
}

fn deliver(channel: u16, tag: u64) -> Vec<u8> {
    let payload = [
        &DELIVER[..],
        &short(b"consumer"),
        &tag.to_be_bytes(),
        &[0],
        &short(b"dispatch"),
        &short(b"job"),
    ]
    .concat();
    frame(1, channel, &payload)
}

fn header(channel: u16, size: usize, present: u16, properties: &[u8]) -> Vec<u8> {
    frame(
        2,
        channel,
        &[
            &[0, 60, 0, 0],
            &(size as u64).to_be_bytes()[..],
            &present.to_be_bytes(),
            properties,
        ]
        .concat(),
    )
}

/// Returns a delivery's frames, with its body in parts of `part` bytes.
fn delivery(channel: u16, tag: u64, body: &[u8], part: usize) -> Vec<Vec<u8>> {
    let mut frames = vec![deliver(channel, tag), header(channel, body.len(), 0, &[])];
    frames.extend(body.chunks(part).map(|part| frame(3, channel, part)));
    frames
}

/// Returns kind, channel and payload of each frame.
fn frames_of(mut bytes: &[u8]) -> Vec<(u8, u16, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [kind, first, second, a, b, c, d, rest @ ..] = bytes {
        let size = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        assert_eq!(rest[size], 0xce, "whole frames come out");
        frames.push((
            *kind,
            u16::from_be_bytes([*first, *second]),
            rest[..size].to_vec(),
        ));
        bytes = &rest[size + 1..];
    }
    assert!(bytes.is_empty());
    frames
}

/// Returns the bodies of each channel as the driver assembles them.
fn gathered(bytes: &[u8]) -> HashMap<u16, Vec<Vec<u8>>> {
    let mut bodies: HashMap<u16, Vec<Vec<u8>>> = HashMap::new();
    let mut missing = HashMap::new();
    for (kind, channel, payload) in frames_of(bytes) {
        let of_channel = bodies.entry(channel).or_default();
        if kind == 2 {
            missing.insert(
                channel,
                u64::from_be_bytes(payload[4..12].try_into().unwrap()),
            );
            of_channel.push(Vec::new());
        } else if kind == 3 {
            *missing.get_mut(&channel).unwrap() -= payload.len() as u64;
            of_channel.last_mut().unwrap().extend(payload);
        }
    }
    assert!(missing.values().all(|missing| *missing == 0), "{missing:?}");
    bodies
}

fn consuming(budget: u32) -> (Frames, Arc<Inbound>, Taker, ByteBudget) {
    let budget = ByteBudget::new(budget);
    let (inbound, taker) = Inbound::new(&budget);
    (
        Frames::new(Some(Arc::clone(&inbound))),
        inbound,
        taker,
        budget,
    )
}

/// Feeds all of the input and admits each delivery at once. Returns `None` if the peer breaks the
/// order of frames.
fn let_in(
    frames: &mut Frames,
    budget: &ByteBudget,
    input: &[u8],
    cuts: &[usize],
) -> Option<Vec<u8>> {
    let (mut out, mut rest, mut cuts) = (Vec::new(), input, cuts.iter().cycle());
    let mut gate = budget.gate();
    let mut cx = Context::from_waker(noop_waker_ref());
    while !rest.is_empty() {
        let part = &rest[..(*cuts.next().unwrap()).min(rest.len())];
        rest = &rest[frames.feed(part, &mut out).ok()?..];
        if let Some(weight) = frames.held() {
            let Poll::Ready(permit) = gate.poll_acquire_many(&mut cx, weight) else {
                panic!("the budget is used up")
            };
            frames.admit(Charge::of(permit.unwrap()), &mut out);
        }
    }
    Some(out)
}

fn discarded(body: &[u8]) -> (Discarded, Vec<u8>) {
    (
        Discarded::of(body),
        body[..body.len().min(BEGINNING)].to_vec(),
    )
}

#[test]
fn a_body_over_the_limit_is_discarded_and_its_size_hash_and_beginning_are_kept() {
    let bytes: Vec<u8> = (0..=MESSAGE_LIMIT).map(|at| (at % 251) as u8).collect();
    let (within, over) = (&bytes[..MESSAGE_LIMIT], &bytes[..]);
    let input = [
        delivery(1, 7, within, 128 << 10),
        delivery(1, 8, over, 128 << 10),
        delivery(1, 9, b"{}", 9),
    ]
    .concat()
    .concat();
    for cut in [1, 7, 4096, input.len()] {
        let (mut frames, _, taker, budget) = consuming(BUDGET);
        let out = let_in(&mut frames, &budget, &input, &[cut]).unwrap();
        assert_eq!(
            gathered(&out)[&1],
            [within.to_vec(), Vec::new(), b"{}".to_vec()],
            "cut into {cut}"
        );
        let (first, second) = (taker.take(1, 7), taker.take(1, 8));
        assert!(first.charge.is_some() && first.discarded.is_none());
        assert_eq!(second.discarded, Some(discarded(over)));
        assert_eq!(
            Discarded::of(over).sha256,
            <[u8; 32]>::from(Sha256::digest(over))
        );
        assert!(
            taker.take(1, 9).charge.is_none(),
            "what is small is not counted"
        );
        drop((first, second));
        assert_eq!(budget.free(), BUDGET as usize);
    }
}

#[test]
fn a_header_table_over_the_limit_keeps_its_first_fields_and_is_marked() {
    let field = |name: &str, bytes: usize| {
        [&short(name.as_bytes())[..], b"S", &long(&vec![b'x'; bytes])].concat()
    };
    let count = [&short(b"x-delivery-count")[..], b"l", &[0; 8]].concat();
    // A table's length has four bytes, a name one and a text's kind and length five.
    let first = field("a", 1000);
    let rest = HEADERS_LIMIT - 4 - first.len() - 7;
    for (bytes, is_cut) in [(rest, false), (rest + 1, true)] {
        let table = long(&[&count[..], &first, &field("b", bytes)].concat());
        let received = header(
            1,
            2,
            HEADERS | 1 << 7,
            &[&table[..], &short(b"id")].concat(),
        );
        let input = [deliver(1, 7), received.clone(), frame(3, 1, b"{}")].concat();
        let (mut frames, _, taker, budget) = consuming(BUDGET);
        let out = let_in(&mut frames, &budget, &input, &[input.len()]).unwrap();
        let kept = header(
            1,
            2,
            HEADERS | 1 << 7,
            &[&long(&[&count[..], &first].concat())[..], &short(b"id")].concat(),
        );
        let expected = if is_cut { kept } else { received };
        assert_eq!(out, [deliver(1, 7), expected, frame(3, 1, b"{}")].concat());
        assert_eq!(taker.take(1, 7).headers_too_large, is_cut);
    }
    // The limit counts the memory that the driver and JSON use for a value of one byte.
    let voids = long(&[&short(b"a")[..], b"A", &long(&[b'V'; 8000])].concat());
    let input = [deliver(1, 7), header(1, 0, HEADERS, &voids)].concat();
    let (mut frames, _, taker, budget) = consuming(BUDGET);
    let_in(&mut frames, &budget, &input, &[input.len()]).unwrap();
    assert!(BUDGET as usize - budget.free() > 8000 * 64);
    drop(taker);
    assert_eq!(budget.free(), BUDGET as usize);
}

#[test]
fn a_peer_that_breaks_the_order_of_contents_is_left() {
    let big = MESSAGE_LIMIT + 1;
    for (what, input) in [
        ("a body that nothing announced", frame(3, 1, b"x")),
        (
            "a body instead of a header",
            [deliver(1, 7), frame(3, 1, b"x")].concat(),
        ),
        (
            "a body of another channel",
            [deliver(1, 7), header(1, 2, 0, &[]), frame(3, 2, b"{}")].concat(),
        ),
        (
            "more than was announced",
            [deliver(1, 7), header(1, 2, 0, &[]), frame(3, 1, b"{} ")].concat(),
        ),
        (
            "more than was announced of a large one",
            [
                deliver(1, 7),
                header(1, big, 0, &[]),
                frame(3, 1, &vec![0; big + 1]),
            ]
            .concat(),
        ),
        (
            "another delivery within a body",
            [deliver(1, 7), header(1, big, 0, &[]), deliver(1, 8)].concat(),
        ),
        (
            "another header within a body",
            [deliver(1, 7), header(1, 2, 0, &[]), header(1, 2, 0, &[])].concat(),
        ),
        (
            "a large content that is no delivery",
            header(1, big, 0, &[]),
        ),
        (
            "an endless method",
            [&[1, 0, 1][..], &u32::MAX.to_be_bytes(), &[0]].concat(),
        ),
        (
            "an endless heartbeat",
            [&[8, 0, 0][..], &u32::MAX.to_be_bytes(), &[0]].concat(),
        ),
    ] {
        for cut in [1, input.len()] {
            let (mut frames, _, _taker, budget) = consuming(BUDGET);
            assert_eq!(let_in(&mut frames, &budget, &input, &[cut]), None, "{what}");
        }
    }
}

#[test]
fn a_message_returned_to_a_publisher_is_passed_on_at_any_size() {
    let returned = [
        header(1, MESSAGE_LIMIT + 1, 0, &[]),
        frame(3, 1, &vec![b'x'; MESSAGE_LIMIT + 1]),
    ]
    .concat();
    assert_eq!(
        fed(&mut Frames::default(), &returned, &[4096]),
        (returned, None)
    );
}

/// Reads as much as is available now.
fn now<S: AsyncRead + Unpin>(stream: &mut Sanitized<S>) -> Vec<u8> {
    let (mut out, mut buffer) = (Vec::new(), vec![0; 128 << 10]);
    while let Some(read) = stream.read(&mut buffer).now_or_never() {
        match read.unwrap() {
            0 => break,
            bytes => out.extend(&buffer[..bytes]),
        }
    }
    out
}

#[tokio::test]
async fn a_delivery_that_there_is_no_memory_for_waits_and_the_driver_gets_heartbeats_meanwhile() {
    let budget = ByteBudget::new(4 << 20);
    let (inbound, taker) = Inbound::new(&budget);
    let body = vec![b'x'; 600 << 10];
    let input = [
        delivery(1, 1, &body, 128 << 10),
        delivery(1, 2, &body, 128 << 10),
        delivery(1, 3, b"{}", 9),
    ]
    .concat()
    .concat();
    let mut stream = Sanitized::new(&input[..], Some(inbound));
    let first = gathered(&now(&mut stream));
    // The method frame of the second one has arrived.
    assert!(first[&1].len() == 1 && first[&1][0] == body);
    assert!(taker.waits());
    // More often than the driver would miss a heartbeat at the shortest setting.
    for _ in 0..2 {
        let mut meanwhile = [0; 64];
        let bytes = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut meanwhile))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(meanwhile[..bytes], HEARTBEAT_FRAME);
    }
    drop(taker.take(1, 1));
    let rest = gathered(&now(&mut stream));
    assert_eq!(rest[&1], [body, b"{}".to_vec()]);
    assert!(!taker.waits());
}

#[tokio::test]
async fn deliveries_to_a_dropped_consumer_arrive_without_bodies_and_are_not_charged() {
    let budget = ByteBudget::new(4 << 20);
    let (inbound, taker) = Inbound::new(&budget);
    let body = vec![b'x'; 600 << 10];
    let close_ok = frame(1, 0, &[0, 10, 0, 51]);
    let input = [
        (1..=9)
            .flat_map(|tag| delivery(1, tag, &body, 128 << 10))
            .collect::<Vec<_>>()
            .concat(),
        close_ok.clone(),
    ]
    .concat();
    let mut stream = Sanitized::new(&input[..], Some(inbound));
    assert_eq!(gathered(&now(&mut stream))[&1].len(), 1);
    drop(taker);
    let rest = now(&mut stream);
    assert_eq!(gathered(&rest)[&1], vec![Vec::<u8>::new(); 8]);
    assert!(rest.ends_with(&close_ok));
    assert_eq!(budget.free(), 4 << 20);
}

/// Returns a body that contains its tag.
fn numbered(tag: u64, bytes: usize) -> Vec<u8> {
    let mut body = tag.to_be_bytes().to_vec();
    body.resize(bytes.max(8), b'x');
    body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bodies_of_several_channels_are_separated_however_the_stream_is_cut(
        bodies in prop::collection::vec((1..4_u16, prop_oneof![0..3000_usize, MESSAGE_LIMIT - 2..MESSAGE_LIMIT + 3], 1000..200_000_usize), 1..6),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..30),
        cuts in prop::collection::vec(1..100_000_usize, 1..40),
    ) {
        let mut queues: HashMap<u16, VecDeque<Vec<u8>>> = HashMap::new();
        for ((channel, bytes, part), tag) in bodies.iter().zip(1..) {
            queues.entry(*channel).or_default().extend(delivery(*channel, tag, &numbered(tag, *bytes), *part));
        }
        let (mut input, mut order) = (Vec::new(), order.iter().cycle());
        while queues.values().any(|queue| !queue.is_empty()) {
            let open: Vec<u16> = queues.iter().filter(|(_, queue)| !queue.is_empty()).map(|(channel, _)| *channel).collect();
            let channel = open[order.next().unwrap().index(open.len())];
            input.extend(queues.get_mut(&channel).unwrap().pop_front().unwrap());
        }
        let (mut frames, _, taker, budget) = consuming(64 << 20);
        let out = let_in(&mut frames, &budget, &input, &cuts).unwrap();
        let mut received = gathered(&out);
        for ((channel, bytes, _), tag) in bodies.iter().zip(1..) {
            let body = numbered(tag, *bytes);
            let is_over = body.len() > MESSAGE_LIMIT;
            prop_assert_eq!(received.get_mut(channel).unwrap().remove(0), if is_over { Vec::new() } else { body.clone() });
            prop_assert_eq!(taker.take(*channel, tag).discarded, is_over.then(|| discarded(&body)));
        }
        prop_assert_eq!(budget.free(), 64 << 20);
    }

    #[test]
    fn deliveries_in_hand_stay_within_the_budget_and_all_of_them_arrive(
        sizes in prop::collection::vec(8..400_000_usize, 1..20),
        given_back in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _within = runtime.enter();
        let budget = ByteBudget::new(1 << 20);
        let (inbound, taker) = Inbound::new(&budget);
        let input: Vec<u8> = sizes.iter().zip(1..).flat_map(|(bytes, tag)| delivery(1, tag, &numbered(tag, *bytes), 128 << 10).concat()).collect();
        let mut stream = Sanitized::new(&input[..], Some(inbound));
        let (mut out, mut in_hand, mut next, mut turns) = (Vec::new(), Vec::new(), 1, given_back.iter().cycle());
        loop {
            out.extend(now(&mut stream));
            let received = gathered(&out).remove(&1).unwrap_or_default();
            for body in &received[next - 1..] {
                in_hand.push((body.len() as u64, taker.take(1, next as u64)));
                next += 1;
            }
            let counted: u64 = in_hand.iter().filter(|(_, one)| one.charge.is_some()).map(|(bytes, _)| 4 * bytes).sum();
            // A delivery that takes more than the budget arrives alone.
            prop_assert!(counted <= 1 << 20 || in_hand.iter().filter(|(_, one)| one.charge.is_some()).count() == 1);
            if received.len() == sizes.len() {
                break;
            }
            prop_assert!(!in_hand.is_empty(), "nothing is in hand and nothing comes");
            in_hand.swap_remove(turns.next().unwrap().index(in_hand.len()));
        }
        drop((in_hand, taker));
        prop_assert_eq!(budget.free(), 1 << 20);
    }
}
