//! The subcommand `healthcheck` against a real daemon, and against servers that are not this daemon.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    harness::{Process, process},
    serve::tempfiles,
};

/// Where an operator can write `--name value`.
#[derive(Clone, Copy, Debug)]
enum Place {
    BeforeTheSubcommand,
    AfterTheSubcommand,
    Environment,
}

const PLACES: [Place; 3] = [Place::BeforeTheSubcommand, Place::AfterTheSubcommand, Place::Environment];

/// A health check with all options in the same place.
fn healthcheck(options: &[(&str, &str)], place: Place) -> Command {
    let flags = options.iter().flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()]);
    let mut command = process::command();
    match place {
        Place::BeforeTheSubcommand => command.args(flags).arg("healthcheck"),
        Place::AfterTheSubcommand => command.arg("healthcheck").args(flags),
        Place::Environment => {
            for (name, value) in options {
                let name = if *name == "port" { "PORT" } else { &format!("SIGNAL_{}", name.to_uppercase()) };
                command.env(name.replace('-', "_"), value);
            }
            command.arg("healthcheck")
        }
    };
    command
}

/// Runs a health check; gives its exit code and the one line that it writes when it fails.
fn outcome(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().expect("the executable");
    let reason = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.stdout, b"", "{command:?}");
    assert_eq!(reason.lines().count(), usize::from(!output.status.success()), "{command:?}: {reason}");
    (output.status.code(), reason)
}

fn daemon(options: &[&str]) -> (Process, String) {
    let daemon = Process::spawn(process::command().args(["--port", "0"]).args(options));
    let port = daemon.address.port().to_string();
    (daemon, port)
}

/// The health check fails with a line that contains `expected`, wherever its options stand.
fn assert_unhealthy(options: &[(&str, &str)], expected: &str) {
    for place in PLACES {
        let (code, reason) = outcome(healthcheck(options, place));
        assert_eq!(code, Some(1), "{options:?} {place:?}");
        assert!(reason.contains(expected), "{options:?} {place:?}: {reason}");
    }
}

#[test]
fn the_health_check_finds_a_daemon_on_any_host_wherever_the_options_are_given() {
    let ipv6 = TcpListener::bind("[::1]:0").is_ok();
    for host in ["127.0.0.1", "127.0.0.2", "0.0.0.0", "localhost", "::1", "[::1]", "::"] {
        if host.contains(':') && !ipv6 {
            // Written directly, because the test harness hides what a passing test prints.
            let _ = writeln!(std::io::stderr(), "SKIPPED: the health check on {host}: there is no IPv6");
            continue;
        }
        let (_daemon, port) = daemon(&["--host", host]);
        for place in PLACES {
            let found = outcome(healthcheck(&[("host", host), ("port", &port)], place));
            assert_eq!(found, (Some(0), String::new()), "{host} {place:?}");
        }
        let mut mixed = process::command();
        mixed.env("SIGNAL_HOST", host).env("PORT", "1").args(["--port", "2", "healthcheck", "--port", &port]);
        if host != "127.0.0.2" {
            assert_eq!(outcome(mixed).0, Some(0), "{host}: an option after the subcommand wins");
        }
    }
}

#[test]
fn the_health_check_asks_the_address_that_it_was_given_and_no_other() {
    let (_daemon, port) = daemon(&["--host", "127.0.0.2"]);
    for host in ["127.0.0.1", "0.0.0.0"] {
        assert_unhealthy(&[("host", host), ("port", &port)], "refused");
    }
}

#[test]
fn the_health_check_asks_over_tls_wherever_the_certificate_is_given() {
    let identity = rcgen::generate_simple_self_signed(["signal.example".to_owned()]).expect("a certificate");
    let files = tempfiles("healthcheck", &identity);
    let (_daemon, port) = daemon(&["--host", "127.0.0.1", "--tls-cert", &files[0], "--tls-key", &files[1]]);
    for place in PLACES {
        let options = [("host", "127.0.0.1"), ("port", port.as_str()), ("tls-cert", &files[0])];
        assert_eq!(outcome(healthcheck(&options, place)), (Some(0), String::new()), "{place:?}");
    }
    assert_unhealthy(&[("port", &port)], "--tls-cert is missing here");
    // The file was renewed, and the daemon still uses the old certificate.
    let renewed = rcgen::generate_simple_self_signed(["signal.example".to_owned()]).expect("a certificate");
    let renewed = tempfiles("healthcheck-renewed", &renewed);
    let options = [("host", "127.0.0.1"), ("port", port.as_str()), ("tls-cert", &renewed[0])];
    assert_eq!(outcome(healthcheck(&options, PLACES[0])), (Some(0), String::new()));
}

/// A server on 127.0.0.1 that writes a text to every connection, with a pause before each byte; gives its port.
fn server_that_writes(text: &'static str, pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port().to_string();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            let _ = connection.read(&mut [0; 1_024]);
            for byte in text.bytes() {
                std::thread::sleep(pause);
                if connection.write_all(&[byte]).is_err() {
                    break;
                }
            }
        }
    });
    port
}

#[test]
fn the_health_check_fails_when_nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port().to_string();
    drop(listener);
    assert_unhealthy(&[("port", &port)], "refused");
}

#[test]
fn the_health_check_fails_when_the_answer_is_not_200() {
    let unwell = server_that_writes("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", Duration::ZERO);
    assert_unhealthy(&[("port", &unwell)], "/healthz answered 503");
    let mute = server_that_writes("", Duration::ZERO);
    assert_unhealthy(&[("port", &mute)], "without an answer");
    let other = server_that_writes("SSH-2.0-OpenSSH_9.2\r\n", Duration::ZERO);
    assert_unhealthy(&[("port", &other)], "not HTTP");
    let identity = rcgen::generate_simple_self_signed(["signal.example".to_owned()]).expect("a certificate");
    let [certificate, _] = tempfiles("healthcheck-plain", &identity);
    let plain = server_that_writes("HTTP/1.1 200 OK\r\n\r\n", Duration::ZERO);
    assert_unhealthy(&[("port", &plain), ("tls-cert", &certificate)], "InvalidContentType");
}

#[test]
fn the_health_check_gives_up_after_3_seconds_however_slow_the_server_is() {
    // The system completes the connection although this listener never accepts it.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent_port = silent.local_addr().expect("bound").port().to_string();
    let slow_port = server_that_writes("HTTP/1.1 200 OK\r\n\r\n", Duration::from_secs(1));
    let identity = rcgen::generate_simple_self_signed(["signal.example".to_owned()]).expect("a certificate");
    let [certificate, _] = tempfiles("healthcheck-silent", &identity);
    for options in [
        &[("port", silent_port.as_str())][..],
        &[("port", &silent_port), ("tls-cert", &certificate)],
        &[("port", &slow_port)],
    ] {
        let began = Instant::now();
        let (code, reason) = outcome(healthcheck(options, Place::AfterTheSubcommand));
        assert_eq!(code, Some(1), "{options:?}");
        assert!(reason.contains("no answer within 3 s"), "{options:?}: {reason}");
        assert!(began.elapsed() >= Duration::from_secs(3), "{options:?}");
    }
}
