//! How options and variables are checked: units, contradictions, warnings, `--dev` and `check-config`.

use crate::{
    harness::{
        Process, process,
        tokens::{RSA, RSA_PUBLIC, SECRET, file, jwks, rsa_jwk},
    },
    serve::tempfiles,
};

/// The exit code of the daemon with these options and variables, its standard output and its standard error.
fn run(options: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = process::command().args(options).envs(variables.iter().copied()).output().expect("the executable");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Options that contradict each other, each with what its line must name. Add a row for every new one.
const CONTRADICTIONS: &[(&[&str], &[&str])] = &[
    (&["--tls-cert", "x"], &["--tls-cert", "--tls-key"]),
    (&["--tls-key", "x"], &["--tls-cert", "--tls-key"]),
    (&["--tls-client-ca", "x"], &["--tls-client-ca", "--tls-cert", "--tls-key"]),
    (&["--dev", "--auth", "claim"], &["--dev", "--auth none"]),
    (&["--dev", "--auth", "jwt"], &["--dev", "--auth none"]),
    (&["--dev", "--require-claim", "all"], &["--require-claim", "--auth none"]),
    (&["--auth", "none", "--require-claim", "all"], &["--require-claim", "--auth none"]),
    (&["--auth", "jwt", "--require-claim", "all"], &["--auth jwt"]),
    (&["--auth", "jwt"], &["--auth jwt", "--jwt-secret-file", "--jwt-public-key", "--jwks"]),
    (&["--auth", "jwt", "--jwt-secret-file", "x", "--jwks", "x"], &["--jwt-secret-file", "--jwt-public-key", "--jwks"]),
    (&["--auth", "jwt", "--jwks", "x"], &["--jwks needs --jwt-audience"]),
    (&["--jwt-secret-file", "x"], &["--jwt-secret-file needs --auth jwt"]),
    (&["--jwt-public-key", "x"], &["--jwt-public-key needs --auth jwt"]),
    (&["--jwks", "x", "--jwt-audience", "a"], &["--jwks needs --auth jwt"]),
    (&["--jwt-audience", "a"], &["--jwt-audience needs --auth jwt"]),
    (&["--jwt-issuer", "a"], &["--jwt-issuer needs --auth jwt"]),
    (&["--jwt-user-claim", "a"], &["--jwt-user-claim needs --auth jwt"]),
    (&["--jwt-device-claim", "a"], &["--jwt-device-claim needs --auth jwt"]),
    (&["--auth", "none", "--token-cookie", "a"], &["--token-cookie needs --auth jwt"]),
    (&["--ticket-key-file", "x"], &["--ticket-key-file needs --auth jwt"]),
    (&["--turn", "turn:a"], &["--turn needs --turn-secret-file"]),
    (&["--turn-secret-file", "x"], &["--turn-secret-file needs --turn"]),
    (&["--stun", "stun:a", "--turn-secret-file", "x"], &["--turn-secret-file needs --turn"]),
    (&["--stun", "stun:a", "--turn-ttl", "3600"], &["--turn-ttl needs --turn"]),
    (&["--client-address", "forwarded"], &["--client-address needs --trusted-proxies"]),
    (&["--dev", "--host", "192.0.2.1"], &["--dev", "--host", "192.0.2.1"]),
    (&["--dev", "--host", "0.0.0.0"], &["--dev", "--host", "0.0.0.0"]),
    (&["--dev", "--host", "::"], &["--dev", "--host", "::"]),
    (&["--dev", "--host", "::ffff:192.0.2.1"], &["--dev", "--host", "192.0.2.1"]),
];

#[test]
fn options_that_contradict_each_other_are_one_line_and_exit_code_2() {
    for (options, named) in CONTRADICTIONS {
        for command in ["check-config", "serve"] {
            let (code, out, log) = run(&[&[command, "--port", "0"], *options].concat(), &[]);
            assert_eq!((code, out.as_str(), log.lines().count()), (Some(2), "", 1), "{command} {options:?}: {log}");
            for name in *named {
                assert!(log.contains(name), "{command} {options:?} must name {name}: {log}");
            }
        }
    }
}

#[test]
fn a_refusal_that_no_single_value_causes_names_the_variables_too() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let nowhere = format!("{}/nothing.pem", env!("CARGO_TARGET_TMPDIR"));
    for (options, variables, ending) in [
        (&["--host", "127.0.0.1"][..], &[("PORT", port.as_str())][..], " (from the variable PORT)\n"),
        (&[], &[("PORT", &port), ("SIGNAL_HOST", "127.0.0.1")], " (from the variables PORT and SIGNAL_HOST)\n"),
        (&[], &[("SIGNAL_HOST", "no-such-host.invalid")], " (from the variable SIGNAL_HOST)\n"),
        (&["--tls-cert", "x"], &[("SIGNAL_TLS_KEY", "")], "--tls-cert needs --tls-key\n"),
        (&[], &[("SIGNAL_TLS_KEY", "x")], "--tls-key needs --tls-cert (from the variable SIGNAL_TLS_KEY)\n"),
        (&["--tls-key", &nowhere], &[("SIGNAL_TLS_CERT", &nowhere)], " (from the variable SIGNAL_TLS_CERT)\n"),
        (&["--auth", "claim"], &[("SIGNAL_DEV", "1")], " (from the variable SIGNAL_DEV)\n"),
        (&["--dev"], &[("SIGNAL_HOST", "0.0.0.0")], " (from the variable SIGNAL_HOST)\n"),
        (&[], &[("SIGNAL_MEMORY_BUDGET", "1.5G")], " (from the variable SIGNAL_MEMORY_BUDGET)\n"),
        (&[], &[("SIGNAL_HEARTBEAT", "-1s")], " (from the variable SIGNAL_HEARTBEAT)\n"),
    ] {
        let (code, out, log) = run(options, variables);
        assert_eq!((code, out.as_str(), log.lines().count()), (Some(2), "", 1), "{options:?} {variables:?}: {log}");
        assert!(log.ends_with(ending), "{options:?} {variables:?}: {log}");
    }
}

#[test]
fn a_number_that_is_not_whole_is_refused_in_plain_words() {
    for option in
        ["--port", "--user-devices", "--send-rate", "--identity-failures", "--max-streams", "--worker-threads"]
    {
        for value in ["many", "1.5"] {
            let (code, out, log) = run(&[option, value], &[]);
            assert_eq!((code, out.as_str(), log.lines().count()), (Some(2), "", 1), "{option} {value}: {log}");
            assert!(log.contains("not a whole number"), "{option} {value}: {log}");
        }
    }
}

#[test]
fn keys_of_tokens_that_cannot_be_used_are_one_line_that_names_the_variable() {
    let secret = file("good", SECRET);
    let short = file("short", "31 bytes are too few for HS256.");
    for (variable, value, more, reason) in [
        ("SIGNAL_JWKS", file("no-set", "{}"), &["--jwt-audience", "a"][..], "JSON Web Key Set"),
        ("SIGNAL_JWKS", "/no/such/set".to_owned(), &["--jwt-audience", "a"], "No such file"),
        ("SIGNAL_JWT_PUBLIC_KEY", file("no-pem", "a key"), &[], "not a public key in PEM"),
        ("SIGNAL_JWT_SECRET_FILE", short.clone(), &[], "32 bytes"),
        ("SIGNAL_JWT_SECRET_FILE", file("empty", "\n"), &[], "the file is empty"),
        ("SIGNAL_TICKET_KEY_FILE", short, &["--jwt-secret-file", &secret], "32 bytes"),
        ("SIGNAL_TICKET_KEY_FILE", file("empty", ""), &["--jwt-secret-file", &secret], "the file is empty"),
    ] {
        for command in ["check-config", "serve"] {
            let options = [&[command, "--host", "127.0.0.1", "--port", "0", "--auth", "jwt"], more].concat();
            let (code, out, log) = run(&options, &[(variable, value.as_str())]);
            assert_eq!((code, out.as_str(), log.lines().count()), (Some(2), "", 1), "{command} {variable}: {log}");
            assert!(log.ends_with(&format!(" (from the variable {variable})\n")), "{command} {variable}: {log}");
            assert!(log.contains(&value) && log.contains(reason), "{command} {variable}: {log}");
        }
    }
}

#[test]
fn servers_of_stun_and_turn_that_cannot_be_used_are_one_line_that_names_the_variable() {
    let large = "s".repeat(64 * 1024 + 1);
    let pem = "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n";
    let turn = ["--turn", "turn:turn.example.org"];
    for (variable, value, more, reason) in [
        ("SIGNAL_STUN", "stun.example.org".to_owned(), &[][..], "such as stun:stun.example.org:3478"),
        ("SIGNAL_STUN", "stun:a,turn:b".to_owned(), &[], "belongs to --turn"),
        ("SIGNAL_STUN", "stun:a,".to_owned(), &[], "such as stun:stun.example.org:3478"),
        ("SIGNAL_STUN", "stun:2001:db8::1".to_owned(), &[], "[2001:db8::1]"),
        ("SIGNAL_TURN", "turn:a?transport=tls".to_owned(), &[], "?transport=udp or ?transport=tcp"),
        ("SIGNAL_TURN", "turn:a".to_owned(), &[], "--turn needs --turn-secret-file"),
        ("SIGNAL_TURN_TTL", "0".to_owned(), &[], "between"),
        ("SIGNAL_TURN_TTL", "1.5".to_owned(), &[], "a whole number of seconds"),
        ("SIGNAL_TURN_TTL", "25h".to_owned(), &[], "between"),
        ("SIGNAL_TURN_SECRET_FILE", "/no/such/file".to_owned(), &turn, "No such file"),
        ("SIGNAL_TURN_SECRET_FILE", file("empty", "\n"), &turn, "the file is empty"),
        ("SIGNAL_TURN_SECRET_FILE", file("large", &large), &turn, "larger than 64 KiB"),
        ("SIGNAL_TURN_SECRET_FILE", file("pem", pem), &turn, "PEM and not a secret"),
    ] {
        for command in ["check-config", "serve"] {
            let options = [&[command, "--host", "127.0.0.1", "--port", "0"], more].concat();
            let (code, out, log) = run(&options, &[(variable, value.as_str())]);
            assert_eq!((code, out.as_str(), log.lines().count()), (Some(2), "", 1), "{command} {variable}: {log}");
            assert!(log.ends_with(&format!(" (from the variable {variable})\n")), "{command} {variable}: {log}");
            assert!(log.contains(reason), "{command} {variable} {value}: {log}");
        }
    }
}

#[test]
fn a_short_secret_of_turn_is_a_warning_that_does_not_show_it() {
    for (secret, warns) in [("fifteen bytes!!", true), ("sixteen bytes!!!", false), ("fifteen bytes!!\n", true)] {
        let secret_file = file("turn-secret", secret);
        // With a trusted proxy, because a relay for anybody is a warning of its own.
        let identified = ["--host", "127.0.0.1", "--trusted-proxies", "127.0.0.1"];
        let turn = [&identified[..], &["--turn", "turn:turn.example.org", "--turn-secret-file", &secret_file]].concat();
        let (code, _, log) = run(&[&["check-config"], &turn[..]].concat(), &[]);
        assert_eq!((code, log.lines().count()), (Some(0), usize::from(warns)), "{secret:?}: {log}");
        assert_eq!(log.contains("--turn-secret-file is shorter than 16 bytes"), warns, "{log}");
        assert!(!log.contains(secret.trim()), "{log}");
    }
}

#[test]
fn check_config_says_the_faults_of_a_start_and_listens_nowhere() {
    let nowhere = format!("{}/nothing.pem", env!("CARGO_TARGET_TMPDIR"));
    for options in [
        &["--port", "x"][..],
        &["--nonsense"],
        &["--heartbeat", "soon"],
        &["--tls-cert", &nowhere],
        &["--tls-cert", &nowhere, "--tls-key", &nowhere],
        &["--host", "no-such-host.invalid"],
    ] {
        let [(code, out, checked), (_, _, started)] =
            ["check-config", "serve"].map(|command| run(&[&[command], options].concat(), &[]));
        assert_eq!((code, out.as_str(), checked.as_str()), (Some(2), "", started.as_str()), "{options:?}");
    }
    let (_, _, log) = run(&["--auth", "none", "check-config"], &[]);
    assert!(log.contains("--auth must stand after `check-config`"), "{log}");

    // The port is taken, because the daemon runs: `check-config` does not listen, so it does not notice.
    let daemon = Process::start(&[]);
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let [certificate, key] = tempfiles("check-config", &identity);
    let port = daemon.address.port().to_string();
    let options =
        ["check-config", "--host", "127.0.0.1", "--port", &port, "--tls-cert", &certificate, "--tls-key", &key];
    let valid = |tls: &str| {
        let version = env!("CARGO_PKG_VERSION");
        let set_up = format!(
            r#"version="{version}" identity="claim" trusted_proxies="none named" tls="{tls}" ice="none" console="off""#
        );
        (Some(0), format!("{set_up}\nthe configuration is valid\n"), String::new())
    };
    assert_eq!(run(&options, &[]), valid("on"));
    assert_eq!(run(&["--port", &port, "check-config"], &[("SIGNAL_HOST", "127.0.0.1")]), valid("off"));
}

type Variables = &'static [(&'static str, &'static str)];

/// Options and variables, each with what its only warning must contain.
const WARNINGS: &[(&[&str], Variables, &str)] = &[
    (&["--host", "0.0.0.0"], &[], "anybody who reaches 0.0.0.0 can pose as anybody"),
    (&["--host", "0.0.0.0", "--auth", "none"], &[], "because of --auth none"),
    (
        &[],
        &[("SIGNAL_TRUSTED_PROXY", "10.0.0.0/8")],
        "SIGNAL_TRUSTED_PROXY is unknown and ignored; did you mean SIGNAL_TRUSTED_PROXIES?",
    ),
    (&[], &[("SIGNAL_PORT", "1838")], "did you mean PORT?"),
    (&[], &[("SIGNAL_QWERTY", "1")], "the variable SIGNAL_QWERTY is unknown and ignored"),
    (&["--max-connections", "1000000000"], &[], "--max-connections is 1000000000, but"),
];

#[test]
fn check_config_and_a_start_say_the_same_warnings_one_line_each() {
    for (options, variables, warning) in WARNINGS {
        let options = [&["--host", "127.0.0.1", "--port", "0"], *options].concat();
        let options: Vec<_> = if options[4..].contains(&"--host") { options[2..].to_vec() } else { options };
        let (code, _, log) = run(&[&["check-config"], &options[..]].concat(), variables);
        assert_eq!((code, log.lines().count()), (Some(0), 1), "{options:?}: {log}");
        assert!(log.starts_with("backend-signal: warning: ") && log.contains(warning), "{options:?}: {log}");
        let daemon = Process::spawn(process::command().args(&options).envs(variables.iter().copied()));
        let warnings: Vec<_> = daemon.preface.lines().filter(|line| line.contains("WARN")).collect();
        assert!(warnings.len() == 1 && warnings[0].contains(warning), "{options:?}: {warnings:?}");
    }
}

#[test]
fn the_log_begins_with_what_decides_who_can_use_the_daemon() {
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let [certificate, key] = tempfiles("start-line", &identity);
    let turn = file("turn-secret", "a secret of TURN servers");
    for (options, fields) in [
        (&[][..], [r#"identity="claim""#, r#"trusted_proxies="none named""#, r#"ice="none""#, r#"console="off""#]),
        (
            &["--trusted-proxies", "127.0.0.0/8,::1", "--tls-cert", &certificate, "--tls-key", &key],
            [r#"identity="claim""#, r#"trusted_proxies="127.0.0.0/8,::1/128""#, r#"tls="on""#, r#"console="off""#],
        ),
        (
            &["--dev", "--console"],
            [r#"identity="none""#, r#"trusted_proxies="none named""#, r#"tls="off""#, r#"console="on""#],
        ),
        (&["--stun", "stun:a"], [r#"identity="claim""#, r#"tls="off""#, r#"ice="stun""#, r#"console="off""#]),
        (
            &["--turn", "turn:a", "--turn-secret-file", &turn, "--trusted-proxies", "127.0.0.1"],
            [r#"identity="claim""#, r#"tls="off""#, r#"ice="turn""#, r#"console="off""#],
        ),
    ] {
        let daemon = Process::start(options);
        let preface = &daemon.preface;
        // A console has a line of its own.
        assert_eq!(preface.lines().count(), 1 + usize::from(preface.contains("the console is at ")), "{preface}");
        for field in fields.iter().chain([&format!(r#"version="{}""#, env!("CARGO_PKG_VERSION")).as_str()]) {
            assert!(preface.contains(field), "{field}: {preface}");
        }
    }
    let daemon = Process::start(&["--log-format", "json"]);
    let line: serde_json::Value = serde_json::from_str(daemon.preface.trim_end()).expect("JSON");
    assert_eq!((line["identity"].as_str(), line["message"].as_str()), (Some("claim"), Some("starting")));
}

#[test]
fn the_start_and_check_config_say_which_tokens_are_accepted_and_no_secret() {
    let [secret, public, set] =
        [file("s3cret", SECRET), file("public.pem", RSA_PUBLIC), file("set", jwks(&[rsa_jwk("a", RSA)]))];
    let url = "https://id.example:8443/s3cret?s3cret=1";
    for (options, fields) in [
        (&["--jwt-secret-file", &*secret][..], r#"keys="secret in a file" audience="none" issuer="any""#),
        (
            &["--jwt-public-key", &public, "--jwt-issuer", "https://a.example, https://b.example"],
            r#"keys="public key in a file" audience="none" issuer="https://a.example,https://b.example""#,
        ),
        (&["--jwks", &set, "--jwt-audience", "a, b"], r#"keys="key set in a file" audience="a,b" issuer="any""#),
        (&["--jwks", url, "--jwt-audience", "a"], r#"keys="key set of id.example" audience="a" issuer="any""#),
    ] {
        let options = [&["--host", "127.0.0.1", "--port", "0", "--auth", "jwt"], options].concat();
        let (code, out, log) = run(&[&["check-config"], &options[..]].concat(), &[]);
        assert_eq!((code, out.lines().count(), log.as_str()), (Some(0), 2, ""), "{options:?}: {out}");
        assert!(out.contains(&format!(r#" identity="jwt" {fields} "#)) && !out.contains("s3cret"), "{out}");
        let daemon = Process::spawn(process::command().args(&options));
        let start = daemon.preface.lines().next().expect("a line");
        assert!(start.contains(&format!(r#" identity="jwt" {fields} "#)) && !start.contains("s3cret"), "{start}");
    }
}

#[test]
fn dev_listens_on_a_loopback_address_and_identifies_nobody() {
    for (options, variables, address) in [
        (&["--dev"][..], &[][..], "127.0.0.1"),
        (&["serve", "--dev"], &[], "127.0.0.1"),
        (&["--dev", "--auth", "none"], &[], "127.0.0.1"),
        (&["--dev", "--host", "127.0.0.2"], &[], "127.0.0.2"),
        (&["--dev", "--host", "::ffff:127.0.0.1"], &[], "::ffff:127.0.0.1"),
        (&[], &[("SIGNAL_DEV", "true")], "127.0.0.1"),
        (&[], &[("SIGNAL_DEV", "1"), ("SIGNAL_HOST", "127.0.0.3")], "127.0.0.3"),
        (&[], &[("SIGNAL_DEV", "true"), ("SIGNAL_HOST", "")], "127.0.0.1"),
    ] {
        let daemon = Process::spawn(process::command().args(options).env("PORT", "0").envs(variables.iter().copied()));
        assert_eq!(daemon.address.ip().to_string(), address, "{options:?} {variables:?}");
        assert!(
            daemon.preface.contains(r#"identity="none""#) && !daemon.preface.contains("WARN"),
            "{}",
            daemon.preface
        );
    }
    let off = ["check-config", "--auth", "claim", "--host", "127.0.0.1"];
    assert_eq!(run(&off, &[("SIGNAL_DEV", "false")]).0, Some(0), "a variable can switch it off");
}

#[test]
fn sizes_and_times_may_have_a_unit() {
    let options = ["--heartbeat", "30s", "--drain-window", "500ms", "--resume-window", "2m", "--hold-budget", "64k"];
    let sizes = ["--memory-budget", "1G", "--body-limit", "100k", "--host", "127.0.0.1"];
    assert_eq!(run(&[&["check-config"], &options[..], &sizes].concat(), &[]).0, Some(0));
    for (option, value, expected) in [
        ("--memory-budget", "1.5G", "whole number of bytes"),
        ("--memory-budget", "-1", "whole number of bytes"),
        ("--hold-budget", "99999999999G", "more bytes"),
        ("--body-limit", "1G", "between 1 and 262144"),
        ("--heartbeat", "10x", "not a time"),
        ("--heartbeat", "-10s", "not a time"),
        ("--heartbeat", "48h", "between"),
    ] {
        let (code, _, log) = run(&["check-config", &format!("{option}={value}")], &[]);
        assert_eq!((code, log.lines().count()), (Some(2), 1), "{option} {value}: {log}");
        assert!(log.contains(expected) && log.contains(option), "{option} {value}: {log}");
    }
}
