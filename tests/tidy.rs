//! Checks the order of the project: which room may use which, names, sizes, and that the documentation says what the code does.

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/description.rs"]
mod description;
#[path = "tidy/links.rs"]
mod links;
#[path = "tidy/papers.rs"]
mod papers;

use std::{
    fs,
    path::{Path, PathBuf},
};

use code::Code;

/// What the code of a room must not use: crates, other rooms, functions. A room is a file of `src` and the folder beside it.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &["tokio", "axum", "http", "tonic", "prost", "redis"]),
    ("error", &["tokio", "axum", "http", "tonic", "prost", "redis"]),
    ("hub/mailbox", &["tokio", "tracing", "Instant::now", "SystemTime::now", "crate::wall_clock"]),
    ("hub/log", &["tokio", "tracing", "Instant::now", "SystemTime::now", "crate::wall_clock"]),
    ("hub", &["axum", "http", "tonic", "prost", "serde", "redis"]),
    ("hub", &["crate::rest", "crate::grpc", "crate::cluster", "crate::serve", "crate::config", "crate::drain"]),
    ("hub", &["crate::telemetry"]),
    ("auth", &["axum", "tonic", "crate::hub", "crate::rest", "crate::grpc"]),
    ("limits", &["axum", "tonic", "prost", "crate::hub", "crate::rest", "crate::grpc", "crate::serve"]),
    ("ice", &["tokio", "axum", "http", "tonic", "prost", "Instant::now", "SystemTime::now", "crate::wall_clock"]),
    ("ice", &["crate::hub", "crate::rest", "crate::grpc", "crate::serve", "crate::drain"]),
    ("cluster", &["axum", "tonic", "crate::rest", "crate::grpc"]),
    ("cluster", &["crate::hub::mailbox", "crate::hub::log", "crate::hub::registry", "crate::hub::slot"]),
    ("rest", &["tonic", "prost", "crate::grpc", "crate::cluster"]),
    ("grpc", &["axum", "crate::rest", "crate::cluster"]),
    ("cli", &["axum", "crate::app", "crate::hub", "crate::rest", "crate::serve"]),
    (
        "web",
        &[
            "tokio",
            "tonic",
            "prost",
            "crate::hub",
            "crate::auth",
            "crate::rest",
            "crate::grpc",
            "crate::serve",
            "crate::model",
        ],
    ),
    ("serve", &["crate::model", "crate::error", "crate::auth", "crate::hub"]),
    ("serve", &["crate::rest", "crate::grpc", "crate::cluster", "crate::admin"]),
];

/// The only rooms that use the configuration. `app` hands each other room the values that it needs.
const KNOW_CONFIG: &[&str] = &["app", "main", "config"];

/// Who prints: the room for it, and a simulation that only tests compile. Every other room logs.
const MAY_PRINT: &[&str] = &["terminal", "cluster/simulation"];

/// Lines of a file of `src`, without the tests at its end.
const FILE: usize = 300;
/// Lines of `main.rs`, which only starts the other rooms.
const MAIN: usize = 60;
/// Lines of a function.
const FUNCTION: usize = 60;

#[test]
fn no_room_uses_what_its_arrows_forbid() {
    let mut faults = Faults::default();
    for file in files("src") {
        let paths = file.code.paths(&file.module());
        for (_, forbidden) in ARROWS.iter().filter(|(room, _)| file.is_in(room)) {
            for (line, path) in &paths {
                for word in forbidden.iter().filter(|word| points_at(path, word)) {
                    faults.add(&file.name, *line, format!("`{path}`: this room must not use `{word}`"));
                }
            }
        }
        if !KNOW_CONFIG.iter().any(|room| file.is_in(room)) {
            for (line, path) in paths.iter().filter(|(_, path)| points_at(path, "crate::config")) {
                faults.add(&file.name, *line, format!("`{path}`: only {KNOW_CONFIG:?} may use the configuration"));
            }
        }
    }
    faults.report();
}

/// Whether a path names a word of the arrows: a crate or one with its prefix (`tonic` and `tonic_web`), a room or an item in it,
/// or a function, whatever stands before its type.
fn points_at(path: &str, word: &str) -> bool {
    let inside = |separator: &str| path.strip_prefix(word).is_some_and(|rest| rest.starts_with(separator));
    path == word || inside("::") || inside("_") || path.ends_with(&format!("::{word}"))
}

#[test]
fn every_room_with_an_arrow_exists() {
    let files = files("src");
    // Not built yet.
    for (room, _) in ARROWS.iter().filter(|(room, _)| *room != "cluster") {
        assert!(files.iter().any(|file| file.is_in(room)), "src/{room}.rs: has arrows, but does not exist");
    }
}

#[test]
fn no_two_files_of_src_have_the_same_name() {
    let mut faults = Faults::default();
    let files = files("src");
    for (index, file) in files.iter().enumerate() {
        if let Some(first) = files[..index].iter().find(|first| first.stem() == file.stem()) {
            faults.add(&file.name, 1, format!("{} has the same name; a name stands for one thing", first.name));
        }
    }
    faults.report();
}

#[test]
fn no_room_has_the_name_of_a_dependency() {
    let mut faults = Faults::default();
    let dependencies = papers::dependencies();
    for file in files("src") {
        if dependencies.contains(&file.stem().replace('_', "-")) {
            faults.add(&file.name, 1, format!("`{}` is also a dependency in Cargo.toml", file.stem()));
        }
    }
    faults.report();
}

#[test]
fn every_file_begins_with_a_sentence_about_its_purpose() {
    let mut faults = Faults::default();
    let folders = ["src", "tests", "benches"].into_iter().flat_map(files);
    for file in folders.chain([File::read("build.rs".into())]) {
        if !file.text.starts_with("//! ") {
            faults.add(&file.name, 1, "the first line must be a `//!` sentence that says what the file does");
        }
    }
    faults.report();
}

#[test]
fn files_and_functions_stay_small() {
    let mut faults = Faults::default();
    for file in files("src") {
        let most = if file.name == "src/main.rs" { MAIN } else { FILE };
        let lines = file.lines_before_tests();
        if lines > most {
            faults.add(&file.name, lines, format!("a file has at most {most} lines; make it two files"));
        }
        for (line, name, lines) in file.code.functions().into_iter().filter(|(.., lines)| *lines > FUNCTION) {
            faults.add(&file.name, line, format!("`{name}` has {lines} lines; a function has at most {FUNCTION}"));
        }
    }
    faults.report();
}

#[test]
fn no_file_has_a_forgotten_note_or_print() {
    let mut faults = Faults::default();
    for file in files("src") {
        for (index, line) in file.text.lines().enumerate() {
            for mark in ["TODO", "FIXME", "XXX"].into_iter().filter(|mark| line.contains(mark)) {
                faults.add(&file.name, index + 1, format!("`{mark}`: open an issue instead"));
            }
        }
        for (line, name) in file.code.macros() {
            if ["dbg", "todo", "unimplemented"].contains(&name) {
                faults.add(&file.name, line, format!("`{name}!` is only for development"));
            }
            let prints = ["print", "println", "eprint", "eprintln"].contains(&name);
            if prints && !MAY_PRINT.iter().any(|room| file.is_in(room)) {
                faults.add(&file.name, line, format!("`{name}!`: only {MAY_PRINT:?} may print, every other room logs"));
            }
        }
    }
    faults.report();
}

/// A Rust file.
struct File {
    /// Its path from the root of the project.
    name: String,
    text: String,
    code: Code,
}

impl File {
    fn read(name: String) -> Self {
        let text = read(&name);
        let code = Code::of(&text);
        Self { name, text, code }
    }

    /// `src/hub/mailbox.rs` has the stem `mailbox`.
    fn stem(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// `src/hub/mailbox.rs` is in the rooms `hub/mailbox` and `hub`.
    fn is_in(&self, room: &str) -> bool {
        let inside = self.name.strip_prefix("src/").and_then(|name| name.strip_prefix(room));
        inside.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    /// `src/hub/mailbox.rs` is the module `crate::hub::mailbox`.
    fn module(&self) -> String {
        let name = self.name.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::");
        if ["lib", "main"].contains(&name.as_str()) { "crate".to_owned() } else { format!("crate::{name}") }
    }

    fn lines_before_tests(&self) -> usize {
        let lines: Vec<_> = self.text.lines().collect();
        let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{'));
        tests.unwrap_or(lines.len())
    }
}

/// All violations with their places, so that one run reports every one.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, file: &str, line: usize, rule: impl std::fmt::Display) {
        self.0.push(format!("{file}:{line}: {rule}"));
    }

    fn report(self) {
        assert!(self.0.is_empty(), "\n{}\n", self.0.join("\n"));
    }
}

/// All Rust files of a folder and its subfolders, sorted by name.
fn files(folder: &str) -> Vec<File> {
    let mut names = Vec::new();
    collect(&root().join(folder), &mut names);
    names.sort();
    assert!(!names.is_empty(), "{folder}: no Rust file");
    names.into_iter().map(File::read).collect()
}

fn collect(folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "node_modules") {
                collect(&path, names);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).expect("below the root");
            names.push(name.to_str().expect("UTF-8").replace('\\', "/"));
        }
    }
}

/// A file of the project, by its path from the root.
fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
