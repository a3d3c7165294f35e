//! `--redis` as an operator uses it: options, refusals, `check-config`, `backend-signal cluster`, the log, the metrics, and the password.

use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{Process, Server, nodes::Nodes, process, redis_server::RedisServer, tokens::file, until};

/// What no text may contain.
const PASSWORD: &str = "zq-geheim-4711";

/// Runs the executable with a variable.
fn run_with(variable: &str, value: &str, arguments: &[&str]) -> Output {
    process::command().env(variable, value).args(arguments).output().expect("the executable")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_url_of_redis_that_cannot_be_used_is_one_line_without_its_password() {
    for url in [
        format!("{PASSWORD}@localhost"),
        format!("http://ana:{PASSWORD}@localhost"),
        format!("redis://ana:{PASSWORD}@local host"),
        format!("redis://ana:{PASSWORD}@localhost/x"),
        format!("redis://localhost?password={PASSWORD}"),
        format!("redis+sentinel://ana:{PASSWORD}@localhost"),
    ] {
        for subcommand in ["serve", "check-config", "cluster"] {
            let (code, out, line) = process::run(&[subcommand, "--redis", &url]);
            assert_eq!((code, out.as_str(), line.lines().count()), (Some(2), "", 1), "{subcommand}: {line}");
            assert!(line.contains("--redis") && !line.contains(PASSWORD), "{line}");
            let joined = format!("--redis={url}");
            assert!(!process::run(&[subcommand, &joined]).2.contains(PASSWORD));
            let output = run_with("SIGNAL_REDIS", &url, &[subcommand]);
            let line = text(&output.stderr);
            assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{line}");
            assert!(line.contains("SIGNAL_REDIS") && !line.contains(PASSWORD), "{line}");
        }
    }
    // A slip of the pen, or a URL in the wrong place.
    let url = format!("redis://ana:{PASSWORD}@localhost");
    for arguments in [
        &["--rediss", &url][..],
        &[&url],
        &["cluster", &url],
        &["--redis", "redis://localhost", &url],
        &["--redis", &url, "--redis", &url],
        &["--redis", &url, "cluster"],
        &["--redis", &url, "send"],
        &["--redis-prefix", &url],
        &["--host", &url],
    ] {
        let (code, out, line) = process::run(arguments);
        assert_eq!((code, out.as_str(), line.lines().count()), (Some(2), "", 1), "{line}");
        assert!(!line.contains(PASSWORD), "{line}");
    }
    for arguments in [&["--help"][..], &["cluster", "--help"], &["check-config", "--help"]] {
        let output = run_with("SIGNAL_REDIS", &url, arguments);
        let help = text(&output.stdout);
        assert!(help.contains("SIGNAL_REDIS") && !help.contains(PASSWORD), "{arguments:?}: {help}");
    }
}

#[test]
fn options_of_redis_that_do_not_go_together_are_one_line() {
    let secret = file("redis-password", "secret\n");
    for (arguments, line) in [
        (&["--redis-password-file", &secret][..], "--redis-password-file needs --redis"),
        (&["--redis-ca", &secret], "--redis-ca needs --redis"),
        (&["--redis-prefix", "bs"], "--redis-prefix needs --redis"),
        (&["--redis", "redis://:a@localhost", "--redis-password-file", &secret], "leave one of them out"),
        (&["--redis", "redis://localhost", "--redis-ca", &secret], "--redis-ca needs TLS"),
        (&["--redis", "redis://localhost", "--redis-prefix", "a:b"], "1 to 32"),
        (&["--redis", "redis://localhost", "--redis-prefix", ""], "--redis-prefix"),
        (&["--redis", "redis://localhost", "--redis-password-file", "/nowhere"], "--redis-password-file: /nowhere"),
        (&["--redis", "rediss://localhost", "--redis-ca", "/nowhere"], "--redis-ca: /nowhere"),
        (&["--redis", "rediss://localhost", "--redis-ca", &secret], "--redis"),
    ] {
        for subcommand in ["check-config", "cluster"] {
            let (code, out, said) = process::run(&[&[subcommand], arguments].concat());
            assert_eq!((code, out.as_str(), said.lines().count()), (Some(2), "", 1), "{arguments:?}: {said}");
            assert!(said.contains(line), "{arguments:?}: {said}");
        }
    }
    let (code, _, said) = process::run(&["cluster"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("needs --redis"), "{said}");
}

#[tokio::test]
async fn check_config_says_which_server_it_is_and_what_to_look_into() {
    let Some(redis) = RedisServer::start().await else { return };
    let check = |options: &[&str]| process::run(&[&["check-config", "--dev"], options].concat());
    let (code, out, warnings) = check(&["--redis", &redis.url(), "--redis-prefix", "x"]);
    assert_eq!(code, Some(0), "{warnings}");
    assert!(out.contains(&format!("nodes=\"by {}, keys x:*\"", redis.address)), "{out}");
    assert!(out.contains("redis=\"Redis ") || out.contains("redis=\"Valkey "), "{out}");
    assert!(out.ends_with("the configuration is valid\n"), "{out}");
    assert!(warnings.lines().all(|line| line.starts_with("backend-signal: warning: --redis: ")), "{warnings}");
    assert!(warnings.contains("no persistence"), "{warnings}");
    let keys = redis.command(&["KEYS", "*"]).await;
    assert_eq!(keys, "", "it leaves nothing there");

    let with_password = format!("redis://:{PASSWORD}@{}", redis.address);
    redis.command(&["CONFIG", "SET", "requirepass", PASSWORD]).await;
    let (code, _, warnings) = check(&["--redis", &with_password]);
    assert_eq!(code, Some(0), "{warnings}");
    assert!(warnings.contains("everybody on this machine") && !warnings.contains(PASSWORD), "{warnings}");
    let output = run_with("SIGNAL_REDIS", &with_password, &["check-config", "--dev"]);
    assert!(output.status.success() && !text(&output.stderr).contains("everybody on this machine"));

    let (nobody, key) = ("redis://127.0.0.1:1", file("redis-tokens", "x".repeat(32)));
    let (code, out, warnings) = check(&["--redis", nobody]);
    assert_eq!(code, Some(0), "a server that is not there may come: {warnings}");
    assert!(warnings.contains("127.0.0.1:1") && warnings.contains("serves only its own devices"), "{warnings}");
    assert!(!out.contains("redis="), "{out}");
    let jwt = ["check-config", "--host", "127.0.0.1", "--auth", "jwt", "--jwt-secret-file", &key, "--redis", nobody];
    for (more, warns) in [(&[][..], true), (&["--ticket-key-file", &key], false)] {
        let (_, _, warnings) = process::run(&[&jwt, more].concat());
        assert_eq!(warnings.contains("--ticket-key-file"), warns, "{warnings}");
    }
}

#[tokio::test]
async fn a_server_that_is_no_redis_or_wants_a_password_is_refused_in_one_line() {
    let Some(redis) = RedisServer::start().await else { return };
    redis.command(&["CONFIG", "SET", "requirepass", PASSWORD]).await;
    let web = Server::start().await;
    for (address, why) in [(redis.address, "--redis-password-file"), (web.address, "no answer of a Redis")] {
        let serve = move || process::run(&["serve", "--dev", "--port", "0", "--redis", &format!("redis://{address}")]);
        let (code, out, line) = tokio::task::spawn_blocking(serve).await.expect("it ends");
        assert_eq!((code, out.as_str()), (Some(2), ""), "{line}");
        let refusals: Vec<_> = line.lines().filter(|line| !line.contains("warning: ")).collect();
        assert!(refusals.len() == 1 && refusals[0].contains(why), "{line}");
    }
}

#[tokio::test]
async fn the_password_of_redis_is_in_no_log_metric_or_answer() {
    let Some(redis) = RedisServer::start().await else { return };
    let set_user = async |password: &str| {
        let user = ["ACL", "SETUSER", "node", "on", "~*", "&*", "+@all", "resetpass"];
        assert_eq!(redis.command(&[&user[..], &[&format!(">{password}")]].concat()).await, "OK");
    };
    let refused = async || {
        let log = redis.command(&["ACL", "LOG"]).await;
        log.split("count ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok()).unwrap_or(0)
    };
    let secret = file("redis-geheim", format!("{PASSWORD}\n"));
    let of_user = format!("redis://node@{}", redis.address);
    let with_password = format!("redis://node:{PASSWORD}@{}", redis.address);
    let in_file = ["--redis", &of_user, "--redis-password-file", &secret];
    let [mut by_file, mut by_variable] = [process::command(), process::command()];
    by_file.args(in_file);
    by_variable.env("SIGNAL_REDIS", &with_password);
    for command in [&mut by_file, &mut by_variable] {
        set_user(PASSWORD).await;
        let node = Process::spawn(command.args(["--port", "0", "--host", "127.0.0.1", "--log", "trace"]));
        node.linked().await;
        assert!(!node.metrics().await.contains(PASSWORD));
        let (code, table, errors) = process::run(&[&["cluster"], &in_file[..]].concat());
        assert!(code == Some(0) && table.lines().count() > 3 && errors.is_empty(), "{table}{errors}");
        // The password changes: the next link is refused, and the log says why.
        set_user("another").await;
        redis.command(&["ACL", "LOG", "RESET"]).await;
        assert_ne!(redis.command(&["CLIENT", "KILL", "USER", "node"]).await, "0");
        node.degraded().await;
        until(refused, |count| *count >= 3).await;
        assert!(!node.readiness().await.1.contains(PASSWORD) && !node.metrics().await.contains(PASSWORD));
        let preface = node.preface.clone();
        node.signal("TERM");
        let (code, log) = node.exited();
        assert_eq!(code, Some(0));
        assert!(log.contains("the link to Redis is down") && log.contains("WRONGPASS"), "{log}");
        assert!(!log.contains(PASSWORD) && !preface.contains(PASSWORD), "{preface}{log}");
    }
}

/// What `backend-signal cluster --json` says.
fn nodes_of(url: &str) -> Value {
    let (code, out, errors) = process::run(&["cluster", "--redis", url, "--json"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{out}");
    serde_json::from_str(&out).expect("JSON")
}

#[tokio::test]
async fn backend_signal_cluster_shows_each_node_until_it_is_gone() {
    let Some(empty) = RedisServer::start().await else { return };
    assert_eq!(process::run(&["cluster", "--redis", &empty.url()]).1, "no node has been here\n");
    let Some(mut nodes) = Nodes::certain(2, &[]).await else { return };
    let (url, _phone) = (nodes.redis.url(), nodes[0].sse("bob/phone").await);
    let is_told = |seen: &Value| {
        let rows = seen["nodes"].as_array().expect("nodes");
        rows.iter().any(|it| it["streams"] == 1) && rows.iter().all(|it| it["phase"] == "up")
    };
    let seen = until(async || nodes_of(&url), is_told).await;
    assert_eq!((&seen["sure"], &seen["owes"]), (&json!(true), &json!([])));
    assert_eq!(seen["nodes"].as_array().map(Vec::len), Some(2), "{seen}");
    for node in seen["nodes"].as_array().expect("nodes") {
        assert_eq!((&node["phase"], &node["version"]), (&json!("up"), &json!(env!("CARGO_PKG_VERSION"))), "{node}");
        assert!(node["beat_ms"].as_u64().is_some_and(|age| age < 6_000), "{node}");
    }
    let (_, table, _) = process::run(&["cluster", "--redis", &url]);
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows.len(), 5, "{table}");
    assert_eq!(rows[0], format!("generation {}, sure", seen["generation"].as_u64().expect("a number")));
    assert!(
        rows[2].split_whitespace().eq(["node", "phase", "beat", "streams", "mailboxes", "version", "owes"]),
        "{table}"
    );

    let (dies, stops) = (nodes.nodes.remove(0), nodes.nodes.remove(0));
    dies.signal("KILL");
    let phases = |seen: &Value| {
        let nodes = seen["nodes"].as_array().expect("nodes").iter();
        nodes.map(|node| node["phase"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    until(async || phases(&nodes_of(&url)), |phases| phases.contains(&"dead".to_owned())).await;
    stops.signal("TERM");
    assert_eq!(stops.exited().0, Some(0));
    assert_eq!(phases(&nodes_of(&url)), ["dead"]);

    nodes.redis.kill();
    let (code, out, line) = process::run(&["cluster", "--redis", &url]);
    assert_eq!((code, out.as_str(), line.lines().count()), (Some(1), "", 1), "{line}");
    assert!(line.contains(&nodes.redis.address.to_string()), "{line}");
}

#[tokio::test]
async fn each_change_of_the_link_and_of_the_nodes_is_one_line_of_the_log() {
    let Some(mut nodes) = Nodes::start(2, &[]).await else { return };
    let up = |count| move |text: &String| text.contains(&format!("signal_cluster_nodes{{phase=\"up\"}} {count}"));
    until(|| nodes[0].metrics(), up(2)).await;
    let stops = nodes.nodes.remove(1);
    stops.signal("TERM");
    assert_eq!(stops.exited().0, Some(0));
    until(|| nodes[0].metrics(), up(1)).await;
    nodes.redis.kill();
    nodes[0].degraded().await;
    nodes.redis.restart_empty().await;
    nodes[0].linked().await;
    let node = nodes.nodes.remove(0);
    let preface = node.preface.clone();
    assert!(preface.contains("nodes=\"by 127.0.0.1:") && preface.contains("WARN"), "{preface}");
    node.signal("TERM");
    let (code, log) = node.exited();
    assert_eq!(code, Some(0), "{log}");
    let count = |line: &str| log.matches(line).count();
    assert_eq!(count("the link to Redis is up"), 2, "{log}");
    assert!((1..=4).contains(&count("the link to Redis is down")), "one for each reason: {log}");
    assert_eq!((count("another node is gone"), count("another node is dead")), (1, 0), "{log}");
    let generations: Vec<&str> =
        log.split("generation=").skip(1).filter_map(|rest| rest.split_whitespace().next()).collect();
    assert!(generations.len() == 2 && generations[0] != generations[1], "{generations:?} {log}");
    // That the link ends with the node is no news.
    let after = log.split("draining").nth(1).expect("it drained");
    assert!(!after.contains("the link"), "{log}");
}

#[tokio::test]
async fn what_happens_between_nodes_is_in_the_metrics_of_both_and_a_single_node_has_none_of_them() {
    assert!(!Server::start().await.metrics().await.contains("signal_cluster"));
    let Some(nodes) = Nodes::certain(2, &[]).await else { return };
    let mut phone = nodes[0].sse("bob/phone").await;
    assert_eq!(nodes[1].send("bob/phone", "x").await, 200);
    assert_eq!(phone.data().await, "x");
    let _phone = nodes[1].back("bob/phone", &phone.leave()).await;
    for (node, lines) in [
        (
            &nodes[0],
            &[r#"signal_cluster_moves_total{kind="new"} 1"#, r#"signal_cluster_moves_total{kind="parcel"} 0"#][..],
        ),
        (
            &nodes[1],
            &[
                r#"signal_cluster_requests_total{kind="push",outcome="answered"} 1"#,
                r#"signal_cluster_request_seconds_count{kind="push"} 1"#,
                r#"signal_cluster_requests_total{kind="take",outcome="answered"} 1"#,
                r#"signal_cluster_moves_total{kind="parcel"} 1"#,
                r#"signal_cluster_moves_total{kind="forced"} 0"#,
                "signal_cluster_gave_up_total 0",
                "signal_cluster_mourned_total 0",
            ],
        ),
    ] {
        let generation = format!("signal_cluster_generation {}", nodes_of(&nodes.redis.url())["generation"]);
        let all = ["signal_cluster_link_up 1", &generation, "signal_cluster_entries 1"];
        let has_all = |text: &String| lines.iter().chain(&all).all(|line| text.lines().any(|found| found == *line));
        until(|| node.metrics(), has_all).await;
    }
}
