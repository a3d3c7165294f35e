//! The two text formats of `/metrics`. The library writes OpenMetrics; the classic text of Prometheus is made from it.

use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    registry::Registry,
};

/// The OpenMetrics text of all metrics of some registries. `None`, with a line in the log, when a metric cannot be written as text.
pub(super) fn write<'a>(mut registries: impl Iterator<Item = &'a Registry>) -> Option<String> {
    let mut text = String::new();
    let written = registries.try_for_each(|registry| encode_registry(&mut text, registry));
    let written = written.and_then(|()| encode_eof(&mut text));
    written.inspect_err(|_| tracing::error!("metrics cannot be written as text")).ok()?;
    Some(text)
}

/// A text format for scrapers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus, for scrapers that do not know OpenMetrics.
    Classic,
}

impl TextFormat {
    /// The media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The same metrics in this format.
    #[must_use]
    pub fn convert(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Classic => classic(&open_metrics),
        }
    }
}

/// Samples are the same in both. In OpenMetrics the name of a counter in HELP and TYPE has no `_total`, which its samples have;
/// the classic text needs it in all of them, and has neither units nor an end mark.
fn classic(open_metrics: &str) -> String {
    let (mut text, mut help) = (String::with_capacity(open_metrics.len() + 512), "");
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            // The type follows, which decides the name.
            help = described.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            text.extend(["# HELP ", name, suffix, " ", help, "\n# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_text_has_the_same_samples_and_the_full_name_of_a_counter() {
        let open_metrics = "# HELP a Things.\n# TYPE a counter\n# UNIT a bytes\na_total{b=\"# c\"} 1\n# HELP d D d.\n\
                            # TYPE d gauge\nd 2\n# HELP e E.\n# TYPE e unknown\ne 3\n# EOF\n";
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total{b=\"# c\"} 1\n# HELP d D d.\n\
                        # TYPE d gauge\nd 2\n# HELP e E.\n# TYPE e untyped\ne 3\n";
        assert_eq!(TextFormat::Classic.convert(open_metrics.to_owned()), expected);
        assert_eq!(TextFormat::OpenMetrics.convert(open_metrics.to_owned()), open_metrics);
    }
}
