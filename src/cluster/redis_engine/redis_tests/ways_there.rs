//! The ways to a server: TLS, a socket of this machine, and Sentinels that name the primary.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::{
    Linked, OfTest, RedisEngine, RedisPrefix, RedisServer, RedisSettings, engine,
    real_server::{PROGRAMS, RealServer},
    server, within,
};
use crate::cluster::{
    directory::{Claim, NodeId},
    survey::Examined,
    wire::Engine as _,
};

const REDIS: &str = PROGRAMS[0];

/// The certificate of an authority, and a certificate and key of it for this host.
fn certificates(host: &str) -> [String; 3] {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let host_key = KeyPair::generate().unwrap();
    let host = CertificateParams::new([host.to_owned()]).unwrap().signed_by(&host_key, &issuer).unwrap();
    [certificate.pem(), host.pem(), host_key.serialize_pem()]
}

fn trusting(url: &str, ca: &str) -> RedisServer {
    let ca = Some(ca.as_bytes().to_vec());
    let settings = RedisSettings { url: url.parse().unwrap(), password: None, ca, prefix: RedisPrefix::default() };
    RedisServer::new(settings).unwrap()
}

#[tokio::test]
async fn a_private_authority_and_only_that_one_vouches_for_the_server() {
    let folder = std::env::temp_dir().join(format!("backend-signal-redis-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [ca, certificate, key] = certificates("127.0.0.1");
    let [another_ca, ..] = certificates("127.0.0.1");
    let file = |name: &str, pem: &str| {
        let path = folder.join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = (file("certificate.pem", &certificate), file("key.pem", &key));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let configuration = format!(
        "tls-port {port}\ntls-cert-file {certificate}\ntls-key-file {key}\ntls-auth-clients no\ntls-ca-cert-file {certificate}"
    );
    let Some(_server) = RealServer::start(REDIS, &configuration).await else { return };
    let url = format!("rediss://node:secret@127.0.0.1:{port}");
    let linked = Linked::to(&RedisEngine::new(trusting(&url, &ca), std::sync::Arc::new(OfTest::default())), 1).await;
    linked.connection.directory.hello(0, false).await.unwrap();
    // Another authority; the right one and another name; no TLS at all.
    for refused in [trusting(&url, &another_ca), trusting(&url.replace("127.0.0.1", "localhost"), &ca)] {
        let Examined::Unreachable(why) = refused.examine().await else { panic!("trusted") };
        assert!(why.contains("certificate"), "{why}");
    }
    let examined = server(&url.replace("rediss", "redis")).examine().await;
    assert!(matches!(examined, Examined::Unreachable(_)), "{examined:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_socket_of_this_machine_is_a_way_to_the_server() {
    let path = std::env::temp_dir().join(format!("backend-signal-redis-{}.sock", std::process::id()));
    let Some(_server) = RealServer::start(REDIS, &format!("unixsocket {}", path.display())).await else { return };
    let linked = Linked::to(&engine(&format!("unix://node:secret@{}?db=0", path.display())), 1).await;
    linked.connection.directory.hello(0, false).await.unwrap();
}

/// A Sentinel that watches a primary of the name `main`.
async fn sentinel(primary: &RealServer, more: &str) -> Option<RealServer> {
    let port = primary.port;
    RealServer::sentinel(
        REDIS,
        &format!(
            "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 3000\n{more}"
        ),
    )
    .await
}

#[tokio::test]
async fn the_engine_follows_when_sentinels_promote_a_replica() {
    let Some(mut primary) = RealServer::start(REDIS, "").await else { return };
    let replica = RealServer::start(REDIS, &format!("replicaof 127.0.0.1 {}", primary.port)).await.unwrap();
    primary.replicas(1).await;
    let sentinel = sentinel(&primary, "").await.unwrap();
    // The first one is not there.
    let engine = engine(&format!("redis+sentinel://node:secret@127.0.0.1:1,127.0.0.1:{}/main", sentinel.port));
    let linked = Linked::to(&engine, 1).await;
    let first = linked.connection.directory.hello(0, false).await.unwrap();
    // Only a Sentinel that knows of the replica can promote it.
    within(async {
        while !sentinel.text(&["SENTINEL", "REPLICAS", "main"]).await.contains(&replica.port.to_string()) {}
    })
    .await;
    primary.kill();
    assert!(!linked.lost().await.is_empty());
    let again = within(async {
        loop {
            let (sender, inbox) = tokio::sync::mpsc::channel(9);
            if let Ok(connection) = engine.connect(NodeId(1), sender).await {
                return Linked { connection, inbox };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // Another process of a server is another directory.
    let hello = again.connection.directory.hello(first.generation, true).await.unwrap();
    assert!(hello.generation > first.generation, "{hello:?}, {first:?}");
    let claim = again.connection.directory.claim(&super::address("ana", "phone"), 0).await;
    assert!(matches!(claim, Ok(Claim::New { sure: false, .. })), "{claim:?}");
}

#[tokio::test]
async fn a_sentinel_with_a_password_gets_that_of_the_server() {
    let Some(primary) = RealServer::start(REDIS, "").await else { return };
    let with_password = sentinel(&primary, "requirepass secret").await.unwrap();
    primary.run(&["ACL", "SETUSER", "default", ">secret", "+@all", "~*", "&*"]).await;
    for (password, fits) in [("secret", true), ("wrong", false)] {
        let url = format!("redis+sentinel://:{password}@127.0.0.1:{}/main", with_password.port);
        let examined = server(&url).examine().await;
        assert_eq!(matches!(examined, Examined::Fit { .. }), fits, "{examined:?}");
    }
}

#[tokio::test]
async fn a_name_that_no_sentinel_knows_is_refused_and_an_old_primary_is_waited_for() {
    let Some(primary) = RealServer::start(REDIS, "").await else { return };
    let sentinel = sentinel(&primary, "").await.unwrap();
    let url = |name: &str| format!("redis+sentinel://node:secret@127.0.0.1:{}/{name}", sentinel.port);
    let examined = server(&url("other")).examine().await;
    let Examined::Unfit(why) = examined else { panic!("{examined:?}") };
    assert!(why.contains("no primary of the name other"), "{why}");
    // It was one; the Sentinels do not know yet that it is none.
    primary.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let examined = server(&url("main")).examine().await;
    assert!(matches!(&examined, Examined::Unreachable(why) if why.contains("replica")), "{examined:?}");
}
