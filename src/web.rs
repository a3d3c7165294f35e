//! The files for browsers and tools, embedded: `client.js` with its types, the description of the HTTP API, and the console. They are
//! the same for everybody, so they need no identity.

use std::sync::Arc;

use axum::{
    Router,
    response::{IntoResponse as _, Redirect, Response},
    routing::{MethodRouter, get},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ring::digest::{SHA256, digest};

/// The console, which shows first how people of this daemon sign in.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    /// Where an identity comes from: a value of `--auth`.
    pub identity: &'static str,
}

/// The routes of the files. Without a console, `/` and `/console` do not exist.
pub fn routes(console: Option<Console>) -> Router {
    let files = Router::new()
        .route("/client.js", served(File::new(CLIENT, "text/javascript; charset=utf-8")))
        // As plain text a browser shows it, and Deno goes by the name.
        .route("/client.d.ts", served(File::new(CLIENT_TYPES, "text/plain; charset=utf-8")))
        .route("/openapi.json", served(File::new(DESCRIPTION, "application/json")));
    let Some(Console { identity }) = console else { return files };
    // Relative, so that it also works behind a proxy that puts a prefix before every path.
    let to_console = get(async || Redirect::temporary("console"));
    files
        .route("/console", served(File::page(CONSOLE.replace(IDENTITY, &format!("data-identity=\"{identity}\"")))))
        .route("/", to_console)
}

fn served(file: File) -> MethodRouter {
    let file = Arc::new(file);
    get(move |request: HeaderMap| std::future::ready(file.answer(&request)))
}

/// A file, and the headers of its answer.
struct File {
    body: Bytes,
    etag: String,
    headers: HeaderMap,
}

impl File {
    fn new(text: impl Into<Bytes>, media_type: &'static str) -> Self {
        let body = text.into();
        let etag = format!("\"{}\"", sha256(&body));
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::CONTENT_TYPE, media_type),
            (header::ETAG, etag.as_str()),
            // A cache asks every time: after an update, a page and its script must be of one version.
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            insert(&mut headers, name, value);
        }
        Self { body, etag, headers }
    }

    /// A page, which may run its own script and nothing else.
    fn page(text: String) -> Self {
        let policy = policy(&text);
        let mut file = Self::new(text, "text/html; charset=utf-8");
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, policy.as_str()),
            (header::REFERRER_POLICY, "no-referrer"),
            // For browsers that do not know `frame-ancestors`.
            (header::X_FRAME_OPTIONS, "DENY"),
            // A page that opened this one, or was opened by it, gets no handle of its window.
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (
                HeaderName::from_static("permissions-policy"),
                "camera=(self), microphone=(self), display-capture=(), geolocation=(), payment=(), usb=()",
            ),
        ] {
            insert(&mut file.headers, name, value);
        }
        file
    }

    fn answer(&self, request: &HeaderMap) -> Response {
        let headers = self.headers.clone();
        if !self.is_known(request) {
            return (headers, self.body.clone()).into_response();
        }
        // The length of the file, or axum would say 0 (RFC 9110, section 8.6).
        let length = [(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()))];
        (StatusCode::NOT_MODIFIED, headers, length).into_response()
    }

    /// Whether the client has this file already (RFC 9110, section 13.1.2). The tag holds no comma, so the lists can be split at them.
    fn is_known(&self, request: &HeaderMap) -> bool {
        let lines = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
        let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
    }
}

/// The `Content-Security-Policy` of a page. Its script and style are named by their hashes, so a text that somebody else puts into
/// the page never runs.
fn policy(page: &str) -> String {
    let (scripts, styles) = (hashes(page, "script"), hashes(page, "style"));
    // 'self' is for `client.js`. `require-trusted-types-for` forbids `innerHTML` and the like.
    format!(
        "default-src 'none'; script-src 'self'{scripts}; style-src{styles}; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

/// A source for each element of this name: the hash of its text.
fn hashes(page: &str, element: &str) -> String {
    let (open, close) = (format!("<{element}"), format!("</{element}>"));
    let (mut rest, mut sources) = (page, String::new());
    // An element ends at its first closing tag. Before that, its text may name an element.
    while let Some((text, after)) =
        rest.split_once(&open).and_then(|(_, tag)| tag.split_once('>')?.1.split_once(&close))
    {
        sources.extend([" 'sha256-", &sha256(text.as_bytes()), "'"]);
        rest = after;
    }
    sources
}

/// The SHA-256 in base64.
fn sha256(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(digest(&SHA256, bytes))
}

/// All values are texts of this file or base64, so they are valid.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The place in the page that gets the kind of identity.
const IDENTITY: &str = "data-identity=\"\"";

const CLIENT: &str = include_str!("../web/client.js");
const CLIENT_TYPES: &str = include_str!("../web/client.d.ts");
/// The description of the HTTP API (`OpenAPI`). Written by hand, and checked against the code by `tests/tidy/description.rs`.
const DESCRIPTION: &str = include_str!("../web/openapi.json");
const CONSOLE: &str = include_str!("../web/console.html");
