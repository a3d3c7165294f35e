//! How the daemon starts: the addresses of its host, its variables, its files, and signals that come early.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Command, Output, Stdio},
};

use crate::{
    harness::{Connection, Process, process},
    serve::tempfiles,
};

/// A host of the test's own hosts file, with an address that it has twice, and one of another machine.
const MANY: &str = "many.test";
const HOSTS: &str = "127.0.0.2 many.test\n127.0.0.3 many.test\n127.0.0.2 many.test\n203.0.113.1 many.test\n";

/// The daemon where the system has this hosts file; `None`, with a line on standard error, where that is not possible.
fn daemon_with_hosts() -> Option<Command> {
    let hosts = format!("{}/hosts", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&hosts, HOSTS).expect("writable");
    // A mount of its own namespace is seen by no other process.
    let bind = |then: &str| format!("mount --bind {hosts} /etc/hosts && exec {then}");
    let mut unshare = process::command_of("unshare");
    unshare.args(["-m", "sh", "-c", &bind("true")]);
    if unshare.output().is_ok_and(|output| output.status.success()) {
        let mut daemon = process::command_of("unshare");
        daemon.args(["-m", "sh", "-c", &bind("\"$0\" \"$@\""), env!("CARGO_BIN_EXE_backend-signal")]);
        return Some(daemon);
    }
    #[expect(clippy::disallowed_methods, reason = "CI must have the tools")]
    let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!must, "with CI=true this test must run: it needs Linux, root and `unshare`");
    // Not `eprint!`: the test harness hides its output.
    let _ = std::io::stderr().write_all(b"\nSKIPPED: a host with several addresses: needs Linux, root and `unshare`\n");
    None
}

#[tokio::test]
async fn a_host_with_several_addresses_is_listened_on_at_all_of_them_with_one_port() {
    let Some(mut daemon) = daemon_with_hosts() else { return };
    let daemon = Process::spawn(daemon.args(["--host", MANY, "--port", "0", "--drain-window", "1"]));
    let port = daemon.address.port();
    let addresses = [[127, 0, 0, 2], [127, 0, 0, 3]].map(|ip| SocketAddr::from((ip, port)));
    for address in addresses {
        assert_eq!(Connection::open(address).await.request("GET /healthz", &[], b"").await.status, 200, "{address}");
    }
    let first = daemon.first_line.clone();
    daemon.signal("TERM");
    let (code, rest) = daemon.exited();
    let log = first + &rest;
    for address in addresses {
        assert_eq!(log.matches(&format!("listening on {address}\n")).count(), 1, "{log}");
    }
    assert_eq!((code, log.matches("listening on").count()), (Some(0), 2), "{log}");
    assert_eq!(log.matches("203.0.113.1").count(), 1, "a warning about the address of another machine: {log}");
}

#[test]
fn a_port_that_is_taken_on_one_address_of_the_host_is_one_line_and_exit_code_2() {
    let Some(mut daemon) = daemon_with_hosts() else { return };
    let taken = std::net::TcpListener::bind("127.0.0.3:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let mut daemon = daemon.args(["--host", MANY, "--port", &port]).stderr(Stdio::piped()).spawn().expect("a process");
    let mut log = String::new();
    BufReader::new(daemon.stderr.take().expect("standard error")).read_line(&mut log).expect("UTF-8");
    if log.contains("listening") {
        let _ = daemon.kill();
    }
    let code = daemon.wait().expect("a child").code();
    assert_eq!((code, log.lines().count()), (Some(2), 1), "{log}");
    assert!(log.contains(&format!("127.0.0.3:{port}")) && log.contains("in use"), "{log}");
}

#[tokio::test]
async fn a_host_may_be_an_ipv6_address_in_brackets() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        let _ = std::io::stderr().write_all(b"\nSKIPPED: a host in brackets: there is no IPv6\n");
        return;
    }
    for host in ["[::1]", "::1"] {
        let daemon = Process::spawn(process::command().args(["--host", host, "--port", "0"]));
        assert_eq!(daemon.address.ip().to_string(), "::1", "{host}");
        assert_eq!(Connection::open(daemon.address).await.request("GET /healthz", &[], b"").await.status, 200);
    }
}

/// The exit code of a process, and what it wrote to standard error.
fn refusal(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr.clone()).expect("UTF-8"))
}

#[test]
fn a_file_of_tls_that_cannot_be_used_is_one_line_that_names_the_file_and_what_is_wrong_with_it() {
    let identity = |name| rcgen::generate_simple_self_signed([format!("{name}.example")]).expect("a certificate");
    let [certificate, key] = tempfiles("tls-faults", &identity("first"));
    let [_, other_key] = tempfiles("tls-other", &identity("second"));
    let text = |file: &str| std::fs::read_to_string(file).expect("a file");
    let written = |name: &str, text: &str| {
        let path = format!("{}/tls-faults-{name}.pem", env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(&path, text).expect("writable");
        path
    };
    let [empty, spaces, not_pem] =
        [("empty", ""), ("spaces", " \n"), ("not-pem", "no PEM")].map(|(n, t)| written(n, t));
    let cut = written("cut", text(&certificate).trim_end().strip_suffix("-----END CERTIFICATE-----").expect("PEM"));
    let cut_key = written("cut-key", &text(&key).replace("-----END PRIVATE KEY-----", ""));
    let garbage = written("garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let garbage_key = written("garbage-key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let encrypted = written("encrypted", &text(&key).replace(" PRIVATE", " ENCRYPTED PRIVATE"));
    let missing = format!("{}/no-such.pem", env!("CARGO_TARGET_TMPDIR"));
    for (certificate, key, wrong, reason) in [
        (&missing, &key, &missing, "No such file"),
        (&certificate, &missing, &missing, "No such file"),
        (&empty, &key, &empty, "is empty"),
        (&certificate, &empty, &empty, "is empty"),
        (&spaces, &key, &spaces, "is empty"),
        (&not_pem, &key, &not_pem, "not PEM"),
        (&certificate, &not_pem, &not_pem, "not PEM"),
        (&key, &key, &key, "no certificate, but a private key"),
        (&certificate, &certificate, &certificate, "no private key"),
        (&certificate, &encrypted, &encrypted, "encrypted"),
        (&cut, &key, &cut, "cut off"),
        (&certificate, &cut_key, &cut_key, "cut off"),
        (&garbage, &key, &garbage, "the certificate is damaged"),
        (&certificate, &garbage_key, &garbage_key, "key"),
        (&certificate, &other_key, &other_key, &format!("does not belong to the certificate {certificate}")),
    ] {
        let options = ["--host", "127.0.0.1", "--port", "0", "--tls-cert", certificate, "--tls-key", key];
        let (code, _, log) = process::run(&options);
        assert_eq!((code, log.lines().count()), (Some(2), 1), "{options:?}: {log}");
        assert!(log.contains(&format!(": {wrong}: ")) && log.contains(reason), "{options:?}: {log}");
    }
}

#[test]
fn an_empty_variable_is_the_same_as_an_absent_one() {
    use clap::CommandFactory as _;
    let definition = backend_signal::config::Arguments::command();
    let variables: Vec<_> = definition.get_arguments().filter_map(clap::Arg::get_env).collect();
    assert!(variables.len() > 20, "{variables:?}");
    for subcommand in [&[][..], &["serve"]] {
        let mut daemon = process::command();
        daemon
            .args(subcommand)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .envs(variables.iter().map(|name| (name, "")));
        assert!(Process::spawn(&mut daemon).address.ip().is_loopback(), "{subcommand:?}");
    }
    let closed =
        process::command().args(["healthcheck", "--port", "1"]).env("PORT", "").env("SIGNAL_HOST", "").output();
    assert_eq!(refusal(&closed.expect("a process")).0, Some(1));
    let help = process::command().arg("--help").env("SIGNAL_HOST", "").output().expect("a process");
    assert!(String::from_utf8_lossy(&help.stdout).contains("SIGNAL_HOST"), "help names an empty variable");
}

#[test]
fn a_refusal_names_the_variable_that_the_value_came_from() {
    let refused = |variable: &str, value: &str, args: &[&str]| {
        let (code, log) = refusal(&process::command().args(args).env(variable, value).output().expect("a process"));
        assert_eq!((code, log.lines().count()), (Some(2), 1), "{log}");
        log
    };
    for (variable, value) in [
        ("PORT", "x"),
        ("SIGNAL_AUTH", "password"),
        ("SIGNAL_TRUSTED_PROXIES", "10.0.0.0/8,x"),
        ("SIGNAL_HEARTBEAT", "soon"),
        ("SIGNAL_BODY_LIMIT", "0"),
        ("SIGNAL_HTTP1_TAKEOVER", "maybe"),
    ] {
        for args in [&[][..], &["serve"]] {
            let log = refused(variable, value, args);
            assert!(log.ends_with(&format!(" (from the variable {variable})\n")), "{log}");
        }
    }
    for args in [&["--port", "y"][..], &["--port=y"], &["serve", "--port", "y"]] {
        let log = refused("PORT", "x", args);
        assert!(log.contains("'y'") && !log.contains("variable"), "{log}");
    }
}

#[test]
fn a_mistyped_option_is_one_line_that_has_the_tip() {
    for (mistyped, meant) in [
        (&["--prot", "1"][..], "'--port'"),
        (&["serve", "--heart-beat", "1"], "'--heartbeat'"),
        (&["helthcheck"], "'healthcheck'"),
        (&["--auth", "claims"], "'claim'"),
    ] {
        let (code, _, log) = process::run(mistyped);
        assert_eq!((code, log.lines().count()), (Some(2), 1), "{log}");
        assert!(log.contains("similar") && log.contains(meant), "{log}");
    }
}

#[test]
fn a_signal_that_comes_before_the_daemon_serves_is_not_lost() {
    let identity = rcgen::generate_simple_self_signed(["signal.example".to_owned()]).expect("a certificate");
    let [certificate, key] = tempfiles("early-signal", &identity);
    let pipe = format!("{}/early-signal-{}.pipe", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    for signal in ["TERM", "INT", "HUP"] {
        let _ = std::fs::remove_file(&pipe);
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        let options = ["--host", "127.0.0.1", "--port", "0", "--tls-cert", &pipe, "--tls-key", &key];
        let mut daemon = process::command().args(options).stderr(Stdio::null()).spawn().expect("a process");
        // Opens when the daemon opens the pipe. So the daemon is starting, and waits for its certificate.
        let mut writer = std::fs::OpenOptions::new().write(true).open(&pipe).expect("a pipe");
        let kill = |signal: &str| {
            let status = Command::new("kill").args([&format!("-{signal}"), &daemon.id().to_string()]).status();
            assert!(status.expect("kill").success());
        };
        kill(signal);
        if signal == "HUP" {
            kill("TERM");
        }
        writer.write_all(&std::fs::read(&certificate).expect("a file")).expect("a reader");
        drop(writer);
        let status = daemon.wait().expect("a child");
        assert_eq!(status.code(), Some(0), "SIG{signal}: {status:?}");
    }
}

#[tokio::test]
async fn more_connections_than_descriptors_allow_are_a_warning() {
    for (option, warns) in [("1000000000", true), ("1", false)] {
        let daemon = Process::start(&["--max-connections", option, "--drain-window", "1"]);
        let log = daemon.preface.clone();
        daemon.signal("TERM");
        assert_eq!(daemon.exited().0, Some(0));
        assert_eq!(log.matches(&format!("--max-connections is {option}, but")).count(), usize::from(warns), "{log}");
    }
}
