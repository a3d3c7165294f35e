//! Compares `web/openapi.json`, the description of the HTTP API, with the code: routes, methods, errors, parameters, limits.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use serde_json::Value;

use super::{Faults, files, papers::between, read};

const DESCRIPTION: &str = "web/openapi.json";

/// Rooms with routes.
const ROOMS: [&str; 3] = ["rest", "admin", "web"];

fn description() -> Value {
    serde_json::from_str(&read(DESCRIPTION)).expect("JSON")
}

#[test]
fn the_description_has_exactly_the_routes_and_methods_of_the_code() {
    let mut routes = BTreeSet::new();
    for file in files("src").into_iter().filter(|file| ROOMS.iter().any(|room| file.is_in(room))) {
        let code = file.text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for route in code.split(".route(").skip(1) {
            let (path, rest) = route.split_once(',').expect("a path and its handlers");
            let named = between(&file.text, "DEVICE_ROUTE: &str = \"", '"').next().map(|(_, path)| path);
            let path =
                if path == "DEVICE_ROUTE" { named.expect("the constant") } else { path.trim().trim_matches('"') };
            let handlers = rest.split([';', '\n']).next().unwrap_or_default();
            let methods: Vec<_> = HANDLERS.iter().filter(|(_, handler)| handlers.contains(handler)).collect();
            assert!(!methods.is_empty(), "{}: {path} has a handler that HANDLERS does not know: {handlers}", file.name);
            routes.extend(methods.iter().map(|(method, _)| format!("{method} {path}")));
        }
    }
    let description = description();
    let described: BTreeSet<_> =
        operations(&description).map(|(path, method, _)| format!("{} {path}", method.to_uppercase())).collect();
    assert!(routes.len() >= 16, "only {routes:?} were found");
    assert_eq!(described, routes);
}

/// What stands in the code for a handler of a method. HEAD comes with GET.
const HANDLERS: [(&str, &str); 5] =
    [("GET", "get("), ("GET", "subscribe()"), ("GET", "served("), ("GET", "to_console"), ("POST", "post(")];

#[test]
fn the_description_has_every_code_of_an_error_under_its_status() {
    let statuses = arms(&read("src/rest/problem.rs"), "fn status(", |line| {
        let name = line.split_once("StatusCode::")?.1;
        Some(name.split(|c: char| !c.is_ascii_uppercase() && c != '_').next()?.to_owned())
    });
    let quoted = |line: &str| Some(line.split_once("=> \"")?.1.split('"').next()?.to_owned());
    let codes = arms(&read("src/error.rs"), "fn code(", quoted);
    let invalid = arms(&read("src/error/invalid.rs"), "fn code(", quoted);
    assert!(statuses.len() > 20 && codes.len() > 20 && invalid.len() > 10, "{statuses:?} {codes:?} {invalid:?}");
    let mut expected = BTreeMap::<u16, BTreeSet<String>>::new();
    // A 204 has no body, and only a gRPC call has unread responses.
    let is_seen = |variant: &str| !["Superseded", "UnreadResponses"].contains(&variant);
    for (variant, status) in statuses.iter().filter(|(variant, _)| is_seen(variant)) {
        let of_status = expected.entry(number(status)).or_default();
        if let Some(code) = codes.get(variant) {
            of_status.insert(code.clone());
        } else {
            assert_eq!(variant, "Invalid", "has no code in src/error.rs");
            of_status.extend(invalid.values().cloned());
        }
    }
    let description = description();
    let mut described = BTreeMap::<u16, BTreeSet<String>>::new();
    for response in description["components"]["responses"].as_object().expect("responses").values() {
        let schema = &response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"];
        let Some(status) = schema["status"]["const"].as_u64() else { continue };
        described.entry(u16::try_from(status).expect("a status")).or_default().extend(texts(&schema["code"]["enum"]));
    }
    assert_eq!(described, expected);
    let all: BTreeSet<_> = expected.into_values().flatten().collect();
    assert_eq!(texts(&description["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]), all);
}

/// The value of each variant in the `match` of a function. An arm has one line, or its value stands in the line after `=> {`.
fn arms(text: &str, function: &str, value: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let body = text.split_once(function).expect("the function").1.split("\n}").next().unwrap_or_default();
    let body = body.split("\n    }\n").next().unwrap_or_default();
    let (mut arms, mut variants) = (BTreeMap::new(), Vec::new());
    for line in body.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let pattern = line.split("=>").next().unwrap_or_default();
        for part in pattern.split(['|', ' ']).filter(|part| !part.contains("StatusCode")) {
            let name = part.trim().strip_prefix("Error::").or_else(|| part.trim().strip_prefix("Self::"));
            variants.extend(name.and_then(|name| name.split('(').next()).map(ToOwned::to_owned));
        }
        match value(line) {
            Some(value) => arms.extend(variants.drain(..).map(|variant| (variant, value.clone()))),
            // The arm calls a function.
            None if line.contains("=>") && !line.ends_with('{') => variants.clear(),
            None => {}
        }
    }
    arms
}

/// The number of a status, by the name of its constant.
fn number(name: &str) -> u16 {
    let is_named = |status: &StatusCode| {
        status.canonical_reason().is_some_and(|reason| reason.to_uppercase().replace([' ', '-'], "_") == name)
    };
    let mut statuses = (100..600).filter_map(|status| StatusCode::from_u16(status).ok());
    statuses.find(is_named).unwrap_or_else(|| panic!("{name} is no status")).as_u16()
}

fn texts(list: &Value) -> BTreeSet<String> {
    list.as_array().expect("a list").iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

#[test]
fn the_description_has_every_parameter_and_header_that_the_code_reads() {
    let description = description();
    let (mut faults, mut count) = (Faults::default(), 0);
    for file in files("src").into_iter().filter(|file| ["rest", "auth"].iter().any(|room| file.is_in(room))) {
        let code = file.text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().replace('\n', " ");
        let lists = code.split("form::parameters(").skip(1);
        let lists = lists.filter_map(|call| call.split_once(", [")?.1.split(']').next());
        let mut names: Vec<_> = lists.flat_map(|list| list.split('"').skip(1).step_by(2)).collect();
        for call in ["form::all(query, \"", "HeaderName::from_static(\""] {
            names.extend(code.split(call).skip(1).filter_map(|rest| rest.split('"').next()));
        }
        names.retain(|name| *name != OF_ANSWERS);
        count += names.len();
        let reads = READERS.iter().find(|(reader, _)| *reader == file.name).map(|(_, reads)| reads);
        if reads.is_none() && !names.is_empty() {
            faults.add(&file.name, 1, format!("reads {names:?}; say in READERS for which routes"));
        }
        for (path, method, operation) in operations(&description) {
            let described = names_of(&description, operation);
            let is_read = reads.is_some_and(|reads| reads(path, method));
            for name in names.iter().filter(|name| is_read && !described.contains(&name.to_lowercase())) {
                faults.add(&file.name, 1, format!("reads `{name}`, which {DESCRIPTION} lacks for {method} {path}"));
            }
        }
    }
    assert!(count > 12, "only {count} names were found");
    faults.report();
}

/// Whether an operation reads the parameters of a file.
type Reads = fn(&str, &str) -> bool;

/// For which paths and methods a file reads parameters and headers.
const READERS: [(&str, Reads); 8] = [
    ("src/rest/subscribe.rs", |path, _| path.starts_with("/subscribe")),
    ("src/rest/devices.rs", |path, method| method == "get" && path.ends_with("/devices")),
    ("src/rest/many_users.rs", |path, _| path == "/devices"),
    ("src/rest/extract.rs", |path, method| method == "post" && path.starts_with("/user")),
    // A broadcast reads it only to refuse it.
    ("src/rest/send_key.rs", |path, _| path == "/user/{user}/device/{device}"),
    ("src/auth/named.rs", |path, _| needs_identity(path)),
    // A ticket stands for a token, and no claim.
    ("src/auth/claim.rs", |path, _| needs_identity(path) && path != "/ticket"),
    ("src/auth/token_source.rs", |path, method| method == "get" && needs_identity(path) && path != "/ice"),
];

fn needs_identity(path: &str) -> bool {
    ["/subscribe", "/user/", "/devices", "/ticket", "/ice"].iter().any(|begin| path.starts_with(begin))
}

/// Path, method and description of every operation.
fn operations(description: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let items = description["paths"].as_object().into_iter().flatten();
    items.flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().map(move |(method, operation)| (&**path, &**method, operation))
    })
}

/// The names of the parameters of an operation, and of what its kinds of identity read.
fn names_of(description: &Value, operation: &Value) -> BTreeSet<String> {
    let references = operation["parameters"].as_array().into_iter().flatten();
    let parameters =
        references.filter_map(|reference| description.pointer(reference["$ref"].as_str()?.trim_start_matches('#')));
    let alternatives = operation["security"].as_array().into_iter().flatten().filter_map(Value::as_object).flatten();
    let schemes = alternatives.map(|(scheme, _)| &description["components"]["securitySchemes"][scheme]);
    parameters.chain(schemes).filter_map(|element| element["name"].as_str().map(str::to_lowercase)).collect()
}

/// A header that the code writes and does not read.
const OF_ANSWERS: &str = "x-accel-buffering";

#[test]
fn the_description_has_the_version_and_the_limits_of_the_code() {
    let description = description();
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    let schemas = &description["components"]["schemas"];
    let parameters = &description["components"]["parameters"];
    let limits = [
        ("src/model.rs", "(1..=", ").contains(&text.len()) && text != ", &schemas["Id"]["maxLength"]),
        ("src/hub/user_set.rs", "MOST: usize = ", ";", &parameters["Users"]["schema"]["maxItems"]),
        (
            "src/hub/heartbeat.rs",
            "SHORTEST: Duration = Duration::from_secs(",
            ")",
            &parameters["Heartbeat"]["schema"]["minimum"],
        ),
        (
            "src/hub/heartbeat.rs",
            "LONGEST: Duration = Duration::from_secs(",
            ")",
            &parameters["Heartbeat"]["schema"]["maximum"],
        ),
        (
            "src/auth/ticket.rs",
            "LIFETIME: Duration = Duration::from_secs(",
            ")",
            &schemas["Ticket"]["properties"]["expires_in"]["maximum"],
        ),
    ];
    for (file, open, close, described) in limits {
        let text = read(file);
        let found = text.split(open).skip(1).find_map(|rest| rest.split_once(close)?.0.parse::<u64>().ok());
        assert_eq!(found, described.as_u64(), "{file}: {open}");
        assert!(found.is_some(), "{file}: `{open}` was not found");
    }
}
