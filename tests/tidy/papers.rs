//! Compares documentation with code: the tables of `docs/reference.md`, the reasons of dependencies, the map in `src/lib.rs`, the image.

use std::{collections::BTreeMap, process::Command};

use super::{Faults, files, read, root};

/// The page with the tables of options, errors, limits and metrics.
const REFERENCE: &str = "docs/reference.md";

/// Line, variable and default of every option, by its flag.
type Options = BTreeMap<String, (usize, String, String)>;

#[test]
fn the_reference_has_the_options_of_help_with_their_variables_and_defaults() {
    let (help, page) = (help(), options());
    assert!(help.len() > 5, "--help names only {} options", help.len());
    let mut faults = Faults::default();
    for (flag, (_, variable, default)) in &help {
        match page.get(flag) {
            None => {
                faults.add(REFERENCE, 1, format!("`{flag}` is in --help, but has no row in the table of options"));
            }
            Some((line, ours, _)) if ours != variable => {
                faults.add(
                    REFERENCE,
                    *line,
                    format!("`{flag}` has the variable `{variable}` in --help, here `{ours}`"),
                );
            }
            Some((line, _, ours)) if ours != default => {
                faults.add(REFERENCE, *line, format!("`{flag}` has the default `{default}` in --help, here `{ours}`"));
            }
            Some(_) => {}
        }
    }
    for (flag, (line, ..)) in page.iter().filter(|(flag, _)| !help.contains_key(*flag)) {
        faults.add(REFERENCE, *line, format!("`{flag}` has a row, but is not in --help"));
    }
    faults.report();
}

/// The options in the output of `--help`. The environment is cleared, because help shows the values of variables.
fn help() -> Options {
    let output = Command::new(env!("CARGO_BIN_EXE_backend-signal")).arg("--help").env_clear().output();
    let help = String::from_utf8(output.expect("the executable").stdout).expect("UTF-8");
    let mut options = Options::new();
    let mut flag = String::new();
    for (index, line) in help.lines().enumerate() {
        // The line of an option is indented by less than its text.
        if line.starts_with("  ") && !line.starts_with("       ") {
            line.trim().split(' ').find(|word| word.starts_with("--")).unwrap_or_default().clone_into(&mut flag);
            if !["", "--help", "--version"].contains(&flag.as_str()) {
                options.insert(flag.clone(), (index + 1, String::new(), String::new()));
            }
        }
        let Some((_, variable, default)) = options.get_mut(&flag) else { continue };
        let line = line.trim();
        if let Some(named) = line.strip_prefix("[env: ") {
            named.split(['=', ']']).next().unwrap_or_default().clone_into(variable);
        } else if let Some(given) = line.strip_prefix("[default: ") {
            given.trim_end_matches(']').clone_into(default);
        }
    }
    options
}

/// The rows `| Flag | Variable | Default | Meaning |`.
fn options() -> Options {
    let page = read(REFERENCE);
    let rows = page.lines().enumerate().filter(|(_, line)| line.starts_with("| `--"));
    let row = |(index, line): (usize, &str)| {
        let mut cells = line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
        let mut cell = || cells.next().unwrap_or_default();
        (cell(), (index + 1, cell(), cell()))
    };
    rows.map(row).collect()
}

#[test]
fn the_page_of_the_command_line_has_the_options_of_every_client_command() {
    let page = read("docs/cli.md");
    let sections: Vec<_> = page.split("\n## ").skip(1).collect();
    let common = sections.iter().find(|section| section.starts_with("Options of every command")).expect("a section");
    let mut faults = Faults::default();
    let commands = client_commands();
    assert!(commands.len() >= 7, "--help names only {commands:?}");
    for command in &commands {
        let name = format!("{command}\n");
        let Some(section) = sections.iter().find(|section| section.starts_with(&name)) else {
            faults.add("docs/cli.md", 1, format!("has no section `## {command}`"));
            continue;
        };
        let help = client_help(command);
        let mut ours = client_rows(section);
        if help.iter().any(|row| row.0 == "--url") {
            ours.extend(client_rows(common));
        }
        ours.sort();
        for row in help.iter().filter(|row| !ours.contains(row)) {
            faults.add("docs/cli.md", 1, format!("{command}: no row with the flag, variable and default {row:?}"));
        }
        for row in ours.iter().filter(|row| !help.contains(row)) {
            faults.add("docs/cli.md", 1, format!("{command}: --help has no option {row:?}"));
        }
    }
    faults.report();
}

/// The flag, the variable and the default of an option.
type Row = (String, String, String);

/// The subcommands whose help lists exit codes.
fn client_commands() -> Vec<String> {
    let help = output(&["--help"]);
    let list = help.split("Commands:").nth(1).and_then(|rest| rest.split("Options:").next()).unwrap_or_default();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    names.filter(|name| name != "help" && output(&[name, "--help"]).contains("Exit codes: ")).collect()
}

fn output(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_backend-signal")).args(arguments).env_clear().output();
    String::from_utf8(output.expect("the executable").stdout).expect("UTF-8")
}

fn client_help(command: &str) -> Vec<Row> {
    let help = output(&[command, "--help"]).replace("Exit codes:", "\n--end");
    let mut options: Vec<String> = Vec::new();
    for line in help.split("Options:").nth(1).unwrap_or_default().lines().map(str::trim) {
        if line.starts_with("--") || line.starts_with("-h") {
            options.push(line.to_owned());
        } else if let Some(option) = options.last_mut() {
            option.push(' ');
            option.push_str(line);
        }
    }
    let part = |option: &str, mark: &str| {
        let rest = option.split_once(mark).map_or("", |(_, rest)| rest);
        rest.split(['=', ']']).next().unwrap_or_default().to_owned()
    };
    let row = |option: &String| {
        let flag = option.split(' ').next().unwrap_or_default().to_owned();
        (flag, part(option, "[env: "), part(option, "[default: "))
    };
    let mut rows: Vec<_> = options.iter().map(row).filter(|row| !["-h,", "--end"].contains(&row.0.as_str())).collect();
    rows.sort();
    rows
}

fn client_rows(section: &str) -> Vec<Row> {
    let rows = section.lines().filter(|line| line.starts_with("| `--"));
    let row = |line: &str| {
        let mut cells = line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
        let mut cell = || cells.next().unwrap_or_default();
        (cell(), cell(), cell())
    };
    rows.map(row).collect()
}

#[test]
fn the_reference_names_every_metric() {
    let page = read(REFERENCE);
    let mut faults = Faults::default();
    let mut known = Vec::new();
    for file in METRICS {
        let text = read(file);
        let prefix = between(&text, "with_prefix(\"", '"').next().map_or("", |(_, prefix)| prefix);
        let calls = ["registry.zero(\"", "registry.add(\"", "registry.register(\""];
        let registered: Vec<_> = calls.into_iter().flat_map(|call| between(&text, call, '"')).collect();
        assert!(!registered.is_empty(), "{file}:1: no `registry.zero(\"...\"` was found");
        for (line, name) in registered {
            let names = [format!("{prefix}_{name}"), format!("{prefix}_{name}_total")];
            if !names.iter().any(|name| page.contains(&format!("`{name}`"))) {
                faults.add(file, line, format!("the metric `{prefix}_{name}` is not named in {REFERENCE}"));
            }
            known.extend(names);
        }
    }
    for (line, rest) in between(&page, "| `signal_", '`') {
        let metric = format!("signal_{rest}");
        if !known.contains(&metric) {
            faults.add(REFERENCE, line, format!("the metric `{metric}` is not registered in {METRICS:?}"));
        }
    }
    faults.report();
}

/// The files that register metrics, each with one prefix.
const METRICS: [&str; 2] = ["src/telemetry/metrics.rs", "src/telemetry/metrics/cluster_metrics.rs"];

#[test]
fn the_reference_names_every_code_of_an_error_and_every_limit() {
    let page = read(REFERENCE);
    let is_code = |text: &str| !text.is_empty() && text.chars().all(|c| c == '_' || c.is_ascii_lowercase());
    let mut faults = Faults::default();
    let mut codes = Vec::new();
    for file in files("src").into_iter().filter(|file| file.is_in("error")) {
        for (line, code) in between(&file.text, "=> \"", '"').filter(|(_, code)| is_code(code)) {
            // A 204 has no body, so nobody sees its code.
            if code != "superseded" && !page.contains(&format!("`{code}`")) {
                faults.add(&file.name, line, format!("`{code}` is not named in {REFERENCE}"));
            }
            codes.push(code.to_owned());
        }
    }
    assert!(codes.len() > 20, "src/error: only {} codes were found", codes.len());
    // Status, gRPC, code, meaning.
    let rows = page.lines().enumerate().skip_while(|(_, line)| !line.starts_with("| Status | gRPC | `code` |")).skip(2);
    for (index, row) in rows.take_while(|(_, line)| line.starts_with('|')) {
        let cell = row.split('|').nth(3).unwrap_or_default();
        for code in cell.split('`').skip(1).step_by(2).filter(|code| !codes.iter().any(|known| known == code)) {
            faults.add(REFERENCE, index + 1, format!("`{code}` has a row, but is not in src/error"));
        }
    }
    faults.report();
}

#[test]
fn docs_grpc_md_has_a_row_for_every_method() {
    let (page, proto) = (read("docs/grpc.md"), "proto/backend_signal/v1/signal.proto");
    let mut faults = Faults::default();
    for (line, method) in between(&read(proto), "  rpc ", '(') {
        if !page.contains(&format!("| `{method}` |")) {
            faults.add(proto, line, format!("`{method}` has no row in docs/grpc.md"));
        }
    }
    faults.report();
}

#[test]
fn docs_http_md_names_every_route() {
    let page = read("docs/http.md");
    let mut faults = Faults::default();
    let mut count = 0;
    for file in files("src").into_iter().filter(|file| ["rest", "admin", "web"].iter().any(|room| file.is_in(room))) {
        let constant = between(&file.text, "DEVICE_ROUTE: &str = \"", '"');
        for (line, path) in between(&file.text, ".route(\"", '"').chain(constant) {
            count += 1;
            let named = |end: &str| page.contains(&format!(" {path}{end}"));
            if !["`", "?"].into_iter().any(named) {
                faults.add(&file.name, line, format!("the route `{path}` is not named in docs/http.md"));
            }
        }
    }
    assert!(count >= 9, "only {count} routes were found");
    faults.report();
}

/// The text between two marks, at most once in each line, with the number of the line.
pub(super) fn between<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = (usize, &'a str)> {
    let lines = text.lines().enumerate();
    lines.filter_map(move |(index, line)| Some((index + 1, line.split_once(open)?.1.split(close).next()?)))
}

#[test]
fn every_dependency_has_a_reason() {
    let mut faults = Faults::default();
    for (number, line) in dependency_lines() {
        if line.split_once('#').is_none_or(|(_, reason)| reason.trim().is_empty()) {
            faults.add("Cargo.toml", number, "a dependency needs a `#` comment that says what it is for");
        }
    }
    faults.report();
}

/// The names of all crates in Cargo.toml.
pub(super) fn dependencies() -> Vec<String> {
    let lines = dependency_lines();
    lines.iter().filter_map(|(_, line)| Some(line.split_once('=')?.0.trim().replace('_', "-"))).collect()
}

/// The lines of Cargo.toml with a dependency, each with its number.
fn dependency_lines() -> Vec<(usize, String)> {
    let mut section = String::new();
    let mut lines = Vec::new();
    for (index, line) in read("Cargo.toml").lines().enumerate() {
        if line.starts_with('[') {
            line.clone_into(&mut section);
        } else if section.ends_with("dependencies]") && line.contains('=') {
            lines.push((index + 1, line.to_owned()));
        }
    }
    assert!(lines.len() > 20, "Cargo.toml: only {} dependencies were found", lines.len());
    lines
}

#[test]
fn the_generated_code_is_of_the_proto_file() {
    let code = read("proto/generated/backend_signal.v1.rs");
    // The same hash as in `build.rs`.
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = read("proto/backend_signal/v1/signal.proto").bytes().fold(0xcbf2_9ce4_8422_2325, step);
    let mut faults = Faults::default();
    if !code.lines().next().is_some_and(|line| line.ends_with(&format!(" {hash:016x}."))) {
        faults.add("proto/generated", 1, "the proto file has changed; run `cargo check --features generate`");
    }
    faults.report();
}

#[test]
fn the_map_names_every_room() {
    let map = read("src/lib.rs");
    let mut faults = Faults::default();
    for file in files("src") {
        let room = file.name.trim_start_matches("src/").trim_end_matches(".rs");
        // A private room has no link.
        let rows = [format!("| [`{room}`] |"), format!("| `{room}` |")];
        if !room.contains('/') && !["lib", "main"].contains(&room) && !rows.iter().any(|row| map.contains(row)) {
            faults.add("src/lib.rs", 1, format!("the map has no row for the room `{room}`"));
        }
    }
    faults.report();
}

#[test]
fn every_file_that_the_map_names_exists() {
    let map = read("src/lib.rs");
    let mut faults = Faults::default();
    let named = map.split('`').skip(1).step_by(2).filter(|name| name.strip_suffix(".rs").is_some());
    for name in named.filter(|name| !root().join("src").join(name).exists() && !root().join(name).exists()) {
        faults.add("src/lib.rs", 1, format!("the map names `{name}`, which does not exist"));
    }
    faults.report();
}

#[test]
fn the_image_copies_files_that_exist_and_does_not_run_as_root() {
    let dockerfile = read("Dockerfile").replace("\\\n", " ");
    let context = read(".dockerignore");
    let mut faults = Faults::default();
    for (index, line) in dockerfile.lines().enumerate() {
        let mut words = line.split_whitespace();
        let copies = words.next() == Some("COPY") && !line.contains("--from=");
        let mut sources: Vec<_> = words.filter(|word| copies && !word.starts_with("--")).collect();
        sources.pop();
        for source in sources {
            if !root().join(source).exists() {
                faults.add("Dockerfile", index + 1, format!("copies `{source}`, which does not exist"));
            }
            if context.starts_with("*\n") && !context.lines().any(|line| line == format!("!{source}")) {
                faults.add("Dockerfile", index + 1, format!("copies `{source}`, which .dockerignore excludes"));
            }
        }
    }
    let last = dockerfile.rsplit("\nFROM ").next().unwrap_or_default();
    for instruction in ["USER ", "HEALTHCHECK ", "EXPOSE 1837", "ENV PORT=1837", "ENTRYPOINT [\"/backend-signal\"]"] {
        if !last.lines().any(|line| line.starts_with(instruction)) {
            faults.add("Dockerfile", 1, format!("the image needs `{}`", instruction.trim()));
        }
    }
    if last.lines().any(|line| line.starts_with("USER root") || line.starts_with("USER 0")) {
        faults.add("Dockerfile", 1, "the daemon must not run as root");
    }
    faults.report();
}
