//! The publisher: one task owns the channel (lapin can pair a confirm with the wrong message when several publish),
//! gathers what waits into arrays, and answers each caller when the broker has confirmed its message. Bounded in events
//! under way and in time; while the broker is away or blocks, callers are refused at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, Event,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    AmqpSettings, Backoff, ConnectError, LiveMessage,
    confirms::{Confirms, Waiter},
    lanes::{Array, Item, Lanes},
    live, open,
    topology::{self, Rung},
};
use crate::{Partitions, Queue, WorkQueue, envelope::CONTENT_TYPE, envelope::NewEvent};

/// Where an event goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// To its pool.
    Command(WorkQueue),
    /// To its pool, after the rung's delay.
    Retry(WorkQueue, &'static str),
    /// To be tried alone.
    Quarantine(Queue),
    /// To the dead letters.
    Dead,
    /// To the dead letters, byte for byte as it came: a body that is no array of events.
    Undecodable,
}

impl Target {
    /// The rung for the n-th retry of an event of this queue.
    pub fn retry(queue: WorkQueue, attempt: u16) -> Self {
        Target::Retry(queue, Rung::for_attempt(attempt).name)
    }

    fn address(&self) -> (&'static str, String, FieldTable) {
        let mut headers = FieldTable::default();
        match self {
            Target::Command(queue) => (topology::COMMANDS, queue.to_string(), headers),
            Target::Retry(queue, rung) => {
                headers.insert(topology::DELAY_HEADER.into(), AMQPValue::LongString((*rung).into()));
                (topology::RETRY, queue.to_string(), headers)
            }
            Target::Quarantine(queue) => (topology::DEAD, topology::quarantine(*queue), headers),
            Target::Dead | Target::Undecodable => (topology::DEAD, topology::DEAD.to_owned(), headers),
        }
    }
}

/// Why an event is not known to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection; nothing was sent.
    #[error("the broker is unreachable")]
    Unavailable,
    /// The broker takes nothing (`connection.blocked`), or confirms nothing; nothing was sent.
    #[error("the broker is blocked")]
    Blocked,
    /// Too many events wait for their confirm; nothing was sent.
    #[error("too many events wait for the broker")]
    Overloaded,
    /// It was sent and not confirmed in time: it may be durable or not. Send it again under the same id.
    #[error("the broker did not confirm in time")]
    Unknown,
}

const DOWN: u8 = 0;
const UP: u8 = 1;
const BLOCKED: u8 = 2;
const LATE: u8 = 3;

struct Shared {
    state: AtomicU8,
    in_flight: Arc<Semaphore>,
    confirm_timeout: Duration,
    partitions: Partitions,
    #[cfg(feature = "planted-bugs")]
    ignore_confirms: std::sync::atomic::AtomicBool,
}

/// A handle to the publishing task; cheap to clone. The task ends when the last handle is dropped.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<Item>,
    live: mpsc::Sender<LiveMessage>,
}

impl Publisher {
    /// Starts the task; it connects, declares the topology, and reconnects for ever.
    pub fn start(settings: AmqpSettings) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU8::new(DOWN),
            in_flight: Arc::new(Semaphore::new(settings.in_flight_max)),
            confirm_timeout: settings.confirm_timeout,
            partitions: settings.partitions,
            #[cfg(feature = "planted-bugs")]
            ignore_confirms: std::sync::atomic::AtomicBool::new(false),
        });
        // Bounded by the semaphore: whoever sends holds a permit.
        let (events, event_queue) = mpsc::unbounded_channel();
        let (live, live_queue) = mpsc::channel(1_024);
        let task = Task { settings, shared: Arc::clone(&shared), events: event_queue, live: live_queue };
        tokio::spawn(task.run());
        Self { shared, events, live }
    }

    /// Whether an event published now would be sent.
    pub fn is_ready(&self) -> bool {
        self.shared.state.load(Ordering::Relaxed) == UP
    }

    /// Waits for a connection, blocked by the broker or not, at most this long; answers whether there is one.
    pub async fn wait_connected(&self, at_most: Duration) -> bool {
        let connected = async {
            while self.shared.state.load(Ordering::Relaxed) == DOWN {
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
        let confirmed = self.send(Target::Command(event.place(self.shared.partitions)), event.bytes)?;
        self.confirmed(confirmed).await
    }

    /// Publishes commands; `Ok` once all are durable. At most `in_flight_max` at once.
    ///
    /// # Errors
    /// [`PublishError`] of the first that failed; others may be durable.
    pub async fn publish_all(&self, events: impl IntoIterator<Item = NewEvent>) -> Result<(), PublishError> {
        let partitions = self.shared.partitions;
        self.publish_to(events.into_iter().map(|event| (Target::Command(event.place(partitions)), event.bytes))).await
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

    /// Tells whoever waits; transient and unconfirmed: a lost one costs a slow poll, never correctness.
    pub fn publish_live(&self, message: LiveMessage) {
        if self.live.try_send(message).is_err() {
            metrics::counter!("live_messages_dropped_total").increment(1);
        }
    }

    /// Plants a bug: callers are told `Ok` before the confirm. Proves that the tests bite.
    #[cfg(feature = "planted-bugs")]
    pub fn ignore_confirms(&self) {
        self.shared.ignore_confirms.store(true, Ordering::Relaxed);
    }

    fn send(&self, target: Target, bytes: Bytes) -> Result<oneshot::Receiver<Result<(), PublishError>>, PublishError> {
        match self.shared.state.load(Ordering::Relaxed) {
            UP => {}
            DOWN => return Err(PublishError::Unavailable),
            _ => return Err(PublishError::Blocked),
        }
        let permit = Arc::clone(&self.shared.in_flight).try_acquire_owned().map_err(|_| PublishError::Overloaded)?;
        let (answer, confirmed) = oneshot::channel();
        let item = Item { target, bytes, waiter: Waiter::new(answer, permit) };
        self.events.send(item).map_err(|_| PublishError::Unavailable)?;
        Ok(confirmed)
    }

    async fn confirmed(&self, confirmed: oneshot::Receiver<Result<(), PublishError>>) -> Result<(), PublishError> {
        #[cfg(feature = "planted-bugs")]
        if self.shared.ignore_confirms.load(Ordering::Relaxed) {
            return Ok(());
        }
        match tokio::time::timeout(self.shared.confirm_timeout, confirmed).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(PublishError::Unknown),
        }
    }
}

struct Task {
    settings: AmqpSettings,
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<Item>,
    live: mpsc::Receiver<LiveMessage>,
}

/// One connection's life.
struct Link {
    connection: Connection,
    commands: Channel,
    live: Channel,
}

/// Why a link's life ended.
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
            // What is refused meanwhile must not begin the connecting anew: it might never end.
            let mut connecting = Box::pin(connect(&self.settings));
            let link = loop {
                tokio::select! {
                    link = &mut connecting => break link,
                    open = refuse(&mut self.events, &mut self.live) => if !open { return },
                }
            };
            drop(connecting);
            match link {
                Ok(link) => {
                    backoff = Backoff::new(Duration::from_secs(2));
                    self.shared.state.store(UP, Ordering::Relaxed);
                    tracing::info!(connection = self.settings.connection_name, "publishing");
                    let end = self.serve(&link).await;
                    self.shared.state.store(DOWN, Ordering::Relaxed);
                    match end {
                        End::NoHandles => {
                            let _ = link.connection.close(200, "bye".into()).await;
                            return;
                        }
                        End::Broken(why) => tracing::warn!(why, "the publishing connection broke"),
                    }
                }
                Err(error) => tracing::warn!(?error, "cannot publish yet"),
            }
            let pause = tokio::time::sleep(backoff.next_delay());
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    open = refuse(&mut self.events, &mut self.live) => if !open { return },
                }
            }
        }
    }

    async fn serve(&mut self, link: &Link) -> End {
        let mut broker_events = std::pin::pin!(link.connection.events_listener());
        let mut lanes = Lanes::default();
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
                item = self.events.recv() => match item {
                    Some(item) => lanes.push(item),
                    None if confirms.len() == 0 => break End::NoHandles,
                    None => confirms.drained(Duration::from_secs(5)).await,
                },
                Some(message) = self.live.recv() => if let Err(error) = live::send(&link.live, &message).await {
                    break End::Broken(error.to_string());
                },
                _ = tick.tick() => if let Some(why) = self.watch(link, &mut confirms) {
                    break End::Broken(why);
                },
            }
            while let Ok(item) = self.events.try_recv() {
                lanes.push(item);
            }
            if let Err(error) = flush(link, &mut lanes, &mut confirms, self.settings.window).await {
                break End::Broken(error.to_string());
            }
        };
        // Set before the callers are told: whoever comes now must not be let in.
        self.shared.state.store(DOWN, Ordering::Relaxed);
        lanes.drain().for_each(|waiter| waiter.answer(Err(PublishError::Unavailable)));
        confirms.abandon();
        end
    }

    fn observe(&self, event: &Event) {
        match event {
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(reason, "the broker blocks publishers");
                self.shared.state.store(BLOCKED, Ordering::Relaxed);
            }
            Event::ConnectionUnblocked => {
                tracing::info!("the broker takes messages again");
                self.shared.state.store(UP, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Looks four times a second: callers of a blocked link are told soon, a late broker gets nothing more, a dead one
    /// is given up.
    fn watch(&self, link: &Link, confirms: &mut Confirms) -> Option<String> {
        metrics::gauge!("amqp_in_flight_messages").set(confirms.len() as f64);
        if !link.connection.status().connected() || !link.commands.status().connected() {
            return Some("the connection or its channel was closed".into());
        }
        let oldest = confirms.oldest();
        let state = self.shared.state.load(Ordering::Relaxed);
        if state == BLOCKED {
            confirms.abandon();
        } else if oldest > self.shared.confirm_timeout {
            self.shared.state.store(LATE, Ordering::Relaxed);
        } else if state == LATE {
            self.shared.state.store(UP, Ordering::Relaxed);
        }
        (state != BLOCKED && oldest > self.shared.confirm_timeout * 3).then(|| format!("no confirm for {oldest:?}"))
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

/// Refuses one caller who came while there was no link; answers whether there are handles left.
async fn refuse(events: &mut mpsc::UnboundedReceiver<Item>, live: &mut mpsc::Receiver<LiveMessage>) -> bool {
    tokio::select! {
        item = events.recv() => match item {
            Some(item) => {
                item.waiter.answer(Err(PublishError::Unavailable));
                true
            }
            None => false,
        },
        message = live.recv() => message.is_some(),
    }
}

async fn flush(link: &Link, lanes: &mut Lanes, confirms: &mut Confirms, window: usize) -> lapin::Result<()> {
    while confirms.len() < window {
        let Some(array) = lanes.pop() else { break };
        let Array { target, body, waiters } = array;
        metrics::histogram!("amqp_array_events").record(waiters.len() as f64);
        let (exchange, routing_key, headers) = target.address();
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type(CONTENT_TYPE.into())
            .with_headers(headers);
        let options = BasicPublishOptions::default();
        let confirm =
            link.commands.basic_publish(exchange.into(), routing_key.into(), options, &body, properties).await?;
        confirms.add(confirm, waiters);
    }
    Ok(())
}
