//! What was measured, as one table, with whatever went wrong with the messages.

use std::fmt::Display;

/// The rows so far, printed as they come and once more at the end.
pub struct Table {
    rows: Vec<[String; 4]>,
    faults: u64,
}

impl Table {
    pub fn new() -> Self {
        Self { rows: Vec::new(), faults: 0 }
    }

    /// A row: what was measured, at which server, the figure, and what else there is to say.
    pub fn row(&mut self, what: &str, server: &str, figure: impl Display, remark: impl Display) {
        let row = [what.to_owned(), server.to_owned(), figure.to_string(), remark.to_string()];
        eprintln!("{}", row.join(" | "));
        self.rows.push(row);
    }

    /// Messages that were lost, repeated, misdirected or refused.
    pub fn fault(&mut self, what: &str, count: u64) {
        if count > 0 {
            self.faults += count;
            self.row(what, "", count, "messages lost, repeated, misdirected or refused");
        }
    }

    pub fn is_clean(&self) -> bool {
        self.faults == 0
    }

    /// Nothing when all that ran has a table of its own.
    pub fn print(&self) {
        if self.rows.is_empty() {
            return;
        }
        println!("\n| What | Server | Figure | |\n| --- | --- | --- | --- |");
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
    }
}

/// The middle of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The share of all values that are at most this one, for `share` between 0 and 1.
pub fn quantile(values: &mut [u32], share: f64) -> u32 {
    values.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}
