//! The AsyncAPI 3.0 document (<https://www.asyncapi.com/docs/reference/specification/v3.0.0>): the worker as an application that
//! receives jobs and control messages and sends outcomes.

use serde_json::{Map, Value, json};

use crate::message::{MESSAGE_LIMIT, SCHEMA};

/// Where messages go on the broker.
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

/// JSON Schema 2020-12 as a message's payload.
const SCHEMA_FORMAT: &str = "application/schema+json;version=2020-12";

/// The document, for a worker of `version`.
#[must_use]
pub fn asyncapi(version: &str, at: Addresses) -> Value {
    let received = [
        (at.job, "Work for one organization.", super::job()),
        (at.configure, "Supplies the account that a job waits for.", super::configure()),
        (at.cancel, "Ends a job and its follow-ups, also one that has not come yet.", super::cancel()),
    ];
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for (key, summary, schema) in received {
        channels.insert(key.to_owned(), channel(key, summary, at.exchange, "direct", &format!("{key}Message")));
        messages.insert(format!("{key}Message"), message(key, summary, schema));
        let mut operation = json!({
            "action": "receive",
            "channel": {"$ref": format!("#/channels/{key}")},
            "messages": [{"$ref": format!("#/channels/{key}/messages/{key}Message")}],
            "bindings": {"amqp": {"ack": true, "bindingVersion": "0.3.0"}}
        });
        if key == at.job {
            operation["reply"] = json!({
                "address": {
                    "description": "A queue of the producer's; RabbitMQ's direct reply-to serves too. Without one, no reply is sent.",
                    "location": "$message.header#/reply_to"
                },
                "channel": {"$ref": "#/channels/reply"},
                "messages": [{"$ref": "#/channels/reply/messages/outcome"}]
            });
        }
        operations.insert(format!("receive_{key}"), operation);
    }
    let outcomes = "What becomes of messages and jobs, at least once. The routing key is the body's `event`.";
    channels.insert("outcome".to_owned(), channel("{event}", outcomes, at.events, "topic", "outcome"));
    channels["outcome"]["parameters"] = json!({"event": {"description": "As in the body."}});
    channels.insert(
        "reply".to_owned(),
        json!({
            "address": null,
            "description": "The queue that a job's message names in `reply_to`.",
            "messages": {"outcome": {"$ref": "#/components/messages/outcome"}}
        }),
    );
    messages.insert("outcome".to_owned(), message("outcome", outcomes, super::outcome()));
    operations.insert(
        "send_outcome".to_owned(),
        json!({
            "action": "send",
            "channel": {"$ref": "#/channels/outcome"},
            "messages": [{"$ref": "#/channels/outcome/messages/outcome"}],
            "bindings": {"amqp": {"deliveryMode": 2, "mandatory": false, "bindingVersion": "0.3.0"}}
        }),
    );
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "dispatch-worker",
            "version": version,
            "description": format!("What producers send and hear, in schema {SCHEMA}, over AMQP 0-9-1.")
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages}
    })
}

/// A routing key of an exchange, with its one message.
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

/// AMQP properties and headers that are understood, or given back.
fn headers() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "type": "object",
        "properties": {
            "message_id": text("The dedupe key of a job whose body has none."),
            "app_id": text("The source of a job whose body has none; who is written down as the actor of a control message."),
            "correlation_id": text("Given back with each reply."),
            "reply_to": text("The queue that gets a job's outcomes too; not one that begins with `dispatch.`."),
            "traceparent": text("W3C Trace Context; it goes with the job, its follow-ups and its events."),
            "tracestate": text("W3C Trace Context.")
        }
    })
}
