//! What happens when two things happen in one moment, step by step through the hub's own parts.

use std::{
    sync::{Arc, atomic::Ordering},
    task::Waker,
};

use super::{
    super::{
        Purpose, Subscription,
        board::{Glimpse, Progress},
        deadlines::Tick,
    },
    HELD, NOW, Stage, Wakes, address, poll, take, user,
};
use crate::model::{Address, Continuity, Outcome, Start};

#[tokio::test]
async fn a_stream_that_comes_while_its_mailbox_is_pushed_out_is_ended() {
    let stage = Stage::new(1 << 20, |limits| (limits.user_devices, limits.user_held_devices) = (1, 1));
    assert_eq!(stage.send("0", 10, HELD).await, Ok(Outcome::Held));
    let (core, now) = (&stage.hub.0.core, stage.hub.now());
    let slot = core.registry.find(&address("0")).expect("a slot");
    let entered = core.registry.enter(&address("new"), Purpose::Stream, &core.totals, now).expect("room");
    let attached = slot.attach(core, Start::Anew, 15_000, now).expect("not gone").expect("attached");
    let mut stream = Subscription::new(stage.hub.clone(), slot, attached.generation, attached.cursor.page);
    let woken = Arc::new(Wakes::default());
    while poll(&mut stream, &woken.clone().into()).is_some() {}
    entered.pushed_out.expect("one").close(core, now);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(poll(&mut stream, Waker::noop()).is_none(), "it is over");
    drop(stream);
    assert_eq!((stage.hub.census().streams, stage.hub.census().held), (0, 512));
}

#[tokio::test]
async fn a_device_that_comes_back_while_others_are_pushed_out_is_told_what_it_lost() {
    let stage = Stage::new(1 << 20, |limits| (limits.user_devices, limits.user_held_devices) = (2, 1));
    assert_eq!(stage.send("a", 10, HELD).await, Ok(Outcome::Held));
    let _one = stage.subscribe("one", Start::Anew).expect("a stream");
    let two = stage.subscribe("two", Start::Anew).expect("it pushes a out");
    let core = &stage.hub.0.core;
    let slot = core.registry.find(&address("two")).expect("a slot");
    drop(two);
    core.registry.remove(&slot, &core.totals);
    assert_eq!(stage.send("c", 10, HELD).await, Ok(Outcome::Held));
    let (ready, _a) = stage.subscribe("a", Start::Anew).expect("it pushes c out");
    assert_eq!(ready.continuity, Continuity::Broken);
}

#[tokio::test]
async fn what_is_kept_for_replay_makes_room_for_a_message_to_hold() {
    let stage = Stage::new(100_000, |_| ());
    let (_, mut phone) = stage.subscribe("phone", Start::Anew).expect("a stream");
    for _ in 0..20 {
        assert_eq!(stage.send("phone", 9_000, NOW).await, Ok(Outcome::Delivered));
        take(&mut phone);
    }
    assert_eq!(stage.send("absent", 9_000, HELD).await, Ok(Outcome::Held));
}

#[tokio::test]
async fn a_device_that_comes_while_a_board_is_filled_is_on_the_list() {
    let stage = Stage::new(1 << 20, |_| ());
    let (core, now) = (&stage.hub.0.core, stage.hub.now());
    let board = core.presence.enter(&user(), None).expect("room");
    let mut phone = None;
    board.fill(now, || {
        let live = Vec::new();
        phone = Some(stage.subscribe("phone", Start::Anew).expect("a stream"));
        // The timekeeper is faster than this watcher.
        for tick in 0..200 {
            board.look(Tick(tick), now.after(1_000), |device| {
                core.registry.find(&Address { user: user(), device: device.clone() })?.live_page()
            });
        }
        live
    });
    let Glimpse::List(list) = board.next(&mut Progress::New, 1, Waker::noop()) else { panic!("no list") };
    assert_eq!(list.len(), 1);
}

#[tokio::test]
async fn what_was_sent_to_a_stream_that_left_makes_room_for_live_messages() {
    let stage = Stage::new(100_000, |_| ());
    let (_, unread) = stage.subscribe("unread", Start::Anew).expect("a stream");
    for _ in 0..9 {
        assert_eq!(stage.send("unread", 10_000, NOW).await, Ok(Outcome::Delivered));
    }
    let (_, mut phone) = stage.subscribe("phone", Start::Anew).expect("a stream");
    drop(unread);
    for _ in 0..20 {
        assert_eq!(stage.send("phone", 10_000, NOW).await, Ok(Outcome::Delivered));
        assert_eq!(take(&mut phone), 1);
    }
    let (ready, _unread) = stage.subscribe("unread", Start::Anew).expect("a stream");
    assert_eq!((ready.continuity, ready.replayed), (Continuity::Broken, 0));
}

#[tokio::test]
async fn a_mailbox_that_is_made_for_a_stream_is_not_pushed_out_before_that_is_attached() {
    let stage = Stage::new(1 << 20, |limits| limits.user_devices = 1);
    let (core, now) = (&stage.hub.0.core, stage.hub.now());
    core.registry.enter(&address("phone"), Purpose::Stream, &core.totals, now).expect("room");
    assert!(core.registry.enter(&address("other"), Purpose::Stream, &core.totals, now).is_err());
}
