//! A reference parser of the event stream format, written from the WHATWG standard (HTML, section 9.2.6) and not from our writer.

/// An event as a browser would dispatch it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The last event id at the time of the event.
    pub id: String,
    /// The event's type; `message` when the stream gave none.
    pub name: String,
    /// The data.
    pub data: String,
}

/// Takes bytes in portions of any size, and gives events.
#[derive(Debug, Default)]
pub struct Parser {
    bytes: Vec<u8>,
    begun: bool,
    /// The last line ended with CR. An LF right after it belongs to the same line end.
    half_ended: bool,
    name: String,
    data: String,
    id: String,
    /// What a browser would send as `Last-Event-ID`.
    pub last_event_id: String,
    /// The reconnection time, if the stream set one.
    pub retry: Option<u64>,
    /// Comments, which a browser ignores.
    pub comments: Vec<String>,
}

impl Parser {
    /// Takes more bytes, gives the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.bytes.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(line) = self.take_line() {
            events.extend(self.line(&line));
        }
        events
    }

    /// A line ends with LF, CR or CRLF. CR ends it at once, because an LF after it may come much later; that LF is skipped.
    fn take_line(&mut self) -> Option<String> {
        if !self.begun {
            if self.bytes.len() < 3 {
                return None;
            }
            if self.bytes.starts_with("\u{feff}".as_bytes()) {
                self.bytes.drain(..3);
            }
            self.begun = true;
        }
        if self.half_ended && !self.bytes.is_empty() {
            self.half_ended = false;
            if self.bytes[0] == b'\n' {
                self.bytes.remove(0);
            }
        }
        let end = self.bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
        self.half_ended = self.bytes[end] == b'\r';
        let line = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
        self.bytes.drain(..=end);
        Some(line)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments.push(value.to_owned()),
            "event" => value.clone_into(&mut self.name),
            "data" => self.data = std::mem::take(&mut self.data) + value + "\n",
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok();
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        self.last_event_id.clone_from(&self.id);
        let (name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if data.is_empty() {
            return None;
        }
        data.pop();
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(Event { id: self.last_event_id.clone(), name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, name: &str, data: &str) -> Event {
        Event { id: id.into(), name: name.into(), data: data.into() }
    }

    #[test]
    fn the_examples_of_the_standard_hold() {
        let stream = "\u{feff}: test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\ndata\n\ndata\ndata\n\ndata:";
        let events = Parser::default().push(stream.as_bytes());
        let expected = [
            event("1", "message", "first event"),
            event("", "message", "second event"),
            event("", "message", " third event"),
            event("", "message", ""),
            event("", "message", "\n"),
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn lines_end_in_three_ways_and_an_id_alone_fires_nothing() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(b"retry: 5\r\nid: a\r\r\nevent: x\ndata: 1\r"), []);
        assert_eq!(parser.last_event_id, "a");
        assert_eq!(parser.push(b"\ndata: 2\n\n"), [event("a", "x", "1\n2")]);
        assert_eq!(parser.retry, Some(5));
    }

    #[test]
    fn a_carriage_return_at_the_end_of_a_portion_ends_the_line() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(b"data: 1\r\r"), [event("", "message", "1")]);
        assert_eq!(parser.push(b"\ndata: 2\r"), []);
        assert_eq!(parser.push(b"\n\r"), [event("", "message", "2")]);
    }

    #[test]
    fn what_a_browser_ignores_is_ignored() {
        let mut parser = Parser::default();
        let stream = ": one\nid: a\nid: b\0c\nretry: 1x\nretry: -1\nretry\nDATA: no\n data: no\nnonsense\nevent: x\n\ndata: 1\n\n";
        // An event without data fires nothing, and its name does not go to the next event.
        assert_eq!(parser.push(stream.as_bytes()), [event("a", "message", "1")]);
        assert_eq!((parser.retry, parser.comments.as_slice()), (None, &["one".to_owned()][..]));
        // A byte order mark counts only at the beginning.
        assert_eq!(parser.push("\u{feff}data: 2\n\n".as_bytes()), []);
        assert_eq!(parser.push(b"data: unfinished"), []);
    }

    #[test]
    fn the_portions_may_split_the_bytes_anywhere() {
        let stream =
            "\u{feff}: c\r\rid: 1\r\nevent: \u{e9}\rdata: a\r\ndata:\n\r\nretry: 7\n\ndata: \u{260e}\r\rdata: b\n\r"
                .as_bytes();
        let whole = Parser::default().push(stream);
        assert_eq!(whole.len(), 3);
        for size in 1..stream.len() {
            for from in 0..=size {
                let (first, rest) = stream.split_at(from);
                let mut parser = Parser::default();
                let mut events = parser.push(first);
                events.extend(rest.chunks(size).flat_map(|part| parser.push(part)));
                assert_eq!((events, parser.retry), (whole.clone(), Some(7)), "{from} and then by {size}");
            }
        }
    }
}
