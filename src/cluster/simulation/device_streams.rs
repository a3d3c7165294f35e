//! The devices: each opens a stream on any node, reads for a while, leaves or is cut off, and comes back with its cursor.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt as _;

use super::{
    connected::{Connected, Frame},
    senders::HELD,
    simulated_node::{SimulatedNode, spawn},
    world::{Device, World, address, all_devices},
};
use crate::{
    auth::Subscriber,
    error::Error,
    hub::{Opening, Ready, StreamItem},
    model::{Continuity, Cursor, Start},
};

/// One page of a device: what it knows between its streams.
struct Reader {
    device: Device,
    /// Differs for each start of the app.
    page: u64,
    cursor: Option<Cursor>,
}

/// How a stream ended, as its client sees it.
#[derive(PartialEq, Eq)]
enum Ended {
    Superseded,
    Otherwise,
}

impl SimulatedNode {
    /// The handler of one stream, as a part of the node.
    async fn stream(self: Arc<Self>, world: Arc<World>, device: Device, start: Start, connected: Arc<Connected>) {
        let (served, world2) = (connected.clone(), world.clone());
        let node = self.clone();
        let serve = async move {
            let subscriber = Subscriber::proven(address(device));
            let opening = Opening { start, heartbeat: Duration::from_secs(600) };
            let opened = tokio::select! {
                biased;
                opened = node.hub.subscribe(&subscriber, &opening) => opened,
                () = served.left(&world2) => return,
            };
            match opened {
                Ok((Ready { cursor, continuity, .. }, mut stream)) => {
                    world2.log(device, || format!("{} opens {cursor} {continuity:?}", node.id));
                    served.put(Frame::Ready(cursor, continuity));
                    let write = async {
                        while let Some(item) = stream.next().await {
                            match item {
                                StreamItem::Message(cursor, message) => {
                                    served
                                        .put(Frame::Message(cursor, message.data.as_str().parse().expect("a number")));
                                }
                                StreamItem::Ping => {}
                                StreamItem::End(_) => break,
                            }
                        }
                    };
                    tokio::select! {
                        biased;
                        () = write => {}
                        () = served.left(&world2) => {}
                    }
                    world2.log(device, || format!("{} ends the stream of {cursor}", node.id));
                }
                Err(Error::Superseded) => served.put(Frame::Superseded),
                Err(error) => {
                    world2.log(device, || format!("{} refuses a stream: {error:?}", node.id));
                    world2.count("stream refused");
                    served.put(Frame::End);
                }
            }
        };
        self.gate.pass(serve).await;
        connected.end();
    }
}

impl World {
    pub(super) fn begin_load(self: &Arc<Self>) {
        for device in all_devices() {
            spawn(self.clone().keep_reading(device));
        }
        for device in all_devices().filter(|device| self.has_other_pages(*device)) {
            spawn(self.clone().open_other_pages(device));
        }
        self.begin_senders();
        self.begin_askers();
    }

    fn has_other_pages(&self, (user, device): Device) -> bool {
        user < 2 && device == 0 && !self.keeps_pages
    }

    /// A device that comes back whenever its stream ends.
    async fn keep_reading(self: Arc<Self>, device: Device) {
        let mut reader = Reader { device, page: 0, cursor: None };
        loop {
            let quiet = self.is_quiet();
            if !quiet && !self.keeps_pages && self.chance(6) {
                (reader.cursor, reader.page) = (None, reader.page + 1_000);
            }
            let life = match quiet {
                true => Duration::from_secs(1_000),
                false if self.chance(30) => self.random_ms(0, 300),
                false => self.random_ms(0, 15_000),
            };
            let ended = self.read(&mut reader, life).await;
            if !self.is_quiet() && self.chance(4) {
                let began = Instant::now();
                let back = began + self.random_ms(30_000, 90_000);
                while Instant::now() < back && !self.is_quiet() {
                    sleep(Duration::from_secs(1)).await;
                }
                self.count("away for long");
                self.record.lock().away.entry(device).or_default().push((began, Instant::now()));
            }
            let quiet = self.is_quiet();
            sleep(match ended {
                Some(Ended::Superseded) if !quiet => self.random_ms(3_000, 9_000),
                _ if quiet => self.random_ms(100, 500),
                _ if self.chance(40) => self.random_ms(0, 100),
                _ => self.random_ms(500, 3_500),
            })
            .await;
        }
    }

    /// A second page of a device: comes without a cursor, and goes.
    async fn open_other_pages(self: Arc<Self>, device: Device) {
        for page in 500.. {
            sleep(self.random_ms(5_000, 30_000)).await;
            if self.is_quiet() {
                return;
            }
            let mut reader = Reader { device, page: page * 1_000_000, cursor: None };
            let life = self.random_ms(0, 8_000);
            self.read(&mut reader, life).await;
        }
    }

    /// Opens one stream and reads it for a time. `None`: there is no node.
    async fn read(self: &Arc<Self>, reader: &mut Reader, life: Duration) -> Option<Ended> {
        let node = self.pick()?;
        let start = reader.cursor.map_or(Start::Anew, Start::After);
        let (connected, left) = (Connected::new(node.id), self.left_at(reader.device));
        self.record.lock().streams.entry(reader.device).or_default().push(connected.clone());
        self.log(reader.device, || format!("page {} opens a stream at {}: {start:?}", reader.page, node.id));
        spawn(node.stream(self.clone(), reader.device, start, connected.clone()));
        let (until, first) = (Instant::now() + life, Instant::now() + FIRST);
        let mut ended = Ended::Otherwise;
        loop {
            let begun = connected.has_begun();
            match connected.next(if begun { until } else { until.min(first) }).await {
                Some(Frame::Ready(cursor, continuity)) => {
                    connected.begin();
                    self.note_opened(reader, cursor, continuity, left);
                }
                Some(Frame::Message(cursor, number)) => self.note_got(reader, cursor, number),
                Some(Frame::Superseded) => {
                    self.count("204");
                    ended = Ended::Superseded;
                    break;
                }
                Some(Frame::End) | None => break,
            }
        }
        connected.close();
        Some(ended)
    }

    /// `left`: when the stream before this one ended.
    fn note_opened(&self, reader: &mut Reader, cursor: Cursor, continuity: Continuity, left: Option<Instant>) {
        self.count(match continuity {
            Continuity::New => "new",
            Continuity::Resumed => "resumed",
            Continuity::Broken => "broken",
        });
        if continuity == Continuity::Broken && self.is_calm(60) {
            self.count("broken in calm");
            self.judge_broken(reader, left);
        }
        reader.cursor = Some(cursor);
        self.record.lock().opened.entry(reader.device).or_default().push((Instant::now(), continuity));
    }

    /// A device that has its cursor is `broken` only after a fault, or when it was away until messages were lost.
    fn judge_broken(&self, reader: &Reader, left: Option<Instant>) {
        let device = reader.device;
        let last = self.record.lock().opened.get(&device).and_then(|opened| opened.last().copied());
        if reader.cursor.is_none() || self.has_other_pages(device) {
            self.count("broken in calm: without its cursor");
        } else if left.is_some_and(|left| left.elapsed() > HELD) {
            self.count("broken in calm: away for long");
        } else if last.is_none_or(|(at, _)| !self.was_calm(at)) {
            self.count("broken in calm: for the first time after a fault");
        } else if last.is_some_and(|(_, continuity)| continuity == Continuity::Broken) {
            // A hole that came behind waiting messages: the cursors of these messages are before it.
            self.count("broken in calm: told again");
        } else {
            self.log(device, || "BROKEN without a reason".to_owned());
            self.bad(format!("{device:?} is broken without a reason at {} ms", self.began.elapsed().as_millis()));
        }
    }

    fn note_got(&self, reader: &mut Reader, cursor: Cursor, number: u64) {
        if let Some(before) = reader.cursor.filter(|before| before.epoch == cursor.epoch && before.seq >= cursor.seq) {
            self.bad(format!("{:?}: number {} after {}", reader.device, cursor.seq, before.seq));
        }
        reader.cursor = Some(cursor);
        self.log(reader.device, || format!("page {} got {number:x} as {cursor}", reader.page));
        self.record.lock().got.entry((reader.device, reader.page)).or_default().push((Instant::now(), number));
    }

    /// Every stream ends, so that every device comes back once more.
    pub(super) fn end_all_streams(&self) {
        let streams = std::mem::take(&mut self.record.lock().streams);
        for stream in streams.into_values().flatten().filter(|stream| stream.is_live()) {
            stream.end();
        }
    }
}

/// How long a client waits for the first event.
const FIRST: Duration = Duration::from_secs(6);
