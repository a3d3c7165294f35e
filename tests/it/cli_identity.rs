//! Whom a client command talks to and as whom: TLS, tokens, devices, and paths of a proxy.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    client_certificates::{Asking, client, issuer},
    harness::{
        Server,
        cli::{Running, against, command, output, run},
        nginx::Nginx,
        tokens::{self, SECRET, Signer, file, seconds_from_now},
    },
    serve::tempfiles,
};

async fn with_secret(secret: &str) -> Server {
    Server::with(&["--auth", "jwt", "--jwt-secret-file", secret]).await
}

/// A token that the command `token` makes.
async fn token(arguments: &[&str]) -> String {
    let (exit, out, err) = output(&mut command(&[&["token"], arguments].concat())).await;
    assert_eq!((exit, err.as_str(), out.lines().count()), (0, "", 1), "{arguments:?}");
    out.trim_end().to_owned()
}

fn claims(token: &str) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("three parts")).expect("base64");
    serde_json::from_slice(&claims).expect("JSON")
}

#[tokio::test]
async fn a_client_trusts_the_authorities_that_it_is_given_and_no_others() {
    let identity = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let [certificate, key] = tempfiles("cli", &identity());
    let [other, _] = tempfiles("cli-other", &identity());
    let server = Server::with(&["--tls-cert", &certificate, "--tls-key", &key]).await;
    let url = format!("https://localhost:{}", server.address.port());
    let devices = |more: &[&str]| command(&[&["devices", "--url", &url], more, &["bob"]].concat());
    assert_eq!(output(&mut devices(&["--ca", &certificate])).await, (0, String::new(), String::new()));
    assert_eq!(output(devices(&[]).env("SIGNAL_CA", &certificate)).await.0, 0);
    for more in [&["--ca", &other][..], &[]] {
        let (exit, out, err) = output(&mut devices(more)).await;
        assert_eq!((exit, out.as_str(), err.lines().count()), (7, "", 1), "{more:?}: {err}");
        assert!(err.contains("certificate") || err.contains("authorities"), "{more:?}: {err}");
    }
    let (exit, _, err) = output(&mut devices(&["--ca", &key])).await;
    assert!(exit == 2 && err.contains("no certificate"), "{err}");
    let (exit, out, err) = output(&mut command(&["call-test", "--url", &url, "--ca", &certificate])).await;
    assert!(exit == 0 && out.contains("passed"), "{out}{err}");
}

#[tokio::test]
async fn a_token_that_the_command_makes_is_good_for_a_daemon_with_the_same_secret() {
    let secret = file("cli-secret", SECRET);
    let server = with_secret(&secret).await;
    let bound = token(&["--secret-file", &secret, "--as", "bob/phone"]).await;
    let mut phone = Running::spawn(against(server.address, &["subscribe"]).env("SIGNAL_TOKEN", &bound));
    assert!(phone.state().await.contains("connected as bob/phone"));
    let user = token(&["--secret-file", &secret, "--as", "ana%2F1", "--expires", "2m"]).await;
    let user = file("cli-token", format!("{user}\n"));
    let sent = run(server.address, &["send", "--token-file", &user, "--device", "a b", "bob/phone", "x"]).await;
    assert_eq!(sent.0, 0, "{sent:?}");
    assert_eq!(phone.line().await, "ana%2F1/a b: x");
    // Nobody, and somebody whose token another secret has signed.
    let (exit, _, err) = run(server.address, &["devices", "bob"]).await;
    assert_eq!((exit, err.lines().count()), (5, 1), "{err}");
    let other = file("cli-other-secret", "another secret, which is also at least 32 bytes");
    let other = token(&["--secret-file", &other, "--as", "bob"]).await;
    let (exit, _, err) = output(against(server.address, &["devices", "bob"]).env("SIGNAL_TOKEN", &other)).await;
    assert!(exit == 5 && !err.contains(&other), "{err}");
}

#[tokio::test]
async fn a_token_has_the_claims_that_were_asked_for() {
    let secret = file("cli-claims-secret", format!("{SECRET}\n"));
    let made = ["--secret-file", &secret, "--as", "bob/phone", "--expires", "90"];
    let more = ["--claim", "contacts=[\"ana\"]", "--claim", "tenant=acme", "--claim", "aud=a=b", "--claim", "n=7"];
    let token = token(&[&made[..], &more].concat()).await;
    let claims = claims(&token);
    let expires = claims["exp"].as_i64().expect("a time");
    assert!((seconds_from_now(80)..=seconds_from_now(90)).contains(&expires), "{claims}");
    let expected = json!({"userid": "bob", "clientid": "phone", "contacts": ["ana"], "tenant": "acme", "aud": "a=b",
        "n": 7, "iat": claims["iat"], "exp": expires});
    assert_eq!(claims, expected);
    let short = file("cli-short-secret", "short");
    for (arguments, reason) in [
        (&["--secret-file", &short, "--as", "bob"][..], "less than 32 bytes"),
        (&["--secret-file", &secret, "--as", "bob", "--claim", "exp=1"], "exp"),
        (&["--secret-file", &secret, "--as", "bob", "--claim", "x"], "NAME=VALUE"),
        (&["--secret-file", &secret, "--as", "bob", "--expires", "0"], "at least 1 second"),
        (&["--secret-file", tokens::RSA_PUBLIC, "--as", "bob"], ""),
    ] {
        let (exit, out, err) = output(&mut command(&[&["token"], arguments].concat())).await;
        assert_eq!((exit, out.as_str(), err.lines().count()), (2, "", 1), "{arguments:?}: {err}");
        assert!(err.contains(reason), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn subscribe_goes_on_with_a_new_token_of_its_file_and_ends_when_there_is_none() {
    let secret = file("cli-expiry-secret", SECRET);
    let server = with_secret(&secret).await;
    let sign = |seconds| {
        let claims = json!({"userid": "bob", "clientid": "phone", "exp": seconds_from_now(seconds)});
        Signer::secret(SECRET).sign(&json!({"alg": "HS256"}), &claims)
    };
    let short = file("cli-expiring", sign(3));
    let mut phone = Running::spawn(&mut against(server.address, &["subscribe", "--json", "--token-file", &short]));
    assert_eq!(phone.json_state().await["state"], "connected");
    std::fs::write(&short, sign(60)).expect("writable");
    let lost = phone.json_state().await;
    assert!(lost["reason"].as_str().is_some_and(|reason| reason.contains("has a new one")), "{lost}");
    let state = phone.json_state().await;
    assert_eq!((&state["state"], &state["continuity"]), (&json!("connected"), &json!("resumed")));
    phone.signal("INT");
    assert_eq!(phone.ended().await.0, Some(0));
    let mut phone = Running::spawn(against(server.address, &["subscribe"]).env("SIGNAL_TOKEN", sign(1)));
    phone.state().await;
    let (exit, lines) = phone.ended().await;
    assert_eq!((exit, lines), (Some(5), vec!["backend-signal: the token has expired".to_owned()]));
}

#[tokio::test]
async fn the_path_of_the_url_goes_before_the_paths_of_the_daemon() {
    let server = Server::start().await;
    let daemon = server.address;
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let [certificate, key] = tempfiles("cli-path", &identity);
    let http = format!(
        "server {{ listen {{address}} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key};
         location /signal/ {{ rewrite ^/signal(/.*)$ $1 break; proxy_http_version 1.1; proxy_buffering off;
         proxy_pass http://{daemon}; }}
         location /signal/backend_signal.v1.Signal/ {{ rewrite ^/signal(/.*)$ $1 break; grpc_pass grpc://{daemon}; }} }}"
    );
    let Some(nginx) = Nginx::with("cli-path", &http).await else { return };
    let at = |path: &str| format!("https://localhost:{}{path}", nginx.address.port());
    for path in ["/signal", "/signal/"] {
        let to = ["--url", &at(path), "--ca", &certificate];
        let listed = output(&mut command(&[&["devices"], &to[..], &["bob"]].concat())).await;
        assert_eq!(listed, (0, String::new(), String::new()));
        let (exit, out, err) = output(&mut command(&[&["call-test"], &to[..]].concat())).await;
        assert!(exit == 0 && out.contains("passed"), "{out}{err}");
    }
    let elsewhere = ["devices", "--url", &at(""), "--ca", &certificate, "bob"];
    let (exit, _, err) = output(&mut command(&elsewhere)).await;
    assert_eq!((exit, err.lines().count()), (7, 1), "without the path it is not the daemon: {err}");
    assert!(err.contains("the answer is not gRPC"), "{err}");
}

#[tokio::test]
async fn a_client_with_a_certificate_is_the_user_of_its_common_name() {
    let issuer = issuer();
    let options = ["--require-claim", "all"];
    let asking = Asking::start("cli-certified", &issuer, &options).await;
    let url = format!("https://localhost:{}", asking.server.address.port());
    let ca = format!("{}/cli-certified-certificate.pem", env!("CARGO_TARGET_TMPDIR"));
    let (certificate, key) = client(&issuer, &["back end"]);
    let pem =
        |label: &str, der: &[u8]| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    let certificate = file("cli-client-cert.pem", pem("CERTIFICATE", &certificate));
    let key = file("cli-client-key.pem", pem("PRIVATE KEY", key.secret_der()));
    let with =
        |more: &[&str], rest: &[&str]| command(&[&rest[..1], &["--url", &url, "--ca", &ca], more, &rest[1..]].concat());
    let certified = ["--cert", certificate.as_str(), "--key", key.as_str()];

    assert_eq!(output(&mut with(&certified, &["devices", "bob"])).await, (0, String::new(), String::new()));
    assert_eq!(output(&mut with(&[], &["devices", "bob"])).await.0, 5, "without it nobody knows the caller");
    let mut own = Running::spawn(&mut with(&certified, &["subscribe", "--device", "one", "--json"]));
    assert_eq!(own.json_state().await["user"], "cert:back end");
    let (exit, out, err) = output(&mut with(&certified, &["call-test"])).await;
    assert_eq!((exit, err.as_str()), (0, ""), "{out}");

    for (options, reason) in [
        (&["--cert", certificate.as_str()][..], "--key"),
        (&["--key", key.as_str()], "--cert"),
        (&["--cert", key.as_str(), "--key", key.as_str()], "the file has no certificate"),
        (&["--cert", certificate.as_str(), "--key", certificate.as_str()], "no private key"),
        (&["--cert", certificate.as_str(), "--key", "/nowhere"], "/nowhere: "),
    ] {
        let (exit, out, err) = output(&mut with(options, &["devices", "bob"])).await;
        assert_eq!((exit, out.as_str()), (2, ""), "{options:?}: {err}");
        assert!(err.contains(reason), "{options:?}: {err}");
    }
    let mut plain = command(&[&["devices", "--url", "http://localhost:1"], &certified[..], &["bob"]].concat());
    let (exit, _, err) = output(&mut plain).await;
    assert!(exit == 2 && err.contains("--cert needs a --url with https"), "{err}");
    let (exit, _, err) = output(&mut with(&certified, &["call-test", "--peer", "bob"])).await;
    assert!(exit == 2 && err.contains("--peer has no place"), "{err}");
}

#[tokio::test]
async fn a_backend_names_the_tenant_in_which_it_works() {
    let secret = file("cli-tenants-secret", SECRET);
    let tenants = ["--tenant-claim", "org", "--service-claim", "backend"];
    let server = Server::with(&[&["--auth", "jwt", "--jwt-secret-file", &secret], &tenants[..]].concat()).await;
    let bob = token(&["--secret-file", &secret, "--as", "bob", "--claim", "org=\"a/c me\""]).await;
    let backend = token(&["--secret-file", &secret, "--as", "backend", "--claim", "backend=true"]).await;
    let subscribe = ["subscribe", "--device", "phone", "--raw"];
    let mut phone = Running::spawn(against(server.address, &subscribe).env("SIGNAL_TOKEN", bob));
    phone.state().await;
    let send = |tenant: &str| {
        let mut send = against(server.address, &["send", "--tenant", tenant, "bob/phone", "hello"]);
        send.env("SIGNAL_TOKEN", &backend);
        send
    };
    assert_eq!(output(&mut send("other")).await.0, 4);
    assert_eq!(output(&mut send("a%2Fc me")).await.0, 0);
    assert_eq!(phone.line().await, "hello");
    let (exit, _, err) = output(&mut send("a/c me")).await;
    assert!(exit == 2 && err.contains("%2F"), "{err}");
}
