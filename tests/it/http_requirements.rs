//! What RFC 9110, 9112 and 9113 demand of a server, as tables: each row has a section, the bytes to send and the answers.
//!
//! [`NOT_MET`] lists what is not met; `docs/http.md` says why. Requirements that need more than one exchange have
//! tests of their own: caches in `caching`, lists of `Host` and transfer codings in `head_checks`, the two steps of closing and
//! `RST_STREAM(NO_ERROR)` in `refusals`, GOAWAY in `drain`, challenges in `challenges`, floods in `floods`.

mod framing;
mod http2;
mod methods;
mod semantics;

use crate::harness::{Connection, Response, Server};

/// The section, the bytes to send, the expected answers, and whether the connection stays open.
type Row<'a> = (&'a str, &'a str, &'a [&'a str], After);

#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    /// The next request of the same connection is answered.
    Open,
    /// The server closes after the last answer.
    Closed,
}
use After::{Closed, Open};

/// The sections of RFC 9110, 9112 and 9113 with a requirement that the daemon does not meet, as `docs/http.md` lists them.
const NOT_MET: [&str; 11] = [
    "RFC 9110, 2.5",
    "RFC 9110, 6.2",
    "RFC 9110, 9.1",
    "RFC 9110, 9.3.7",
    "RFC 9110, 13.2.1",
    "RFC 9110, 15.5.6",
    "RFC 9110, 15.5.16",
    "RFC 9112, 3",
    "RFC 9112, 3.2",
    "RFC 9113, 7",
    "RFC 9113, 8.1.1",
];

/// Sends each row on a connection of its own, and compares the answers.
///
/// An answer is written as `STATUS`, or `HEAD STATUS` if it answers HEAD, then `| name: value` for a header it must have, and
/// `| -name` for one that it must not have.
async fn check(server: &Server, rows: &[Row<'_>]) {
    for (section, request, answers, after) in rows {
        let about = format!("{section}: {request:.200?}");
        let mut connection = Connection::open(server.address).await;
        connection.write(request.as_bytes()).await;
        for expected in *answers {
            let mut parts = expected.split('|').map(str::trim);
            let status = parts.next().expect("a status");
            let (is_head, status) = status.strip_prefix("HEAD ").map_or((false, status), |status| (true, status));
            let answer = if status == "100" { connection.head().await } else { connection.response(is_head).await };
            assert_eq!(answer.status.to_string(), status, "{about}: {answer:?}");
            check_framing(&answer, &about);
            for part in parts {
                match (part.strip_prefix('-'), part.split_once(": ")) {
                    (Some(absent), _) => assert_eq!(answer.header(absent), "", "{about}: {absent}"),
                    (None, Some((name, value))) => assert_eq!(answer.header(name), value, "{about}: {name}"),
                    (None, None) => panic!("{about}: {part:?} is no header"),
                }
            }
        }
        match after {
            Open => {
                let next = connection.request("GET /healthz", &[], b"").await;
                assert_eq!((next.status, next.text().as_str()), (200, "ok\n"), "{about}: the next request");
            }
            Closed => assert_eq!(connection.closed().await, b"", "{about}: after the last answer"),
        }
    }
}

/// Every answer has a date (RFC 9110, 6.6.1), and at most one way to end its body (RFC 9110, 8.6; RFC 9112, 6.1 and 6.3).
fn check_framing(answer: &Response, about: &str) {
    let ends = ["content-length", "transfer-encoding"].map(|name| !answer.header(name).is_empty());
    match answer.status {
        // An interim answer has no headers.
        100 => assert!(answer.headers.is_empty(), "{about}: {answer:?}"),
        204 => assert_eq!(ends, [false; 2], "{about}: {answer:?}"),
        _ => assert!(!ends[0] || !ends[1], "{about}: {answer:?}"),
    }
    let is_date = |text: &str| text.len() == 29 && text.ends_with(" GMT");
    assert!(answer.status == 100 || is_date(answer.header("date")), "{about}: {answer:?}");
}

#[test]
fn docs_http_md_lists_exactly_the_requirements_that_are_not_met() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/http.md");
    let page = std::fs::read_to_string(page).expect("docs/http.md");
    let listed: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| RFC ")?.split(" |").next()).collect();
    let expected: Vec<_> = NOT_MET.iter().map(|section| section.trim_start_matches("RFC ")).collect();
    assert_eq!(listed, expected);
}
