//! Words on a terminal: colours, tables, times and sizes. Everything printed goes through [`say`], so that a closed pipe is an error
//! to end on and not a panic.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::OwoColorize;

use crate::model::{Millis, Timestamp};

/// Whether to colour: on a terminal, and unless NO_COLOR (no-color.org) is set to something.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    Good,
    Bad,
    Warn,
    Faint,
    Strong,
    /// One of a few colours that tell sources apart.
    Source(usize),
}

impl Paint {
    pub fn stdout() -> Paint {
        Paint { on: io::stdout().is_terminal() && colours_wanted() }
    }
    pub fn stderr() -> Paint {
        Paint { on: io::stderr().is_terminal() && colours_wanted() }
    }
    #[cfg(test)]
    pub fn off() -> Paint {
        Paint { on: false }
    }
    #[cfg(test)]
    pub fn on() -> Paint {
        Paint { on: true }
    }

    pub fn ink(self, ink: Ink, text: &str) -> String {
        if !self.on || text.is_empty() {
            return text.to_owned();
        }
        match ink {
            Ink::Good => text.green().to_string(),
            Ink::Bad => text.red().to_string(),
            Ink::Warn => text.yellow().to_string(),
            Ink::Faint => text.dimmed().to_string(),
            Ink::Strong => text.bold().to_string(),
            Ink::Source(number) => match number % 6 {
                0 => text.cyan().to_string(),
                1 => text.magenta().to_string(),
                2 => text.green().to_string(),
                3 => text.yellow().to_string(),
                4 => text.blue().to_string(),
                _ => text.bright_red().to_string(),
            },
        }
    }
}

fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// The ink of a task's, service's, rollout's or alarm's status.
pub fn status_ink(status: &str) -> Ink {
    match status {
        "RUNNING" | "ACTIVE" | "HEALTHY" | "OK" | "COMPLETED" | "ok" | "CONNECTED" => Ink::Good,
        "STOPPED" | "UNHEALTHY" | "ALARM" | "FAILED" | "INACTIVE" => Ink::Bad,
        "UNKNOWN" => Ink::Faint,
        _ => Ink::Warn,
    }
}

pub fn say(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

pub fn say_json(value: &serde_json::Value) -> anyhow::Result<()> {
    say(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// A table without lines, or, without rows, `nothing`.
pub fn table(head: &[&str], rows: Vec<Vec<String>>, nothing: &str) -> String {
    if rows.is_empty() {
        return format!("{nothing}\n");
    }
    let mut table = Table::new();
    // Lines as long as they are: they are piped to other programs, and a terminal wraps by itself.
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for row in rows {
        table.add_row(row);
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `45s`, `12m`, `3h20m`, `5d4h`.
pub fn span(ms: Millis) -> String {
    let s = ms.max(0) / 1000;
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60).replace("m00s", "m"),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60).replace("h00m", "h"),
        _ => format!("{}d{}h", s / 86_400, s % 86_400 / 3_600).replace("d0h", "d"),
    }
}

pub fn ago(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "-".to_owned(), |at| span(now.since(at)))
}

/// `512 B`, `1.5 MiB`, `2.0 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Cuts to `width` characters, with an ellipsis.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

/// One line, safe to print: control characters of a container's output must not steer the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A length of time as people write it: `90s`, `10m`, `2h`, `1d`, `250ms`; a bare number is seconds.
pub fn parse_span(text: &str) -> Result<Millis, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{text} is no length of time: write 90s, 10m, 2h or 1d")),
    };
    let number: Millis = number.parse().map_err(|_| format!("{text} is no length of time: write 90s, 10m, 2h or 1d"))?;
    number.checked_mul(scale).ok_or_else(|| format!("{text} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        for (ms, text) in [
            (-5, "0s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (754_000, "12m34s"),
            (3_600_000, "1h"),
            (12_000_000, "3h20m"),
            (86_400_000, "1d"),
            (446_400_000, "5d4h"),
        ] {
            assert_eq!(span(ms), text);
        }
        for (n, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (u64::MAX, "16777216.0 TiB")] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn spans_as_people_write_them() {
        for (text, ms) in
            [("90", 90_000), ("90s", 90_000), ("10m", 600_000), ("2h", 7_200_000), ("1d", 86_400_000), ("250ms", 250)]
        {
            assert_eq!(parse_span(text), Ok(ms), "{text}");
        }
        for text in ["", "m", "10x", "-5s", "1.5h", "99999999999999999d"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tables_are_aligned_without_trailing_blanks() {
        let rows = vec![vec!["web".to_owned(), "2".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "N"], rows, "none"), "NAME    N\nweb     2\nlonger\n");
        assert_eq!(table(&["NAME"], vec![], "none"), "none\n");
    }

    #[test]
    fn colours_only_where_wanted() {
        assert_eq!(Paint::off().ink(Ink::Good, "RUNNING"), "RUNNING");
        assert_eq!(Paint::on().ink(Ink::Good, "RUNNING"), "\u{1b}[32mRUNNING\u{1b}[39m");
        assert_eq!(printable("a\u{1b}[2Jb\tc"), "a\u{fffd}[2Jb\tc");
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
