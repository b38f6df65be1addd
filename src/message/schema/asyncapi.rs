//! The AsyncAPI 3.0 document (<https://www.asyncapi.com/docs/reference/specification/v3.0.0>). It
//! describes the worker as an application that receives jobs and control messages and sends
//! outcomes.

use serde_json::{Map, Value, json};

use crate::message::{MESSAGE_LIMIT, SCHEMA};

/// The exchanges and routing keys of messages.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The direct exchange of jobs and control messages.
    pub exchange: &'static str,
    /// The topic exchange of outcome events.
    pub events: &'static str,
    /// The routing key of a job.
    pub job: &'static str,
    /// The routing key of `configure`.
    pub configure: &'static str,
    /// The routing key of `cancel`.
    pub cancel: &'static str,
}

/// The schema format of a message's payload, JSON Schema 2020-12.
const SCHEMA_FORMAT: &str = "application/schema+json;version=2020-12";

/// Returns the document for a worker of `version`.
#[must_use]
pub fn asyncapi(version: &str, at: Addresses) -> Value {
    let mut parts = Parts::default();
    for (key, summary, schema) in [
        (at.job, "Work for one organization.", super::job()),
        (
            at.configure,
            "Supplies the account that a job waits for.",
            super::configure(),
        ),
        (
            at.cancel,
            "Ends a job and its follow-ups, even if the job has not arrived yet.",
            super::cancel(),
        ),
    ] {
        parts.receive(at.exchange, key, summary, schema);
    }
    parts.reply_to(at.job);
    parts.send_outcomes(at.events);
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "dispatch-worker",
            "version": version,
            "description": format!("The messages that producers send and receive over AMQP 0-9-1, in schema version {SCHEMA}.")
        },
        "defaultContentType": "application/json",
        "channels": parts.channels,
        "operations": parts.operations,
        "components": {"messages": parts.messages}
    })
}

/// The parts of the document that refer to each other.
#[derive(Default)]
struct Parts {
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
}

impl Parts {
    /// Adds a kind of message that the worker receives.
    fn receive(&mut self, exchange: &str, key: &str, summary: &str, schema: Value) {
        let name = format!("{key}Message");
        self.channels.insert(
            key.to_owned(),
            channel(key, summary, exchange, "direct", &name),
        );
        self.operations.insert(
            format!("receive_{key}"),
            json!({
                "action": "receive",
                "channel": {"$ref": format!("#/channels/{key}")},
                "messages": [{"$ref": format!("#/channels/{key}/messages/{name}")}],
                "bindings": {"amqp": {"ack": true, "bindingVersion": "0.3.0"}}
            }),
        );
        self.messages.insert(name, message(key, summary, schema));
    }

    /// Adds the replies to a kind of message that the worker receives.
    fn reply_to(&mut self, key: &str) {
        self.operations[&format!("receive_{key}")]["reply"] = json!({
            "address": {
                "description": "A queue of the producer, or RabbitMQ's direct reply-to. Without one, no reply is sent.",
                "location": "$message.header#/reply_to"
            },
            "channel": {"$ref": "#/channels/reply"},
            "messages": [{"$ref": "#/channels/reply/messages/outcome"}]
        });
        self.channels.insert(
            "reply".to_owned(),
            json!({
                "address": null,
                "description": "The queue that the job's message names in `reply_to`.",
                "messages": {"outcome": {"$ref": "#/components/messages/outcome"}}
            }),
        );
    }

    /// Adds the outcomes, which the worker sends.
    fn send_outcomes(&mut self, exchange: &str) {
        const SUMMARY: &str = "Outcomes of messages and jobs, delivered at least once. The routing key is the body's `event`.";
        let mut outcome = channel("{event}", SUMMARY, exchange, "topic", "outcome");
        outcome["parameters"] = json!({"event": {"description": "The `event` of the body."}});
        self.channels.insert("outcome".to_owned(), outcome);
        self.operations.insert(
            "send_outcome".to_owned(),
            json!({
                "action": "send",
                "channel": {"$ref": "#/channels/outcome"},
                "messages": [{"$ref": "#/channels/outcome/messages/outcome"}],
                "bindings": {"amqp": {"deliveryMode": 2, "mandatory": false, "bindingVersion": "0.3.0"}}
            }),
        );
        self.messages.insert(
            "outcome".to_owned(),
            message("outcome", SUMMARY, super::outcome()),
        );
    }
}

/// Returns a channel: a routing key of an exchange, with its only message.
fn channel(address: &str, description: &str, exchange: &str, kind: &str, message: &str) -> Value {
    json!({
        "address": address,
        "description": description,
        "messages": {message: {"$ref": format!("#/components/messages/{message}")}},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange, "type": kind, "durable": true, "autoDelete": false},
                "bindingVersion": "0.3.0"
            }
        }
    })
}

fn message(name: &str, summary: &str, mut schema: Value) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("$schema");
    }
    json!({
        "name": name,
        "summary": summary,
        "description": format!("At most {MESSAGE_LIMIT} bytes of UTF-8."),
        "contentType": "application/json",
        "headers": headers(),
        "payload": {"schemaFormat": SCHEMA_FORMAT, "schema": schema}
    })
}

/// Returns the AMQP properties and headers that the worker reads or returns.
fn headers() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "type": "object",
        "properties": {
            "message_id": text("The dedupe key of a job, if the body has none."),
            "app_id": text("The source of a job, if the body has none; the recorded actor of a control message."),
            "correlation_id": text("Returned with each reply."),
            "reply_to": text("A queue that also receives the job's outcomes; its name must not begin with `dispatch.`."),
            "traceparent": text("W3C Trace Context, passed on to the job, its follow-ups and its events."),
            "tracestate": text("W3C Trace Context.")
        }
    })
}
