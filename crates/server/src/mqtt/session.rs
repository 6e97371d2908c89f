//! One connection to a broker, from dialling until something goes wrong.
//!
//! Three things happen at once. One moves packets and waits for nothing else; one tells what has
//! changed, and is the only one that publishes, so that acknowledgements can be counted; one does
//! what is ordered. Between them are queues with an end.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, Publish, QoS, SubscribeReasonCode,
};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::facts::{Offered, Scene, offered};
use super::lines::Lines;
use super::told::Told;
use super::topics::{MESSAGE_BYTES_MAX, Message, Place, Topics, has_topic, is_address};
use super::{Broker, Trouble, orders};
use crate::server::{Change, Server};
use crate::store::groups::{Attention, Filter};
use crate::store::{StoreError, new_id};

/// Ends when the connection does.
pub(super) async fn run(server: &Server, broker: &Broker, lines: &mut Lines) -> Trouble {
    let topics = Topics::new(&broker.prefix, &server.public_url);
    // Before anything is read: what changes meanwhile is told once more.
    let changes = server.changes.subscribe();
    let (client, events) = match dial(broker, &topics).await {
        Ok(connected) => connected,
        Err(trouble) => return trouble,
    };
    info!("broker `{}:{}` takes how the fleet is", broker.host, broker.port);
    lines.begin();
    let (wishes_in, wishes) = mpsc::channel(WISHES_MAX);
    let (orders_in, ordered) = mpsc::channel(ORDERS_MAX);
    let shared = Shared { topics, told: Mutex::default(), acknowledged: AtomicU64::new(0) };
    let mut teller = Teller {
        server,
        shared: &shared,
        client,
        changes,
        wishes,
        lines: &mut *lines,
        offered: Vec::new(),
        sent: 0,
        dirty: Dirty::default(),
    };
    let trouble = tokio::select! {
        trouble = drive(events, &shared, &wishes_in, &orders_in) => trouble,
        Err(trouble) = teller.run() => trouble,
        Err(trouble) = obey(server, &shared, &wishes_in, ordered) => trouble,
    };
    lines.acknowledged(shared.acknowledged.load(Ordering::Relaxed));
    trouble
}

/// What the three have in common.
#[derive(Debug)]
struct Shared {
    topics: Topics,
    told: Mutex<Told>,
    /// Messages that the broker has acknowledged; it does so in their order.
    acknowledged: AtomicU64,
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What else the teller should do.
#[derive(Debug)]
enum Wish {
    /// The broker has kept something of what may be there no more.
    Look(Place),
    /// A server has left; this one is here.
    Left,
    /// This is to be said.
    Say(Message),
}

/// An order, as it came.
#[derive(Debug)]
struct Ordered {
    group: String,
    order: Vec<u8>,
}

async fn dial(broker: &Broker, topics: &Topics) -> Result<(AsyncClient, EventLoop), Trouble> {
    // Two servers of one name would throw each other out.
    let name = format!("lockstep-{}", new_id()?);
    let mut options = MqttOptions::new(name, &broker.host, broker.port);
    let will = LastWill::new(topics.availability(), OFFLINE, QoS::AtLeastOnce, true);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_last_will(will)
        .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
    if let Some(login) = &broker.login {
        options.set_credentials(&login.user, &login.password);
    }
    let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
    while !matches!(events.poll().await?, Event::Incoming(Packet::ConnAck(_))) {}
    Ok((client, events))
}

/// Moves packets. What it hands on to the others it drops when they are behind.
async fn drive(
    mut events: EventLoop,
    shared: &Shared,
    wishes: &mpsc::Sender<Wish>,
    orders: &mpsc::Sender<Ordered>,
) -> Trouble {
    loop {
        match events.poll().await {
            Err(error) => return error.into(),
            Ok(Event::Incoming(Packet::PubAck(_))) => {
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                    error!("the broker refuses to hand on orders: let the server's user read them");
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                hear(&publish, shared, wishes, orders);
            }
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => (),
        }
    }
}

fn hear(
    publish: &Publish,
    shared: &Shared,
    wishes: &mpsc::Sender<Wish>,
    orders: &mpsc::Sender<Ordered>,
) {
    let Shared { topics, .. } = shared;
    if let Some(group) = topics.ordered(&publish.topic) {
        if publish.retain {
            warn!(group, "the broker has kept an order from before: it is not carried out");
            return;
        }
        let order = Ordered { group: group.to_owned(), order: publish.payload.to_vec() };
        if orders.try_send(order).is_err() {
            warn!(group, "more orders than {ORDERS_MAX} wait: the newest is not carried out");
        }
        return;
    }
    if publish.topic == topics.availability() {
        if publish.payload == OFFLINE.as_bytes() {
            // Whoever is behind with so much tells of itself later anyway.
            let _ = wishes.try_send(Wish::Left);
        }
        return;
    }
    // What is told now is told by a server that knows better.
    let place = topics.place(&publish.topic).filter(|_| publish.retain);
    if let Some(place) = place.filter(|place| !shared.told().knows(place)) {
        // What does not fit in is looked at when the next connection begins.
        let _ = wishes.try_send(Wish::Look(place));
    }
}

/// Does what is ordered, one after the other, and says what became of it.
async fn obey(
    server: &Server,
    shared: &Shared,
    wishes: &mpsc::Sender<Wish>,
    mut orders: mpsc::Receiver<Ordered>,
) -> Result<Infallible, Trouble> {
    loop {
        let gone = || Trouble::Away("nobody tells it anything".to_owned());
        let Ordered { group, order } = orders.recv().await.ok_or_else(gone)?;
        let answer = match orders::obey(server, &group, &order).await {
            Some(Ok(done)) => shared.topics.answer(&group, "notice", &done),
            Some(Err(refused)) => {
                let text = format!("order refused: {refused}");
                shared.topics.answer(&group, "warning", &text)
            }
            None => {
                warn!(group, "the broker has an order for a group that is not there");
                continue;
            }
        };
        wishes.send(Wish::Say(answer)).await.map_err(|_| gone())?;
    }
}

/// What has changed and was not told.
#[derive(Debug, Default)]
struct Dirty {
    groups: BTreeSet<String>,
    everything: bool,
    releases: bool,
}

impl Dirty {
    fn is_clean(&self) -> bool {
        self.groups.is_empty() && !self.everything
    }

    fn note(&mut self, change: Result<Change, broadcast::error::RecvError>) {
        match change {
            Ok(Change::Group(group)) => drop(self.groups.insert(group)),
            // Another release may be the newest for any of them.
            Ok(Change::Releases) => (self.releases, self.everything) = (true, true),
            Ok(Change::Lead(_) | Change::Campaign(_) | Change::Ends) => (),
            Ok(Change::Anything) | Err(_) => (self.releases, self.everything) = (true, true),
        }
    }
}

/// The one who publishes.
struct Teller<'a> {
    server: &'a Server,
    shared: &'a Shared,
    client: AsyncClient,
    changes: broadcast::Receiver<Change>,
    wishes: mpsc::Receiver<Wish>,
    lines: &'a mut Lines,
    offered: Vec<Offered>,
    /// Messages of this connection.
    sent: u64,
    dirty: Dirty,
}

impl Teller<'_> {
    async fn run(&mut self) -> Result<Infallible, Trouble> {
        let topics = &self.shared.topics;
        self.say_online().await?;
        self.subscribe(topics.orders(), QoS::AtLeastOnce).await?;
        self.subscribe(topics.availability(), QoS::AtLeastOnce).await?;
        self.offered = offered(&self.server.store).await?;
        self.tell_everything().await?;
        // What stands there of groups that were removed while nobody told the broker.
        for states in topics.states() {
            self.subscribe(states, QoS::AtMostOnce).await?;
        }
        let mut looks_until = Some(Instant::now() + LOOK_FOR);
        let mut tells_at = Instant::now();
        loop {
            let was_clean = self.dirty.is_clean();
            tokio::select! {
                change = self.changes.recv() => self.dirty.note(change),
                Some(wish) = self.wishes.recv() => self.grant(wish).await?,
                () = sleep_until(tells_at), if !was_clean => self.tell_news().await?,
                () = sleep_until(looks_until.unwrap_or(tells_at)), if looks_until.is_some() => {
                    looks_until = None;
                    for states in topics.states() {
                        self.client.unsubscribe(states).await.map_err(|error| lost(&error))?;
                    }
                }
            }
            if was_clean {
                tells_at = Instant::now() + SETTLE;
            }
        }
    }

    async fn tell_news(&mut self) -> Result<(), Trouble> {
        let Dirty { groups, everything, releases } = std::mem::take(&mut self.dirty);
        if releases {
            self.offered = offered(&self.server.store).await?;
        }
        if everything {
            return self.tell_everything().await;
        }
        for group in groups {
            self.tell_group(&group).await?;
        }
        Ok(())
    }

    /// All groups; those of which something was told and that are no more are cleared.
    async fn tell_everything(&mut self) -> Result<(), Trouble> {
        let mut gone: BTreeSet<_> = self.shared.told().groups().into_iter().collect();
        let (labels, name, number) = (Default::default(), String::new(), None);
        let filter = Filter { labels, number, name, attention: Attention::Any };
        let mut after = String::new();
        loop {
            let page = self.server.store.groups(&filter, &after, PAGE_GROUPS).await?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.name);
            for group in page {
                gone.remove(&group.id);
                self.tell_group(&group.id).await?;
            }
        }
        for group in gone {
            self.tell_group(&group).await?;
        }
        Ok(())
    }

    /// What differs from what stands there, and the new lines of its log.
    async fn tell_group(&mut self, id: &str) -> Result<(), Trouble> {
        let (store, topics) = (&self.server.store, &self.shared.topics);
        let Some(group) = store.group(id).await? else {
            let farewell = self.shared.told().farewell(topics, id);
            self.lines.forget(id);
            return self.publish_all(farewell).await;
        };
        let lead = group.lead.clone();
        let scene = Scene::new(group, store.devices(id).await?, &self.offered);
        let devices = scene.devices.iter().filter(|it| has_topic(it)).map(|it| it.id.clone());
        let messages = topics.retained(&scene);
        let news = self.shared.told().news(topics, id, devices.collect(), messages);
        self.publish_all(news).await?;
        if !is_address(&lead) {
            return Ok(());
        }
        for event in self.lines.news(id, store.events(id).await?) {
            self.publish(topics.line(id, &lead, &event), Kept::Once).await?;
            self.lines.sent(self.sent, id, &event.id);
        }
        Ok(())
    }

    async fn grant(&mut self, wish: Wish) -> Result<(), Trouble> {
        match wish {
            Wish::Left => {
                // It may have been stopped between reading and telling: what it told last may be
                // older than what this one told before.
                self.shared.told().doubt();
                self.dirty.everything = true;
                self.say_online().await
            }
            Wish::Say(message) => self.publish(message, Kept::Once).await,
            Wish::Look(place) => {
                if self.is_there(&place).await? {
                    return Ok(());
                }
                let topics = &self.shared.topics;
                let cleared = topics.cleared(&place.group, place.device.as_deref());
                self.publish_all(cleared.into()).await
            }
        }
    }

    async fn is_there(&self, place: &Place) -> Result<bool, StoreError> {
        let store = &self.server.store;
        match &place.device {
            None => Ok(store.group(&place.group).await?.is_some()),
            Some(device) => {
                let devices = store.devices(&place.group).await?;
                Ok(devices.iter().any(|it| it.id == *device))
            }
        }
    }

    async fn say_online(&mut self) -> Result<(), Trouble> {
        let (topic, payload) = (self.shared.topics.availability(), "online".to_owned());
        self.publish(Message { topic, payload }, Kept::Retained).await
    }

    async fn publish_all(&mut self, messages: Vec<Message>) -> Result<(), Trouble> {
        for message in messages {
            self.publish(message, Kept::Retained).await?;
        }
        Ok(())
    }

    /// Waits while the broker is behind.
    async fn publish(&mut self, message: Message, kept: Kept) -> Result<(), Trouble> {
        let Message { topic, payload } = message;
        let is_retained = kept == Kept::Retained;
        let published = self.client.publish(topic, QoS::AtLeastOnce, is_retained, payload);
        published.await.map_err(|error| lost(&error))?;
        self.sent += 1;
        self.lines.acknowledged(self.shared.acknowledged.load(Ordering::Relaxed));
        Ok(())
    }

    async fn subscribe(&self, filter: String, qos: QoS) -> Result<(), Trouble> {
        self.client.subscribe(filter, qos).await.map_err(|error| lost(&error))
    }
}

/// Whether a broker keeps a message for whoever comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Retained,
    Once,
}

fn lost(error: &rumqttc::ClientError) -> Trouble {
    Trouble::Away(error.to_string())
}

/// As Home Assistant expects it.
const OFFLINE: &str = "offline";
/// The broker takes a silent server for gone after one and a half of these.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Messages that wait for the connection. As many more may be under way.
const REQUESTS_MAX: usize = 100;
/// What is told of one packet, with its topic.
const PACKET_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 1024;
/// Orders that wait for the one that is carried out.
const ORDERS_MAX: usize = 16;
/// What the teller is told by the others and has not done.
const WISHES_MAX: usize = 1024;
/// Groups that are read at once.
const PAGE_GROUPS: i64 = 200;
/// What changes within this time is told once.
const SETTLE: Duration = Duration::from_millis(200);
/// So long a broker hands on what it has kept from before.
const LOOK_FOR: Duration = Duration::from_secs(10);
