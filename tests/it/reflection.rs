//! Reflection: the server describes exactly the services, messages and field numbers that clients were built with.

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use tonic::transport::Channel;
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{Server, within};

/// The interface: one line for each method, message and enum. A field number must never change its meaning.
const INTERFACE: &str = "\
Subscribe(SubscribeRequest) stream SubscribeResponse
Send(SendRequest) SendResponse
SendStream(stream SendStreamRequest) stream SendStreamResponse
Broadcast(BroadcastRequest) BroadcastResponse
ListDevices(ListDevicesRequest) ListDevicesResponse
WatchDevices(WatchDevicesRequest) stream WatchDevicesResponse
GetIceServers(GetIceServersRequest) GetIceServersResponse
Address: string user = 1, string device = 2
SubscribeRequest: string cursor = 1, Duration heartbeat = 2
SubscribeResponse: Ready ready = 1, Message message = 2, Ping ping = 3, End end = 4
Ready: Address address = 1, string cursor = 2, Continuity continuity = 3, uint32 replayed = 4, Duration heartbeat = 5
Message: string cursor = 1, Address sender = 2, string event = 3, string data = 4, Timestamp sent_at = 5
Ping: Timestamp at = 1
End: EndReason reason = 1
SendRequest: Address to = 1, string event = 2, string data = 3, Duration ttl = 4, string idempotency_key = 5
SendResponse: Outcome outcome = 1
SendStreamRequest: SendRequest send = 1
SendStreamResponse: SendResponse sent = 1, SendError error = 2
SendError: int32 code = 1, string message = 2
BroadcastRequest: string user = 1, string event = 2, string data = 3
BroadcastResponse: repeated string delivered = 1
ListDevicesRequest: string user = 1
ListDevicesResponse: repeated string devices = 1
WatchDevicesRequest: repeated string users = 1, Duration heartbeat = 2
WatchDevicesResponse: DeviceList devices = 1, Address online = 2, Address offline = 3, Ping ping = 4, End end = 5
DeviceList: string user = 1, repeated string devices = 2
IceServer: repeated string urls = 1, string username = 2, string credential = 3
GetIceServersRequest: 
GetIceServersResponse: repeated IceServer ice_servers = 1, Duration expires_in = 2
Continuity: CONTINUITY_UNSPECIFIED = 0, CONTINUITY_NEW = 1, CONTINUITY_RESUMED = 2, CONTINUITY_BROKEN = 3
EndReason: END_REASON_UNSPECIFIED = 0, END_REASON_SUPERSEDED = 1, END_REASON_DRAINING = 2, END_REASON_EXPIRED = 3
Outcome: OUTCOME_UNSPECIFIED = 0, OUTCOME_DELIVERED = 1, OUTCOME_HELD = 2";

async fn channel(server: &Server) -> Channel {
    let channel = Channel::from_shared(format!("http://{}", server.address)).expect("a URI");
    within(channel.connect()).await.expect("listens")
}

/// Asks in one version of the reflection protocol. The types of both versions have the same names.
macro_rules! ask {
    ($version:ident, $channel:expr, $question:ident($text:expr)) => {{
        use $version::{
            server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
            server_reflection_response::MessageResponse,
        };
        let message_request = Some(MessageRequest::$question($text.to_owned()));
        let request = $version::ServerReflectionRequest { host: String::new(), message_request };
        let mut client = ServerReflectionClient::new($channel);
        let answers = within(client.server_reflection_info(tokio_stream::iter([request]))).await.expect("known");
        // For an unknown name, the call fails with a status.
        match within(answers.into_inner().message())
            .await
            .map(|answer| answer.and_then(|answer| answer.message_response))
        {
            Ok(Some(MessageResponse::ListServicesResponse(list))) => {
                Ok(list.service.into_iter().map(|service| service.name.into_bytes()).collect::<Vec<_>>())
            }
            Ok(Some(MessageResponse::FileDescriptorResponse(files))) => Ok(files.file_descriptor_proto),
            Ok(other) => panic!("{other:?}"),
            Err(status) => Err(status.code()),
        }
    }};
}

#[tokio::test]
async fn the_services_are_listed_and_described_in_both_versions_of_the_protocol() {
    let server = Server::start().await;
    let channel = channel(&server).await;
    for answers in [
        [
            ask!(v1, channel.clone(), ListServices("")),
            ask!(v1, channel.clone(), FileContainingSymbol("backend_signal.v1.Signal")),
            ask!(v1, channel.clone(), FileContainingSymbol("signal.v1.Signal")),
        ],
        [
            ask!(v1alpha, channel.clone(), ListServices("")),
            ask!(v1alpha, channel.clone(), FileContainingSymbol("backend_signal.v1.Signal")),
            ask!(v1alpha, channel.clone(), FileContainingSymbol("signal.v1.Signal")),
        ],
    ] {
        let [listed, described, unknown] = answers;
        let listed = listed.expect("a list");
        for service in ["grpc.health.v1.Health", "backend_signal.v1.Signal"] {
            assert!(listed.iter().any(|name| name == service.as_bytes()), "{service}");
        }
        assert!(!described.expect("a description").is_empty());
        assert_eq!(unknown, Err(tonic::Code::NotFound));
    }
}

#[tokio::test]
async fn the_interface_is_the_one_that_clients_were_built_with() {
    let server = Server::start().await;
    let files =
        ask!(v1, channel(&server).await, FileContainingSymbol("backend_signal.v1.Signal")).expect("a description");
    let file = files.iter().map(|bytes| FileDescriptorProto::decode(bytes.as_slice()).expect("a descriptor"));
    let set = FileDescriptorSet { file: file.collect() };
    let file = set.file.iter().find(|file| file.package() == "backend_signal.v1").expect("the file of the service");
    assert_eq!(described(file), INTERFACE);
    assert_eq!((file.name(), file.syntax()), ("backend_signal/v1/signal.proto", "proto3"));
    let options = file.options.as_ref().expect("options");
    assert_eq!(options.java_package(), "backendsignal.v1");
    assert!(options.go_package().ends_with("/backend_signal/v1;signalv1"), "{options:?}");
}

fn described(file: &FileDescriptorProto) -> String {
    let [service] = file.service.as_slice() else { panic!("{:?}", file.service) };
    let short = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let methods = service.method.iter().map(|method| {
        let stream = |streaming| if streaming { "stream " } else { "" };
        let (input, output) = (short(method.input_type()), short(method.output_type()));
        let (asks, answers) = (stream(method.client_streaming()), stream(method.server_streaming()));
        format!("{}({asks}{input}) {answers}{output}", method.name())
    });
    let messages = file.message_type.iter().map(|message| {
        let fields = message.field.iter().map(|field| {
            let kind = match field.r#type() {
                Type::String => "string".to_owned(),
                Type::Int32 => "int32".to_owned(),
                Type::Uint32 => "uint32".to_owned(),
                _ => short(field.type_name()),
            };
            let repeated =
                if field.label() == prost_types::field_descriptor_proto::Label::Repeated { "repeated " } else { "" };
            format!("{repeated}{kind} {} = {}", field.name(), field.number())
        });
        format!("{}: {}", message.name(), fields.collect::<Vec<_>>().join(", "))
    });
    let enums = file.enum_type.iter().map(|kind| {
        let values = kind.value.iter().map(|value| format!("{} = {}", value.name(), value.number()));
        format!("{}: {}", kind.name(), values.collect::<Vec<_>>().join(", "))
    });
    methods.chain(messages).chain(enums).collect::<Vec<_>>().join("\n")
}
