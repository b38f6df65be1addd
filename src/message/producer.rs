//! Producers, and the names that their messages may use. No I/O: registrations are stored
//! elsewhere.

use std::sync::Arc;

use super::Refusal;

/// RabbitMQ's direct reply-to: the pseudo-queue that a requester names and consumes, and the
/// prefix of the generated names to which answers go. RabbitMQ generates one name per requesting
/// channel; it cannot be guessed (<https://www.rabbitmq.com/docs/direct-reply-to>).
pub const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// A registered producer. Each list holds names, and prefixes followed by `*`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Producer {
    /// The RabbitMQ user that it publishes as.
    pub name: String,
    /// The sources of its jobs.
    pub sources: Vec<String>,
    /// The organizations that its jobs may be for.
    pub organizations: Vec<String>,
    /// The queues to which it may have replies sent, in addition to direct reply-to.
    pub reply_queues: Vec<String>,
    /// The Discord applications whose interactions it may forward.
    pub applications: Vec<String>,
}

/// A name in a message that its producer must be permitted to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    /// `source`.
    Source(&'a str),
    /// `organization`.
    Organization(&'a str),
    /// AMQP `reply_to`.
    ReplyTo(&'a str),
    /// `interaction.application_id`.
    Application(&'a str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// Every message is trusted. Holds the user that RabbitMQ has verified, if the message has
    /// one.
    Trusted(Option<String>),
    /// A registered producer.
    Known(Arc<Producer>),
}

impl Sender {
    /// Returns the user that RabbitMQ has verified.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Trusted(name) => name.as_deref(),
            Self::Known(producer) => Some(&producer.name),
        }
    }

    /// Checks that the sender may use all these names.
    ///
    /// # Errors
    /// [`Refusal::NotPermitted`] for the first name that it may not use.
    pub fn may_name(&self, names: &[Named<'_>]) -> Result<(), Refusal> {
        match self {
            Self::Trusted(_) => Ok(()),
            Self::Known(producer) => names.iter().try_for_each(|name| producer.may_name(*name)),
        }
    }
}

impl Producer {
    fn may_name(&self, name: Named<'_>) -> Result<(), Refusal> {
        let (what, value, allowed) = match name {
            Named::Source(value) => ("a source", value, &self.sources),
            Named::Organization(value) => ("an organization", value, &self.organizations),
            Named::ReplyTo(value) if is_direct_reply(value) => return Ok(()),
            Named::ReplyTo(value) => ("a reply queue", value, &self.reply_queues),
            Named::Application(value) => ("a Discord application", value, &self.applications),
        };
        if allowed.iter().any(|pattern| fits(pattern, value)) {
            return Ok(());
        }
        let (producer, value) = (self.name.clone(), crate::fault::storable(value, 100));
        Err(Refusal::NotPermitted {
            what,
            producer,
            value,
        })
    }
}

fn is_direct_reply(queue: &str) -> bool {
    queue
        .strip_prefix(DIRECT_REPLY)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn fits(pattern: &str, name: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == name, |beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> Sender {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Sender::Known(Arc::new(Producer {
            name: "shop".to_owned(),
            sources: list(&["shop", "shop-eu"]),
            organizations: list(&["acme"]),
            reply_queues: list(&["reply.shop.*"]),
            applications: list(&[]),
        }))
    }

    #[test]
    fn a_producer_names_what_is_its_own_and_nothing_else() {
        for (name, allowed) in [
            (Named::Source("shop"), true),
            (Named::Source("shop-eu"), true),
            (Named::Source("shop-us"), false),
            (Named::Source("Shop"), false),
            (Named::Source(""), false),
            (Named::Organization("acme"), true),
            (Named::Organization("acme2"), false),
            (Named::ReplyTo("reply.shop.1"), true),
            (Named::ReplyTo("reply.shop"), false),
            (Named::ReplyTo("reply.other.1"), false),
            (Named::ReplyTo("dispatch.jobs"), false),
            (Named::ReplyTo("amq.rabbitmq.reply-to"), true),
            (
                Named::ReplyTo("amq.rabbitmq.reply-to.g1h2AA5yZXBseUAx.AAA"),
                true,
            ),
            (Named::ReplyTo("amq.rabbitmq.reply-tomorrow"), false),
            (Named::Application("11"), false),
        ] {
            assert_eq!(shop().may_name(&[name]).is_ok(), allowed, "{name:?}");
        }
        let refusal = shop()
            .may_name(&[Named::Source("shop"), Named::Organization("globex")])
            .unwrap_err();
        assert_eq!(refusal.code(), "not_permitted");
        assert_eq!(
            refusal.to_string(),
            "expected an organization of producer \"shop\", got \"globex\"; use one of its own, or `dispatch producers register`"
        );
    }

    #[test]
    fn a_trusted_sender_names_anything() {
        assert_eq!(
            Sender::Trusted(None).may_name(&[Named::ReplyTo("dispatch.jobs")]),
            Ok(())
        );
        assert_eq!(
            Sender::Trusted(Some("shop".to_owned())).name(),
            Some("shop")
        );
    }
}
