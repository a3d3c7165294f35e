//! The link between one node and Redis is cut, stalls or flaps.

use std::time::Duration;

use crate::harness::{
    Process, Sse,
    cut_proxy::CutProxy,
    nodes::{continuity, node},
    redis_server::RedisServer,
    until,
};

/// A node whose link can be cut, and one whose link cannot.
struct SetUp {
    link: CutProxy,
    behind: Process,
    other: Process,
    redis: RedisServer,
}

impl SetUp {
    async fn start() -> Option<Self> {
        let redis = RedisServer::start().await?;
        let link = CutProxy::start(redis.address);
        let (behind, other) = (node(&link.url(), &[]), node(&redis.url(), &[]));
        behind.certain().await;
        other.certain().await;
        Some(Self { link, behind, other, redis })
    }
}

/// Nothing but an answer that promises nothing.
fn promise_nothing(statuses: &[u16]) {
    assert!(statuses.iter().all(|status| [503, 504].contains(status)), "{statuses:?}");
}

/// Reads messages up to this one. Gives those before it.
async fn before(stream: &mut Sse, last: &str) -> Vec<String> {
    let mut before = Vec::new();
    loop {
        match stream.data().await {
            data if data == last => return before,
            data => before.push(data),
        }
    }
}

#[tokio::test]
async fn a_node_that_is_cut_off_serves_its_own_devices_and_gives_503_for_all_others() {
    let Some(SetUp { link, behind, other, redis: _redis }) = SetUp::start().await else { return };
    let (mut phone, mut tablet) = (behind.sse("bob/phone").await, other.sse("bob/tablet").await);
    link.cut();
    behind.degraded().await;
    assert_eq!(behind.send("bob/phone", "1").await, 200);
    assert_eq!(phone.data().await, "1");
    assert_eq!(behind.send("bob/tablet", "lost").await, 503);
    assert_eq!(behind.send("bob/nowhere", "lost").await, 503);
    assert_eq!(behind.list("bob").await.0, 503);
    assert_eq!(other.send("bob/tablet", "2").await, 200);
    // For the others it is silent, and then dead.
    let statuses = other.sends_until("bob/phone", "lost", 404).await;
    promise_nothing(&statuses[..statuses.len() - 1]);
    assert_eq!(behind.send("bob/phone", "3").await, 200);
    link.heal();
    behind.linked().await;
    until(|| other.send("bob/phone", "4"), |status| *status == 200).await;
    until(|| behind.send("bob/tablet", "5"), |status| *status == 200).await;
    assert_eq!(before(&mut phone, "4").await, ["3"]);
    assert_eq!(before(&mut tablet, "5").await, ["2"]);
}

#[tokio::test]
async fn a_link_that_stalls_delivers_nothing_late() {
    let Some(SetUp { link, behind, other, redis: _redis }) = SetUp::start().await else { return };
    let (mut phone, mut tablet) = (behind.sse("bob/phone").await, other.sse("bob/tablet").await);
    for round in 0..2 {
        link.stall();
        let out = behind.sends_until("bob/tablet", "late", 503).await;
        promise_nothing(&out);
        let into = other.send("bob/phone", "late").await;
        promise_nothing(&[into]);
        // What the proxy kept arrives long after its time.
        tokio::time::sleep(Duration::from_secs(1)).await;
        link.heal();
        let new = format!("new{round}");
        behind.sends_until("bob/tablet", &new, 200).await;
        other.sends_until("bob/phone", &new, 200).await;
        assert_eq!(before(&mut tablet, &new).await, [""; 0]);
        assert_eq!(before(&mut phone, &new).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_device_of_a_node_that_is_cut_off_comes_back_elsewhere_broken_and_the_old_stream_ends() {
    let Some(SetUp { link, behind, other, redis: _redis }) = SetUp::start().await else { return };
    let old = behind.sse("bob/phone").await;
    let cursor = old.parser.last_event_id.clone();
    link.cut();
    behind.degraded().await;
    let new = other.back("bob/phone", &cursor).await;
    assert_eq!(continuity(&new), "broken");
    // Accepted by the node that does not know better.
    assert_eq!(behind.send("bob/phone", "meanwhile").await, 200);
    link.heal();
    let mut old = old;
    assert_eq!(old.data().await, "meanwhile");
    while old.try_next().await.is_some() {}
    // It may have been lost with the old stream, so the new one is told.
    let cursor = new.parser.last_event_id.clone();
    let mut new = new;
    while new.try_next().await.is_some() {}
    let mut newest = other.back("bob/phone", &cursor).await;
    assert_eq!(continuity(&newest), "broken");
    assert_eq!(behind.sends_until("bob/phone", "1", 200).await.last(), Some(&200));
    assert_eq!(newest.data().await, "1");
}

#[tokio::test]
async fn a_device_that_came_while_the_link_was_down_is_reachable_when_it_is_up() {
    let Some(SetUp { link, behind, other, redis: _redis }) = SetUp::start().await else { return };
    link.cut();
    behind.degraded().await;
    let mut phone = behind.sse("bob/phone").await;
    assert_eq!(continuity(&phone), "broken");
    link.heal();
    let statuses = other.sends_until("bob/phone", "1", 200).await;
    // 404 until the node has told: nobody else can know.
    assert!(statuses[..statuses.len() - 1].iter().all(|status| [404, 503].contains(status)), "{statuses:?}");
    assert_eq!(phone.data().await, "1");
    // What it missed was said once.
    let cursor = phone.leave();
    let mut phone = other.back("bob/phone", &cursor).await;
    assert_eq!(continuity(&phone), "resumed");
    assert_eq!(behind.sends_until("bob/phone", "2", 200).await.last(), Some(&200));
    assert_eq!(phone.data().await, "2");
}

#[tokio::test]
async fn a_link_that_flaps_loses_nothing_that_was_accepted() {
    let Some(SetUp { link, behind, other, redis: _redis }) = SetUp::start().await else { return };
    let mut phone = behind.sse("bob/phone").await;
    let mut accepted = Vec::new();
    for round in 0..60 {
        if round % 10 == 0 {
            link.cut();
        } else if round % 10 == 3 {
            link.heal();
        }
        let from = if round % 2 == 0 { &behind } else { &other };
        let data = round.to_string();
        match from.send("bob/phone", &data).await {
            200 => accepted.push(data),
            503 | 504 => {}
            status => panic!("{status} in round {round}"),
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    link.heal();
    behind.linked().await;
    assert!(accepted.len() >= 30, "all of the node itself: {accepted:?}");
    let mut received = before(&mut phone, accepted.last().expect("some")).await;
    received.push(accepted.last().expect("some").clone());
    // A 504 may have been delivered, but in its place.
    received.retain(|data| accepted.contains(data));
    assert_eq!(received, accepted);
}

#[tokio::test]
async fn when_the_answer_with_a_mailbox_is_lost_its_device_is_served_and_nothing_is_lost_in_silence() {
    let Some(SetUp { link, behind, other, redis: _redis }) = SetUp::start().await else { return };
    for (round, text) in ["first text", "second text"].into_iter().enumerate() {
        let device = format!("bob/{round}");
        let phone = behind.sse(&device).await;
        let cursor = phone.leave();
        until(|| behind.devices("bob"), |devices| devices == "[]").await;
        assert_eq!(behind.post_with_ttl(&device, text, "60").await.status, 202);
        // The mailbox leaves the node, and does not arrive.
        if round == 0 {
            link.cut_at(text);
        } else {
            link.stall_at(text);
        }
        let mut phone = other.back(&device, &cursor).await;
        link.sprung().await;
        assert_eq!(continuity(&phone), "broken", "{text}");
        assert_eq!(other.send(&device, "1").await, 200);
        assert_eq!(phone.data().await, "1");
        link.heal();
        behind.linked().await;
        // The node that gave it mourns it: the stream ends, and the device is told again.
        while phone.try_next().await.is_some() {}
        let mut phone = other.back(&device, &phone.leave()).await;
        assert_eq!(continuity(&phone), "broken", "{text}");
        assert_eq!(behind.sends_until(&device, "2", 200).await.last(), Some(&200));
        assert_eq!(phone.data().await, "2");
    }
}
