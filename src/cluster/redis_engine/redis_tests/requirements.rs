//! Which servers are refused, and what an operator is told.

use tokio::sync::mpsc;

use super::{
    Linked, RedisPrefix, RedisServer, RedisSettings, address, engine,
    real_server::{PROGRAMS, RealServer},
    server,
};
use crate::cluster::{
    directory::{About, Fault, NodeId, Phase},
    survey::Examined,
    wire::Engine as _,
};

const REDIS: &str = PROGRAMS[0];

/// Why the examination refuses a server, which must also be why no link comes up.
async fn refusal(url: &str) -> String {
    let (sender, _inbox) = mpsc::channel(1);
    let connected = engine(url).connect(NodeId(1), sender).await.map(drop);
    let Examined::Unfit(why) = server(url).examine().await else { panic!("not refused") };
    assert_eq!(connected, Err(Fault::Down(why.clone())));
    why
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_refused_in_one_line() {
    for (configuration, reason) in [
        ("maxmemory-policy allkeys-lru", "maxmemory-policy is allkeys-lru, and it must be noeviction"),
        ("replicaof 127.0.0.1 1", "it is a replica of 127.0.0.1, and not the primary"),
        ("cluster-enabled yes", "it is a node of a Redis Cluster"),
    ] {
        let Some(server) = RealServer::start(REDIS, configuration).await else { return };
        let why = refusal(&server.url()).await;
        assert!(why.starts_with(&format!("127.0.0.1:{}: ", server.port)) && why.contains(reason), "{why}");
        assert!(!why.contains('\n') && !why.contains("secret"), "{why}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let Some(server) = RealServer::start(REDIS, "").await else { return };
    let why = refusal(&format!("redis://node:wrong-secret@127.0.0.1:{}", server.port)).await;
    assert!(why.contains("WRONGPASS") && !why.contains("wrong-secret"), "{why}");
}

#[tokio::test]
async fn a_user_that_lacks_a_right_is_refused_by_name_of_the_command() {
    let rights = "evalsha script|load hget hset hdel hgetall hlen expire time publish subscribe unsubscribe info set";
    for right in rights.split(' ') {
        let Some(real) = RealServer::start(REDIS, "").await else { return };
        real.run(&["ACL", "SETUSER", "node", &format!("-{right}")]).await;
        let Examined::Unfit(why) = server(&real.url()).examine().await else { panic!("{right}: not refused") };
        assert!(why.contains("NOPERM") && why.to_lowercase().contains(right), "{right}: {why}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_not_unfit() {
    for url in
        ["redis://127.0.0.1:1", "unix:///nonexistent/redis.sock", "redis+sentinel://127.0.0.1:1,localhost:2/main"]
    {
        let examined = server(url).examine().await;
        assert!(matches!(examined, Examined::Unreachable(_)), "{examined:?}");
    }
}

#[tokio::test]
async fn an_operator_is_warned_of_what_would_lose_messages() {
    let Some(real) = RealServer::start(REDIS, "").await else { return };
    let replica = async || RealServer::start(REDIS, &format!("replicaof 127.0.0.1 {}", real.port)).await;
    let warnings = async || {
        // The user of the documentation with the right that it names for warnings.
        real.run(&["ACL", "SETUSER", "node", "+config|get"]).await;
        match server(&real.url()).examine().await {
            Examined::Fit { server, warnings } => {
                assert!(server.starts_with("Redis 7.") || server.starts_with("Redis 8."), "{server}");
                warnings
            }
            other => panic!("{other:?}"),
        }
    };
    let has = |warnings: &[String], text: &str| warnings.iter().any(|warning| warning.contains(text));
    let alone = warnings().await;
    assert!(has(&alone, "no persistence") && has(&alone, "client-output-buffer-limit"), "{alone:?}");
    assert_eq!(alone.len(), 2, "{alone:?}");
    let _one = replica().await;
    real.replicas(1).await;
    assert!(has(&warnings().await, "min-replicas-to-write 1"));
    real.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let one = warnings().await;
    assert!(has(&one, "it has one replica") && has(&one, "min-replicas-max-lag is 10"), "{one:?}");
    let _two = replica().await;
    real.replicas(2).await;
    for setting in
        [["min-replicas-max-lag", "2"], ["save", "60 1"], ["client-output-buffer-limit", "pubsub 256mb 64mb 60"]]
    {
        real.run(&[&["CONFIG", "SET"][..], &setting].concat()).await;
    }
    assert_eq!(warnings().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_settings_of_the_documentation_leave_only_the_warning_of_persistence() {
    let page = include_str!("../../../../docs/cluster.md");
    let section = page.split("\n### Redis\n").nth(1).unwrap();
    let settings: Vec<_> = section.split("\n```\n").skip(1).step_by(2).take(2).collect();
    let Some(real) = RealServer::start(REDIS, &settings.join("\n")).await else { return };
    let replica = async || RealServer::start(REDIS, &format!("replicaof 127.0.0.1 {}", real.port)).await;
    let _replicas = (replica().await, replica().await);
    real.replicas(2).await;
    real.run(&["ACL", "SETUSER", "node", "+config|get"]).await;
    let examined = server(&real.url()).examine().await;
    let Examined::Fit { warnings, .. } = examined else { panic!("{examined:?}") };
    assert!(matches!(&warnings[..], [one] if one.starts_with("no persistence")), "{warnings:?}");
}

#[tokio::test]
async fn without_the_right_to_ask_for_settings_the_examination_still_ends_well() {
    let Some(real) = RealServer::start(REDIS, "").await else { return };
    let examined = server(&real.url()).examine().await;
    assert!(matches!(&examined, Examined::Fit { warnings, .. } if warnings.is_empty()), "{examined:?}");
}

#[tokio::test]
async fn a_survey_shows_the_nodes_and_who_owes() {
    let Some(real) = RealServer::start(REDIS, "").await else { return };
    let empty = server(&real.url()).survey().await.unwrap();
    assert_eq!((empty.generation, empty.members.len(), empty.debtors.len()), (0, 0, 0));
    let (one, other) = (Linked::to(&engine(&real.url()), 1).await, Linked::to(&engine(&real.url()), u64::MAX).await);
    let made = one.connection.directory.hello(0, true).await.unwrap();
    other.connection.directory.hello(0, false).await.unwrap();
    let about = About { version: "0.2.0".to_owned(), streams: 3, mailboxes: 4 };
    other.connection.directory.beat(Phase::Up, &about).await.unwrap();
    let survey = server(&real.url()).survey().await.unwrap();
    assert_eq!((survey.generation, survey.debtors), (made.generation, vec![NodeId(1)]));
    let shown = survey.members.iter().map(|member| (member.node, member.phase, member.about.clone()));
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [(NodeId(1), Phase::Joining, About::default()), (NodeId(u64::MAX), Phase::Up, about)]
    );
}

#[tokio::test]
async fn a_directory_of_a_release_that_did_not_note_its_age_is_old() {
    let Some(real) = RealServer::start(REDIS, "").await else { return };
    let linked = Linked::to(&engine(&real.url()), 1).await;
    assert!(linked.connection.directory.hello(0, false).await.unwrap().age_ms < 2_000);
    real.run(&["HDEL", "bs:g", "since"]).await;
    assert!(linked.connection.directory.hello(0, false).await.unwrap().age_ms > 2_000);
}

#[tokio::test]
async fn several_clusters_share_a_server_under_their_prefixes_and_a_database_number_is_used() {
    let Some(real) = RealServer::start(REDIS, "").await else { return };
    let engine_of = |prefix: &str, url: String| {
        let prefix = prefix.parse::<RedisPrefix>().unwrap();
        let settings = RedisSettings { url: url.parse().unwrap(), password: None, ca: None, prefix };
        super::RedisEngine::new(RedisServer::new(settings).unwrap(), std::sync::Arc::new(super::OfTest::default()))
    };
    let admin = format!("redis://127.0.0.1:{}", real.port);
    let one = Linked::to(&engine_of("one", format!("{admin}/3")), 1).await;
    let two = Linked::to(&engine_of("two-", format!("{admin}/3")), 1).await;
    for linked in [&one, &two] {
        linked.connection.directory.hello(0, false).await.unwrap();
        linked.connection.directory.claim(&address("ana", "phone"), 0).await.unwrap();
    }
    let mut database =
        redis::Client::open(format!("{admin}/3")).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut keys = redis::cmd("KEYS").arg("*").query_async::<Vec<String>>(&mut database).await.unwrap();
    keys.sort();
    assert_eq!(keys, ["one:d:ana", "one:g", "one:m", "two-:d:ana", "two-:g", "two-:m"]);
}

#[tokio::test]
async fn a_password_outside_the_url_wins_over_the_one_in_it() {
    let Some(real) = RealServer::start(REDIS, "").await else { return };
    for (url_password, given, fits) in
        [("wrong", Some("secret"), true), ("secret", Some("wrong"), false), ("secret", None, true)]
    {
        let settings = RedisSettings {
            url: format!("redis://node:{url_password}@127.0.0.1:{}", real.port).parse().unwrap(),
            password: given.map(|text| text.as_bytes().to_vec()),
            ca: None,
            prefix: RedisPrefix::default(),
        };
        let examined = RedisServer::new(settings).unwrap().examine().await;
        assert_eq!(matches!(examined, Examined::Fit { .. }), fits, "{examined:?}");
    }
}
