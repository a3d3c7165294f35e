//! The set-ups of `docs/production.md`: the real programs, with what the page shows.

mod alone;
mod behind_nginx;
mod traefik;
mod turn_server;

use std::sync::Arc;

use tokio_rustls::TlsConnector;

use crate::harness::{Process, process};

const PAGE: &str = include_str!("../../docs/production.md");

/// The text below a heading of the second level.
fn section(heading: &str) -> &'static str {
    let rest = PAGE.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n## ").next().unwrap_or_default()
}

/// The blocks of a language in a section.
fn blocks(section: &'static str, language: &str) -> Vec<&'static str> {
    let fence = format!("\n```{language}\n");
    section.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default()).collect()
}

/// Starts the daemon as a section shows it, but on this port of the loopback address and with its files in this folder.
fn daemon(section: &'static str, port: u16, folder: &str) -> Process {
    Process::spawn(process::command().args(options(section, port, folder)))
}

/// The options of that daemon.
fn options(section: &'static str, port: u16, folder: &str) -> Vec<String> {
    let commands = blocks(section, "sh");
    let shown = commands.iter().find_map(|command| command.strip_prefix("backend-signal ")).expect("its command");
    let shown = shown.replace("\\\n", " ").replace("/etc/backend-signal", folder);
    // Quotation marks stand only around a whole word.
    let mut options: Vec<_> = shown.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect();
    let given = options.iter().position(|word| word == "--port").expect("--port");
    options[given + 1] = port.to_string();
    if !options.iter().any(|word| word == "--host") {
        options.extend(["--host", "127.0.0.1"].map(str::to_owned));
    }
    options
}

/// Asks for a protocol in the handshake.
fn with_alpn(connector: &TlsConnector, protocol: &[u8]) -> TlsConnector {
    let mut config = (**connector.config()).clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}
