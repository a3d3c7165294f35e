//! The executable as an operator uses it: options, variables, subcommands and the log.

use crate::harness::{Connection, FORM, Process, Sse, claim, process, until};

#[test]
fn a_bad_option_is_one_line_and_exit_code_2() {
    let nowhere = format!("{}/nothing.pem", env!("CARGO_TARGET_TMPDIR"));
    for options in [
        &["--port", "x"][..],
        &["--port", "65536"],
        &["--nonsense"],
        &["--auth", "password"],
        &["--auth", "jwt"],
        &["--trusted-proxies", "10.0.0.0/33"],
        &["--allow", "contacts"],
        &["--allow", "listed:"],
        &["--tenant-claim", " "],
        &["--service-claim", ""],
        &["--cors-origins", "a.example"],
        &["--body-limit", "300000"],
        &["--heartbeat", "0"],
        &["--heartbeat", "soon"],
        &["--drain-window", "-1"],
        &["--max-connections", "0"],
        &["--host", "192.0.2.1"],
        &["--tls-cert", &nowhere],
        &["--tls-key", &nowhere],
        &["--tls-cert", &nowhere, "--tls-key", &nowhere, "--port", "0"],
        &["--client-address", "x-real-ip", "--trusted-proxies", "10.0.0.0/8"],
        &["--address-limits", "none"],
        &["--send-rate", "-1"],
        &["--anonymous-send-rate", "0.5"],
        &["--identity-failures", "4294967296"],
        &["--address-connections", "few"],
        &["nonsense"],
        &["serve", "--nonsense"],
        &["serve", "--tls-cert", &nowhere],
        &["--auth", "none", "serve"],
        &["healthcheck", "--port", "x"],
        &["healthcheck", "--auth", "none"],
        &["check-config", "--allow", "listed: contacts"],
        &["check-config", "--tenant-claim", "org "],
        &["check-config", "--trusted-proxies", "10.0.0.1,"],
        &["check-config", "--cors-origins", "https://a.example,,https://b.example"],
        &["check-config", "--worker-threads", "1025"],
        &["check-config", "--worker-threads", "0"],
    ] {
        let (code, out, log) = process::run(options);
        assert_eq!((code, out.as_str(), log.lines().count()), (Some(2), "", 1), "{options:?}: {log}");
        assert!(log.starts_with("backend-signal: "), "{log}");
    }
}

#[test]
fn a_source_of_client_addresses_needs_proxies_that_are_trusted() {
    use backend_signal::config::{Arguments, EarlyExit};
    for source in ["forwarded", "proxy-protocol"] {
        match Arguments::parse_args(["--client-address", source]) {
            Err(EarlyExit::Fail(line)) => assert!(line.contains("needs --trusted-proxies"), "{line}"),
            other => panic!("{source}: {other:?}"),
        }
        let trusted = Arguments::parse_args(["--client-address", source, "--trusted-proxies", "10.0.0.1"]);
        assert!(trusted.is_ok(), "{source}: {trusted:?}");
    }
}

#[test]
fn a_taken_port_is_one_line_and_exit_code_2() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let (code, _, log) = process::run(&["--host", "127.0.0.1", "--port", &port]);
    assert_eq!((code, log.lines().count()), (Some(2), 1), "{log}");
    assert!(log.contains("in use"), "{log}");
}

#[tokio::test]
async fn a_line_of_the_log_names_the_address() {
    let process = Process::start(&[]);
    assert!(
        process.first_line.trim_end().ends_with(&format!("listening on {}", process.address)),
        "{}",
        process.first_line
    );
    assert_eq!(Connection::open(process.address).await.request("GET /healthz", &[], b"").await.status, 200);
    let process = Process::start(&["--log-format", "json"]);
    let line: serde_json::Value = serde_json::from_str(&process.first_line).expect("JSON");
    assert_eq!(line["message"], format!("listening on {}", process.address));
}

#[test]
fn a_bad_variable_is_refused_and_a_flag_wins_over_a_variable() {
    for (variable, value) in
        [("PORT", "x"), ("SIGNAL_AUTH", "password"), ("SIGNAL_HEARTBEAT", "soon"), ("SIGNAL_LOG", "loud")]
    {
        let output = process::command().env(variable, value).output().expect("the executable");
        assert_eq!(output.status.code(), Some(2), "{variable}");
    }
    let output = process::command().env("PORT", "1").args(["--port", "x"]).output().expect("the executable");
    assert!(String::from_utf8_lossy(&output.stderr).contains("'x'"), "a flag wins over a variable");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let (code, out, log) = process::run(&["--help"]);
    assert_eq!((code, log.as_str()), (Some(0), ""));
    assert!(out.contains("--trusted-proxies") && out.contains("SIGNAL_TRUSTED_PROXIES"), "{out}");
    assert_eq!(process::run(&["--version"]).0, Some(0));
    let (_, serve, _) = process::run(&["serve", "--help"]);
    assert!(serve.contains("--trusted-proxies") && serve.contains("--port"), "{serve}");
    let (_, healthcheck, _) = process::run(&["healthcheck", "--help"]);
    let flags: Vec<_> = healthcheck.split_whitespace().filter(|word| word.starts_with("--")).collect();
    assert_eq!(flags, ["--port", "--host", "--tls-cert", "--tls-key,", "--help"], "{healthcheck}");
}

#[test]
fn help_to_a_full_disk_is_one_line_and_to_a_closed_pipe_nothing() {
    for option in ["--help", "--version"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
        let output = process::command().arg(option).stdout(full).output().expect("the executable");
        let log = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), log.lines().count()), (Some(1), 1), "{option} to a full disk: {log}");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = process::command().arg(option).stdout(writer).output().expect("the executable");
        let log = String::from_utf8(output.stderr).expect("UTF-8");
        // A reader that closes the pipe has read enough.
        assert_eq!((output.status.code(), log.as_str()), (Some(0), ""), "{option} to a closed pipe");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
    let output = process::command().arg("--nonsense").stderr(full).output().expect("the executable");
    assert_eq!(output.status.code(), Some(2), "a reason that cannot be written");
}

#[tokio::test]
async fn serve_is_the_default_subcommand() {
    for arguments in [
        &["--port", "0", "--host", "127.0.0.1", "--auth", "none"][..],
        &["serve", "--port", "0", "--host", "127.0.0.1", "--auth", "none"],
        &["--port", "0", "serve", "--host", "127.0.0.1", "--auth", "none"],
        &["--port", "0", "--host", "127.0.0.1", "serve", "--auth", "none"],
    ] {
        let process = Process::spawn(process::command().args(arguments));
        assert!(process.address.ip().is_loopback(), "{arguments:?}");
        let mut phone = Connection::open(process.address).await;
        phone.ask("GET /subscribe/bob/device/phone", &[]).await;
        assert_eq!(phone.head().await.status, 200, "{arguments:?}: accepted without a claim, because of `--auth none`");
    }
    let (_, _, log) = process::run(&["--auth", "none", "serve"]);
    assert!(log.contains("--auth must stand after `serve`"), "{log}");
}

/// The thread frees the memory of a spike even when the daemon allocates nothing more.
#[cfg(all(target_os = "linux", feature = "jemalloc"))]
#[tokio::test]
async fn the_allocator_that_ships_has_a_thread_of_its_own() {
    let process = Process::start(&[]);
    until(async || process.threads(), |threads| threads.iter().any(|name| name == "jemalloc_bg_thd")).await;
}

#[tokio::test]
async fn no_log_holds_a_claim_a_query_or_data() {
    let process = Process::start(&["--log", "trace", "--drain-window", "1"]);
    let claim = claim("s3cretuser/s3cretdevice");
    let path = "/subscribe?token=s3crettoken&last_event_id=s3cretcursor";
    let mut stream = Sse::open(process.address, path, &[("x-user-claim", &claim)]).await;
    let headers = [("content-type", FORM), ("x-user-claim", claim.as_str()), ("cookie", "s3cretcookie")];
    let post = "POST /user/s3cretuser/device/s3cretdevice?s3cretquery";
    let answer = Connection::open(process.address).await.request(post, &headers, b"data=s3cretdata").await;
    assert_eq!(answer.status, 200);
    assert_eq!(stream.data().await, "s3cretdata");
    let refused = Connection::open(process.address).await.request(post, &[("x-user-claim", "s3cretclaim")], b"").await;
    assert_eq!(refused.status, 401);
    drop(stream);
    let devices =
        async || Connection::open(process.address).await.request("GET /user/s3cretuser/devices", &[], b"").await.text();
    until(devices, |devices| devices == "[]").await;
    process.signal("TERM");
    let (_, log) = process.exited();
    assert!(log.contains("request") && log.contains("/user/{user}/device/{device}"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn every_flag_has_its_variable_by_the_same_rule() {
    use clap::CommandFactory as _;
    let command = backend_signal::config::Arguments::command();
    let mut count = 0;
    for option in command.get_arguments().filter(|option| !["help", "version"].contains(&option.get_id().as_str())) {
        let flag = option.get_long().expect("a long flag");
        let variable = format!("SIGNAL_{}", flag.to_uppercase().replace('-', "_"));
        let expected = if flag == "port" { "PORT" } else { variable.as_str() };
        assert_eq!(option.get_env().and_then(|variable| variable.to_str()), Some(expected));
        count += 1;
    }
    assert!(count > 10, "{count}");
}

#[test]
fn the_defaults_are_those_of_the_readme() {
    use clap::CommandFactory as _;
    let command = backend_signal::config::Arguments::command();
    for (flag, expected) in [
        ("port", "1837"),
        ("host", "0.0.0.0"),
        ("auth", "claim"),
        ("require_claim", "subscribe"),
        ("body_limit", "102400"),
        ("body_timeout", "10"),
        ("header_timeout", "10"),
        ("heartbeat", "15"),
        ("stall_timeout", "5"),
        ("resume_window", "120"),
        ("memory_budget", "1073741824"),
        ("max_streams", "1000"),
        ("drain_window", "2"),
        ("send_rate", "100"),
        ("anonymous_send_rate", "20"),
        ("identity_failures", "10"),
        ("client_address", "x-forwarded-for"),
        ("address_limits", "public"),
        ("log_format", "human"),
    ] {
        let option = command.get_arguments().find(|option| option.get_id() == flag);
        assert_eq!(option.expect("an option").get_default_values(), [expected], "{flag}");
    }
}

#[tokio::test]
async fn an_unread_log_delays_no_request_and_no_exit() {
    let process = Process::start(&["--log", "trace", "--drain-window", "1"]);
    let mut connection = Connection::open(process.address).await;
    // The log of these requests is several times as large as the buffer of a pipe.
    for _ in 0..3_000 {
        assert_eq!(connection.request("GET /user/bob/devices", &[], b"").await.status, 200);
    }
    process.signal("TERM");
    assert_eq!(process.exited_unread().await, Some(0));
}
