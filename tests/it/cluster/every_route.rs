//! Every route and method, each at another node than the one that has the device.

use crate::harness::{
    Sse, claim,
    nodes::Nodes,
    routes::{Answer, answer, messages_of, routes},
    until,
};

/// Whether a route opens the device's own stream.
fn subscribes(route: &str) -> bool {
    route.to_lowercase().contains("subscribe")
}

/// Whether a route names a device.
fn names_a_device(route: &str) -> bool {
    route.contains("{device}") || route.starts_with("Send")
}

#[tokio::test]
async fn every_route_and_method_works_at_another_node_than_the_devices() {
    let Some(nodes) = Nodes::certain(3, &[]).await else { return };
    for (round, route) in routes().iter().enumerate() {
        let (here, there) = (&nodes[round % 3], &nodes[(round + 1) % 3]);
        let user = format!("bob{round}");
        let device = format!("{user}/phone");
        let mut phone: Sse = here.sse(&device).await;
        let claim = claim(&device);
        let headers = [("x-user-claim", claim.as_str())];
        let Answer { status, text } = answer(there, route, &headers, &user, "phone", "x").await;
        assert_eq!(status, 200, "{route}");
        for _ in 0..messages_of(route) {
            assert_eq!(phone.data().await, "x", "{route}");
        }
        if subscribes(route) {
            assert_eq!(phone.end().await, "superseded", "{route}");
            continue;
        }
        if !names_a_device(route) {
            assert!(text.contains("phone"), "{route}: {text}");
        }
        // What is nowhere has the answer of one node.
        let absent = answer(there, route, &headers, "nobody", "phone", "x").await;
        let sends = messages_of(route) > 0;
        assert_eq!(absent.status, if sends { 404 } else { 200 }, "{route}");
        assert!(!absent.text.contains("phone"), "{route}: {}", absent.text);
    }
}

#[tokio::test]
async fn tenants_stay_apart_on_every_route_over_nodes() {
    let Some(nodes) = Nodes::start(2, &["--tenant-claim", "org"]).await else { return };
    let of = |tenant: &str| format!(r#"{{"userid":"bob","clientid":"phone","org":"{tenant}"}}"#);
    let (acme, globex) = (of("acme"), of("globex"));
    let unknown =
        async || answer(&nodes[1], "POST /user/{user}/devices", &[("x-user-claim", &globex)], "bob", "", "x").await;
    until(unknown, |answer| answer.status == 404).await;
    for route in routes().iter().filter(|route| !subscribes(route)) {
        let mut phone = Sse::open(nodes[0].address, "/subscribe", &[("x-user-claim", &acme)]).await;
        let stranger = answer(&nodes[1], route, &[("x-user-claim", &globex)], "bob", "phone", "theirs").await;
        let sends = messages_of(route) > 0;
        assert_eq!(stranger.status, if sends { 404 } else { 200 }, "{route}");
        assert!(!stranger.text.contains("phone"), "{route}: {}", stranger.text);
        assert_eq!(answer(&nodes[1], route, &[("x-user-claim", &acme)], "bob", "phone", "ours").await.status, 200);
        for _ in 0..messages_of(route) {
            assert_eq!(phone.data().await, "ours", "{route}");
        }
    }
}
