//! The table.

use std::{fmt, fs, path::Path, time::Duration};

use crate::{
    Outcome,
    row::{Figures, Row},
};

#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    name: &'static str,
    what: &'static str,
    took: Duration,
    result: Result<Figures, String>,
}

const HEAD: [&str; 9] = ["row", "sent", "acked", "stored", "duplicates", "refused", "lost", "twice", "recovery s"];

impl Report {
    /// Adds a row's result, prints it, and says whether it is as it must be.
    pub(crate) fn add(&mut self, row: &Row, took: Duration, result: Outcome<Figures>) -> bool {
        let result = result.map_err(|error| error.to_string());
        let (verdict, more) = match &result {
            Ok(figures) => ("ok", figures.note.clone()),
            Err(error) => ("FAILED", error.clone()),
        };
        println!("{:<20}{verdict:<7}{:>6.1} s  {more}", row.name, took.as_secs_f64());
        let is_well = result.is_ok();
        self.lines.push(Line { name: row.name, what: row.what, took, result });
        is_well
    }

    pub(crate) fn is_well(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(|line| line.result.is_ok())
    }

    /// Writes the figures into a document, between its two marks.
    pub(crate) fn write(&self, document: &Path, short: bool) -> Outcome<()> {
        const BEGIN: &str = "<!-- figures: written by `make faults` -->\n";
        const END: &str = "<!-- end of figures -->";
        let text = fs::read_to_string(document)?;
        let (before, rest) = text.split_once(BEGIN).ok_or("the document has no mark for the figures")?;
        let (_, after) = rest.split_once(END).ok_or("the document has no mark for the end of the figures")?;
        let mut table = format!("| {} | verdict | notes |\n", HEAD.join(" | "));
        table.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|---|---|\n");
        for line in &self.lines {
            let [cells, verdict, note] = [line.cells().join(" | "), line.verdict().into(), line.note()];
            table.push_str(&format!("| {cells} | {verdict} | {} |\n", note.replace('|', "/")));
        }
        let version = if short { "Short version." } else { "Full version." };
        table.push_str(&format!("\n{version}\n\n"));
        for line in &self.lines {
            table.push_str(&format!("- **{}**: {}\n", line.name, line.what));
        }
        fs::write(document, format!("{before}{BEGIN}{table}{END}{after}"))?;
        Ok(())
    }
}

impl Line {
    fn cells(&self) -> [String; 9] {
        let name = self.name.to_owned();
        let Ok(figures) = &self.result else {
            return std::array::from_fn(|i| if i == 0 { name.clone() } else { "?".to_owned() });
        };
        let recovery = figures.recovery.map_or_else(|| "-".to_owned(), |time| format!("{:.2}", time.as_secs_f64()));
        let Figures { sent, acked, stored, duplicates, refused, lost, twice, .. } = figures;
        let [a, b, c, d, e, f, g] = [sent, acked, stored, duplicates, refused, lost, twice].map(u64::to_string);
        [name, a, b, c, d, e, f, g, recovery]
    }

    const fn verdict(&self) -> &'static str {
        if self.result.is_ok() { "ok" } else { "FAILED" }
    }

    fn note(&self) -> String {
        match &self.result {
            Ok(figures) => figures.note.clone(),
            Err(error) => error.lines().next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![HEAD.map(str::to_owned)];
        rows.extend(self.lines.iter().map(Line::cells));
        let widths: [usize; 9] = std::array::from_fn(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0));
        for (i, row) in rows.iter().enumerate() {
            write!(f, "{:<width$}", row[0], width = widths[0])?;
            for (cell, width) in row.iter().zip(widths).skip(1) {
                write!(f, "  {cell:>width$}")?;
            }
            match i.checked_sub(1).map(|i| &self.lines[i]) {
                Some(line) => writeln!(f, "  {}", line.verdict())?,
                None => writeln!(f, "  verdict")?,
            }
        }
        let failed = self.lines.iter().filter(|line| line.result.is_err()).count();
        let seconds: f64 = self.lines.iter().map(|line| line.took.as_secs_f64()).sum();
        write!(f, "\n{} rows in {seconds:.0} s, {failed} failed", self.lines.len())
    }
}
