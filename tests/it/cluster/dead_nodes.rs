//! Nodes that die, freeze or stop.

use crate::harness::{
    Sse,
    nodes::{Nodes, continuity},
    until,
};

#[tokio::test]
async fn the_devices_of_a_killed_node_are_503_and_then_404_and_come_back_broken_before_that() {
    let Some(mut nodes) = Nodes::certain(3, &[]).await else { return };
    let phone = nodes[2].sse("bob/phone").await;
    let _tablet = nodes[2].sse("bob/tablet").await;
    let cursor = phone.parser.last_event_id.clone();
    assert_eq!(nodes[0].send("bob/phone", "accepted").await, 200);
    nodes.remove(2).signal("KILL");
    assert_eq!(nodes[0].send("bob/tablet", "x").await, 503);
    // At once: the node does not count as dead yet.
    let mut phone = nodes[0].back("bob/phone", &cursor).await;
    assert_eq!(continuity(&phone), "broken");
    assert_eq!(nodes[1].send("bob/tablet", "x").await, 503);
    assert_eq!(nodes[1].send("bob/phone", "1").await, 200);
    assert_eq!(phone.data().await, "1");
    let statuses = nodes[1].sends_until("bob/tablet", "x", 404).await;
    assert!(statuses[..statuses.len() - 1].iter().all(|status| *status == 503), "{statuses:?}");
    // Whoever was away when it died is told too. Without a cursor it is a new page, and something may be lost before it.
    let tablet = nodes[0].sse("bob/tablet").await;
    assert_eq!(continuity(&tablet), "new");
    assert_eq!(nodes[1].list("bob").await, (200, r#"["phone","tablet"]"#.into()));
}

#[tokio::test]
async fn a_frozen_node_is_504_and_nothing_that_was_unknown_comes_late() {
    let Some(nodes) = Nodes::certain(2, &[]).await else { return };
    let mut phone = nodes[1].sse("bob/phone").await;
    nodes[1].signal("STOP");
    let late = nodes[0].post("bob/phone", "late").await;
    assert_eq!((late.status, late.problem().as_str()), (504, "unknown_outcome"));
    nodes[1].signal("CONT");
    let statuses = nodes[0].sends_until("bob/phone", "new", 200).await;
    assert!(statuses[..statuses.len() - 1].iter().all(|status| [503, 504].contains(status)), "{statuses:?}");
    assert_eq!(phone.data().await, "new");
}

#[tokio::test]
async fn a_device_leaves_a_frozen_node_broken_and_its_old_stream_ends_after_the_thaw() {
    let Some(nodes) = Nodes::certain(2, &[]).await else { return };
    let old = nodes[1].sse("bob/phone").await;
    let cursor = old.parser.last_event_id.clone();
    nodes[1].signal("STOP");
    let mut phone = nodes[0].back("bob/phone", &cursor).await;
    assert_eq!(continuity(&phone), "broken");
    assert_eq!(nodes[0].send("bob/phone", "1").await, 200);
    nodes[1].signal("CONT");
    ended(old).await;
    // The node that was frozen knows who has the device now.
    assert_eq!(nodes[1].sends_until("bob/phone", "2", 200).await.len(), 1);
    assert_eq!((phone.data().await.as_str(), phone.data().await.as_str()), ("1", "2"));
    assert_eq!(nodes[1].list("bob").await, (200, r#"["phone"]"#.into()));
}

/// Waits for a clean end, with a reason or without.
async fn ended(mut stream: Sse) {
    while let Some(event) = stream.try_next().await {
        assert!(event.name.starts_with("signal."), "{event:?}");
    }
}

#[tokio::test]
async fn what_a_frozen_node_had_accepted_is_sent_on_or_declared_after_a_forced_move() {
    let Some(nodes) = Nodes::certain(2, &[]).await else { return };
    let phone = nodes[1].sse("bob/phone").await;
    let cursor = phone.leave();
    until(|| nodes[1].devices("bob"), |devices| devices == "[]").await;
    for data in ["1", "2", "3"] {
        assert_eq!(nodes[0].post_with_ttl("bob/phone", data, "60").await.status, 202);
    }
    nodes[1].signal("STOP");
    let phone = nodes[0].back("bob/phone", &cursor).await;
    assert_eq!(continuity(&phone), "broken");
    nodes[1].signal("CONT");
    // The stream ends, so that its device learns of the gap. Then the messages come in order.
    let cursor = phone.parser.last_event_id.clone();
    ended(phone).await;
    let mut phone = nodes[0].back("bob/phone", &cursor).await;
    assert_eq!(continuity(&phone), "broken");
    for data in ["1", "2", "3"] {
        assert_eq!(phone.data().await, data);
    }
}

#[tokio::test]
async fn a_node_that_thaws_after_it_counted_as_dead_is_a_node_again() {
    let Some(nodes) = Nodes::certain(2, &[]).await else { return };
    let mut phone = nodes[1].sse("bob/phone").await;
    nodes[1].signal("STOP");
    let statuses = nodes[0].sends_until("bob/phone", "late", 404).await;
    assert!(statuses[..statuses.len() - 1].iter().all(|status| [503, 504].contains(status)), "{statuses:?}");
    nodes[1].signal("CONT");
    until(|| nodes[0].send("bob/phone", "new"), |status| *status == 200).await;
    assert_eq!(phone.data().await, "new");
    // Suspect until it was told: then it is served as before.
    assert_eq!(nodes[1].send("bob/phone", "local").await, 200);
    assert_eq!(phone.data().await, "local");
}

#[tokio::test]
async fn a_stopped_node_gives_its_mailboxes_to_others_and_nobody_is_broken_or_404() {
    const DEVICES: usize = 20;
    let Some(mut nodes) = Nodes::certain(3, &[]).await else { return };
    let mut cursors = Vec::new();
    for device in 0..DEVICES {
        let stream = nodes[2].sse(&format!("bob/{device}")).await;
        if device % 2 == 0 {
            cursors.push(stream.leave());
        } else {
            // Sent, and perhaps not read.
            cursors.push(stream.parser.last_event_id.clone());
            assert_eq!(nodes[0].send(&format!("bob/{device}"), "0").await, 200);
            drop(stream);
        }
    }
    until(|| nodes[2].devices("bob"), |devices| devices == "[]").await;
    let stopping = nodes.remove(2);
    stopping.signal("TERM");
    let exit = tokio::task::spawn_blocking(move || stopping.exited());
    let mut held = vec![Vec::new(); DEVICES];
    for round in 1.. {
        for (device, held) in held.iter_mut().enumerate() {
            let data = round.to_string();
            let answer = nodes[round % 2].post_with_ttl(&format!("bob/{device}"), &data, "60").await;
            match answer.status {
                202 => held.push(data),
                503 => {}
                status => panic!("{status} in round {round}"),
            }
        }
        if exit.is_finished() || round == 40 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let (code, log) = crate::harness::within(exit).await.expect("no panic");
    assert_eq!(code, Some(0), "{log}");
    for (device, (cursor, held)) in cursors.iter().zip(held).enumerate() {
        let mut phone = nodes[device % 2].back(&format!("bob/{device}"), cursor).await;
        assert_eq!(continuity(&phone), "resumed", "{device}");
        let sent_before = (device % 2 == 1).then(|| "0".to_owned());
        for data in sent_before.into_iter().chain(held) {
            assert_eq!(phone.data().await, data, "{device}");
        }
    }
}

#[tokio::test]
async fn the_streams_of_a_stopped_node_end_with_draining_and_resume_elsewhere() {
    let Some(mut nodes) = Nodes::certain(2, &[]).await else { return };
    let mut streams = Vec::new();
    for device in 0..10 {
        streams.push(nodes[1].sse(&format!("bob/{device}")).await);
    }
    let stopping = nodes.remove(1);
    stopping.signal("TERM");
    for (device, mut stream) in streams.into_iter().enumerate() {
        let name = format!("bob/{device}");
        while stream.next().await.name != "signal.end" {}
        let mut again = nodes[0].back(&name, &stream.leave()).await;
        assert_eq!(continuity(&again), "resumed", "{device}");
        assert_eq!(nodes[0].send(&name, "x").await, 200);
        assert_eq!(again.data().await, "x");
        drop(again);
    }
    let (code, log) = stopping.exited();
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test]
async fn the_last_node_that_stops_hands_nothing_over_and_exits() {
    let Some(mut nodes) = Nodes::start(1, &[]).await else { return };
    let phone = nodes[0].sse("bob/phone").await;
    let stopping = nodes.remove(0);
    stopping.signal("TERM");
    assert_eq!(phone.end().await, "draining");
    let (code, log) = stopping.exited();
    assert_eq!(code, Some(0), "{log}");
}
