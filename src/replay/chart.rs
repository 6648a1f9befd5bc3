//! The chart of a back-test as SVG: the metric with its target above, the running tasks below, what was beside what would have
//! been. Light and dark by the reader's own choice, readable without colours by its legend, and described in words for those who
//! hear it.

use std::fmt::Write;

use super::plot::buckets;
use super::report::{Column, Report};
use crate::model::{Millis, Timestamp};

const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 640.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
/// Top and height of the panels.
const METRIC: (f64, f64) = (124.0, 208.0);
const TASKS: (f64, f64) = (392.0, 184.0);
/// Points of one curve: about one for each pixel.
const POINTS: usize = 900;

/// Colours stand in each rule and not in variables, which not every program that shows an SVG knows.
const STYLE: &str = "\
text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1c2430}\
.title{font-size:18px;font-weight:600}.faint{fill:#5d6878}.head{font-weight:600}.bg{fill:#fff}\
.grid{stroke:#e4e8ee;stroke-width:1}.axis{stroke:#5d6878;stroke-width:1}\
.aim{stroke:#b42318;stroke-width:1.5;stroke-dasharray:6 4;fill:none}.aimt{fill:#b42318}\
.l{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\
.c0{stroke:#b3bac4;stroke-width:5}.c1{stroke:#1f6feb}.c2{stroke:#c2410c}.c3{stroke:#15803d}.c4{stroke:#9333ea}\
.area{fill:#8a94a3;fill-opacity:.16;stroke:none}\
@media(prefers-color-scheme:dark){text{fill:#e8edf4}.faint{fill:#9aa6b6}.bg{fill:#10151c}.grid{stroke:#28313d}.axis{stroke:#9aa6b6}\
.aim{stroke:#ff8a80}.aimt{fill:#ff8a80}.c0{stroke:#5b6675}.c1{stroke:#6cb0ff}.c2{stroke:#ff9a5c}\
.c3{stroke:#5fd38d}.c4{stroke:#cf9bff}\
.area{fill:#8b97a8}}";

/// Policies that have a colour of their own; the chart shows no more.
pub const MOST: usize = 4;

pub fn svg(report: &Report) -> String {
    let columns: Vec<&Column> = report.columns().take(MOST + 1).collect();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"t d\">\n\
         <title id=\"t\">{}</title>\n<desc id=\"d\">{}</desc>\n<style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" class=\"bg\"/>\n",
        escape(&title(report)),
        escape(&description(report)),
    );
    // Writing into a String cannot fail.
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"32\" class=\"title\">{}</text>", escape(&title(report)));
    let span =
        format!("{} to {} UTC, tasks {} to {}", minute(report.start), minute(report.end), report.bounds.0, report.bounds.1);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"52\" class=\"faint\">{}</text>", escape(&span));
    legend(&mut out, &columns);
    let values = columns.iter().flat_map(|column| column.metric.iter().flatten().copied());
    let aims: Vec<f64> = columns.iter().filter_map(|column| column.target).collect();
    let most = values.chain(aims.iter().copied()).fold(0.0, f64::max);
    let unit = if report.unit == "Percent" { "%" } else { report.unit.as_str() };
    let head = if unit.is_empty() { report.metric.clone() } else { format!("{}, {unit}", report.metric) };
    let metric = Panel::new(&mut out, report, METRIC, most, &head, false);
    let mut drawn: Vec<f64> = Vec::new();
    for aim in aims {
        if !drawn.iter().any(|known| (known - aim).abs() < f64::EPSILON) {
            drawn.push(aim);
            let y = metric.y(aim);
            let _ = writeln!(out, "<line class=\"aim\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", WIDTH - RIGHT);
            let label = format!("target {}", number(aim));
            let _ = writeln!(
                out,
                "<text class=\"aimt\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
                WIDTH - RIGHT - 4.0,
                y - 5.0
            );
        }
    }
    for (n, column) in columns.iter().enumerate() {
        metric.curve(&mut out, n, column, &column.metric);
    }
    let most = columns.iter().map(|column| column.figures.most_tasks).fold(0.0, f64::max);
    let tasks = Panel::new(&mut out, report, TASKS, most, "running tasks", true);
    if let Some(actual) = columns.first() {
        tasks.area(&mut out, &actual.running);
    }
    for (n, column) in columns.iter().enumerate() {
        tasks.steps(&mut out, n, column);
    }
    let foot = columns.iter().map(|column| format!("{} {:.2} task-hours", column.name, column.figures.task_hours()));
    let foot = escape(&foot.collect::<Vec<_>>().join(" · "));
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{:.1}\" class=\"faint\">{foot}</text>\n</svg>", HEIGHT - 18.0);
    out
}

fn title(report: &Report) -> String {
    let names: Vec<&str> = report.policies.iter().take(MOST).map(|column| column.name.as_str()).collect();
    format!("Back-test of {} on {}", names.join(", "), report.service)
}

fn description(report: &Report) -> String {
    let mut text =
        format!("{} and running tasks of service {}, {} to {}.", report.metric, report.service, report.start, report.end);
    for column in report.columns() {
        let f = &column.figures;
        let share = if f.seconds > 0 { f.over_s as f64 * 100.0 / f.seconds as f64 } else { 0.0 };
        let _ = write!(
            text,
            " {}: {:.2} task-hours, over target {share:.1} % of the time, at most {} tasks.",
            column.name,
            f.task_hours(),
            number(f.most_tasks)
        );
    }
    text
}

fn legend(out: &mut String, columns: &[&Column]) {
    let mut x = LEFT;
    for (n, column) in columns.iter().enumerate() {
        let _ = writeln!(out, "<line class=\"l c{n}\" x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"74\" y2=\"74\"/>", x + 22.0);
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"78.5\">{}</text>", x + 28.0, escape(&column.name));
        x += 28.0 + 7.6 * column.name.chars().count() as f64 + 24.0;
    }
}

struct Panel {
    top: f64,
    height: f64,
    most: f64,
    length: usize,
}

impl Panel {
    /// With its grid and axes.
    fn new(out: &mut String, report: &Report, (top, height): (f64, f64), most: f64, head: &str, whole: bool) -> Panel {
        let step = nice(most / 5.0, whole);
        let most = ((most / step).ceil() * step).max(step);
        let panel = Panel { top, height, most, length: report.actual.metric.len().max(1) };
        let right = WIDTH - RIGHT;
        let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{:.1}\" class=\"head\">{}</text>", top - 10.0, escape(head));
        let mut tick = 0.0;
        while tick <= most + step / 2.0 {
            let y = panel.y(tick);
            let _ = writeln!(out, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
            let _ = writeln!(
                out,
                "<text class=\"faint\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                y + 4.5,
                number(tick)
            );
            tick += step;
        }
        let bottom = top + height;
        let _ = writeln!(out, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right:.1}\" y1=\"{bottom:.1}\" y2=\"{bottom:.1}\"/>");
        for at in times(report.start, report.end) {
            let x = LEFT + (right - LEFT) * at.since(report.start) as f64 / report.end.since(report.start).max(1) as f64;
            let _ =
                writeln!(out, "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom:.1}\" y2=\"{:.1}\"/>", bottom + 5.0);
            let label = time(at, report.end.since(report.start));
            let _ = writeln!(
                out,
                "<text class=\"faint\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
                bottom + 20.0
            );
        }
        panel
    }

    fn x(&self, second: f64) -> f64 {
        LEFT + (WIDTH - RIGHT - LEFT) * second / self.length as f64
    }

    fn y(&self, value: f64) -> f64 {
        self.top + self.height * (1.0 - (value / self.most).clamp(0.0, 1.0))
    }

    /// Broken where there is no data.
    fn curve(&self, out: &mut String, n: usize, column: &Column, values: &[Option<f64>]) {
        let points = buckets(values, POINTS);
        let each = values.len() as f64 / points.len().max(1) as f64;
        let level = |i: usize| points.get(i).copied().flatten().map(|value| (self.y(value) * 10.0).round() as i64);
        let (mut path, mut pen_down) = (String::new(), false);
        for i in 0..points.len() {
            let Some(y) = level(i) else {
                pen_down = false;
                continue;
            };
            // Inside of a level stretch a point says nothing.
            let says = !pen_down || level(i - 1) != Some(y) || level(i + 1) != Some(y);
            if says {
                let x = self.x((i as f64 + 0.5) * each);
                let _ = write!(path, "{}{x:.1} {:.1}", if pen_down { "L" } else { "M" }, y as f64 / 10.0);
            }
            pen_down = true;
        }
        line(out, n, column, &path);
    }

    /// A count stays until it moves: one corner for each move.
    fn steps(&self, out: &mut String, n: usize, column: &Column) {
        line(out, n, column, &self.stairs(&column.running));
    }

    fn stairs(&self, values: &[Option<f64>]) -> String {
        let (mut path, mut before) = (String::new(), None);
        for (second, value) in values.iter().enumerate().filter(|(n, value)| *n == 0 || values[n - 1] != **value) {
            let x = self.x(second as f64);
            match (before, value) {
                (None, Some(value)) => drop(write!(path, "M{x:.1} {:.1}", self.y(*value))),
                (Some(_), Some(value)) => drop(write!(path, "H{x:.1}V{:.1}", self.y(*value))),
                (Some(_), None) => drop(write!(path, "H{x:.1}")),
                (None, None) => {}
            }
            before = *value;
        }
        if before.is_some() {
            let _ = write!(path, "H{:.1}", self.x(values.len() as f64));
        }
        path
    }

    fn area(&self, out: &mut String, values: &[Option<f64>]) {
        let counts: Vec<Option<f64>> = values.iter().map(|value| Some(value.unwrap_or(0.0))).collect();
        let (stairs, bottom) = (self.stairs(&counts), self.y(0.0));
        if !stairs.is_empty() {
            let _ = writeln!(out, "<path class=\"area\" d=\"{stairs}V{bottom:.1}H{LEFT}Z\"/>");
        }
    }
}

fn line(out: &mut String, n: usize, column: &Column, path: &str) {
    let _ = writeln!(out, "<path class=\"l c{n}\" data-curve=\"{}\" d=\"{path}\"/>", escape(&column.name));
}

/// 1, 2 or 5 times a power of ten, at least as large.
fn nice(least: f64, whole: bool) -> f64 {
    let least = if whole { least.max(1.0) } else { least };
    if !(least.is_finite() && least > 0.0) {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= least * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

const TICKS: [Millis; 18] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400];

/// Round moments of UTC, eight of them at most.
fn times(start: Timestamp, end: Timestamp) -> Vec<Timestamp> {
    let length = end.since(start);
    let days = TICKS.iter().map(|s| s * 1_000).find(|step| length / step <= 8);
    let step = days.unwrap_or((length / 8 / 86_400_000 + 1) * 86_400_000);
    let first = start.floor(step);
    let first = if first < start { first + step } else { first };
    (0..).map(|n| first + n * step).take_while(|at| *at <= end).collect()
}

fn time(at: Timestamp, length: Millis) -> String {
    let iso = at.iso();
    let midnight = at.floor(86_400_000) == at;
    match length {
        _ if midnight && length > 3_600_000 => iso.get(5..10).unwrap_or_default().to_owned(),
        ..=480_000 => iso.get(11..19).unwrap_or_default().to_owned(),
        _ => iso.get(11..16).unwrap_or_default().to_owned(),
    }
}

fn minute(at: Timestamp) -> String {
    at.iso().get(..16).unwrap_or_default().replace('T', " ")
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // No XML document may hold these.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for (least, whole, step) in
            [(0.3, false, 0.5), (0.3, true, 1.0), (10.0, false, 10.0), (14.0, false, 20.0), (0.0, false, 1.0), (2.1, true, 5.0)]
        {
            assert!((nice(least, whole) - step).abs() < 1e-9, "{least}: {}", nice(least, whole));
        }
        let start = Timestamp(1_795_170_232_000);
        for length in [5, 60, 3_600, 10_800, 86_400, 14 * 86_400].map(|s| s * 1_000) {
            let ticks = times(start, start + length);
            assert!((2..=9).contains(&ticks.len()), "{length}: {ticks:?}");
            assert!(ticks.iter().all(|at| *at >= start && *at <= start + length));
        }
        assert_eq!(time(Timestamp(1_795_132_800_000), 86_400_000), "11-20");
        assert_eq!(time(Timestamp(1_795_170_240_000), 86_400_000), "10:24");
        assert_eq!(time(Timestamp(1_795_170_240_000), 60_000), "10:24:00");
    }

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(escape("a<b> & \"c\"\u{1b}"), "a&lt;b&gt; &amp; &quot;c&quot; ");
    }
}
