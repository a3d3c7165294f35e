//! Follows the links between the pages: every file and every heading that one names must exist.

use std::{collections::BTreeSet, fs, path::Path};

use super::{Faults, read, root};

/// Folders with pages of this project. The root itself is looked at without its other folders.
const FOLDERS: &[&str] = &["", "docs", "web", "examples", "examples/adapters", "benches", "deploy"];

#[test]
fn every_link_between_pages_leads_to_a_file_and_a_heading() {
    let mut faults = Faults::default();
    let pages = pages();
    assert!(pages.len() > 8, "only {} pages were found", pages.len());
    let mut count = 0;
    for page in &pages {
        for (line, target) in links(&read(page)) {
            count += 1;
            let (path, anchor) = target.split_once('#').map_or((&*target, None), |(path, anchor)| (path, Some(anchor)));
            let file = if path.is_empty() { page.clone() } else { resolve(page, path) };
            if !root().join(&file).exists() {
                faults.add(page, line, format!("`{target}`: there is no file `{file}`"));
            } else if anchor.is_some_and(|anchor| !is_page(&file) || !anchors(&read(&file)).contains(anchor)) {
                faults.add(page, line, format!("`{target}`: `{file}` has no such heading"));
            }
        }
    }
    assert!(count > 50, "only {count} links were found");
    faults.report();
}

/// The pages of this project, by their path from the root.
fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(root().join(folder)).into_iter().flatten() {
            let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            if is_page(&name) {
                pages.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
            }
        }
    }
    pages.sort();
    pages
}

fn is_page(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "md")
}

/// The lines of a page outside its blocks of code, with their numbers.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    page.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (!fence && !in_code).then_some((index + 1, line))
    })
}

/// The targets of all links and pictures that lead to a file or a heading, not to another site.
fn links(page: &str) -> Vec<(usize, String)> {
    let target = |rest: &str| Some(rest.split_once(')')?.0.to_owned());
    let targets = prose(page).flat_map(|(line, text)| {
        text.split("](").skip(1).filter_map(move |rest| Some((line, target(rest)?))).collect::<Vec<_>>()
    });
    targets.filter(|(_, target)| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// The path from the root of what a page names relative to itself.
fn resolve(page: &str, path: &str) -> String {
    let mut parts: Vec<_> = page.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors that GitHub gives the headings of a page.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(page) {
        let Some((marks, title)) = line.split_once(' ').filter(|(marks, _)| marks.starts_with('#')) else { continue };
        if marks.trim_start_matches('#').is_empty() {
            let name = anchor(title);
            let again = (1..).map(|number| format!("{name}-{number}"));
            let free = [name.clone()].into_iter().chain(again).find(|name| !anchors.contains(name));
            anchors.extend(free);
        }
    }
    anchors
}

/// `## What is *not* protected` has the anchor `what-is-not-protected`. A link in a heading counts by its text.
fn anchor(title: &str) -> String {
    let mut text = String::new();
    for (index, part) in title.split("](").enumerate() {
        text += if index == 0 { part } else { part.split_once(')').map_or(part, |(_, rest)| rest) };
    }
    let kept = text.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn an_anchor_is_what_github_makes_of_a_heading() {
    for (title, expected) in [
        ("What is *not* protected", "what-is-not-protected"),
        ("@microsoft/fetch-event-source", "microsoftfetch-event-source"),
        ("`--dev` and [a link](a.md#b) in it", "--dev-and-a-link-in-it"),
        ("Keycloak, Auth0, Firebase", "keycloak-auth0-firebase"),
    ] {
        assert_eq!(anchor(title), expected);
    }
    let page = "# One\n```sh\n# no heading\n```\n## One\n";
    assert_eq!(anchors(page).into_iter().collect::<Vec<_>>(), ["one", "one-1"]);
}
