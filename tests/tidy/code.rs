//! Reads Rust source as far as the checks need it: paths, functions and macros, without comments and literals.

/// The words and symbols of a file, each with its line, without comments and literals.
pub(super) struct Code(Vec<Token>);

struct Token {
    line: usize,
    text: String,
}

impl Code {
    pub(super) fn of(text: &str) -> Self {
        let mut tokens = Vec::new();
        for (index, line) in without_literals(text).lines().enumerate() {
            let mut rest = line.trim_start();
            while let Some(first) = rest.chars().next() {
                let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let length = if word > 0 {
                    word
                } else if rest.starts_with("::") {
                    2
                } else {
                    first.len_utf8()
                };
                tokens.push(Token { line: index + 1, text: rest[..length].to_owned() });
                rest = rest[length..].trim_start();
            }
        }
        Self(tokens)
    }

    /// Every path in the file, from its root: each name of a `use` is one path, `self` and `super` are resolved from `module`.
    pub(super) fn paths(&self, module: &str) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.0.len() {
            // `use<'a>` in a type is not an import.
            if self.text(at) == "use" && self.text(at + 1) != "<" {
                at = self.import(at + 1, "", &mut paths);
            } else if self.is_word(at) && self.text(at + 1) == "::" {
                let (line, mut path) = (self.0[at].line, self.text(at).to_owned());
                while self.text(at + 1) == "::" && self.is_word(at + 2) {
                    at += 2;
                    path = format!("{path}::{}", self.text(at));
                }
                paths.push((line, path));
                at += 1;
            } else {
                at += 1;
            }
        }
        paths.into_iter().map(|(line, path)| (line, from_root(&path, module))).collect()
    }

    /// Reads one branch of an import; gives the position after it.
    fn import(&self, mut at: usize, prefix: &str, paths: &mut Vec<(usize, String)>) -> usize {
        let mut path = prefix.to_owned();
        while at < self.0.len() {
            match self.text(at) {
                "{" => {
                    at += 1;
                    while !["}", ""].contains(&self.text(at)) {
                        at = self.import(at, &path, paths);
                        at += usize::from(self.text(at) == ",");
                    }
                    return at + 1;
                }
                "," | ";" | "}" => break,
                // The new name of an import says nothing about where the item comes from.
                "as" => at += 1,
                "::" => {}
                "self" if !path.is_empty() => {}
                word if path.is_empty() => word.clone_into(&mut path),
                word => path = format!("{path}::{word}"),
            }
            at += 1;
        }
        paths.push((self.0[at.min(self.0.len()) - 1].line, path));
        at
    }

    /// Every function with a body: its first line, its name and its number of lines.
    pub(super) fn functions(&self) -> Vec<(usize, &str, usize)> {
        let starts = (0..self.0.len()).filter(|at| self.text(*at) == "fn" && self.is_word(at + 1));
        let whole = |at: usize| {
            let body = self.body(at)?;
            let end = self.closing(body)?;
            Some((self.0[at].line, self.text(at + 1), self.0[end].line - self.0[at].line + 1))
        };
        starts.filter_map(whole).collect()
    }

    /// The position where the body of a function begins; none for a declaration.
    fn body(&self, function: usize) -> Option<usize> {
        let mut depth = 0;
        for at in function..self.0.len() {
            match self.text(at) {
                "(" | "[" => depth += 1,
                ")" | "]" => depth -= 1,
                "{" if depth == 0 => return Some(at),
                ";" if depth == 0 => return None,
                _ => {}
            }
        }
        None
    }

    fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0;
        (open..self.0.len()).find(|at| {
            match self.text(*at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            depth == 0
        })
    }

    /// The name of every macro call.
    pub(super) fn macros(&self) -> Vec<(usize, &str)> {
        let calls =
            (0..self.0.len()).filter(|at| self.is_word(*at) && self.text(at + 1) == "!" && self.text(at + 2) != "=");
        calls.map(|at| (self.0[at].line, self.text(at))).collect()
    }

    /// The token at a position; empty after the last one.
    fn text(&self, at: usize) -> &str {
        self.0.get(at).map_or("", |token| token.text.as_str())
    }

    fn is_word(&self, at: usize) -> bool {
        self.text(at).starts_with(is_word)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn from_root(path: &str, module: &str) -> String {
    let mut segments = path.split("::").peekable();
    let mut root: Vec<&str> = match segments.peek() {
        Some(&"self" | &"super") => module.split("::").collect(),
        _ => Vec::new(),
    };
    for segment in segments {
        match segment {
            "self" => {}
            "super" => drop(root.pop()),
            "backend_signal" if root.is_empty() => root.push("crate"),
            _ => root.push(segment),
        }
    }
    root.join("::")
}

/// The same lines, with spaces instead of comments, strings and characters.
fn without_literals(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let begins_word = !code.ends_with(is_word);
        let literal = literal(rest, begins_word);
        if literal > 0 {
            code.extend(rest[..literal].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[literal..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// The length of the comment or literal at the beginning of the text; 0 if there is none.
fn literal(text: &str, begins_word: bool) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return comment(text);
    }
    let prefix = text.find(|c| !"bcr".contains(c)).unwrap_or(0);
    let (kind, rest) = text.split_at(if begins_word { prefix } else { 0 });
    if kind.contains('r') {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        if !rest[hashes..].starts_with('"') {
            return 0;
        }
        let end = format!("\"{}", &rest[..hashes]);
        let open = kind.len() + hashes + 1;
        return text[open..].find(&end).map_or(text.len(), |at| open + at + end.len());
    }
    match rest.chars().next() {
        Some('"') => kind.len() + quoted(rest, '"'),
        // A lifetime or a label has no second quote after one character.
        Some('\'') if rest[1..].starts_with('\\') || rest[1..].chars().nth(1) == Some('\'') => {
            kind.len() + quoted(rest, '\'')
        }
        _ => 0,
    }
}

/// The length of a block comment. Block comments nest.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let next = &text.as_bytes()[at..];
        let step = match next {
            [b'/', b'*', ..] => 1,
            [b'*', b'/', ..] => -1,
            _ => 0,
        };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

#[test]
fn the_reader_sees_paths_as_the_compiler_does() {
    let text = "use std::{fmt, io::{self, Read as _}};\nuse super::{slot::Slot, *};\nuse crate::hub as api;\n\
                /* axum::a /* */ */ fn f<'a>(x: &'a str) -> [u8; 2] { // axum::b\n    let c = ('\"', \"axum::c\", r#\"axum\"::d\"#, b'x');\n\
                http::HeaderMap::<u8>::new(self::x::y, super::super::z::w)\n}";
    let paths: Vec<_> =
        Code::of(text).paths("crate::hub::log").into_iter().map(|(line, path)| format!("{line} {path}")).collect();
    let expected =
        ["1 std::fmt", "1 std::io", "1 std::io::Read", "2 crate::hub::slot::Slot", "2 crate::hub::*", "3 crate::hub"];
    assert_eq!(paths[..6], expected);
    assert_eq!(paths[6..], ["6 http::HeaderMap", "6 crate::hub::log::x::y", "6 crate::z::w"]);
    assert_eq!(Code::of(text).functions(), [(4, "f", 4)]);
}
