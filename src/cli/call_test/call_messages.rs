//! The messages that set up a call, in their usual sizes: an offer, an answer, and ten candidates each way.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{
    test_device::TestDevice,
    verdict::{Checked, fault, millis},
};
use crate::cli::exit::Failure;
use crate::grpc::proto::Outcome;

/// Each message has to come once, unchanged, in order, and with its sender.
pub(super) async fn check(caller: &mut TestDevice, peer: &mut TestDevice) -> Checked {
    let mut times = exchange(caller, peer, &[description("offer", OFFER)]).await?;
    times.extend(exchange(peer, caller, &[description("answer", ANSWER)]).await?);
    let candidates: Vec<_> = (0..CANDIDATES).map(candidate).collect();
    times.extend(exchange(caller, peer, &candidates).await?);
    times.extend(exchange(peer, caller, &candidates).await?);
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    let (median, slowest) = (millis(median), millis(slowest));
    Ok(format!("{} messages in order, median {median:.1} ms, slowest {slowest:.1} ms", times.len()))
}

/// Sends the messages one after the other while the other device receives them. How long each took to its receiver.
async fn exchange(
    from: &mut TestDevice,
    to: &mut TestDevice,
    messages: &[(&str, String)],
) -> Result<Vec<Duration>, Failure> {
    let (sender, receiver) = (from.address.clone(), to.address.clone());
    let sending = async {
        let mut began = Vec::new();
        for (event, data) in messages {
            began.push(Instant::now());
            if from.send(&receiver, event, data, 0).await? != Outcome::Delivered {
                return fault(format!("the {event} was not delivered, although its receiver is connected"));
            }
        }
        Ok(began)
    };
    let receiving = async {
        let mut came = Vec::new();
        for (event, data) in messages {
            let message = to.receive().await?;
            if (&message.event, &message.data) != (&(*event).to_owned(), data) {
                return fault(format!("a message came lost, changed, repeated or out of order: a {event} was due"));
            }
            if message.sender.as_ref() != Some(&sender) {
                return fault(format!("the {event} came with another sender"));
            }
            came.push(Instant::now());
        }
        Ok(came)
    };
    let (began, came) = tokio::try_join!(sending, receiving)?;
    Ok(began.into_iter().zip(came).map(|(began, came)| came - began).collect())
}

/// A session description of about so many bytes.
fn description(kind: &'static str, bytes: usize) -> (&'static str, String) {
    let mut sdp = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n".to_owned();
    while sdp.len() < bytes {
        sdp.push_str("a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 goog-remb\r\na=rtcp-fb:96 transport-cc\r\n");
    }
    (kind, json!({"type": kind, "sdp": sdp}).to_string())
}

fn candidate(number: usize) -> (&'static str, String) {
    let line = format!(
        "candidate:{number} 1 udp 2122260223 192.0.2.{number} {} typ host generation 0 ufrag EsAw network-id 1",
        50_000 + number
    );
    ("candidate", json!({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0}).to_string())
}

/// The bytes of an offer with sound and video in a browser.
const OFFER: usize = 6_000;

/// Those of an answer.
const ANSWER: usize = 4_000;

const CANDIDATES: usize = 10;
