//! Tenants: users of different tenants do not exist for each other, whatever the route or method.

use crate::harness::{
    FORM, Server, Sse,
    grpc::Stream,
    routes::{Answer, answer, messages_of, routes, with},
    within,
};
use backend_signal::grpc::proto::{SubscribeRequest, WatchDevicesRequest, watch_devices_response::Kind};

const CLAIM: &str = "x-user-claim";
const TENANT: &str = "X-Signal-Tenant";

async fn start() -> Server {
    Server::with(&["--tenant-claim", "org", "--service-claim", "backend"]).await
}

/// The claim of a user in a tenant.
fn of(user: &str, tenant: &str) -> String {
    serde_json::json!({"userid": user, "org": tenant}).to_string()
}

/// The streams of `bob` in one tenant: his phone, which all tenants have, and a device that has the name of the tenant.
struct Bob {
    phone: Sse,
    own: Stream,
}

impl Bob {
    async fn connect(server: &Server, tenant: &str) -> Self {
        let claim = of("bob", tenant);
        let phone = Sse::open(server.address, "/subscribe/bob/device/phone", &[(CLAIM, &claim)]).await;
        let call = with(SubscribeRequest::default(), &[(CLAIM, &claim), ("x-signal-device", tenant)]);
        Self { phone, own: Stream::begin(&mut server.grpc().await, call).await.expect("a stream") }
    }

    /// Asserts the next message on each of the two devices.
    async fn expect(&mut self, data: &str, phone: usize, own: usize) {
        for _ in 0..phone {
            assert_eq!(self.phone.data().await, data);
        }
        for _ in 0..own {
            assert_eq!(self.own.data().await, data);
        }
    }
}

#[tokio::test]
async fn equal_ids_in_two_tenants_are_two_users_on_every_route_and_method() {
    let server = start().await;
    let mut bobs = [("acme", "globex"), ("globex", "acme")].map(|tenants| (tenants, None));
    for ((tenant, _), bob) in &mut bobs {
        *bob = Some(Bob::connect(&server, tenant).await);
    }
    for route in routes() {
        for ((tenant, other), bob) in &mut bobs {
            let bob = bob.as_mut().expect("connected");
            let subscribes = route.to_lowercase().contains("subscribe");
            let (claim, device) = if subscribes { (of("bob", tenant), "probe") } else { (of("ana", tenant), "phone") };
            let Answer { status, text } = answer(&server, &route, &[(CLAIM, &claim)], "bob", device, tenant).await;
            assert_eq!(status, 200, "{route} in {tenant}");
            assert!(!text.contains(*other) && !text.contains('\0') && !text.contains("u0000"), "{route}: {text}");
            let names_devices = !subscribes && (messages_of(&route) == 0 || !device_is_named(&route));
            assert_eq!(text.contains(*tenant), names_devices, "{route}: {text}");
            // Each stream gets exactly the messages of its own tenant, which the next ones would show.
            let all = messages_of(&route);
            bob.expect(tenant, all, if device_is_named(&route) { 0 } else { all }).await;
            if device_is_named(&route) && !subscribes {
                let absent = answer(&server, &route, &[(CLAIM, &claim)], "bob", other, tenant).await;
                assert_eq!(absent.status, 404, "{route}: a device of {other} in {tenant}");
            }
        }
    }
}

/// Whether a route names a device.
fn device_is_named(route: &str) -> bool {
    route.contains("{device}") || route.starts_with("Send")
}

#[tokio::test]
async fn who_has_no_tenant_is_403_on_every_route_and_method() {
    let server = start().await;
    let _bobs = [Bob::connect(&server, "acme").await, Bob::connect(&server, "globex").await];
    for route in routes() {
        for user in ["bob", "nobody"] {
            let without = serde_json::json!({ "userid": user }).to_string();
            let refused = answer(&server, &route, &[(CLAIM, &without)], user, "phone", "x").await;
            assert_eq!(refused.status, 403, "{route}");
            // Only a service may name a tenant.
            let named = answer(&server, &route, &[(CLAIM, &without), (TENANT, "acme")], user, "phone", "x").await;
            assert_eq!(named.status, 403, "{route}");
            let anonymous = answer(&server, &route, &[(TENANT, "acme")], user, "phone", "x").await;
            let needs_identity = route.to_lowercase().contains("subscribe");
            assert_eq!(anonymous.status, if needs_identity { 401 } else { 403 }, "{route}");
        }
    }
}

#[tokio::test]
async fn a_service_without_a_tenant_names_one_and_any_other_caller_stays_in_its_own() {
    let server = start().await;
    let mut acme = Bob::connect(&server, "acme").await;
    let service = |more: &str| format!(r#"{{"userid":"bob","backend":true{more}}}"#);
    let rows = [
        (service(""), Some("acme"), 200),
        (service(""), Some("%61cme"), 200),
        (service(""), Some("globex"), 404),
        (service(""), None, 403),
        (service(""), Some(""), 403),
        (service(""), Some("%ff"), 400),
        (service(""), Some(".."), 400),
        (service(r#","org":"acme""#), None, 200),
        (service(r#","org":"acme""#), Some("acme"), 200),
        (service(r#","org":"acme""#), Some("globex"), 403),
        (service(r#","org":"globex""#), Some("acme"), 403),
        (of("bob", "acme"), Some("acme"), 200),
        (of("bob", "globex"), Some("acme"), 403),
        (r#"{"userid":"bob","backend":false}"#.into(), Some("acme"), 403),
        (r#"{"userid":"bob","backend":1,"org":"acme"}"#.into(), None, 401),
        (r#"{"userid":"bob","backend":"true","org":"acme"}"#.into(), None, 401),
        (r#"{"userid":"bob","backend":null,"org":"acme"}"#.into(), None, 401),
        (r#"{"userid":"bob","backend":true,"backend":true,"org":"acme"}"#.into(), None, 401),
        (r#"{"userid":"bob","org":7}"#.into(), None, 404),
        (r#"{"userid":"bob","org":""}"#.into(), None, 401),
        (r#"{"userid":"bob","org":null}"#.into(), None, 401),
        (r#"{"userid":"bob","org":["acme"]}"#.into(), None, 401),
        (r#"{"userid":"bob","org":"acme","org":"acme"}"#.into(), None, 401),
    ];
    for (claim, tenant, status) in &rows {
        let named = tenant.map(|tenant| (TENANT, tenant));
        let headers: Vec<_> = [(CLAIM, claim.as_str())].into_iter().chain(named).collect();
        for route in ["POST /user/{user}/device/{device}", "Send", "SendStream"] {
            let answer = answer(&server, route, &headers, "bob", "phone", "x").await;
            assert_eq!(answer.status, *status, "{route} {headers:?}");
            if *status == 200 {
                acme.expect("x", messages_of(route), 0).await;
            }
        }
    }
    let twice = [(CLAIM, rows[0].0.as_str()), (TENANT, "acme"), (TENANT, "acme")];
    assert_eq!(answer(&server, "GET /devices", &twice, "bob", "phone", "").await.status, 400);
    // Without --tenant-claim there are no tenants to name.
    let server = Server::start().await;
    let headers = [(CLAIM, rows[0].0.as_str()), (TENANT, "..")];
    assert_eq!(answer(&server, "GET /devices", &headers, "bob", "phone", "").await.status, 200);
}

#[tokio::test]
async fn a_watch_does_not_show_the_devices_of_another_tenant() {
    let server = start().await;
    let ana = of("ana", "acme");
    let headers = [(CLAIM, ana.as_str()), ("accept", "text/event-stream")];
    let mut sse = Sse::open_plain(server.address, "/devices?user=bob", &headers).await;
    assert_eq!(sse.next().await.data, r#"{"user":"bob","devices":[]}"#);
    let request = WatchDevicesRequest { users: vec!["bob".into()], heartbeat: None };
    let watch = within(server.grpc().await.watch_devices(with(request, &headers[..1]))).await.expect("a watch");
    let mut watch = watch.into_inner();
    let mut next = async || within(watch.message()).await.expect("no error").expect("a response").kind;
    assert!(matches!(next().await, Some(Kind::Devices(list)) if list.devices.is_empty()));
    let _globex = Bob::connect(&server, "globex").await;
    // Its name is the last in a batch of changes.
    let _acme = Sse::open(server.address, "/subscribe?device=zulu", &[(CLAIM, &of("bob", "acme"))]).await;
    assert_eq!(sse.next().await.data, r#"{"user":"bob","device":"zulu"}"#);
    let Some(Kind::Online(online)) = next().await else { panic!("online") };
    assert_eq!((online.user.as_str(), online.device.as_str()), ("bob", "zulu"));
}

#[tokio::test]
async fn a_message_is_held_for_a_device_of_the_senders_tenant_alone() {
    let server = start().await;
    let (ana, bobs) = (of("ana", "acme"), [of("bob", "globex"), of("bob", "acme")]);
    let headers = [(CLAIM, ana.as_str()), ("content-type", FORM), ("ttl", "30")];
    assert_eq!(server.request("POST /user/bob/device/phone", &headers, b"data=x").await.status, 202);
    let path = "/subscribe/bob/device/phone?format=envelope";
    let [globex, mut acme] = [
        Sse::open(server.address, path, &[(CLAIM, &bobs[0])]).await,
        Sse::open(server.address, path, &[(CLAIM, &bobs[1])]).await,
    ];
    assert_eq!([globex.ready["replayed"].as_u64(), acme.ready["replayed"].as_u64()], [Some(0), Some(1)]);
    let envelope: serde_json::Value = serde_json::from_str(&acme.data().await).expect("JSON");
    assert_eq!(envelope["from"], serde_json::json!({"user": "ana", "device": null}));
}
