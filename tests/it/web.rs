//! The files for browsers: who gets them, how they are cached, and what the console may do.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::digest::{SHA256, digest};

use crate::harness::{
    Process, Response, Server,
    http2::Http2,
    process,
    tokens::{SECRET, file},
};

const FILES: [(&str, &str, &str); 4] = [
    ("/client.js", "text/javascript; charset=utf-8", include_str!("../../web/client.js")),
    ("/client.d.ts", "text/plain; charset=utf-8", include_str!("../../web/client.d.ts")),
    ("/openapi.json", "application/json", include_str!("../../web/openapi.json")),
    ("/console", "text/html; charset=utf-8", include_str!("../../web/console.html")),
];

/// A file as the daemon serves it: the console knows where an identity comes from.
fn served(text: &str, identity: &str) -> String {
    text.replace("data-identity=\"\"", &format!("data-identity=\"{identity}\""))
}

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response {
    server.request(&format!("GET {path}"), headers, b"").await
}

#[tokio::test]
async fn the_files_are_served_as_they_are_written() {
    let server = Server::with(&["--console"]).await;
    for (path, media_type, text) in FILES {
        let answer = get(&server, path, &[("origin", "https://a.example")]).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, media_type), "{path}");
        let text = served(text, "claim");
        assert_eq!(answer.text(), text, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "a page of any origin may import {path}");
        let head = server.request(&format!("HEAD {path}"), &[], b"").await;
        assert_eq!((head.status, head.header("etag")), (200, answer.header("etag")), "{path}");
        assert_eq!(head.header("content-length"), text.len().to_string(), "{path}");
    }
}

#[tokio::test]
async fn a_cache_asks_every_time_and_gets_a_304_while_the_file_is_the_same() {
    let server = Server::with(&["--console"]).await;
    let mut tags = Vec::new();
    for (path, _, text) in FILES {
        let text = served(text, "claim");
        let first = get(&server, path, &[]).await;
        let etag = first.header("etag").to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 40, "{path}: {etag}");
        assert_eq!(first.header("cache-control"), "no-cache", "{path}");
        for known in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
            let again = get(&server, path, &[("if-none-match", &known)]).await;
            assert_eq!((again.status, again.body.len()), (304, 0), "{path} {known}");
            for name in ["etag", "cache-control"] {
                assert_eq!(again.header(name), first.header(name), "{path} {known}");
            }
        }
        for unknown in ["\"other\"", "", etag.trim_matches('"')] {
            let again = get(&server, path, &[("if-none-match", unknown)]).await;
            assert_eq!((again.status, again.text().as_str()), (200, text.as_str()), "{path} {unknown}");
        }
        let mut connection = Http2::open(server.address).await;
        let request = http::Request::get(connection.uri(path)).header("if-none-match", &etag);
        let answer = connection.send(request.body(axum::body::Body::empty()).expect("a request")).await;
        let length = answer.headers().get("content-length").map(|length| length.to_str().expect("ASCII").to_owned());
        assert_eq!((answer.status().as_u16(), length), (304, Some(text.len().to_string())), "{path} over HTTP/2");
        tags.push(etag);
    }
    tags.dedup();
    assert_eq!(tags.len(), FILES.len(), "each file has its own tag");
}

#[tokio::test]
async fn without_the_option_there_is_no_console_but_the_client() {
    for options in [&[][..], &["--auth", "none"]] {
        let server = Server::with(options).await;
        for path in ["/", "/console"] {
            let answer = get(&server, path, &[]).await;
            assert_eq!((answer.status, answer.problem().as_str()), (404, "no_route"), "{path}");
        }
        for path in ["/client.js", "/client.d.ts", "/openapi.json"] {
            assert_eq!(get(&server, path, &[]).await.status, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn the_root_leads_to_the_console_also_behind_a_prefix() {
    for options in ["--console", "--dev"] {
        let answer = get(&Server::with(&[options]).await, "/", &[]).await;
        // Relative: https://example.org/signal/ leads to https://example.org/signal/console.
        assert_eq!((answer.status, answer.header("location")), (307, "console"), "{options}");
        assert_eq!(answer.header("cache-control"), "no-store", "{options}");
    }
}

#[tokio::test]
async fn the_files_need_no_identity() {
    let secret = file("web", SECRET);
    for (options, identity) in [
        (&["--auth", "jwt", "--jwt-secret-file", &secret][..], "jwt"),
        (&["--require-claim", "all"], "claim"),
        (&["--trusted-proxies", "192.0.2.1"], "claim"),
    ] {
        let server = Server::with(&[&["--console"], options].concat()).await;
        assert_eq!(get(&server, "/user/bob/devices", &[]).await.status, 401, "{options:?}");
        assert_eq!(get(&server, "/", &[]).await.status, 307, "{options:?}");
        for (path, _, text) in FILES {
            let answer = get(&server, path, &[]).await;
            assert_eq!((answer.status, answer.text()), (200, served(text, identity)), "{options:?} {path}");
            assert_eq!(get(&server, path, &[("x-user-claim", "nonsense")]).await.status, 200, "{options:?} {path}");
        }
    }
}

#[tokio::test]
async fn the_console_runs_its_own_script_and_nothing_else() {
    let server = Server::with(&["--console"]).await;
    let answer = get(&server, "/console", &[]).await;
    let policy: Vec<_> = answer.header("content-security-policy").split("; ").collect();
    let page = answer.text();
    let inline = |open: &str, close: &str| {
        let (_, rest) = page.split_once(open).expect(open);
        let hash = BASE64_STANDARD.encode(digest(&SHA256, rest.split_once(close).expect(close).0.as_bytes()));
        format!("'sha256-{hash}'")
    };
    let script = format!("script-src 'self' {}", inline("<script type=\"module\">", "</script>"));
    let style = format!("style-src {}", inline("<style>", "</style>"));
    for directive in [
        "default-src 'none'",
        &script,
        &style,
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.contains(&directive), "{directive} in {policy:?}");
    }
    assert_eq!(page.matches("<script").count(), 1, "every script is named by its hash");
    for (name, value) in
        [("referrer-policy", "no-referrer"), ("x-frame-options", "DENY"), ("cross-origin-opener-policy", "same-origin")]
    {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let permissions = answer.header("permissions-policy");
    assert!(permissions.contains("camera=(self)") && permissions.contains("microphone=(self)"), "{permissions}");
}

#[tokio::test]
async fn the_console_names_no_other_host() {
    let page = FILES[3].2;
    for outside in ["src=\"http", "href=\"http", "url(http", "from \"http", "import(\"http", "//cdn", "@import"] {
        assert!(!page.contains(outside), "{outside}: one file, nothing from elsewhere");
    }
}

#[test]
fn the_log_and_check_config_say_whether_the_console_is_on() {
    for (options, variables, is_on) in [
        (&["--console"][..], &[][..], true),
        (&["--dev"], &[], true),
        (&[], &[("SIGNAL_CONSOLE", "true")], true),
        (&["--dev"], &[("SIGNAL_CONSOLE", "false")], false),
        (&["--auth", "none"], &[], false),
    ] {
        let local = [&["--host", "127.0.0.1", "--port", "0"], options].concat();
        let daemon = Process::spawn(process::command().args(&local).envs(variables.iter().copied()));
        let field = if is_on { r#"console="on""# } else { r#"console="off""# };
        assert!(daemon.preface.contains(field), "{options:?} {variables:?}: {}", daemon.preface);
        let line = format!("the console is at http://{}/", daemon.address);
        assert_eq!(daemon.preface.contains(&line), is_on, "{options:?} {variables:?}: {}", daemon.preface);
        let check = [&["check-config"], &local[..]].concat();
        let output = process::command().args(&check).envs(variables.iter().copied()).output().expect("the executable");
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(said.contains(field), "{options:?} {variables:?}: {said}");
    }
    let everywhere = Process::spawn(process::command().args(["--port", "0", "--console"]));
    let line = format!("the console is at http://localhost:{}/", everywhere.address.port());
    assert!(everywhere.preface.contains(&line), "{}", everywhere.preface);
}
