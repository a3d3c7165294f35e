//! `--allow`: whom a caller may reach.

use crate::harness::{
    FORM, Server, Sse,
    routes::{answer, messages_of, routes, stream},
};

const CLAIM: &str = "x-user-claim";

/// The data of the only event of a watch that is refused for a limit.
const OVERLOADED: &str = r#"{"reason":"overloaded"}"#;

async fn watch(server: &Server, path: &str, claim: &str) -> Sse {
    Sse::open_plain(server.address, path, &[(CLAIM, claim), ("accept", "text/event-stream")]).await
}

async fn start() -> Server {
    Server::with(&["--allow", "listed:contacts", "--service-claim", "backend", "--caller-watches", "1"]).await
}

/// The routes on which a caller names a user, who may be another one.
fn naming() -> impl Iterator<Item = String> {
    routes().into_iter().filter(|route| !route.to_lowercase().contains("subscribe"))
}

#[tokio::test]
async fn a_caller_reaches_the_users_that_its_identity_lists_and_itself_on_every_route_and_method() {
    let server = start().await;
    let _streams = [server.sse("bob/phone").await, server.sse("eve/phone").await, server.sse("7/phone").await];
    let mut ana = server.sse("ana/phone").await;
    let rows = [
        (Some(r#"{"userid":"ana","contacts":["bob",7]}"#), [200, 403, 200, 200]),
        (Some(r#"{"userid":"ana","contacts":[]}"#), [403, 403, 403, 200]),
        (Some(r#"{"userid":"ana"}"#), [403, 403, 403, 200]),
        (Some(r#"{"userid":"ana","backend":false,"contacts":["eve"]}"#), [403, 200, 403, 200]),
        (Some(r#"{"userid":"ana","backend":true}"#), [200, 200, 200, 200]),
        (Some(r#"{"userid":"ana","backend":true,"contacts":["eve"]}"#), [200, 200, 200, 200]),
        (None, [403, 403, 403, 403]),
        (Some(r#"{"userid":"ana","contacts":null}"#), [401; 4]),
        (Some(r#"{"userid":"ana","contacts":"bob"}"#), [401; 4]),
        (Some(r#"{"userid":"ana","contacts":{"bob":true}}"#), [401; 4]),
        (Some(r#"{"userid":"ana","contacts":["bob",true]}"#), [401; 4]),
        (Some(r#"{"userid":"ana","contacts":["bob",["eve"]]}"#), [401; 4]),
        (Some(r#"{"userid":"ana","contacts":["bob",".."]}"#), [401; 4]),
        (Some(r#"{"userid":"ana","contacts":["bob"],"contacts":["bob"]}"#), [401; 4]),
    ];
    for route in naming() {
        for (claim, statuses) in rows {
            let headers: Vec<_> = claim.map(|claim| (CLAIM, claim)).into_iter().collect();
            for (user, status) in ["bob", "eve", "7", "ana"].into_iter().zip(statuses) {
                let answer = answer(&server, &route, &headers, user, "phone", "x").await;
                assert_eq!(answer.status, status, "{route} of {user} with {claim:?}");
                if (user, status) == ("ana", 200) {
                    for _ in 0..messages_of(&route) {
                        assert_eq!(ana.data().await, "x");
                    }
                }
            }
            // 403, whether the user is connected or not.
            let nobody = answer(&server, &route, &headers, "nobody", "phone", "x").await;
            let reaches_anybody = claim.is_some_and(|claim| claim.contains("true") && statuses[0] == 200);
            assert_eq!(nobody.status == 403, statuses[0] != 401 && !reaches_anybody, "{route} with {claim:?}");
        }
    }
}

#[tokio::test]
async fn a_list_of_contacts_does_not_limit_who_may_subscribe() {
    let server = start().await;
    for claim in [r#"{"userid":"ana"}"#, r#"{"userid":"ana","contacts":["bob"]}"#] {
        for route in routes().iter().filter(|route| route.to_lowercase().contains("subscribe")) {
            assert_eq!(answer(&server, route, &[(CLAIM, claim)], "ana", "phone", "").await.status, 200, "{route}");
        }
    }
}

#[tokio::test]
async fn one_user_that_may_not_be_reached_refuses_the_whole_list_or_watch() {
    let server = start().await;
    let headers = [(CLAIM, r#"{"userid":"ana","contacts":["bob"]}"#)];
    for (query, status) in [("user=bob&user=ana", 200), ("user=bob&user=eve", 403), ("user=eve&user=bob", 403)] {
        let head = format!("GET /devices?{query}");
        assert_eq!(server.request(&head, &headers, b"").await.status, status, "{query}");
        if status == 403 {
            assert_eq!(stream(&server, &format!("/devices?{query}"), &headers).await.status, 403, "{query}");
        }
    }
}

#[tokio::test]
async fn permission_is_checked_after_the_shape_and_before_limits_and_devices() {
    let server = start().await;
    let claim = r#"{"userid":"ana","clientid":"phone","contacts":["bob"]}"#;
    for (head, headers, body, expected) in [
        ("POST /user/eve/device/phone", &[][..], "data=", (400, "no_data")),
        ("POST /user/eve/device/phone", &[("ttl", "x")], "data=x", (400, "invalid_ttl")),
        ("POST /user/eve/devices", &[], "data=x&event=error", (400, "invalid_event")),
        ("POST /user/eve/device/phone", &[], "data=x", (403, "forbidden")),
        ("POST /user/bob/device/phone", &[("x-signal-device", "tablet")], "data=", (400, "no_data")),
        ("POST /user/bob/device/phone", &[("x-signal-device", "tablet")], "data=x", (403, "forbidden")),
        ("POST /user/bob/device/phone", &[], "data=x", (404, "not_connected")),
        ("GET /subscribe/bob/device/phone?format=x", &[], "", (400, "invalid_format")),
        ("GET /subscribe/bob/device/phone", &[], "", (403, "forbidden")),
        ("GET /devices?user=eve&user=..", &[], "", (400, "invalid_user")),
    ] {
        let headers = [&[(CLAIM, claim), ("content-type", FORM)], headers].concat();
        let answer = server.request(head, &headers, body.as_bytes()).await;
        assert_eq!((answer.status, answer.problem().as_str()), expected, "{head} {headers:?}");
    }
    let mine = [(CLAIM, claim)];
    let _only_watch = watch(&server, "/user/bob/devices", claim).await;
    assert_eq!(stream(&server, "/user/bob/devices", &mine).await.text, OVERLOADED);
    assert_eq!(stream(&server, "/user/eve/devices", &mine).await.status, 403);
    // A service has no limit of its own.
    let mut watches = Vec::new();
    let service = r#"{"userid":"ana","clientid":"phone","backend":true}"#;
    for _ in 0..3 {
        let mut watch = watch(&server, "/user/eve/devices", service).await;
        assert_eq!(watch.next().await.name, "signal.devices");
        watches.push(watch);
    }
}

#[tokio::test]
async fn a_caller_does_not_escape_its_limit_under_another_device() {
    let server = start().await;
    let claim = r#"{"userid":"ana","contacts":["bob"]}"#;
    let _only_watch = watch(&server, "/user/bob/devices?device=1", claim).await;
    assert_eq!(stream(&server, "/user/bob/devices?device=2", &[(CLAIM, claim)]).await.text, OVERLOADED);
}

#[tokio::test]
async fn with_auth_none_permissions_come_from_a_claim_alone() {
    let none = ["--auth", "none", "--tenant-claim", "org", "--allow", "listed:contacts", "--service-claim", "backend"];
    let server = Server::with(&none).await;
    let ana = Some(r#"{"userid":"ana","org":"acme","contacts":["bob"]}"#);
    let backend = Some(r#"{"userid":"shop","org":"acme","backend":true}"#);
    for (path, claim, status) in [
        ("/user/bob/devices", ana, 200),
        ("/user/eve/devices", ana, 403),
        ("/user/eve/devices", backend, 200),
        ("/user/bob/devices?user=ana", ana, 403),
        ("/user/bob/devices?user=bob", None, 403),
        ("/user/bob/devices", None, 403),
    ] {
        let headers: Vec<_> = claim.map(|claim| (CLAIM, claim)).into_iter().collect();
        let answer = server.request(&format!("GET {path}"), &headers, b"").await;
        assert_eq!(answer.status, status, "{path} {claim:?}");
    }
}
