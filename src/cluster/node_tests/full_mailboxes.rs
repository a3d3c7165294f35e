//! Many full mailboxes that come to one node at once.

use tokio::sync::mpsc;

use super::*;
use crate::{
    auth::Subscriber,
    cluster::{node::Node, peer_messages::LARGEST_PARCEL, running_node::spawn},
    hub::{Draft, Opening},
};

/// The bytes of the parcels that a node gave away and that nobody has opened yet.
fn on_way(node: &Node) -> usize {
    node.stubs.with_parcels().iter().filter_map(|(_, stub)| Some(stub.parcel.as_ref()?.memory_bytes())).sum()
}

#[tokio::test(start_paused = true)]
async fn full_mailboxes_that_come_to_one_node_at_once_take_turns_and_nobody_is_broken() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    let full = Draft { data: Data::new("x".repeat(60_000)).expect("not too long"), ..draft(Duration::from_secs(60)) };
    let devices: Vec<_> =
        (0..DEVICES).map(|user| Address::new(&format!("user {user}"), "phone").expect("ids")).collect();
    for device in &devices {
        for _ in 0..MESSAGES {
            assert_eq!(one.hub.send(&Caller::anonymous(), device, full.clone()).await, Ok(Outcome::Held));
        }
    }
    let (sender, mut arrived) = mpsc::channel(DEVICES);
    for device in devices {
        let (hub, sender) = (two.hub.clone(), sender.clone());
        spawn(async move {
            let opening = Opening { start: Start::Anew, heartbeat: Duration::from_secs(15) };
            let opened = hub.subscribe(&Subscriber::proven(device), &opening).await;
            sender.send(opened).await.expect("the test goes on");
        });
    }
    let (mut most, mut opened) = (0, Vec::new());
    while opened.len() < DEVICES {
        most = most.max(on_way(&one.node));
        let Ok(next) = timeout(Duration::from_micros(500), arrived.recv()).await else { continue };
        let (ready, stream) = next.expect("a sender").expect("a stream");
        assert_eq!((ready.continuity, ready.replayed), (Continuity::New, MESSAGES), "{} came before", opened.len());
        opened.push(stream);
    }
    let limit = 12 << 20;
    assert!((limit / 2..=limit + LARGEST_PARCEL).contains(&most), "{most} bytes were on their way");
    // The notice of the last move comes a moment after the stream.
    sleep(Duration::from_millis(100)).await;
    assert_eq!(on_way(&one.node), 0);
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_waits_for_its_turn_is_not_taken_by_force() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    assert_eq!(one.send(Duration::from_secs(60)).await, Ok(Outcome::Held));
    let others = one.node.parcel_lanes.squeeze(two.node.id, usize::MAX, 1).expect("an empty lane");
    let their_time = async {
        sleep(Duration::from_millis(1_900)).await;
        drop(others);
    };
    let ((ready, _stream), ()) = tokio::join!(two.subscribe(Start::Anew), their_time);
    assert_eq!((ready.continuity, ready.replayed), (Continuity::New, 1));
}

const DEVICES: usize = 160;
const MESSAGES: u32 = 4;
