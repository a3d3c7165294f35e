//! Every route and method that names a user, found in the sources, and one way to call them all.

use backend_signal::grpc::proto::{
    Address, BroadcastRequest, ListDevicesRequest, SendRequest, SendStreamRequest, SubscribeRequest,
    WatchDevicesRequest, send_stream_response, subscribe_response, watch_devices_response,
};
use tonic::{Code, Request, metadata::MetadataKey};

use super::{Connection, Door, FORM, Sse, event_stream::Parser, within};

/// What a request is made with: claim, device and tenant headers.
pub type Headers<'a> = [(&'a str, &'a str)];

/// The status of an answer (over gRPC, the one that means the same), and what it says: the ids in it, or nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

/// If [`answer`] does not know a route, every test that walks over the routes fails.
pub fn routes() -> Vec<String> {
    let http = include_str!("../../../src/rest.rs").split(".route(").skip(1).flat_map(|route| {
        let route = route.split(".with_state").next().unwrap_or_default();
        let (path, handlers) = route.split_once(',').expect("a path and its handlers");
        let path = if path == "DEVICE_ROUTE" { backend_signal::rest::DEVICE_ROUTE } else { path.trim_matches('"') };
        let methods = [("GET", "get("), ("GET", "subscribe()"), ("POST", "post(")];
        let methods: Vec<_> = methods.iter().filter(|(_, handler)| handlers.contains(handler)).collect();
        assert!(!methods.is_empty(), "{route}");
        methods.iter().map(|(method, _)| format!("{method} {path}")).collect::<Vec<_>>()
    });
    let proto = include_str!("../../../proto/backend_signal/v1/signal.proto");
    let grpc = proto.lines().filter_map(|line| Some(line.trim().strip_prefix("rpc ")?.split('(').next()?.to_owned()));
    let mut routes: Vec<_> = http.chain(grpc).collect();
    assert!(routes.len() >= 12, "{routes:?}");
    routes.retain(|route| !NAME_NO_USER.contains(&route.as_str()));
    // A list is also a watch.
    let watches: Vec<_> =
        routes.iter().filter(|route| route.ends_with("devices") && route.starts_with("GET")).collect();
    let watches: Vec<_> = watches.iter().map(|route| format!("{route}, as events")).collect();
    routes.extend(watches);
    routes
}

/// Routes that name no user.
const NAME_NO_USER: [&str; 3] = ["POST /ticket", "GET /ice", "GetIceServers"];

/// Calls a route. A subscribe is for the caller's own user. A send sends `data`.
pub async fn answer(server: &Door, route: &str, headers: &Headers<'_>, user: &str, device: &str, data: &str) -> Answer {
    let at = |path: &str| path.replace("{user}", user).replace("{device}", device);
    let to_users = format!("{user}/devices");
    match route {
        "GET /subscribe" => stream(server, &format!("/subscribe?device={device}"), headers).await,
        "GET /subscribe/{user}/device/{device}" => {
            stream(server, &at("/subscribe/{user}/device/{device}"), headers).await
        }
        "GET /user/{user}/devices, as events" => stream(server, &format!("/user/{to_users}"), headers).await,
        "GET /devices, as events" => stream(server, &format!("/devices?user={user}"), headers).await,
        "GET /user/{user}/devices" => whole(server, &format!("GET /user/{to_users}"), headers, "").await,
        "GET /devices" => whole(server, &format!("GET /devices?user={user}"), headers, "").await,
        "POST /user/{user}/devices" => whole(server, &format!("POST /user/{to_users}"), headers, data).await,
        "POST /user/{user}/device/{device}" => {
            let head = format!("POST {}", at("/user/{user}/device/{device}"));
            let without_router = whole(server, &head, headers, data).await;
            // A request with an origin takes the router.
            let headers = [headers, &[("origin", "https://app.example")]].concat();
            let routed = whole(server, &head, &headers, data).await;
            assert_eq!(without_router, routed, "{headers:?}");
            routed
        }
        method => grpc(server, method, headers, user, device, data).await,
    }
}

/// The messages that a send of [`answer`] sends to a device.
pub fn messages_of(route: &str) -> usize {
    match route {
        "POST /user/{user}/device/{device}" => 2,
        "POST /user/{user}/devices" | "Send" | "SendStream" | "Broadcast" => 1,
        _ => 0,
    }
}

async fn whole(server: &Door, head: &str, headers: &Headers<'_>, data: &str) -> Answer {
    let body = if data.is_empty() { String::new() } else { format!("data={data}") };
    let headers = [headers, &[("content-type", FORM)]].concat();
    let answer = server.request(head, &headers, body.as_bytes()).await;
    let text = if answer.status == 200 { answer.text() } else { String::new() };
    Answer { status: answer.status, text }
}

/// The first event of a stream.
pub async fn stream(server: &Door, path: &str, headers: &Headers<'_>) -> Answer {
    let mut connection = Connection::open(server.address).await;
    connection.ask(&format!("GET {path}"), &[headers, &[("accept", "text/event-stream")]].concat()).await;
    let head = connection.head().await;
    let text = match (head.status, head.header("content-length").parse()) {
        // A refusal that an EventSource can read.
        (200, Ok(length)) => {
            let mut whole = vec![0; length];
            connection.read(&mut whole).await;
            Parser::default().push(&whole).remove(0).data
        }
        (200, Err(_)) => Sse::after_head(connection).next().await.data,
        _ => String::new(),
    };
    Answer { status: head.status, text }
}

async fn grpc(server: &Door, method: &str, headers: &Headers<'_>, user: &str, device: &str, data: &str) -> Answer {
    let mut client = server.grpc().await;
    let (event, to) = (String::new(), Some(Address { user: user.into(), device: device.into() }));
    let send = SendRequest { to, event: event.clone(), data: data.into(), ttl: None, idempotency_key: String::new() };
    let (user, data) = (user.to_owned(), data.to_owned());
    let answer = match method {
        "Subscribe" => {
            let headers = [headers, &[("x-signal-device", device)]].concat();
            let opened = within(client.subscribe(with(SubscribeRequest::default(), &headers))).await;
            let first = async |mut stream: tonic::Streaming<_>| within(stream.message()).await.expect("a response");
            match opened {
                Err(status) => Err(status.code()),
                Ok(stream) => match first(stream.into_inner()).await.and_then(|response| response.kind) {
                    Some(subscribe_response::Kind::Ready(ready)) => Ok(format!("{:?}", ready.address)),
                    other => panic!("{other:?} instead of ready"),
                },
            }
        }
        "Send" => within(client.send(with(send, headers))).await.map(|_| String::new()).map_err(|status| status.code()),
        "SendStream" => {
            let requests = tokio_stream::iter([SendStreamRequest { send: Some(send) }]);
            match within(client.send_stream(with(requests, headers))).await {
                Err(status) => Err(status.code()),
                Ok(stream) => {
                    let response = within(stream.into_inner().message()).await.expect("a response").expect("one");
                    match response.result.expect("a result") {
                        send_stream_response::Result::Sent(_) => Ok(String::new()),
                        send_stream_response::Result::Error(error) => Err(Code::from(error.code)),
                    }
                }
            }
        }
        "Broadcast" => {
            let told = within(client.broadcast(with(BroadcastRequest { user, event, data }, headers))).await;
            told.map(|told| told.into_inner().delivered.join(" ")).map_err(|status| status.code())
        }
        "ListDevices" => {
            let listed = within(client.list_devices(with(ListDevicesRequest { user }, headers))).await;
            listed.map(|listed| listed.into_inner().devices.join(" ")).map_err(|status| status.code())
        }
        "WatchDevices" => {
            let request = WatchDevicesRequest { users: vec![user], heartbeat: None };
            match within(client.watch_devices(with(request, headers))).await {
                Err(status) => Err(status.code()),
                Ok(watch) => {
                    let first = within(watch.into_inner().message()).await.expect("a response").expect("one");
                    match first.kind {
                        Some(watch_devices_response::Kind::Devices(list)) => Ok(list.devices.join(" ")),
                        other => panic!("{other:?} instead of a list"),
                    }
                }
            }
        }
        other => panic!("{other}: call this route here, and every test that walks over the routes covers it"),
    };
    match answer {
        Ok(text) => Answer { status: 200, text },
        Err(code) => Answer { status: status_of(code), text: String::new() },
    }
}

/// A call with these metadata.
pub fn with<T>(message: T, headers: &Headers<'_>) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in headers {
        let name = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()).expect("a name");
        request.metadata_mut().append(name, value.parse().expect("ASCII"));
    }
    request
}

fn status_of(code: Code) -> u16 {
    match code {
        Code::InvalidArgument => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::ResourceExhausted => 429,
        other => panic!("{other:?} has no status here"),
    }
}
