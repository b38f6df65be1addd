//! The output of a stream, for any division of its input.

use lapin::types::{AMQPValue, FieldTable};
use proptest::prelude::*;
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::fields::{DELIVER, Fields};
use super::*;
use crate::broker::headers::from_json;
use crate::message::DEPTH_LIMIT;

const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Feeds `input` in parts whose lengths cycle through `cuts`. Returns the output and the error
/// that ended it.
pub(super) fn fed(frames: &mut Frames, input: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<String>) {
    let (mut out, mut rest, mut cuts) = (Vec::new(), input, cuts.iter().cycle());
    while !rest.is_empty() {
        let (part, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
        match frames.feed(part, &mut out) {
            Ok(taken) => assert_eq!(taken, part.len()),
            Err(error) => return (out, Some(error.to_string())),
        }
        rest = after;
    }
    (out, None)
}

pub(super) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 0, 1], &size[..], payload, &[0xce]].concat()
}

pub(super) fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

pub(super) fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// Returns a content header with these properties.
pub(super) fn header(present: u16, properties: &[u8]) -> Vec<u8> {
    let size = [0, 0, 0, 0, 0, 0, 0, 2];
    frame(
        CONTENT_HEADER,
        &[
            &[0, 60, 0, 0],
            &size[..],
            &present.to_be_bytes(),
            properties,
        ]
        .concat(),
    )
}

fn repaired(input: &[u8]) -> Vec<u8> {
    let (out, error) = fed(&mut Frames::default(), input, &[input.len()]);
    assert!(error.is_none(), "{error:?}");
    out
}

/// Returns tables nested in a table.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(Vec::new(), |inner, _| {
        [&short(b"a\xff")[..], b"F", &long(&inner)].concat()
    })
}

#[test]
fn texts_become_utf_8_wherever_they_stand() {
    let all = |bytes: &[u8]| {
        let headers = [
            &short(bytes)[..],
            b"S",
            &long(b"\xff"),
            &short(bytes),
            b"A",
            &long(b"t\x01"),
        ]
        .concat();
        let texts = |count: usize| short(bytes).repeat(count);
        let properties = [
            texts(2),
            long(&headers),
            vec![2, 0],
            texts(4),
            vec![0; 8],
            texts(4),
        ]
        .concat();
        let deliver = [
            &DELIVER[..],
            &short(b"tag"),
            &[0; 9],
            &short(b"dispatch"),
            &short(bytes),
        ]
        .concat();
        [
            frame(METHOD, &deliver),
            header(0xfffc, &properties),
            frame(BODY, b"\xff\xfe"),
            frame(HEARTBEAT, b""),
        ]
        .concat()
    };
    assert_eq!(repaired(&all(b"x\xff\xc3y\xe2\x82")), all(b"x\0\0y\0\0"));
    assert_eq!(
        repaired(&all("né".as_bytes())),
        all("né".as_bytes()),
        "what is right stays"
    );
}

#[test]
fn tables_are_nested_as_deep_as_json_may_be_and_no_deeper() {
    // The header table itself is one more level.
    for (depth, is_kept) in [
        (DEPTH_LIMIT - 1, true),
        (DEPTH_LIMIT, false),
        (10_000, false),
    ] {
        let input = header(1 << 13, &long(&nested(depth)));
        let output = repaired(&input);
        assert_eq!(output.len(), input.len());
        // Count the repaired text together with the table's kind, because a length may contain
        // that byte, too.
        let kept = output
            .windows(3)
            .filter(|window| *window == b"a\0F")
            .count();
        assert_eq!(kept == depth, is_kept, "{depth}: {kept}");
        assert!(kept < DEPTH_LIMIT);
    }
}

#[test]
fn bytes_that_are_not_frames_are_passed_on_unchanged() {
    for input in [
        &b"AMQP\x00\x00\x09\x01\xff\xff"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n\xff",
        &header(0xffff, b"\xff"),
    ] {
        assert_eq!(repaired(input), input);
    }
}

#[tokio::test]
async fn a_stream_that_ends_within_a_frame_gives_all_it_had() {
    let whole = header(1 << 7, &short(b"\xff"));
    let cut = &whole[..whole.len() - 2];
    let mut out = Vec::new();
    Sanitized::new(cut, None)
        .read_to_end(&mut out)
        .await
        .unwrap();
    assert_eq!(out, cut);
}

proptest! {
    #[test]
    fn frames_are_found_however_the_stream_is_cut(
        parts in prop::collection::vec((1..4_u8, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        cuts in prop::collection::vec(1..30_usize, 1..40),
    ) {
        let input: Vec<u8> = parts.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
        let (whole, its_error) = fed(&mut Frames::default(), &input, &[input.len()]);
        let (out, error) = fed(&mut Frames::default(), &input, &cuts);
        prop_assert_eq!(&out, &whole);
        prop_assert_eq!(&error, &its_error);
        prop_assert!(error.is_some() || out.len() == input.len());
    }

    #[test]
    fn a_header_that_the_driver_writes_is_unchanged(names in prop::collection::vec("[a-zé]{1,9}", 0..6), number: i64) {
        let mut table = FieldTable::default();
        for name in names {
            let inner = AMQPValue::FieldArray(vec![AMQPValue::LongLongInt(number), AMQPValue::Void].into());
            table.insert(name.as_str().into(), inner);
        }
        let properties = lapin::BasicProperties::default().with_headers(table).with_message_id("é".into());
        let header = lapin::protocol::basic::gen_properties(&properties);
        let bytes = header(Vec::new().into()).unwrap().into_inner().0;
        let input = frame(CONTENT_HEADER, &[&[0; 12][..], &bytes].concat());
        prop_assert_eq!(repaired(&input), input);
    }
}

/// Returns the size of a header table as read from a content header that the driver writes.
fn measured(table: &FieldTable) -> usize {
    let properties = lapin::BasicProperties::default().with_headers(table.clone());
    let header = lapin::protocol::basic::gen_properties(&properties);
    let bytes = header(Vec::new().into()).unwrap().into_inner().0;
    let mut payload = [&[0; 12][..], &bytes].concat();
    Fields::of(&mut payload).properties().unwrap().bytes
}

#[test]
fn a_table_is_as_large_as_on_the_wire() {
    let headers = json!({"n": -7, "x": 0.5, "t": "é", "no": null, "yes": true, "l": [1, [], {}], "d": {"a": {"b": "c"}}});
    let mut table = from_json(headers.as_object().unwrap()).unwrap();
    let (names, types) = ("nxtnoyesldab".len() + 9, 9 + 3);
    let values = 8 + 8 + (4 + 2) + 1 + (4 + 8 + 4 + 4) + 4 + 4 + (4 + 1);
    let written = 4 + names + types + values;
    assert_eq!(measured(&table), written);
    table.insert("x-delivery-count".into(), AMQPValue::LongLongInt(3));
    assert_eq!(
        measured(&table),
        written,
        "the broker's count does not count"
    );
    table.insert(
        "x-delivery-count".into(),
        AMQPValue::LongString("x".repeat(9000).as_str().into()),
    );
    assert!(measured(&table) > 9000, "a text is not the broker's");
}
