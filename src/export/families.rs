//! The text of metric families: one HELP and TYPE, then a line per series. Names and escapes by the Prometheus text format 0.0.4.

use std::fmt::Write;

/// Writes families one after another.
#[derive(Default)]
pub struct Page {
    pub text: String,
}

pub enum Kind {
    Counter,
    Gauge,
}

impl Page {
    /// One family: `rows` gives each series' labels (as [`labels`] wrote them) and its value. A family without series is left out.
    pub fn family<L: AsRef<str>>(&mut self, name: &str, kind: Kind, help: &str, rows: impl IntoIterator<Item = (L, f64)>) {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let labels = labels.as_ref();
            let _ = match labels.is_empty() {
                true => writeln!(self.text, "{name} {value}"),
                false => writeln!(self.text, "{name}{{{labels}}} {value}"),
            };
        }
    }
}

/// `a="b",c="d"`, escaped. Empty values are left out: to Prometheus they are the same as none.
pub fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_written_as_the_format_wants() {
        let mut page = Page::default();
        let row = labels([("service", "we\"b\\\n"), ("zone", "")]);
        page.family("x_total", Kind::Counter, "Things.", [(row.as_str(), 1.5)]);
        page.family("nothing", Kind::Gauge, "Left out.", Vec::<(&str, f64)>::new());
        page.family("up", Kind::Gauge, "Up.", [("", 1.0)]);
        assert_eq!(
            page.text,
            "# HELP x_total Things.\n# TYPE x_total counter\nx_total{service=\"we\\\"b\\\\\\n\"} 1.5\n# HELP up Up.\n# TYPE up gauge\nup 1\n"
        );
    }
}
