//! The client commands that send and list: their lines and their exit codes.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{
    Server, claim,
    cli::{self, command, output, run, run_with_input},
    free_address,
    grpc::message,
    process,
    tokens::{SECRET, file},
    until, within,
};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("not one line of JSON: {text}"))
}

#[tokio::test]
async fn send_says_by_a_line_and_by_its_exit_code_what_came_of_the_message() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let sent = run(server.address, &["send", "bob/phone", "hello"]).await;
    assert_eq!(sent, (0, "delivered\n".to_owned(), String::new()));
    let sent = run(server.address, &["send", "bob/phone", "--event", "offer", "--json", "50% - ☎"]).await;
    assert_eq!((sent.0, json_of(&sent.1)), (0, json!({"outcome": "delivered"})), "{sent:?}");
    let messages = [phone.message().await, phone.message().await];
    assert_eq!(messages.each_ref().map(|message| message.data.as_str()), ["hello", "50% - ☎"]);
    assert_eq!(messages[1].name, "offer");

    let as_eva = ["send", "--as", "eva"];
    let to = |arguments: &[&'static str]| [&as_eva[..], arguments].concat();
    let held = run(server.address, &to(&["ana/phone", "--ttl", "30", "later"])).await;
    assert_eq!(held, (3, "held\n".to_owned(), String::new()));
    let held = run(server.address, &to(&["ana/phone", "--ttl", "1m", "--json", "later"])).await;
    assert_eq!((held.0, json_of(&held.1)), (3, json!({"outcome": "held"})));
    for (arguments, code, reason) in [
        (&["ana/laptop", "x"][..], 4, "Not connected."),
        (&["bob/phone", ""], 5, "data"),
        (&["bob/phone", "--ttl", "0", "x", "--as", "eva"], 2, "cannot be used multiple times"),
    ] {
        let (exit, out, err) = run(server.address, &to(arguments)).await;
        assert_eq!((exit, out.as_str(), err.lines().count()), (code, "", 1), "{arguments:?}: {err}");
        assert!(err.starts_with("backend-signal: ") && err.contains(reason), "{arguments:?}: {err}");
    }
    let (exit, out, err) = run(server.address, &to(&["ana/laptop", "--json", "x"])).await;
    assert_eq!((exit, out.as_str()), (4, ""));
    let error = json_of(&err);
    assert!(error["error"].as_str().is_some_and(|line| line.contains("Not connected")) && error["exit"] == 4, "{err}");

    let mut client = server.grpc().await;
    let mut request = message("ana/full", "", "x");
    request.ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    while within(client.send(request.clone())).await.is_ok() {}
    let (exit, out, err) = run(server.address, &to(&["ana/full", "--ttl", "30", "x"])).await;
    assert_eq!((exit, out.as_str(), err.lines().count()), (6, "", 1), "{err}");
    assert!(err.contains("Too many messages") && err.contains("Retry after "), "{err}");
}

#[tokio::test]
async fn a_refusal_is_exit_code_5() {
    let server = Server::with(&["--require-claim", "all", "--allow", "listed:contacts", "--body-limit", "1k"]).await;
    let large = "x".repeat(2_000);
    for (arguments, reason) in [
        (&["devices", "bob"][..], "identity"),
        (&["devices", "--as", "ana", "bob"], "identity lists"),
        (&["subscribe", "--as", "ana"], "device"),
        (&["send", "--as", "ana", "ana/phone", &large], "larger"),
    ] {
        let (exit, out, err) = run(server.address, arguments).await;
        assert_eq!((exit, out.as_str(), err.lines().count()), (5, "", 1), "{arguments:?}: {err}");
        assert!(err.contains(reason), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn a_daemon_that_cannot_be_reached_is_exit_code_7() {
    let closed = free_address();
    for arguments in
        [&["send", "bob/phone", "x"][..], &["devices", "bob"], &["watch", "bob"], &["subscribe", "--as", "bob/a"]]
    {
        let (exit, out, err) = run(closed, arguments).await;
        assert_eq!((exit, out.as_str(), err.lines().count()), (7, "", 1), "{arguments:?}: {err}");
        assert!(err.contains("no connection to the daemon") && err.contains("refused"), "{err}");
    }
    // The default port of something else, and a name that does not exist.
    let (exit, _, err) = output(&mut command(&["devices", "--url", "http://no-such-host.invalid", "bob"])).await;
    assert_eq!((exit, err.lines().count()), (7, 1), "{err}");
}

#[tokio::test]
async fn broadcast_and_devices_write_one_id_on_each_line_as_a_command_line_takes_it() {
    let server = Server::start().await;
    let _streams = [server.sse("bob/a/b").await, server.sse("bob/50%").await, server.sse("bob/☎ x").await];
    let none = run(server.address, &["devices", "ana"]).await;
    assert_eq!(none, (0, String::new(), String::new()));
    let listed = run(server.address, &["devices", "bob"]).await;
    assert_eq!(listed, (0, "50%25\na%2Fb\n☎ x\n".to_owned(), String::new()));
    let listed = run(server.address, &["devices", "--json", "bob"]).await;
    assert_eq!(json_of(&listed.1), json!({"user": "bob", "devices": ["50%", "a/b", "☎ x"]}));
    for id in ["50%25", "a%2Fb", "☎ x"] {
        assert_eq!(run(server.address, &["send", &format!("bob/{id}"), "x"]).await.0, 0, "{id}");
    }
    let sent = run(server.address, &["broadcast", "bob", "--event", "ring", "all"]).await;
    assert_eq!(sent, (0, "50%25\na%2Fb\n☎ x\n".to_owned(), String::new()));
    let sent = run(server.address, &["broadcast", "--json", "bob", "all"]).await;
    assert_eq!((sent.0, json_of(&sent.1)), (0, json!({"delivered": ["50%", "a/b", "☎ x"]})));
    assert_eq!(run(server.address, &["broadcast", "ana", "all"]).await.0, 4);
}

#[tokio::test]
async fn send_reads_standard_input_as_it_is() {
    let server = Server::start().await;
    let mut phone = server.grpc_stream("bob/phone", "").await.expect("a stream");
    for text in ["one\ntwo\r\n", " ☎ "] {
        let sent = run_with_input(server.address, &["send", "bob/phone", "-"], text.as_bytes()).await;
        assert_eq!(sent.0, 0, "{sent:?}");
        assert_eq!(phone.data().await, text);
    }
    let large = vec![b'x'; (1 << 20) + 1];
    for (input, reason) in [(&b"\xff"[..], "not UTF-8"), (b"", "data"), (&*large, "larger than any")] {
        let (exit, out, err) = run_with_input(server.address, &["send", "bob/phone", "-"], input).await;
        assert_eq!((exit, out.as_str(), err.lines().count()), (5, "", 1), "{err}");
        assert!(err.contains(reason), "{err}");
    }
}

#[tokio::test]
async fn a_wrong_command_line_is_one_line_and_exit_code_2() {
    let nowhere = format!("{}/nothing.pem", env!("CARGO_TARGET_TMPDIR"));
    let many: Vec<_> = ["watch"].into_iter().chain([["a"; 65]].concat()).collect();
    for arguments in [
        &["send"][..],
        &["send", "bob/phone"],
        &["send", "bob", "x"],
        &["send", "bob/a/b", "x"],
        &["send", "bob/..", "x"],
        &["send", "bob/phone", "x", "y"],
        &["send", "bob/phone", "--event", "signal.x", "x"],
        &["send", "bob/phone", "--ttl", "soon", "x"],
        &["send", "bob/phone", "--evnet=a", "x"],
        &["send", "--url", "localhost:1837", "bob/phone", "x"],
        &["send", "--url", "https://a.example", "--ca", &nowhere, "bob/phone", "x"],
        &["send", "--token-file", &nowhere, "bob/phone", "x"],
        &["send", "--as", "a", "--device", "b", "bob/phone", "x"],
        &["send", "--as", "a", "--token-file", &nowhere, "bob/phone", "x"],
        &["send", "--port", "1837", "bob/phone", "x"],
        &["--port", "1837", "send", "bob/phone", "x"],
        &["--auth", "none", "devices", "bob"],
        &["devices"],
        &["broadcast", "bob/phone", "x"],
        &["subscribe", "--count", "0"],
        &["subscribe", "--raw", "--json"],
        &["subscribe", "bob/phone"],
        &["watch"],
        &many,
        &["token", "--as", "bob"],
        &["token", "--as", "bob", "--secret-file", &nowhere],
        &["call-test", "--as", "bob/phone"],
        &["completions"],
        &["completions", "tcsh"],
        &["completions", "--port", "1", "bash"],
        &["man", "nothing"],
    ] {
        let (exit, out, err) = output(&mut command(arguments)).await;
        assert_eq!((exit, out.as_str(), err.lines().count()), (2, "", 1), "{arguments:?}: {err}");
        assert!(err.starts_with("backend-signal: "), "{err}");
    }
    let mut both = command(&["devices", "--as", "bob", "bob"]);
    let (exit, _, err) = output(both.env("SIGNAL_TOKEN", "secret-token")).await;
    assert!(
        exit == 2 && err.contains("SIGNAL_TOKEN already says who you are") && !err.contains("secret-token"),
        "{err}"
    );
    let (exit, _, err) = output(command(&["devices", "bob"]).env("SIGNAL_URL", "nonsense")).await;
    assert!(exit == 2 && err.contains("from the variable SIGNAL_URL"), "{err}");
}

#[tokio::test]
async fn the_variables_of_the_daemon_and_of_its_clients_do_not_disturb_each_other() {
    let server = Server::start().await;
    let url = format!("http://{}", server.address);
    let mut listing = command(&["devices", "bob"]);
    listing.envs([("SIGNAL_URL", url.as_str()), ("PORT", "x"), ("SIGNAL_AUTH", "nonsense"), ("SIGNAL_CA", "")]);
    assert_eq!(output(&mut listing).await, (0, String::new(), String::new()));
    let of_clients =
        ["SIGNAL_URL", "SIGNAL_TOKEN", "SIGNAL_TOKEN_FILE", "SIGNAL_CA", "SIGNAL_CERT", "SIGNAL_KEY", "SIGNAL_TENANT"];
    let mut checked = process::command();
    checked.args(["check-config", "--host", "127.0.0.1"]).envs(of_clients.map(|name| (name, "x")));
    let checked = checked.output().expect("the executable");
    assert_eq!((checked.status.code(), checked.stderr.len()), (Some(0), 0), "{checked:?}");
}

#[tokio::test]
async fn help_of_a_client_command_has_its_options_its_exit_codes_and_no_value_of_a_token() {
    for arguments in [&["send", "--help"][..], &["help", "send"]] {
        let (exit, out, err) = output(cli::command(arguments).env("SIGNAL_TOKEN", "secret-token")).await;
        assert_eq!((exit, err.as_str()), (0, ""));
        for part in ["--url", "--as", "--token-file", "SIGNAL_TOKEN", "--ttl", "Exit codes: 0 delivered"] {
            assert!(out.contains(part), "{part}: {out}");
        }
        for part in ["secret-token", "--port", "--tls-cert", "[env: PORT"] {
            assert!(!out.contains(part), "{part}: {out}");
        }
    }
    let (_, out, _) = output(&mut command(&["--help"])).await;
    for name in ["subscribe", "send", "broadcast", "devices", "watch", "ice", "call-test", "token"] {
        assert!(out.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))), "{name}: {out}");
    }
}

#[tokio::test]
async fn ice_writes_what_the_http_api_answers() {
    let secret = file("cli-turn-secret", SECRET);
    let turn =
        ["--stun", "stun:a.example:3478", "--turn", "turn:a.example?transport=udp", "--turn-secret-file", &secret];
    let server = Server::with(&turn).await;
    let bob = claim("bob/phone");
    let (written, answered) = until(
        async || {
            let written = run(server.address, &["ice", "--as", "bob/phone"]).await;
            let answer = server.request("GET /ice", &[("x-user-claim", &bob)], b"").await.text();
            assert_eq!((written.0, written.2.as_str()), (0, ""));
            (json_of(&written.1), json_of(&answer))
        },
        // The second in which the credentials expire is in their name, so both have to be made in the same one.
        |(written, answered)| written == answered,
    )
    .await;
    assert_eq!((written["iceServers"].as_array().map(Vec::len), &written), (Some(2), &answered));
    let only_stun = Server::with(&["--stun", "stun:a.example"]).await;
    let written = json_of(&run(only_stun.address, &["ice"]).await.1);
    assert_eq!(written["iceServers"], json!([{"urls": ["stun:a.example"]}]));
    assert_eq!(run(server.address, &["ice"]).await.0, 5, "TURN needs an identity");
    let none = Server::start().await;
    let (exit, out, err) = run(none.address, &["ice", "--as", "bob"]).await;
    assert_eq!((exit, out.as_str(), err.lines().count()), (4, "", 1), "{err}");
}

#[tokio::test]
async fn completions_and_man_pages_know_the_options_of_each_subcommand() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (exit, out, err) = output(command(&["completions", shell]).env("PORT", "x")).await;
        assert_eq!((exit, err.as_str()), (0, ""), "{shell}");
        for word in ["call-test", "token-file", "trusted-proxies"] {
            assert!(out.contains(word), "{shell}: {word}");
        }
    }
    let check = "source /dev/stdin; function=$(complete -p backend-signal); function=${function#*-F }; \
                 COMP_WORDS=(backend-signal send --t) COMP_CWORD=2; ${function%% *} backend-signal --t send; \
                 echo ${COMPREPLY[*]}";
    let (_, script, _) = output(&mut command(&["completions", "bash"])).await;
    let mut bash = tokio::process::Command::new("bash");
    bash.args(["-c", check]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut bash = bash.spawn().expect("bash");
    let mut input = bash.stdin.take().expect("standard input");
    within(input.write_all(script.as_bytes())).await.expect("reads");
    drop(input);
    let completed = within(bash.wait_with_output()).await.expect("ends");
    let completed = String::from_utf8(completed.stdout).expect("UTF-8");
    assert_eq!(
        completed.split_whitespace().collect::<Vec<_>>(),
        ["--token-file", "--tenant", "--ttl"],
        "no option of the daemon"
    );

    let (exit, page, err) = output(command(&["man"]).env("SIGNAL_AUTH", "secret-value")).await;
    assert_eq!((exit, err.as_str()), (0, ""));
    assert!(page.contains(".TH backend\\-signal") || page.contains(".TH backend-signal"), "{page}");
    assert!(page.contains("SIGNAL_AUTH") && page.contains("trusted") && !page.contains("secret-value"), "{page}");
    let (exit, page, _) = output(&mut command(&["man", "send"])).await;
    assert!(exit == 0 && page.contains("ttl") && !page.contains("PORT") && page.contains("Exit codes"), "{page}");
}
