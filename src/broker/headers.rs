//! Conversion of header tables to and from JSON.

use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use serde_json::{Map, Value};

use super::BrokerError;

/// Headers that a broker adds to a message that it dead-letters or returns to a queue
/// (<https://www.rabbitmq.com/docs/dlx#effects>,
/// <https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
const OF_THE_BROKER: &[&str] = &[
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-delivery-count",
    "x-acquired-count",
];
/// Headers that give a message further routing keys
/// (<https://www.rabbitmq.com/docs/sender-selected>).
const OTHER_QUEUES: &[&str] = &["CC", "BCC"];

/// Converts a header table to JSON with storable texts.
pub(super) fn to_json(table: &FieldTable) -> Value {
    let fields = table
        .inner()
        .iter()
        .map(|(name, value)| (storable(name.as_str()), plain(value)));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// Returns the headers with which a message is published again: those that its producer set for
/// the worker.
#[must_use]
pub fn producer_headers(headers: &Value) -> Map<String, Value> {
    let is_producer_s = |name: &str| {
        !OTHER_QUEUES.contains(&name)
            && !OF_THE_BROKER
                .iter()
                .any(|prefix| name.to_ascii_lowercase().starts_with(prefix))
    };
    let fields = headers.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| is_producer_s(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Converts JSON to a header table. Numbers become 64 bits wide.
pub(super) fn from_json(headers: &Map<String, Value>) -> Result<FieldTable, BrokerError> {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(short(name)?, amqp(value)?);
    }
    Ok(table)
}

fn amqp(value: &Value) -> Result<AMQPValue, BrokerError> {
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => AMQPValue::LongLongInt(whole),
            None => AMQPValue::Double(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(values) => AMQPValue::FieldArray(FieldArray::from(
            values.iter().map(amqp).collect::<Result<Vec<_>, _>>()?,
        )),
        Value::Object(inner) => AMQPValue::FieldTable(from_json(inner)?),
    })
}

fn plain(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(value) => Value::from(*value),
        AMQPValue::ShortShortInt(value) => Value::from(*value),
        AMQPValue::ShortShortUInt(value) => Value::from(*value),
        AMQPValue::ShortInt(value) => Value::from(*value),
        AMQPValue::ShortUInt(value) => Value::from(*value),
        AMQPValue::LongInt(value) => Value::from(*value),
        AMQPValue::LongUInt(value) => Value::from(*value),
        AMQPValue::LongLongInt(value) => Value::from(*value),
        AMQPValue::Timestamp(value) => Value::from(*value),
        AMQPValue::Float(value) => Value::from(*value),
        AMQPValue::Double(value) => Value::from(*value),
        AMQPValue::ShortString(value) => Value::from(storable(value.as_str())),
        AMQPValue::LongString(value) => {
            Value::from(storable(&String::from_utf8_lossy(value.as_bytes())))
        }
        AMQPValue::ByteArray(value) => {
            Value::from(storable(&String::from_utf8_lossy(value.as_slice())))
        }
        AMQPValue::FieldArray(values) => {
            Value::Array(values.as_slice().iter().map(plain).collect())
        }
        AMQPValue::FieldTable(inner) => to_json(inner),
        AMQPValue::DecimalValue(_) | AMQPValue::Void => Value::Null,
    }
}

/// Returns the text without NUL, which Postgres' `text` cannot hold: a message that cannot be
/// stored could not even become a dead letter. The protocol and the broker limit its length.
pub(super) fn storable(text: &str) -> String {
    crate::fault::storable(text, usize::MAX)
}

/// Converts a text to a short string of AMQP.
pub(super) fn short(text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|_| BrokerError::LongName(crate::fault::storable(text, 60)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn headers_go_out_as_they_came() {
        let headers =
            json!({"traceparent": "00-a", "n": -7, "deep": {"list": [true, null, 0.5, "x"]}});
        let table = from_json(headers.as_object().unwrap()).unwrap();
        assert_eq!(to_json(&table), headers);
    }

    #[test]
    fn headers_of_the_broker_and_of_other_queues_are_left_out() {
        let received = json!({"x-death": [{"count": 1}], "x-first-death-queue": "dispatch.jobs", "x-delivery-count": 9, "CC": ["q"],
            "x-deadline": "mine", "traceparent": "00-a"});
        assert_eq!(
            Value::Object(producer_headers(&received)),
            json!({"x-deadline": "mine", "traceparent": "00-a"})
        );
    }
}
