//! What people read: tables, and text from outside made harmless.

use std::{
    io::{self, BufWriter, IsTerminal, Stdout, Write, stderr},
    time::{Duration, Instant},
};

use crate::Error;

/// Standard output, buffered.
pub(super) struct Out {
    writer: BufWriter<Stdout>,
    terminal: bool,
}

impl Out {
    pub(super) fn stdout() -> Self {
        Self { writer: BufWriter::new(io::stdout()), terminal: io::stdout().is_terminal() }
    }

    pub(super) fn line(&mut self, line: impl std::fmt::Display) -> Result<(), Error> {
        writeln!(self.writer, "{line}").map_err(|error| Error::Io("standard output".into(), error))
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    pub(super) const fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A table: a heading and rows, each column as wide as its widest cell.
    pub(super) fn table<const N: usize>(&mut self, heading: [&str; N], rows: &[[String; N]]) -> Result<(), Error> {
        let widths: [usize; N] = std::array::from_fn(|i| {
            let cells = rows.iter().map(|row| width(&row[i]));
            cells.chain([heading[i].len()]).max().unwrap_or(0)
        });
        self.row(&heading, &widths)?;
        rows.iter().try_for_each(|row| self.row(&row.each_ref().map(String::as_str), &widths))
    }

    fn row(&mut self, cells: &[&str], widths: &[usize]) -> Result<(), Error> {
        let mut line = String::new();
        for (cell, &wide) in cells.iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', wide.saturating_sub(width(cell)) + 2));
        }
        self.line(line.trim_end())
    }
}

/// How far something is, on a terminal's standard error.
pub(super) struct Bar {
    unit: &'static str,
    shown: Option<Instant>,
    terminal: bool,
}

impl Bar {
    pub(super) fn new(unit: &'static str) -> Self {
        Self { unit, shown: None, terminal: stderr().is_terminal() }
    }

    pub(super) fn show(&mut self, what: &str, done: u64, total: u64) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() >= Duration::from_millis(100));
        if !self.terminal || !due {
            return;
        }
        self.shown = Some(Instant::now());
        const WIDTH: u64 = 40;
        let full = (done * WIDTH).checked_div(total).unwrap_or(WIDTH) as usize;
        let (unit, rest) = (self.unit, WIDTH as usize - full);
        // A bar that cannot be drawn is not worth an error.
        let _ = write!(stderr(), "\r\x1b[K{what} [{}{}] {done}/{total} {unit}", "#".repeat(full), " ".repeat(rest));
    }

    pub(super) fn clear(&self) {
        if self.shown.is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// Text from outside for a terminal: what could move the cursor, ring, or turn text around is shown as its escape.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// At most so many characters, the last a mark if some are missing.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_steered_from_outside() {
        assert_eq!(harmless("Löschen\u{1b}[2J\r\n\u{202e}x"), "Löschen\\u{1b}[2J\\r\\n\\u{202e}x");
    }

    #[test]
    fn cut_counts_characters() {
        assert_eq!(cut("Grüße", 5), "Grüße");
        assert_eq!(cut("Grüße!", 5), "Grüß…");
    }
}
