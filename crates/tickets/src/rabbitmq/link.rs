//! Where the broker is, how to reach it, how its queues are declared, and what its failures mean to us.

use super::{RabbitSettings, pause::pause};
use crate::TicketError;
use futures::StreamExt as _;
use lapin::{
    Channel, Connection, ConnectionProperties, ErrorKind, Event,
    options::QueueDeclareOptions,
    tcp::OwnedTLSConfig,
    types::{AMQPValue, FieldTable, ShortString},
    uri::{AMQPScheme, AMQPUri},
};
use reelyard_model::{Tier, work::TaskKind};
use std::{fmt, future::Future, time::Duration};

/// Asked of the broker. A client gives a silent connection up after twice as long, so a black hole is known in 10 s;
/// RabbitMQ's documentation advises against less than 5 s.
const HEARTBEAT_SECONDS: u16 = 5;
/// A queue's name has at most 255 bytes on the wire; the rest is for class and tier.
const MAX_PREFIX_BYTES: usize = 200;
/// On the wire it is a short string.
const MAX_VHOST_BYTES: usize = 255;
/// AMQP 0-9-1, section 1.2: reply codes that only a person can do something about.
const ACCESS_REFUSED: u16 = 403;
const NOT_ALLOWED: u16 = 530;
const NOT_IMPLEMENTED: u16 = 540;

pub(super) struct Broker {
    uri: AMQPUri,
    pub(super) settings: RabbitSettings,
    /// For people: without user and password.
    name: String,
}

impl fmt::Debug for Broker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Broker").field(&self.name).finish()
    }
}

impl Broker {
    pub(super) fn new(settings: RabbitSettings) -> Result<Self, TicketError> {
        let wrong = |what: &str| {
            let form = "it is amqp://user:password@host:port/vhost, or amqps:// for TLS";
            TicketError::Misconfigured(format!("The URL of RabbitMQ is not usable: {what}; {form}"))
        };
        // Its own message may show the URL, and so the password.
        let mut uri: AMQPUri = settings.url.parse().map_err(|_| wrong("it cannot be read"))?;
        if settings.url.contains('[') {
            return Err(wrong("an address of IPv6 needs a name"));
        }
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        if uri.vhost.len() > MAX_VHOST_BYTES {
            return Err(wrong("its virtual host is too long"));
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let prefix = settings.prefix.as_bytes();
        if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES || !prefix.iter().all(|byte| allowed(*byte)) {
            return Err(TicketError::Misconfigured(format!(
                "A prefix of queues has 1 to {MAX_PREFIX_BYTES} letters, digits, dots, hyphens and underscores; this \
                 has others: {:?}",
                settings.prefix
            )));
        }
        let scheme = if uri.scheme == AMQPScheme::AMQPS { "amqps" } else { "amqp" };
        let name = format!("{scheme}://{}:{}", uri.authority.host, uri.authority.port);
        Ok(Self { uri, settings, name })
    }

    /// Ends within the time for connecting. Its events for people go to the log from here on.
    pub(super) async fn connect(&self, purpose: &str) -> Result<Connection, TicketError> {
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("reelyard {purpose}").as_str().into());
        let tls = OwnedTLSConfig { identity: None, cert_chain: self.settings.certificates.clone() };
        let runtime = lapin::runtime::default_runtime().map_err(|error| self.failure(&error))?;
        let connecting = Connection::connect_uri_with_config(self.uri.clone(), properties, tls, runtime);
        let connection = self.within(self.settings.connect_timeout, "connect", connecting).await?;
        tokio::spawn(tell_people(connection.events_listener(), self.name.clone()));
        Ok(connection)
    }

    /// A failure or too long a time is an error in our words.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        step: &str,
        action: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, TicketError> {
        match tokio::time::timeout(limit, action).await {
            Ok(result) => result.map_err(|error| self.failure(&error)),
            Err(_) => Err(self.unavailable(&format!("no answer to {step} within {limit:?}"))),
        }
    }

    pub(super) fn unavailable(&self, reason: &str) -> TicketError {
        TicketError::Unavailable(format!(
            "RabbitMQ at {} did not take or give tickets: {reason}. They are tried again; no work is lost",
            self.name
        ))
    }

    pub(super) fn failure(&self, error: &lapin::Error) -> TicketError {
        if let ErrorKind::ProtocolError(protocol) = error.kind() {
            let code = protocol.get_id();
            if [ACCESS_REFUSED, NOT_ALLOWED, NOT_IMPLEMENTED].contains(&code) {
                return TicketError::Misconfigured(format!(
                    "RabbitMQ at {} refuses us: {protocol}. Check user, password, virtual host and permissions \
                     (configure, write and read on {}.*)",
                    self.name, self.settings.prefix
                ));
            }
        }
        if let ErrorKind::IOError(cause) = error.kind()
            && cause.kind() == std::io::ErrorKind::InvalidData
        {
            return TicketError::Misconfigured(format!(
                "RabbitMQ at {} cannot be trusted, or speaks no TLS there: {cause}. Check the URL's scheme and port, \
                 the name in its certificate, and give the certificate of its authority if the system does not know it",
                self.name
            ));
        }
        self.unavailable(&error.to_string())
    }

    pub(super) fn queue(&self, class: TaskKind, tier: Tier) -> String {
        format!("{}.{}.{tier}", self.settings.prefix, class.as_str())
    }

    /// Makes the queue when it is not there; how many tickets wait in it. A failure closes the channel.
    ///
    /// Full, it drops its oldest ticket for a new one. Refusing the new one instead would fill the outbox with rows
    /// that say no more than those tickets do (docs/decisions/0013).
    pub(super) async fn declare(
        &self,
        channel: &Channel,
        class: TaskKind,
        tier: Tier,
    ) -> Result<u64, TicketError> {
        let queue = self.queue(class, tier);
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(self.settings.max_waiting.into()));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
        let name = ShortString::from(queue.as_str());
        let declaring = channel.queue_declare(name, QueueDeclareOptions::durable(), arguments);
        match tokio::time::timeout(self.settings.confirm_timeout, declaring).await {
            Ok(Ok(queue)) => Ok(queue.message_count().into()),
            Ok(Err(error)) if error.to_string().contains("inequivalent") => {
                Err(self.other_queue(&queue, &error))
            }
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => Err(self.unavailable(&format!("no answer to declaring {queue}"))),
        }
    }

    fn other_queue(&self, queue: &str, error: &lapin::Error) -> TicketError {
        TicketError::Misconfigured(format!(
            "The queue {queue} at {} was declared otherwise than Reelyard declares it: {error}. Delete it (rabbitmqctl \
             delete_queue {queue}; no work is lost, tickets are made again from the database), take away a policy that \
             changes it, or choose another prefix",
            self.name
        ))
    }
}

/// Until the connection ends.
async fn tell_people(events: impl futures::Stream<Item = Event>, broker: String) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) => tracing::warn!(
                %broker, reason,
                "RabbitMQ takes no tickets, for it is short of memory or disk. Work goes on more slowly, by sweeps; \
                 give it what it lacks"
            ),
            Event::ConnectionUnblocked => tracing::info!(%broker, "RabbitMQ takes tickets again"),
            _ => {}
        }
    }
}

/// See [`pause`], with chance from the system.
pub(super) fn pause_after(failures: u32) -> Duration {
    // Without chance all pauses are as long as can be, which is safe.
    pause(failures, getrandom::u32().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(url: &str) -> Result<Broker, TicketError> {
        Broker::new(RabbitSettings::new(url))
    }

    #[test]
    fn a_url_is_read_and_its_password_shown_nowhere() {
        let broker = broker("amqps://anna:secret@queue.example/farm").unwrap();
        assert_eq!((broker.uri.authority.port, broker.uri.vhost.as_str()), (5671, "farm"));
        assert_eq!(broker.uri.query.heartbeat, Some(HEARTBEAT_SECONDS));
        let shown = format!("{broker:?} {:?} {}", broker.settings, broker.unavailable("so"));
        assert!(!shown.contains("secret") && !shown.contains("anna"), "{shown}");
    }

    #[test]
    fn a_url_without_a_virtual_host_means_the_first_one() {
        assert_eq!(broker("amqp://localhost/").unwrap().uri.vhost, "/");
        assert_eq!(broker("amqp://localhost").unwrap().uri.vhost, "/");
    }

    #[test]
    fn what_cannot_be_used_is_told_without_the_password() {
        for url in ["", "secret", "amqp:secret", "http://a:secret@b/", "amqp://a:secret@[::1]/"] {
            let error = broker(url).unwrap_err().to_string();
            assert!(
                error.contains("amqp://user:password@host") && !error.contains("secret"),
                "{url}: {error}"
            );
        }
        let settings =
            RabbitSettings { prefix: "two words".to_owned(), ..RabbitSettings::new("amqp://localhost") };
        assert!(Broker::new(settings).unwrap_err().to_string().contains("two words"));
    }
}
