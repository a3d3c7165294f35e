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
    HOLD, TestHub, Wakes, place, poll,
};
use crate::{
    auth::Caller,
    model::{Continuity, Outcome, Start},
};

#[tokio::test]
async fn a_stream_that_attaches_while_its_mailbox_is_pushed_out_is_ended() {
    let test = TestHub::new(1 << 20, |limits| (limits.user_devices, limits.user_held_devices) = (1, 1));
    assert_eq!(test.send("0", 10, HOLD).await, Ok(Outcome::Held));
    let (core, now) = (&test.hub.0.core, test.hub.now());
    let limits = core.limits.of(&Caller::anonymous());
    let slot = core.registry.find(&place("0")).expect("a slot");
    let found =
        core.registry.find_or_insert(&place("new"), Purpose::Stream, limits.devices, &core.totals, now).expect("room");
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
    assert_eq!(test.send("first", 10, HOLD).await, Ok(Outcome::Held));
    let _other = test.subscribe("other", Start::Anew).expect("a stream");
    let second = test.subscribe("second", Start::Anew).expect("it pushes the first out");
    let core = &test.hub.0.core;
    let slot = core.registry.find(&place("second")).expect("a slot");
    drop(second);
    core.registry.remove(&slot, &core.totals);
    assert_eq!(test.send("third", 10, HOLD).await, Ok(Outcome::Held));
    let (ready, _first) = test.subscribe("first", Start::Anew).expect("it pushes the third out");
    assert_eq!(ready.continuity, Continuity::Broken);
}

#[tokio::test]
async fn a_device_that_comes_while_a_board_is_filled_is_on_the_list() {
    let test = TestHub::new(1 << 20, |_| ());
    let (core, now) = (&test.hub.0.core, test.hub.now());
    let limits = core.limits.of(&Caller::anonymous());
    let board = core.presence.add_watches(&[place("0").user], None, limits.watches, |_| ()).expect("room").remove(0);
    let mut phone = None;
    board.fill(now, || {
        let live = Vec::new();
        phone = Some(test.subscribe("phone", Start::Anew).expect("a stream"));
        // The timekeeper checks the board before the watcher goes on.
        for later in 0..200 {
            board.check(Tick::reached(now.after(50 * later)), now.after(1_000), |device| {
                core.registry.find(&place(device.as_str()))?.live_page()
            });
        }
        live
    });
    let BoardItem::List(list) = board.next(&mut Progress::New, 1, Waker::noop(), true) else { panic!("no list") };
    assert_eq!(list.len(), 1);
}

#[tokio::test]
async fn a_mailbox_that_is_made_for_a_stream_is_not_pushed_out_before_the_stream_is_attached() {
    let test = TestHub::new(1 << 20, |limits| limits.user_devices = 1);
    let (core, now) = (&test.hub.0.core, test.hub.now());
    let limits = core.limits.of(&Caller::anonymous());
    core.registry.find_or_insert(&place("phone"), Purpose::Stream, limits.devices, &core.totals, now).expect("room");
    assert!(core.registry.find_or_insert(&place("other"), Purpose::Stream, limits.devices, &core.totals, now).is_err());
}
