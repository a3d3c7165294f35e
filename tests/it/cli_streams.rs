//! The client commands that follow a stream: what they write, how they come back after a cut, and how they end.

use serde_json::{Value, json};

use crate::harness::{
    Process, Server,
    cli::{Running, against, run},
    grpc::{claimed, message},
    process,
    proxy::Proxy,
    until, within,
};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("not one line of JSON: {text}"))
}

fn subscribe(server: std::net::SocketAddr, more: &[&str]) -> Running {
    Running::spawn(&mut against(server, &[&["subscribe", "--as", "bob/phone"], more].concat()))
}

#[tokio::test]
async fn subscribe_writes_messages_as_text_as_data_or_as_json() {
    let server = Server::start().await;
    let data = "one\ntwo\u{1b}[2J ☎";
    for (more, line) in [
        (&[][..], "ana/a%2Fb offer: one\\ntwo\\u{1b}[2J ☎"),
        (&["--raw"], "one"),
        (&["--json"], r#"{"user":"ana","device":"a/b"}"#),
    ] {
        let mut phone = subscribe(server.address, &[more, &["--count", "1"]].concat());
        let state = phone.state().await;
        assert!(state.starts_with("backend-signal: connected as bob/phone, ") || *more == ["--json"], "{state}");
        let request = claimed("ana/a/b", message("bob/phone", "offer", data));
        within(server.grpc().await.send(request)).await.expect("sent");
        let first = phone.line().await;
        match more {
            ["--raw"] => assert_eq!((first.as_str(), phone.line().await.as_str()), (line, "two\u{1b}[2J ☎")),
            ["--json"] => {
                let message = json_of(&first);
                let from = json_of(line);
                let expected = (&from, &json!("offer"), &json!(data));
                assert_eq!((&message["from"], &message["event"], &message["data"]), expected);
                let keys: Vec<_> = message.as_object().expect("an object").keys().map(String::as_str).collect();
                assert_eq!(keys, ["cursor", "data", "event", "from", "sent_at"]);
                assert!(message["sent_at"].as_str().is_some_and(|at| at.len() == 24 && at.ends_with('Z')), "{first}");
            }
            _ => assert_eq!(first, line),
        }
        assert_eq!(phone.ended().await, (Some(0), Vec::new()), "{more:?}");
        // Not connected, so that the next one is no takeover.
        until(async || server.devices("bob").await, |devices| devices == "[]").await;
    }
    let mut phone = subscribe(server.address, &["--json", "--count", "1"]);
    phone.state().await;
    assert_eq!(run(server.address, &["send", "bob/phone", "x"]).await.0, 0);
    let anonymous = json_of(&phone.line().await);
    assert_eq!((&anonymous["from"], &anonymous["event"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_cursor_continues_an_earlier_stream() {
    let server = Server::start().await;
    let mut phone = subscribe(server.address, &["--json", "--count", "1"]);
    assert_eq!(phone.json_state().await["continuity"], "new");
    assert_eq!(run(server.address, &["send", "bob/phone", "one"]).await.0, 0);
    let one = json_of(&phone.line().await);
    assert_eq!(phone.ended().await.0, Some(0));
    let held = run(server.address, &["send", "bob/phone", "--ttl", "30", "two"]).await.0;
    assert!([0, 3].contains(&held));
    let cursor = one["cursor"].as_str().expect("a cursor");
    let mut phone = subscribe(server.address, &["--json", "--count", "1", "--cursor", cursor]);
    let state = phone.json_state().await;
    assert_eq!((&state["state"], &state["continuity"]), (&json!("connected"), &json!("resumed")), "{state}");
    assert_eq!(json_of(&phone.line().await)["data"], "two");
}

#[tokio::test]
async fn subscribe_loses_and_repeats_nothing_while_its_connection_is_cut_again_and_again() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.address, 7).await;
    let mut phone = loop {
        // The first connection may be cut before the stream begins, and then the command ends.
        let mut phone = subscribe(proxy.address, &["--json", "--count", "40"]);
        let state = phone.json_state().await;
        if state["state"] == "connected" {
            break phone;
        }
    };
    let mut client = server.grpc().await;
    for number in 0..40 {
        let mut request = message("bob/phone", "", &number.to_string());
        request.ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        within(client.send(request)).await.expect("accepted");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(json_of(&phone.line().await)["data"], number.to_string());
    }
    proxy.heal();
    let (exit, states) = phone.ended().await;
    assert_eq!(exit, Some(0), "{states:?}");
    let states: Vec<_> = states.iter().map(|line| json_of(line)).collect();
    let connected = states.iter().filter(|state| state["state"] == "connected");
    assert!(connected.clone().all(|state| state["continuity"] == "resumed"), "{states:?}");
    assert!(connected.count() > 0, "the proxy has cut nothing: {states:?}");
}

#[tokio::test]
async fn subscribe_and_watch_come_back_after_a_restart_of_the_daemon() {
    let daemon = Process::start(&["--drain-window", "100ms"]);
    let (address, port) = (daemon.address, daemon.address.port().to_string());
    let mut phone = subscribe(address, &["--json", "--count", "2"]);
    assert_eq!(phone.json_state().await["state"], "connected");
    let mut watch = Running::spawn(&mut against(address, &["watch", "--json", "bob"]));
    assert_eq!(json_of(&watch.line().await), json!({"event": "devices", "user": "bob", "devices": ["phone"]}));
    assert_eq!(run(address, &["send", "bob/phone", "one"]).await.0, 0);
    assert_eq!(json_of(&phone.line().await)["data"], "one");
    daemon.signal("TERM");
    assert_eq!(daemon.exited().0, Some(0));
    let lost = phone.json_state().await;
    assert_eq!((&lost["state"], &lost["reason"]), (&json!("lost"), &json!("the daemon is stopping")), "{lost}");
    assert!(lost["retry_ms"].as_u64().is_some_and(|pause| pause <= 500), "{lost}");
    let _again = Process::spawn(process::command().args(["--host", "127.0.0.1", "--port", &port]));
    let state = loop {
        let state = phone.json_state().await;
        if state["state"] == "connected" {
            break state;
        }
    };
    assert_eq!(state["continuity"], "broken", "the new process does not know what the old one had");
    assert_eq!(run(address, &["send", "bob/phone", "two"]).await.0, 0);
    assert_eq!(json_of(&phone.line().await)["data"], "two");
    assert_eq!(phone.ended().await.0, Some(0));
    // Which of them came back first is chance.
    let again = json_of(&watch.line().await);
    assert_eq!((&again["event"], &again["user"]), (&json!("devices"), &json!("bob")));
}

#[tokio::test]
async fn a_newer_stream_of_the_device_ends_subscribe_with_exit_code_8() {
    let server = Server::start().await;
    let mut first = subscribe(server.address, &[]);
    first.state().await;
    let mut second = subscribe(server.address, &[]);
    second.state().await;
    let (exit, lines) = first.ended().await;
    assert_eq!((exit, lines.len()), (Some(8), 1), "{lines:?}");
    assert!(lines[0].contains("superseded"), "{lines:?}");
    assert_eq!(server.devices("bob").await, r#"["phone"]"#);
}

#[tokio::test]
async fn a_reader_that_closes_the_pipe_ends_a_stream_quietly_though_nothing_more_comes() {
    let server = Server::start().await;
    let mut phone = subscribe(server.address, &[]);
    phone.state().await;
    assert_eq!(run(server.address, &["send", "bob/phone", "one"]).await.0, 0);
    phone.line().await;
    phone.close_output();
    assert_eq!(phone.ended().await, (Some(0), Vec::new()));
    let mut watch = Running::spawn(&mut against(server.address, &["watch", "bob"]));
    watch.line().await;
    watch.close_output();
    assert_eq!(watch.ended().await, (Some(0), Vec::new()));
    // Closed before anything is written, and not a pipe at all.
    let mut phone = subscribe(server.address, &[]);
    phone.close_output();
    assert_eq!(phone.ended().await.0, Some(0));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
    let mut full = Running::spawn(against(server.address, &["watch", "bob"]).stdout(full));
    let failed = full.state().await;
    assert!(failed.contains("cannot write"), "{failed}");
    assert_eq!(full.ended().await.0, Some(1));
}

#[tokio::test]
async fn a_signal_ends_a_stream_with_exit_code_0_and_anything_unfinished_with_7() {
    let server = Server::start().await;
    for signal in ["INT", "TERM", "HUP"] {
        let mut phone = subscribe(server.address, &[]);
        phone.state().await;
        phone.signal(signal);
        assert_eq!(phone.ended().await, (Some(0), Vec::new()), "{signal}");
    }
    let mut counted = subscribe(server.address, &["--count", "1"]);
    counted.state().await;
    counted.signal("INT");
    let (exit, lines) = counted.ended().await;
    assert_eq!((exit, lines.len()), (Some(7), 1), "{lines:?}");
    // It waits for standard input, which nobody closes.
    let mut sending = against(server.address, &["send", "bob/phone", "-"]);
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let sending = Running::spawn(sending.stdin(reader));
    until(async || sending.handles_signals(), |handles| *handles).await;
    sending.signal("TERM");
    assert_eq!(sending.ended().await.0, Some(7));
}

#[tokio::test]
async fn watch_writes_the_lists_and_then_every_change() {
    let server = Server::start().await;
    let _tablet = server.sse("bob/tab/let").await;
    let mut text = Running::spawn(&mut against(server.address, &["watch", "ana", "bob"]));
    let mut lists = [text.line().await, text.line().await];
    lists.sort();
    assert_eq!(lists, ["ana: none", "bob: tab%2Flet"]);
    let mut json = Running::spawn(&mut against(server.address, &["watch", "--json", "bob"]));
    assert_eq!(json_of(&json.line().await), json!({"event": "devices", "user": "bob", "devices": ["tab/let"]}));
    let phone = server.sse("bob/phone").await;
    assert_eq!(text.line().await, "+ bob/phone");
    assert_eq!(json_of(&json.line().await), json!({"event": "online", "user": "bob", "device": "phone"}));
    drop(phone);
    assert_eq!(text.line().await, "- bob/phone");
    assert_eq!(json_of(&json.line().await), json!({"event": "offline", "user": "bob", "device": "phone"}));
    json.signal("INT");
    assert_eq!(json.ended().await, (Some(0), Vec::new()));
}
