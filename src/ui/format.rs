//! Numbers, times and tables in the form in which docker prints them.

use std::time::Duration;

use super::text;

/// Returns a size with `digits` significant digits and a decimal unit.
fn size_with(bytes: u64, digits: usize) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    loop {
        let integer_digits = (value.max(1.0).log10().floor() as usize) + 1;
        let decimals = digits.saturating_sub(integer_digits);
        let text = format!("{value:.decimals$}");
        // Rounding may reach the next unit: 999,960 bytes are 1MB, not 1000kB.
        let rounded: f64 = text.parse().unwrap_or(value);
        if rounded >= 1000.0 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
            continue;
        }
        let text = match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.'),
            false => &text,
        };
        return format!("{text}{}", UNITS[unit]);
    }
}

/// Returns a size in three significant digits: `1.23MB`, `77.8MB`.
pub fn size(bytes: u64) -> String {
    size_with(bytes, 3)
}

/// Returns a size in four significant digits, for what changes while it is looked at.
pub fn size_precise(bytes: u64) -> String {
    size_with(bytes, 4)
}

/// Returns a length of time in words: `2 minutes`, `About an hour`.
pub fn age(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let minutes = seconds / 60;
    // To the nearest hour, while everything else is rounded down: as docker does it.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// Returns how long ago something was: `2 minutes ago`.
pub fn ago(elapsed: Duration) -> String {
    format!("{} ago", age(elapsed))
}

/// Returns the time that a step took, in seconds: `12.3s`.
pub fn elapsed(elapsed: Duration) -> String {
    format!("{:.1}s", elapsed.as_secs_f64())
}

/// Returns a moment within a step, in seconds and four digits: `1.234`, `12.34`.
pub fn stamp(since_start: Duration) -> String {
    let decimals = match since_start.as_secs() {
        0..10 => 3,
        10..100 => 2,
        100..1000 => 1,
        _ => 0,
    };
    format!("{:.decimals$}", since_start.as_secs_f64())
}

/// Returns an id without its algorithm, cut to the twelve digits that people are shown.
pub fn short_id(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

/// Cuts `text` to at most `columns`, with `…` at the end of what was cut.
pub fn ellipsis(text: &str, columns: usize) -> String {
    text::truncate(&text::one_line(text), columns).into_owned()
}

/// A table as docker prints it: a header and left-aligned columns.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Blanks between two columns.
    const GAP: usize = 3;
    /// What a column takes at least, its gap included.
    const MIN_COLUMN: usize = 10;

    /// Returns a table that has only its header.
    pub fn new<S: AsRef<str>>(header: impl IntoIterator<Item = S>) -> Table {
        let mut table = Table { rows: Vec::new() };
        table.row(header);
        table
    }

    /// Adds a row.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let cells = cells.into_iter().map(|cell| text::one_line(cell.as_ref()));
        self.rows.push(cells.collect());
    }

    /// Returns the whole table, each row ended by a newline.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let widest = cells.map(|cell| text::width(cell)).max().unwrap_or(0);
                (widest + Table::GAP).max(Table::MIN_COLUMN)
            })
            .collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let blanks = width - text::width(cell);
                line.extend(std::iter::repeat_n(' ', blanks));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_docker_prints_them() {
        for (bytes, three, four) in [
            (0, "0B", "0B"),
            (1, "1B", "1B"),
            (999, "999B", "999B"),
            (1000, "1kB", "1kB"),
            (1001, "1kB", "1.001kB"),
            (1_230_000, "1.23MB", "1.23MB"),
            (1_234_567, "1.23MB", "1.235MB"),
            (77_812_345, "77.8MB", "77.81MB"),
            (100_000_000, "100MB", "100MB"),
            (999_960, "1MB", "1MB"),
            (9_999, "10kB", "9.999kB"),
            (2_000_000_000, "2GB", "2GB"),
            (u64::MAX, "18.4EB", "18.45EB"),
        ] {
            assert_eq!((&*size(bytes), &*size_precise(bytes)), (three, four));
        }
    }

    #[test]
    fn ages_use_the_words_of_docker() {
        let (m, h, d) = (60, 3600, 24 * 3600);
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (2 * m, "2 minutes"),
            (59 * m + 59, "59 minutes"),
            (60 * m, "About an hour"),
            (89 * m, "About an hour"),
            (90 * m, "2 hours"),
            (47 * h, "47 hours"),
            (48 * h, "2 days"),
            (13 * d, "13 days"),
            (14 * d, "2 weeks"),
            (59 * d, "8 weeks"),
            (60 * d, "2 months"),
            (729 * d, "24 months"),
            (730 * d, "2 years"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), words, "{seconds}");
        }
        assert_eq!(ago(Duration::from_secs(120)), "2 minutes ago");
    }

    #[test]
    fn stamps_keep_their_width() {
        let stamp = |millis| stamp(Duration::from_millis(millis));
        assert_eq!(stamp(7), "0.007");
        assert_eq!(stamp(12_345), "12.35");
        assert_eq!(stamp(123_456), "123.5");
        assert_eq!(stamp(1_234_567), "1235");
    }

    #[test]
    fn short_id_drops_the_algorithm() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("sha256:12"), "12");
        assert_eq!(short_id("漢漢漢漢漢"), "漢漢漢漢");
    }

    #[test]
    fn table_has_three_blanks_between_columns_and_none_at_line_ends() {
        let mut table = Table::new(["REPOSITORY", "TAG", "IMAGE ID", "SIZE"]);
        table.row(["debian", "bookworm", "0123456789ab", "77.8MB"]);
        table.row(["registry.example.org/hello", "1", "ba9876543210", ""]);
        table.row(["漢字", "a\nb", "\x1b[31m", "1B"]);
        assert_eq!(
            table.render(),
            "\
REPOSITORY                   TAG        IMAGE ID       SIZE
debian                       bookworm   0123456789ab   77.8MB
registry.example.org/hello   1          ba9876543210
漢字                         a b                       1B
"
        );
    }

    #[test]
    fn narrow_columns_are_padded_to_ten() {
        let mut table = Table::new(["A", "B"]);
        table.row(["1", "2"]);
        assert_eq!(table.render(), "A         B\n1         2\n");
    }
}
