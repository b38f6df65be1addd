//! Publishing of persistent messages with confirms, on separate connections (a memory or disk
//! alarm blocks a connection that publishes).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, PublisherConfirm};
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::headers::{self, short};
use super::{BrokerError, CALL_TIMEOUT, connect, topology, user_of, within};
use crate::reconnect::Reconnect;
use crate::telemetry::names;
use crate::tls_policy::Endpoint;
use crate::trace::{TRACEPARENT, TRACESTATE, Trace};

/// A message to be published.
#[derive(Debug, Default, Clone)]
pub struct Outgoing {
    /// The exchange. The default exchange, with the empty name, routes by queue name.
    pub exchange: &'static str,
    pub routing_key: String,
    /// Whether the message is returned if no queue is bound for it.
    pub mandatory: bool,
    pub body: Vec<u8>,
    /// AMQP `content_type`; `application/json` by default.
    pub content_type: Option<String>,
    /// AMQP `content_encoding`.
    pub content_encoding: Option<String>,
    /// AMQP `message_id`.
    pub message_id: Option<String>,
    /// AMQP `app_id`.
    pub app_id: Option<String>,
    /// AMQP `reply_to`.
    pub reply_to: Option<String>,
    /// AMQP `correlation_id`.
    pub correlation_id: Option<String>,
    /// The header table.
    pub headers: Map<String, Value>,
    /// Sent as the headers `traceparent` and `tracestate`.
    pub trace: Option<Trace>,
}

/// The size of a queue, from a passive declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Ready messages.
    pub ready: u32,
    pub consumers: u32,
}

pub(super) struct Live {
    connection: Arc<Connection>,
    /// The authenticated user, sent as `user_id` with each message; RabbitMQ verifies it.
    user: ShortString,
    pub(super) channel: Channel,
    /// Confirms that did not arrive in time. The driver and the broker keep state for each until
    /// the channel is closed.
    pub(super) lost: AtomicUsize,
}

impl Live {
    /// Opens a channel in confirm mode on a connection.
    async fn on(connection: Arc<Connection>, user: ShortString) -> Result<Self, BrokerError> {
        let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
        within(
            CALL_TIMEOUT,
            channel.confirm_select(ConfirmSelectOptions::default()),
        )
        .await?;
        Ok(Self {
            connection,
            user,
            channel,
            lost: AtomicUsize::new(0),
        })
    }

    /// Returns whether the channel lacks so many confirms that it must be replaced.
    pub(super) fn is_worn(&self) -> bool {
        self.lost.load(Ordering::Relaxed) >= LOST_CONFIRMS
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Returns whether the broker has reported an alarm, which it does to connections that have
    /// published.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }
}

/// Publishes over the current connection of its supervisor.
#[derive(Clone)]
pub struct Publisher {
    pub(super) live: watch::Receiver<Option<Arc<Live>>>,
    doubt: Arc<Notify>,
    /// Makes the supervisor replace the channel.
    pub(super) renew: Arc<Notify>,
}

/// Maintains a publisher's connection.
pub struct PublisherSupervisor {
    endpoint: Endpoint,
    /// Label `link` of [`names::RECONNECTS`], and part of the connection's name.
    link: &'static str,
    live: watch::Sender<Option<Arc<Live>>>,
    doubt: Arc<Notify>,
    renew: Arc<Notify>,
}

/// The interval at which a connection is checked.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// The longest alarm. A connection that is blocked for longer may be dead, and would not receive
/// the end of the alarm.
const LONGEST_ALARM: Duration = Duration::from_secs(60);
/// How long a publish waits for a connection.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// The number of missing confirms after which a channel is replaced. RabbitMQ stops reading from a
/// channel, and soon from its connection, when a quorum queue has not answered for 32 messages of
/// that channel, or a classic queue for 400 (`quorum_commands_soft_limit`,
/// `credit_flow_default_credit` of RabbitMQ's application `rabbit`).
const LOST_CONFIRMS: usize = 24;

/// Returns a publisher, and the supervisor whose [`PublisherSupervisor::run`] keeps it connected.
/// `link` is the label of [`names::RECONNECTS`]; RabbitMQ's management UI shows the connection as
/// `dispatch {link}`.
#[must_use]
pub fn publisher(
    endpoint: impl Into<Endpoint>,
    link: &'static str,
) -> (Publisher, PublisherSupervisor) {
    let (sender, live) = watch::channel(None);
    let (doubt, renew) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let publisher = Publisher {
        live,
        doubt: Arc::clone(&doubt),
        renew: Arc::clone(&renew),
    };
    (
        publisher,
        PublisherSupervisor {
            endpoint: endpoint.into(),
            link,
            live: sender,
            doubt,
            renew,
        },
    )
}

impl PublisherSupervisor {
    /// Connects, and reconnects on any failure, until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut reconnect = Reconnect::default();
        while !cancel.is_cancelled() {
            match open(&self.endpoint, self.link).await {
                Ok(live) => {
                    reconnect.reset();
                    self.watch(live, &cancel).await;
                }
                Err(error) => {
                    tracing::warn!(
                        link = self.link,
                        error = crate::fault::chain(&error),
                        "the publisher cannot connect; it retries"
                    );
                }
            }
            metrics::counter!(names::RECONNECTS, "link" => self.link).increment(1);
            tokio::select! {
                () = tokio::time::sleep(reconnect.next_delay()) => {}
                () = cancel.cancelled() => {}
            }
        }
    }

    /// Offers a connection to the publisher until it is closed, reported as broken, or the
    /// supervisor is cancelled.
    async fn watch(&self, live: Live, cancel: &CancellationToken) {
        let mut live = Arc::new(live);
        self.live.send_replace(Some(Arc::clone(&live)));
        let mut alarm = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(CHECK_EVERY) => {
                    alarm = live.is_blocked().then(|| alarm.unwrap_or_else(Instant::now));
                    if !live.is_connected() || alarm.is_some_and(|since| since.elapsed() > LONGEST_ALARM) {
                        break;
                    }
                }
                () = self.renew.notified() => {
                    if live.is_worn() {
                        // Messages that still wait for a confirm of the old channel keep it open.
                        let renewed = Live::on(Arc::clone(&live.connection), live.user.clone());
                        let Ok(fresh) = renewed.await else { break };
                        live = Arc::new(fresh);
                        self.live.send_replace(Some(Arc::clone(&live)));
                    }
                }
                () = self.doubt.notified() => break,
                () = cancel.cancelled() => break,
            }
        }
        self.live.send_replace(None);
    }
}

/// The link name of commands and of wake-ups.
pub(super) const PUBLISHER: &str = "publisher";

pub(super) async fn open(endpoint: &Endpoint, link: &str) -> Result<Live, BrokerError> {
    let user = short(&user_of(endpoint)?)?;
    Live::on(
        Arc::new(connect(endpoint, &format!("dispatch {link}")).await?),
        user,
    )
    .await
}

impl Publisher {
    /// Connects once, without a supervisor, for a command that publishes and ends.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn connect(endpoint: impl Into<Endpoint>) -> Result<Self, BrokerError> {
        Ok(Self::over(Arc::new(
            open(&endpoint.into(), PUBLISHER).await?,
        )))
    }

    pub(super) fn over(live: Arc<Live>) -> Self {
        let (_, live) = watch::channel(Some(live));
        Self {
            live,
            doubt: Arc::new(Notify::new()),
            renew: Arc::new(Notify::new()),
        }
    }

    /// Returns the reason why nothing can be published at the moment, if there is one.
    #[must_use]
    pub fn trouble(&self) -> Option<BrokerError> {
        match self.live.borrow().as_deref() {
            Some(live) if live.is_blocked() => Some(BrokerError::Blocked),
            Some(live) if live.is_connected() => None,
            _ => Some(BrokerError::NotConnected),
        }
    }

    /// Publishes one message and waits for its confirm.
    ///
    /// # Errors
    /// [`BrokerError`]: only an ack without a returned message counts as success.
    pub async fn publish(&self, message: &Outgoing) -> Result<(), BrokerError> {
        let live = self.live().await?;
        let deadline = Instant::now() + CALL_TIMEOUT;
        let sent = self.send(&live, message, deadline).await?;
        self.confirmed(&live, sent, deadline).await
    }

    /// Publishes a batch: sends all messages, then waits for all confirms. Returns one result per
    /// message, in order.
    pub async fn publish_all(&self, messages: &[Outgoing]) -> Vec<Result<(), BrokerError>> {
        let live = match self.live().await {
            Ok(live) => live,
            Err(BrokerError::Blocked) => {
                return messages.iter().map(|_| Err(BrokerError::Blocked)).collect();
            }
            Err(_) => {
                return messages
                    .iter()
                    .map(|_| Err(BrokerError::NotConnected))
                    .collect();
            }
        };
        // One time limit for the whole batch, so that neither a broker under an alarm nor a queue
        // that does not confirm delays the caller for longer.
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut sent = Vec::with_capacity(messages.len());
        for message in messages {
            sent.push(self.send(&live, message, deadline).await);
        }
        let mut answers = Vec::with_capacity(messages.len());
        for sent in sent {
            answers.push(match sent {
                Ok(sent) => self.confirmed(&live, sent, deadline).await,
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// Returns the depth of a queue.
    ///
    /// # Errors
    /// [`BrokerError`], also if the queue does not exist.
    pub async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let live = self.live().await?;
        // On a separate channel: the broker closes the channel of a failed passive declare.
        let channel = within(CALL_TIMEOUT, live.connection.create_channel())
            .await
            .inspect_err(|_| self.doubt(&live))?;
        let (ready, consumers) = topology::depth(&channel, queue).await?;
        drop(within(CALL_TIMEOUT, channel.close(200, "looked".into())).await);
        Ok(Depth { ready, consumers })
    }

    async fn live(&self) -> Result<Arc<Live>, BrokerError> {
        let mut live = self.live.clone();
        let found = tokio::time::timeout(CONNECTION_WAIT, live.wait_for(Option::is_some)).await;
        let now = match found {
            Ok(Ok(now)) => now
                .as_ref()
                .map(Arc::clone)
                .ok_or(BrokerError::NotConnected)?,
            Ok(Err(_)) | Err(_) => return Err(BrokerError::NotConnected),
        };
        // RabbitMQ reads nothing until the alarm is over, so the caller should not wait.
        if now.is_blocked() {
            Err(BrokerError::Blocked)
        } else {
            Ok(now)
        }
    }

    pub(super) async fn send(
        &self,
        live: &Live,
        message: &Outgoing,
        deadline: Instant,
    ) -> Result<PublisherConfirm, BrokerError> {
        let properties = properties(message)?.with_user_id(live.user.clone());
        let options = BasicPublishOptions {
            mandatory: message.mandatory,
            ..BasicPublishOptions::default()
        };
        let key = short(&message.routing_key)?;
        let sending = live.channel.basic_publish(
            message.exchange.into(),
            key,
            options,
            &message.body,
            properties,
        );
        within(deadline.saturating_duration_since(Instant::now()), sending)
            .await
            .inspect_err(|_| self.doubt(live))
    }

    /// Makes the supervisor replace this connection, unless it already has, or an alarm explains
    /// the missing answer.
    fn doubt(&self, live: &Live) {
        if !live.is_blocked()
            && self
                .live
                .borrow()
                .as_ref()
                .is_some_and(|now| std::ptr::eq(Arc::as_ptr(now), live))
        {
            self.doubt.notify_one();
        }
    }

    async fn confirmed(
        &self,
        live: &Live,
        sent: PublisherConfirm,
        deadline: Instant,
    ) -> Result<(), BrokerError> {
        let left = deadline.saturating_duration_since(Instant::now());
        answer(within(left, sent).await.inspect_err(|_| self.doubt(live))?)
    }
}

/// Converts a confirm to a result: only an ack without a returned message is success.
pub(super) fn answer(confirmation: Confirmation) -> Result<(), BrokerError> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
            metrics::counter!(names::RETURNED_PUBLISHES).increment(1);
            Err(BrokerError::Returned(
                returned.reply_text.as_str().to_owned(),
            ))
        }
        Confirmation::Nack(None) => Err(BrokerError::Nacked),
        Confirmation::NotRequested => Err(BrokerError::NotConfirming),
    }
}

fn properties(message: &Outgoing) -> Result<BasicProperties, BrokerError> {
    let content_type = message
        .content_type
        .as_deref()
        .unwrap_or("application/json");
    // 2: persistent (AMQP 0-9-1, basic class).
    let mut properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type(short(content_type)?);
    if let Some(encoding) = &message.content_encoding {
        properties = properties.with_content_encoding(short(encoding)?);
    }
    if let Some(id) = &message.message_id {
        properties = properties.with_message_id(short(id)?);
    }
    if let Some(id) = &message.app_id {
        properties = properties.with_app_id(short(id)?);
    }
    if let Some(queue) = &message.reply_to {
        properties = properties.with_reply_to(short(queue)?);
    }
    if let Some(id) = &message.correlation_id {
        properties = properties.with_correlation_id(short(id)?);
    }
    let mut table = message.headers.clone();
    if let Some(trace) = &message.trace {
        table.insert(TRACEPARENT.to_owned(), trace.to_string().into());
        if let Some(state) = trace.state() {
            table.insert(TRACESTATE.to_owned(), state.into());
        }
    }
    if !table.is_empty() {
        properties = properties.with_headers(headers::from_json(&table)?);
    }
    Ok(properties)
}
