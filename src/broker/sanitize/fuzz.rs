//! What RabbitMQ sends, and header tables, on changed ones.

use lapin::types::FieldTable;

use super::fields::DELIVER;
use super::frames::Frames;
use super::tests::{fed, frame, header, long, short};
use crate::broker::headers::{from_json, producer_headers, to_json};
use crate::fuzz;

#[test]
fn frames_are_the_same_in_whatever_parts_they_come() {
    let deliver = [
        &DELIVER[..],
        &short(b"tag"),
        &[0; 9],
        &short(b"dispatch"),
        &short(b"job"),
    ]
    .concat();
    let table = [
        &short(b"traceparent")[..],
        b"S",
        &long(b"00-1-2-01"),
        &short(b"n"),
        b"t\x01",
    ]
    .concat();
    let properties = [&short(b"application/json")[..], &long(&table), &[2]].concat();
    let stream = [
        frame(1, &deliver),
        header(0b1011 << 12, &properties),
        frame(3, b"{}"),
        frame(8, b""),
    ]
    .concat();
    let mut whole = 0_u64;
    fuzz::run("frames", &[&stream, b"AMQP\x00\x00\x09\x01"], |input| {
        let (out, error) = fed(&mut Frames::default(), input, &[input.len().max(1)]);
        let cuts = [1, 7, 2, 16, 3];
        assert_eq!(
            fed(&mut Frames::default(), input, &cuts),
            (out.clone(), error.clone())
        );
        // What is passed on is not longer than what came.
        assert!(out.len() <= input.len());
        whole += u64::from(error.is_none());
    });
    assert!(whole > 0, "streams without an error are among them");
}

#[test]
fn headers_survive_a_way_through_rabbitmq() {
    let headers = br#"{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","x-delivery-count":3,
        "n":-7,"x":0.5,"t":"\u00e9","no":null,"yes":true,"l":[1,[],{}],"d":{"a":{"b":"c"}},"x-death":[{"count":1,"queue":"q","reason":"expired"}]}"#;
    fuzz::run("headers", &[headers], |input| {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(input) else {
            return;
        };
        let kept = producer_headers(&value);
        let Ok(table) = from_json(&kept) else {
            return;
        };
        let again = to_json(&table);
        let twice = from_json(again.as_object().expect("a table is an object"));
        assert_eq!(
            to_json(&twice.unwrap_or_else(|_| FieldTable::default())),
            again
        );
    });
}
