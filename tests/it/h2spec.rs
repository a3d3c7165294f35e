//! The conformance tests of [h2spec](https://github.com/summerwind/h2spec) for HTTP/2 and HPACK.

use std::io::{ErrorKind, Write as _};

use crate::{
    harness::{Server, within},
    readme,
};

/// Without the HTTP/2 preface, this port speaks HTTP/1.1: the connection closes, but only after a 400.
const FAULTS: [&str; 1] = ["2: Sends invalid connection preface"];

/// A race in h2spec: it expects that the answer has not ended when its two `WINDOW_UPDATE` frames arrive. After the end of a stream
/// the server ignores them (RFC 9113, section 5.1).
const RACE: &str =
    "3: Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream";

#[tokio::test]
async fn h2spec_finds_no_fault_except_the_400_for_a_wrong_preface() {
    let server = Server::start().await;
    let port = server.address.port().to_string();
    let mut command = tokio::process::Command::new("h2spec");
    command.args(["--host", "127.0.0.1", "--port", &port, "--path", "/healthz", "--timeout", "10"]);
    let output = within(command.env("PATH", readme::path()).kill_on_drop(true).output()).await;
    if output.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        #[expect(clippy::disallowed_methods, reason = "CI must have the tools")]
        let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!must, "with CI=true this test must run: h2spec is not installed");
        // Not `eprint!`: the test harness hides its output.
        let _ = std::io::stderr().write_all(b"\nSKIPPED: the conformance of HTTP/2: h2spec is not installed\n");
        return;
    }
    let text = String::from_utf8(output.expect("h2spec").stdout).expect("UTF-8");
    let faults: std::collections::BTreeSet<_> = text.lines().filter_map(|line| line.trim().strip_prefix('×')).collect();
    let faults: Vec<_> = faults.into_iter().map(str::trim).filter(|fault| *fault != RACE).collect();
    assert_eq!(faults, FAULTS, "{text}");
    let run = text.lines().find_map(|line| line.split_once(" tests, ")?.0.trim().parse::<usize>().ok());
    assert!(run >= Some(140), "{text}");
}
