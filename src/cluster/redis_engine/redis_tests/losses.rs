//! How a connection ends: each error, silence and a full inbox end it with a reason, and everything that waits fails at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

use super::{
    Linked, OfTest, RedisEngine, address, engine,
    real_server::{PROGRAMS, RealServer},
    server, user, within,
};
use crate::cluster::{
    directory::{Fault, Found, NodeId},
    wire::{Channel, Engine as _, Published},
};

const REDIS: &str = PROGRAMS[0];

async fn linked(server: &RealServer, node: u64) -> Linked {
    let linked = Linked::to(&engine(&server.url()), node).await;
    linked.connection.directory.hello(0, false).await.unwrap();
    linked
}

/// An engine, and how many tasks of its connections run.
fn counting_engine(url: &str) -> (RedisEngine, Arc<AtomicUsize>) {
    let of_test = OfTest::default();
    let tasks = of_test.tasks.clone();
    (RedisEngine::new(server(url), Arc::new(of_test)), tasks)
}

#[tokio::test]
async fn each_error_answer_ends_the_connection_with_its_words() {
    for (setting, words, refused) in [
        (&["CONFIG", "SET", "min-replicas-to-write", "1"][..], "NOREPLICAS", true),
        (&["REPLICAOF", "127.0.0.1", "1"], "READONLY", true),
        (&["SCRIPT", "FLUSH"], "NOSCRIPT", true),
        (&["CONFIG", "SET", "maxmemory", "1"], "OOM", false),
        (&["SET", "bs:g", "text"], "WRONGTYPE", false),
    ] {
        let Some(server) = RealServer::start(REDIS, "").await else { return };
        let node = linked(&server, 1).await;
        if setting[0] == "SET" {
            server.run(&["DEL", "bs:g"]).await;
        }
        server.run(setting).await;
        let directory = node.connection.directory.clone();
        let fault = directory.claim(&address("ana", "phone"), 0).await.unwrap_err();
        assert_eq!(matches!(fault, Fault::Down(_)), refused, "{words}: {fault:?}");
        assert!(fault.to_string().contains(words), "{words}: {fault}");
        assert_eq!(node.lost().await, fault.to_string());
        // Nothing is sent any more, and the reason stays.
        assert_eq!(directory.owe().await, Err(Fault::Down(fault.to_string())));
        let published = node.connection.wire.publish(Channel::Requests(NodeId(1)), "x".into()).await;
        assert_eq!(published, Err(Fault::Down(fault.to_string())));
    }
}

#[tokio::test]
async fn a_killed_server_ends_the_connection_and_everything_that_waits_at_once() {
    let Some(mut server) = RealServer::start(REDIS, "").await else { return };
    let node = linked(&server, 1).await;
    server.signal("-STOP");
    let directory = node.connection.directory.clone();
    let begin = tokio::time::Instant::now();
    let (one, other) = (address("ana", "phone"), address("ana", "desk"));
    let calls = async { tokio::join!(directory.find(&one), directory.claim(&other, 0)) };
    let kill = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.kill();
    };
    let ((found, claimed), ()) = tokio::join!(calls, kill);
    // Sooner than their own time-out.
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
    assert!(matches!(found, Err(Fault::Late(_))), "{found:?}");
    assert!(matches!(claimed, Err(Fault::Late(_))), "{claimed:?}");
    assert!(!node.lost().await.is_empty());
}

#[tokio::test]
async fn a_server_that_is_silent_for_a_second_ends_the_connection() {
    let Some(server) = RealServer::start(REDIS, "").await else { return };
    let node = linked(&server, 1).await;
    server.signal("-STOP");
    let directory = node.connection.directory.clone();
    let fault = within(directory.find(&address("ana", "phone"))).await.unwrap_err();
    assert_eq!(fault, Fault::Late("the server did not answer within 1 s".to_owned()));
    assert_eq!(node.lost().await, fault.to_string());
    server.signal("-CONT");
}

#[tokio::test]
async fn what_a_frozen_server_was_sent_does_not_arrive_after_the_connection_ended() {
    let Some(server) = RealServer::start(REDIS, "").await else { return };
    let (node, mut other) = (linked(&server, 1).await, linked(&server, 2).await);
    // More than fits into the buffers of both systems, so the end of it waits here.
    server.signal("-STOP");
    let wire = &node.connection.wire;
    let bytes = bytes::Bytes::from(vec![b'x'; 4 << 20]);
    let sends = (0..8).map(|_| wire.publish(Channel::Requests(NodeId(2)), bytes.clone()));
    let sends = async {
        for result in futures_of(sends).await {
            assert!(matches!(result, Err(Fault::Late(_))), "{result:?}");
        }
    };
    within(sends).await;
    server.signal("-CONT");
    other.connection.wire.publish(Channel::Answers(NodeId(2)), "end".into()).await.unwrap();
    let mut whole = 0;
    while let Some(published) = within(other.inbox.recv()).await {
        match published.channel {
            Channel::Requests(_) => whole += 1,
            _ => break,
        }
    }
    assert!(whole < 8, "all arrived");
}

async fn futures_of<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting = futures.map(|future| (Some(Box::pin(future)), None)).collect::<Vec<_>>();
    std::future::poll_fn(|context| {
        for (future, result) in &mut waiting {
            if let Some(running) = future
                && let std::task::Poll::Ready(value) = running.as_mut().poll(context)
            {
                (*future, *result) = (None, Some(value));
            }
        }
        if waiting.iter().all(|(future, _)| future.is_none()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, result)| result).collect()
}

#[tokio::test]
async fn a_full_inbox_ends_the_connection() {
    let Some(server) = RealServer::start(REDIS, "").await else { return };
    let (sender, mut inbox) = mpsc::channel(3);
    let connection = engine(&server.url()).connect(NodeId(1), sender).await.unwrap();
    let other = linked(&server, 2).await;
    for number in 0..5 {
        other.connection.wire.publish(Channel::Requests(NodeId(1)), format!("{number}").into()).await.unwrap();
    }
    assert_eq!(within(connection.lost.wait()).await, "messages come faster than this node takes them");
    // What came before is there, in order.
    for number in 0..3 {
        assert_eq!(inbox.recv().await.map(|published| published.bytes), Some(format!("{number}").into()));
    }
    assert_eq!(inbox.recv().await, None);
}

#[tokio::test]
async fn a_dropped_connection_is_closed_also_while_a_frozen_server_takes_nothing() {
    // Not TCP, where the system's own time-out would end it, too.
    let path = std::env::temp_dir().join(format!("backend-signal-redis-frozen-{}.sock", std::process::id()));
    let Some(server) = RealServer::start(REDIS, &format!("unixsocket {}", path.display())).await else { return };
    let (engine, tasks) = counting_engine(&format!("unix://node:secret@{}", path.display()));
    let node = Linked::to(&engine, 1).await;
    let wire = node.connection.wire.clone();
    assert_eq!(tasks.load(Ordering::SeqCst), 1);
    server.signal("-STOP");
    let large = bytes::Bytes::from(vec![b'x'; 8 << 20]);
    let call = tokio::time::timeout(Duration::from_millis(20), wire.publish(Channel::Requests(NodeId(1)), large)).await;
    assert!(call.is_err());
    drop((node, wire));
    within(async {
        while tasks.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.signal("-CONT");
}

#[tokio::test]
async fn bytes_of_any_kind_come_in_on_their_channels_in_order() {
    let Some(server) = RealServer::start(REDIS, "").await else { return };
    let (mut node, other) = (linked(&server, 1).await, linked(&server, 2).await);
    let followed = user("tenant\0ü:*");
    node.connection.wire.subscribe(&followed).await.unwrap();
    let large = vec![0_u8; 1 << 20];
    let sent = [
        (Channel::Requests(NodeId(1)), b"\0\r\n\xff".to_vec(), 1),
        (Channel::Presence(followed.clone()), large, 1),
        (Channel::Presence(user("another")), b"lost".to_vec(), 0),
        (Channel::Requests(NodeId(3)), b"lost".to_vec(), 0),
        (Channel::Answers(NodeId(1)), Vec::new(), 1),
    ];
    for (channel, bytes, receivers) in &sent {
        let published = other.connection.wire.publish(channel.clone(), bytes.clone().into()).await;
        assert_eq!(published, Ok(*receivers), "{channel:?}");
    }
    for (channel, bytes, _) in sent.into_iter().filter(|sent| sent.2 == 1) {
        assert_eq!(within(node.inbox.recv()).await, Some(Published { channel, bytes: bytes.into() }));
    }
    node.connection.wire.unsubscribe(&followed).await.unwrap();
    let published = other.connection.wire.publish(Channel::Presence(followed), "x".into()).await;
    assert_eq!(published, Ok(0));
}

#[tokio::test]
async fn after_a_restart_with_nothing_a_new_connection_finds_a_new_generation() {
    let Some(mut server) = RealServer::start(REDIS, "").await else { return };
    let node = linked(&server, 1).await;
    let known = node.connection.directory.generation();
    server.kill();
    server.restart().await;
    let again = Linked::to(&engine(&server.url()), 1).await;
    let hello = again.connection.directory.hello(known, true).await.unwrap();
    assert!(hello.generation > known, "{} > {known}", hello.generation);
    let found = again.connection.directory.find(&address("ana", "phone")).await;
    assert_eq!(found, Ok(Found::Unsure));
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up_in_half_a_second() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
    };
    let connect = async {
        let (sender, _inbox) = mpsc::channel(1);
        engine(&format!("redis://127.0.0.1:{port}")).connect(NodeId(1), sender).await.map(drop)
    };
    let ((), connected) = tokio::join!(silent, within(connect));
    assert_eq!(connected, Err(Fault::Down(format!("127.0.0.1:{port}: no answer within 500 ms"))));
}

#[tokio::test]
async fn an_answer_that_is_none_ends_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let nonsense = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
    };
    let connect = async {
        let (sender, _inbox) = mpsc::channel(1);
        engine(&format!("redis://127.0.0.1:{port}")).connect(NodeId(1), sender).await.map(drop)
    };
    let ((), connected) = tokio::join!(nonsense, within(connect));
    assert!(matches!(connected, Err(Fault::Down(_))), "{connected:?}");
}
