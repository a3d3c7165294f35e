//! Checks only the form of Traefik's files: that they are YAML mappings, and that every name in use is defined.

use super::{blocks, section};

/// A line of a YAML file of mappings: the path of its keys, and the text after the last one.
type Line = (Vec<String>, String);

/// The mappings of a file. Checks what such a file needs: indentation by two spaces, each key once, quoted texts.
fn mappings(text: &str) -> Vec<Line> {
    let (mut path, mut lines): (Vec<String>, Vec<Line>) = Default::default();
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        let content = line.trim_start();
        let indentation = line.len() - content.len();
        let content = content.strip_prefix("- ").unwrap_or(content);
        assert!(indentation % 2 == 0 && !line.contains('\t'), "{line:?}");
        let depth = indentation / 2;
        assert!(depth <= path.len(), "{line:?} is not below a key");
        let (key, value) = content.split_once(':').unwrap_or_else(|| panic!("{line:?} has no key"));
        assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{line:?}");
        let value = value.trim();
        let is_plain = ["", "true", "false", "{}"].contains(&value) || value.parse::<u32>().is_ok();
        let is_quoted =
            value.starts_with(['"', '[']) && value.ends_with(['"', ']']) && value.matches('"').count() % 2 == 0;
        assert!(is_plain || is_quoted, "{line:?}");
        path.truncate(depth);
        path.push(key.to_owned());
        assert!(lines.iter().all(|(other, _)| *other != path), "{path:?} is there twice");
        lines.push((path.clone(), value.to_owned()));
    }
    lines
}

/// The names between quotation marks.
fn names(value: &str) -> impl Iterator<Item = &str> {
    value.split('"').skip(1).step_by(2)
}

#[test]
fn the_files_are_mappings_and_every_name_in_them_is_defined() {
    let files = blocks(section("Behind Traefik"), "yaml");
    let [settings, routes] = [files[0], files[1]].map(mappings);
    assert_eq!(files.len(), 2);
    let is_defined = |file: &[Line], path: &[&str]| file.iter().any(|(found, _)| found == path);
    let mut used = 0;
    for (path, value) in &routes {
        let [first, kind, name, key] = path.iter().map(String::as_str).collect::<Vec<_>>()[..] else { continue };
        if (first, kind) != ("http", "routers") {
            continue;
        }
        for target in names(value) {
            let defined = match key {
                "entryPoints" => is_defined(&settings, &["entryPoints", target]),
                "middlewares" => is_defined(&routes, &["http", "middlewares", target]),
                "service" => is_defined(&routes, &["http", "services", target]),
                _ => continue,
            };
            assert!(defined, "{name}: {key} {target}");
            used += 1;
        }
        if key == "middlewares" {
            assert_eq!(names(value).next(), Some("strip-claim"), "{name}: the client's own claim comes through");
        }
    }
    assert_eq!(used, 7);
    let resolvers = routes.iter().filter(|(path, _)| path.last().is_some_and(|key| key == "certResolver"));
    for (_, value) in resolvers {
        assert!(names(value).all(|name| is_defined(&settings, &["certificatesResolvers", name])), "{value}");
    }
}
