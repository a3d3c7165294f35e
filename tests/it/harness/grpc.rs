//! A native gRPC client.

use backend_signal::grpc::proto::{
    Address, ListDevicesRequest, Message, Ready, SendRequest, SendResponse, SubscribeRequest, SubscribeResponse,
    signal_client::SignalClient, subscribe_response::Kind,
};
use tonic::{Code, Request, Status, Streaming, transport::Channel};

use super::{Door, claim, within};

pub type Client = SignalClient<Channel>;

impl Door {
    /// A client with a connection of its own.
    pub async fn grpc(&self) -> Client {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).expect("a URI");
        SignalClient::new(within(endpoint.connect()).await.expect("listens"))
    }

    /// Sends without a claim.
    pub async fn grpc_send(&self, device: &str, data: &str) -> Result<SendResponse, Code> {
        let sent = within(self.grpc().await.send(message(device, "", data))).await;
        sent.map(tonic::Response::into_inner).map_err(|status| status.code())
    }

    /// The connected devices of a user.
    pub async fn grpc_devices(&self, user: &str) -> Vec<String> {
        let listed = within(self.grpc().await.list_devices(ListDevicesRequest { user: user.into() })).await;
        listed.expect("a list").into_inner().devices
    }

    /// The stream of a device, with a cursor or an empty one.
    pub async fn grpc_stream(&self, device: &str, cursor: &str) -> Result<Stream, Status> {
        Stream::open(&mut self.grpc().await, device, cursor).await
    }
}

/// A request with the claim of `user/device`.
pub fn claimed<T>(device: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-user-claim", claim(device).parse().expect("ASCII"));
    request
}

pub fn message(device: &str, event: &str, data: &str) -> SendRequest {
    let (user, device) = device.split_once('/').expect("user/device");
    let to = Some(Address { user: user.into(), device: device.into() });
    SendRequest { to, event: event.into(), data: data.into(), ttl: None, idempotency_key: String::new() }
}

/// An open stream.
pub struct Stream {
    pub ready: Ready,
    pub cursor: String,
    responses: Streaming<SubscribeResponse>,
}

impl Stream {
    pub async fn open(client: &mut Client, device: &str, cursor: &str) -> Result<Self, Status> {
        let request = SubscribeRequest { cursor: cursor.into(), heartbeat: None };
        Self::begin(client, claimed(device, request)).await
    }

    pub async fn begin(client: &mut Client, request: Request<SubscribeRequest>) -> Result<Self, Status> {
        let mut responses = within(client.subscribe(request)).await?.into_inner();
        match within(responses.message()).await?.and_then(|response| response.kind) {
            Some(Kind::Ready(ready)) => Ok(Self { cursor: ready.cursor.clone(), ready, responses }),
            other => panic!("{other:?} instead of ready"),
        }
    }

    /// The next response; `None` when the stream ends with OK.
    pub async fn next(&mut self) -> Result<Option<Kind>, Status> {
        Ok(within(self.responses.message()).await?.and_then(|response| response.kind))
    }

    /// The next message. Drops heartbeats before it.
    pub async fn message(&mut self) -> Message {
        loop {
            match self.next().await {
                Ok(Some(Kind::Message(message))) => {
                    self.cursor.clone_from(&message.cursor);
                    return message;
                }
                Ok(Some(Kind::Ping(_))) => {}
                other => panic!("{other:?} instead of a message"),
            }
        }
    }

    /// The data of the next message.
    pub async fn data(&mut self) -> String {
        self.message().await.data
    }

    /// The reason of the last response, and the code of the status after it.
    pub async fn end(mut self) -> (i32, Code) {
        loop {
            match self.next().await {
                Ok(Some(Kind::End(end))) => {
                    let code = self.next().await.map_or_else(|status| status.code(), |_| Code::Ok);
                    return (end.reason, code);
                }
                Ok(Some(_)) => {}
                other => panic!("{other:?} instead of an end"),
            }
        }
    }
}

/// A message as it stands in the body of a call, not compressed.
pub fn framed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).expect("short").to_be_bytes();
    [&[0][..], &length, &bytes].concat()
}
