//! The publisher: one task owns the channel (lapin can pair a confirm with the wrong message when several publish),
//! groups waiting events into arrays, and answers each caller when the broker has confirmed its message. Bounded in
//! events in flight and in time; while the broker is away or blocks, callers are refused at once.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, Event,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    AmqpSettings, Backoff, ConnectError, LiveMessage,
    confirms::{Confirms, PendingConfirm, Published},
    link_state::{LinkEvent, LinkState, SharedLinkState},
    live, open,
    outgoing::{OutgoingEvent, OutgoingMessage, OutgoingQueues},
    publish_error::PublishError,
    target::Target,
    topology,
};
use crate::{Partitions, envelope::CONTENT_TYPE, envelope::NewEvent};

/// Persistent, in AMQP's numbering.
const PERSISTENT: u8 = 2;

struct Shared {
    link: SharedLinkState,
    in_flight: Arc<Semaphore>,
    confirm_timeout: Duration,
    partitions: Partitions,
    ignore_confirms: AtomicBool,
}

/// A handle to the publishing task; cheap to clone. The task ends when the last handle is dropped.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<OutgoingEvent>,
    live: mpsc::Sender<LiveMessage>,
}

impl Publisher {
    /// Starts the task; it connects, declares the topology, and reconnects for ever.
    pub fn start(settings: AmqpSettings) -> Self {
        let shared = Arc::new(Shared {
            link: SharedLinkState::down(),
            in_flight: Arc::new(Semaphore::new(settings.in_flight_max)),
            confirm_timeout: settings.confirm_timeout,
            partitions: settings.partitions,
            ignore_confirms: AtomicBool::new(false),
        });
        // Bounded by the semaphore: each event in it holds a permit.
        let (events, event_queue) = mpsc::unbounded_channel();
        let (live, live_queue) = mpsc::channel(1_024);
        let task = Task { settings, shared: Arc::clone(&shared), events: event_queue, live: live_queue };
        tokio::spawn(task.run());
        Self { shared, events, live }
    }

    /// Returns true if an event published now would be sent.
    pub fn is_ready(&self) -> bool {
        self.shared.link.get() == LinkState::Up
    }

    /// Waits for a connection, blocked by the broker or not, at most this long; returns true if there is one.
    pub async fn wait_connected(&self, at_most: Duration) -> bool {
        let connected = async {
            while self.shared.link.get() == LinkState::Down {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(at_most, connected).await.is_ok()
    }

    /// Publishes a command; `Ok` once it is durable.
    ///
    /// # Errors
    /// [`PublishError`], at the latest after the confirm timeout, at once where the broker is known to be away.
    pub async fn publish(&self, event: NewEvent) -> Result<(), PublishError> {
        let confirmed = self.send(Target::Command(event.work_queue(self.shared.partitions)), event.bytes)?;
        self.confirmed(confirmed).await
    }

    /// Publishes commands; `Ok` once all are durable. At most `in_flight_max` at once.
    ///
    /// # Errors
    /// [`PublishError`] of the first that failed; others may be durable.
    pub async fn publish_all(&self, events: impl IntoIterator<Item = NewEvent>) -> Result<(), PublishError> {
        let partitions = self.shared.partitions;
        self.publish_to(events.into_iter().map(|event| (Target::Command(event.work_queue(partitions)), event.bytes)))
            .await
    }

    /// Publishes encoded events to any target; `Ok` once all are durable.
    ///
    /// # Errors
    /// As [`Self::publish_all`].
    pub async fn publish_to(&self, events: impl IntoIterator<Item = (Target, Bytes)>) -> Result<(), PublishError> {
        let mut waiting = Vec::new();
        for (target, bytes) in events {
            waiting.push(self.send(target, bytes)?);
        }
        for confirmed in waiting {
            self.confirmed(confirmed).await?;
        }
        Ok(())
    }

    /// Publishes to the live exchange, transient and unconfirmed: a lost message costs a slow poll, never correctness.
    pub fn publish_live(&self, message: LiveMessage) {
        if self.live.try_send(message).is_err() {
            metrics::counter!("live_messages_dropped_total").increment(1);
        }
    }

    /// Injects a fault: from now on callers get `Ok` before the confirm. Proves that the tests detect it.
    #[cfg(feature = "fault-injection")]
    pub fn ignore_confirms(&self) {
        self.shared.ignore_confirms.store(true, Ordering::Relaxed);
    }

    fn send(&self, target: Target, bytes: Bytes) -> Result<oneshot::Receiver<Published>, PublishError> {
        match self.shared.link.get() {
            LinkState::Up => {}
            LinkState::Down => return Err(PublishError::Unavailable),
            LinkState::Blocked | LinkState::Late => return Err(PublishError::Blocked),
        }
        let permit = Arc::clone(&self.shared.in_flight).try_acquire_owned().map_err(|_| PublishError::Overloaded)?;
        let (caller, confirmed) = oneshot::channel();
        let event = OutgoingEvent { target, bytes, caller: PendingConfirm::new(caller, permit) };
        self.events.send(event).map_err(|_| PublishError::Unavailable)?;
        Ok(confirmed)
    }

    async fn confirmed(&self, confirmed: oneshot::Receiver<Published>) -> Result<(), PublishError> {
        if self.shared.confirms_ignored() {
            return Ok(());
        }
        match tokio::time::timeout(self.shared.confirm_timeout, confirmed).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(PublishError::Unknown),
        }
    }
}

impl Shared {
    /// The fault injection hook; always false, at no cost, in a build without the feature.
    fn confirms_ignored(&self) -> bool {
        cfg!(feature = "fault-injection") && self.ignore_confirms.load(Ordering::Relaxed)
    }
}

struct Task {
    settings: AmqpSettings,
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<OutgoingEvent>,
    live: mpsc::Receiver<LiveMessage>,
}

/// One connection and its channels.
struct Link {
    connection: Connection,
    commands: Channel,
    live: Channel,
}

/// The reason why serving a link ended.
enum End {
    /// Every handle was dropped.
    NoHandles,
    /// The link broke.
    Broken(String),
}

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(2));
        loop {
            let connecting = connect(&self.settings);
            let Some(link) = refuse_during(&mut self.events, &mut self.live, connecting).await else { return };
            match link {
                Ok(link) => {
                    backoff = Backoff::new(Duration::from_secs(2));
                    self.shared.link.apply(LinkEvent::Connected);
                    tracing::info!(connection = self.settings.connection_name, "publishing");
                    match self.serve(&link).await {
                        End::NoHandles => {
                            let _ = link.connection.close(200, "bye".into()).await;
                            return;
                        }
                        End::Broken(reason) => tracing::warn!(reason, "the publishing connection broke"),
                    }
                }
                Err(error) => tracing::warn!(?error, "cannot connect for publishing yet"),
            }
            let pause = tokio::time::sleep(backoff.next_delay());
            if refuse_during(&mut self.events, &mut self.live, pause).await.is_none() {
                return;
            }
        }
    }

    async fn serve(&mut self, link: &Link) -> End {
        let mut broker_events = pin!(link.connection.events_listener());
        let mut outgoing = OutgoingQueues::default();
        let mut confirms = Confirms::new();
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let end = loop {
            tokio::select! {
                event = broker_events.next() => match event {
                    Some(Event::Error(error)) => break End::Broken(error.to_string()),
                    None => break End::Broken("the connection ended".into()),
                    Some(event) => self.observe(&event),
                },
                confirmed = confirms.next() => if let Err(error) = confirmed {
                    break End::Broken(error.to_string());
                },
                event = self.events.recv() => match event {
                    Some(event) => outgoing.push(event),
                    None if confirms.len() == 0 => break End::NoHandles,
                    None => confirms.drained(Duration::from_secs(5)).await,
                },
                Some(message) = self.live.recv() => if let Err(error) = live::send(&link.live, &message).await {
                    break End::Broken(error.to_string());
                },
                _ = tick.tick() => if let Some(reason) = self.check(link, &mut confirms) {
                    break End::Broken(reason);
                },
            }
            while let Ok(event) = self.events.try_recv() {
                outgoing.push(event);
            }
            if let Err(error) = flush(link, &mut outgoing, &mut confirms, self.settings.window).await {
                break End::Broken(error.to_string());
            }
        };
        // Before the callers are answered: a new one must not be let in.
        self.shared.link.apply(LinkEvent::Disconnected);
        outgoing.drain().for_each(|caller| caller.resolve(Err(PublishError::Unavailable)));
        confirms.abandon();
        end
    }

    fn observe(&self, event: &Event) {
        match event {
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(reason, "the broker blocks publishers");
                self.shared.link.apply(LinkEvent::Blocked);
            }
            Event::ConnectionUnblocked => {
                tracing::info!("the broker accepts messages again");
                self.shared.link.apply(LinkEvent::Unblocked);
            }
            _ => {}
        }
    }

    /// Runs four times a second: answers the callers of a blocked link, stops sending to a broker whose confirms are
    /// late, and returns why the link must be given up, if it must.
    fn check(&self, link: &Link, confirms: &mut Confirms) -> Option<String> {
        metrics::gauge!("amqp_in_flight_messages").set(confirms.len() as f64);
        if !link.connection.status().connected() || !link.commands.status().connected() {
            return Some("the connection or its channel was closed".into());
        }
        let oldest = confirms.oldest();
        let late = oldest > self.shared.confirm_timeout;
        let state = self.shared.link.apply(if late { LinkEvent::ConfirmLate } else { LinkEvent::ConfirmsCurrent });
        if state == LinkState::Blocked {
            confirms.abandon();
            return None;
        }
        (oldest > self.shared.confirm_timeout * 3).then(|| format!("no confirm for {oldest:?}"))
    }
}

async fn connect(settings: &AmqpSettings) -> Result<Link, ConnectError> {
    let connection = open(settings).await?;
    let build = async {
        let commands = connection.create_channel().await?;
        topology::declare(&commands, settings.partitions).await?;
        commands.confirm_select(ConfirmSelectOptions::default()).await?;
        let live = connection.create_channel().await?;
        Ok((commands, live))
    };
    let (commands, live) = tokio::time::timeout(settings.connect_timeout, build)
        .await
        .map_err(|_| ConnectError::Timeout(settings.connect_timeout))?
        .map_err(ConnectError::Refused)?;
    Ok(Link { connection, commands, live })
}

/// Waits for a future while there is no link, and refuses every caller meanwhile without starting the future anew.
/// `None` once every handle was dropped.
async fn refuse_during<T>(
    events: &mut mpsc::UnboundedReceiver<OutgoingEvent>,
    live: &mut mpsc::Receiver<LiveMessage>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            output = &mut future => return Some(output),
            event = events.recv() => event?.caller.resolve(Err(PublishError::Unavailable)),
            message = live.recv() => drop(message?),
        }
    }
}

async fn flush(
    link: &Link,
    outgoing: &mut OutgoingQueues,
    confirms: &mut Confirms,
    window: usize,
) -> lapin::Result<()> {
    while confirms.len() < window {
        let Some(OutgoingMessage { target, body, callers }) = outgoing.pop() else { break };
        metrics::histogram!("amqp_array_events").record(callers.len() as f64);
        let (exchange, routing_key, headers) = target.address();
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type(CONTENT_TYPE.into())
            .with_headers(headers);
        let options = BasicPublishOptions::default();
        let confirm =
            link.commands.basic_publish(exchange.into(), routing_key.into(), options, &body, properties).await?;
        confirms.add(confirm, callers);
    }
    Ok(())
}
