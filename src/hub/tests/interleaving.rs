//! Two things that happen at the same moment, step by step through the parts of the hub.

use std::{
    sync::{Arc, atomic::Ordering},
    task::Waker,
};

use super::{
    super::{
        Subscription,
        board::{BoardItem, Progress},
        time::Tick,
        user_devices::Purpose,
    },
    HOLD, NO_TTL, TestHub, Wakes, address, poll, read_all, user,
};
use crate::model::{Address, Continuity, Outcome, Start};

#[tokio::test]
async fn a_stream_that_attaches_while_its_mailbox_is_pushed_out_is_ended() {
    let test = TestHub::new(1 << 20, |limits| (limits.user_devices, limits.user_held_devices) = (1, 1));
    assert_eq!(test.send("0", 10, HOLD).await, Ok(Outcome::Held));
    let (core, now) = (&test.hub.0.core, test.hub.now());
    let slot = core.registry.find(&address("0")).expect("a slot");
    let found = core.registry.find_or_insert(&address("new"), Purpose::Stream, &core.totals, now).expect("room");
    let attached = slot.attach(core, Start::Anew, 15_000, now).expect("not gone").expect("attached");
    let mut stream = Subscription::new(test.hub.clone(), slot, attached.generation, attached.cursor.page);
    let woken = Arc::new(Wakes::default());
    while poll(&mut stream, &woken.clone().into()).is_some() {}
    found.pushed_out.expect("one").close(core, now);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(poll(&mut stream, Waker::noop()).is_none(), "it is over");
    drop(stream);
    assert_eq!((test.hub.census().streams, test.hub.census().held_bytes), (0, 512));
}

#[tokio::test]
async fn a_device_that_comes_back_while_others_are_pushed_out_is_told_what_it_lost() {
    let test = TestHub::new(1 << 20, |limits| (limits.user_devices, limits.user_held_devices) = (2, 1));
    assert_eq!(test.send("a", 10, HOLD).await, Ok(Outcome::Held));
    let _one = test.subscribe("one", Start::Anew).expect("a stream");
    let two = test.subscribe("two", Start::Anew).expect("it pushes a out");
    let core = &test.hub.0.core;
    let slot = core.registry.find(&address("two")).expect("a slot");
    drop(two);
    core.registry.remove(&slot, &core.totals);
    assert_eq!(test.send("c", 10, HOLD).await, Ok(Outcome::Held));
    let (ready, _a) = test.subscribe("a", Start::Anew).expect("it pushes c out");
    assert_eq!(ready.continuity, Continuity::Broken);
}

#[tokio::test]
async fn messages_kept_for_replay_make_room_for_a_message_to_hold() {
    let test = TestHub::new(100_000, |_| ());
    let (_, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    for _ in 0..20 {
        assert_eq!(test.send("phone", 9_000, NO_TTL).await, Ok(Outcome::Delivered));
        read_all(&mut phone);
    }
    assert_eq!(test.send("absent", 9_000, HOLD).await, Ok(Outcome::Held));
}

#[tokio::test]
async fn a_device_that_comes_while_a_board_is_filled_is_on_the_list() {
    let test = TestHub::new(1 << 20, |_| ());
    let (core, now) = (&test.hub.0.core, test.hub.now());
    let board = core.presence.add_watch(&user(), None).expect("room");
    let mut phone = None;
    board.fill(now, || {
        let live = Vec::new();
        phone = Some(test.subscribe("phone", Start::Anew).expect("a stream"));
        // The timekeeper checks the board before the watcher goes on.
        for tick in 0..200 {
            board.check(Tick::at_step(tick), now.after(1_000), |device| {
                core.registry.find(&Address { user: user(), device: device.clone() })?.live_page()
            });
        }
        live
    });
    let BoardItem::List(list) = board.next(&mut Progress::New, 1, Waker::noop()) else { panic!("no list") };
    assert_eq!(list.len(), 1);
}

#[tokio::test]
async fn messages_that_a_stream_did_not_take_make_room_for_live_messages() {
    let test = TestHub::new(100_000, |_| ());
    let (_, unread) = test.subscribe("unread", Start::Anew).expect("a stream");
    for _ in 0..9 {
        assert_eq!(test.send("unread", 10_000, NO_TTL).await, Ok(Outcome::Delivered));
    }
    let (_, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    drop(unread);
    for _ in 0..20 {
        assert_eq!(test.send("phone", 10_000, NO_TTL).await, Ok(Outcome::Delivered));
        assert_eq!(read_all(&mut phone), 1);
    }
    let (ready, _unread) = test.subscribe("unread", Start::Anew).expect("a stream");
    assert_eq!((ready.continuity, ready.replayed), (Continuity::Broken, 0));
}

#[tokio::test]
async fn a_mailbox_that_is_made_for_a_stream_is_not_pushed_out_before_the_stream_is_attached() {
    let test = TestHub::new(1 << 20, |limits| limits.user_devices = 1);
    let (core, now) = (&test.hub.0.core, test.hub.now());
    core.registry.find_or_insert(&address("phone"), Purpose::Stream, &core.totals, now).expect("room");
    assert!(core.registry.find_or_insert(&address("other"), Purpose::Stream, &core.totals, now).is_err());
}
