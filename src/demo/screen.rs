//! The demo on a terminal: load, latency, utilization and tasks as they move, and the decisions with their reasons.

use std::time::Duration;

use anyhow::Context;
use crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Sparkline, Wrap};
use tokio_util::sync::CancellationToken;

use super::stage::{CLUSTER, MOST_TASKS, SERVICE, TARGET};
use super::summary::{Recording, Seen};
use super::{Play, watch};

const FRAME: Duration = Duration::from_millis(200);

/// Draws until the play is over (with `keep`, until the person ends it), `q` or Ctrl-C.
pub async fn show(play: &Play, stop: &CancellationToken, over: &CancellationToken, keep: bool) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("this is no terminal that can be drawn on; use --once")?;
    let shown = draw_until_over(&mut terminal, play, stop, over, keep).await;
    ratatui::restore();
    shown
}

async fn draw_until_over(
    terminal: &mut ratatui::DefaultTerminal,
    play: &Play,
    stop: &CancellationToken,
    over: &CancellationToken,
    keep: bool,
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(FRAME);
    while !over.is_cancelled() && (keep || !play.is_over()) {
        tick.tick().await;
        // In raw mode Ctrl-C is a key like any other.
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()?
                && (key.code == KeyCode::Char('q')
                    || (key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)))
            {
                stop.cancel();
            }
        }
        terminal.draw(|frame| draw(frame, play))?;
    }
    Ok(())
}

fn draw(frame: &mut Frame, play: &Play) {
    let recording = play.watched.recording();
    let rows = [Constraint::Length(1), Constraint::Length(7), Constraint::Length(7), Constraint::Fill(1), Constraint::Length(1)];
    let [head, numbers, curves, decisions, foot] = Layout::vertical(rows).areas(frame.area());
    let halves = [Constraint::Percentage(50), Constraint::Percentage(50)];
    let [load, service] = Layout::horizontal(halves).areas(numbers);
    let [cpu, tasks] = Layout::horizontal(halves).areas(curves);
    let title = format!(" Beaufort at {}   service {CLUSTER}/{SERVICE}   phase {}", play.endpoint, play.phase());
    frame.render_widget(Line::from(title).bold(), head);
    draw_load(frame, load, play);
    draw_service(frame, service, play, &recording);
    draw_curves(frame, cpu, tasks, &recording);
    draw_decisions(frame, decisions, &recording.decisions);
    let done = play.began.elapsed().as_secs_f64() / play.profile.length().as_secs_f64();
    let label = format!("{:.0} s   Ctrl-C ends the demo and removes all of it", play.began.elapsed().as_secs_f64());
    frame.render_widget(Gauge::default().ratio(done.clamp(0.0, 1.0)).label(label).gauge_style(Color::DarkGray), foot);
}

fn draw_load(frame: &mut Frame, area: Rect, play: &Play) {
    let elapsed = play.began.elapsed();
    let (second, total) = (play.live.last_second(elapsed), play.live.report(elapsed).total);
    let block = Block::bordered().title(" load (open loop) ");
    let [text, curve] = Layout::vertical([Constraint::Length(4), Constraint::Fill(1)]).areas(block.inner(area));
    frame.render_widget(block, area);
    let p99 = second.p99_ms;
    let slow = p99.is_some_and(|ms| ms > 500.0);
    let lines = vec![
        Line::from(vec![
            Span::raw("offered "),
            Span::from(format!("{:>4}/s", second.offered)).bold(),
            Span::raw("   completed "),
            Span::from(format!("{:>4}/s", second.completed)).bold(),
        ]),
        Line::from(vec![
            Span::raw("p99 "),
            Span::styled(p99.map_or("-".to_owned(), |ms| format!("{ms:.0} ms")), if slow { alert() } else { calm() }),
            Span::raw(" from when each request was due"),
        ]),
        Line::from(format!("in flight {}   in all {} of {}", total.in_flight, total.completed, total.offered)),
        Line::from(vec![
            Span::raw("failed "),
            Span::styled(total.failed.to_string(), if total.failed > 0 { alert() } else { calm() }),
            Span::raw("   dropped "),
            Span::styled(total.dropped.to_string(), if total.dropped > 0 { alert() } else { calm() }),
        ]),
    ];
    frame.render_widget(Paragraph::new(lines), text);
    let offered: Vec<u64> = play.live.seconds().iter().map(|s| s.offered).collect();
    frame.render_widget(Sparkline::default().data(newest(&offered, curve.width)).style(Color::Cyan), curve);
}

fn draw_service(frame: &mut Frame, area: Rect, play: &Play, recording: &Recording) {
    let Some(now) = recording.samples.last() else { return };
    let cpu = now.cpu.map_or("-".to_owned(), |cpu| format!("{cpu:.0} %"));
    let mut lines = vec![
        Line::from(vec![
            Span::raw("CPU "),
            Span::styled(cpu, by_target(now.cpu)),
            Span::raw(format!(" of a target of {TARGET} %")),
        ]),
        Line::from(vec![
            Span::raw("desired "),
            Span::from(now.desired.to_string()).bold(),
            Span::raw("   running "),
            Span::styled(now.running.to_string(), if now.running == now.desired { calm() } else { Style::new().yellow() }),
            Span::raw(format!("   of at most {MOST_TASKS}")),
        ]),
    ];
    lines.extend(play.watched.alarms().iter().map(alarm_line));
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" service ")), area);
}

fn alarm_line(alarm: &watch::Alarm) -> Line<'static> {
    let sign = if alarm.side == "AlarmHigh" { ">" } else { "<" };
    let style = match alarm.state.as_str() {
        "ALARM" => alert(),
        "OK" => calm(),
        _ => Style::new().dim(),
    };
    Line::from(vec![
        Span::raw(format!("{} (CPU {sign} {}) ", alarm.side, alarm.threshold)),
        Span::styled(alarm.state.clone(), style),
    ])
}

fn draw_curves(frame: &mut Frame, cpu: Rect, tasks: Rect, recording: &Recording) {
    let block = Block::bordered().title(format!(" CPU of the service, 0 to 120 %, target {TARGET} "));
    let inner = block.inner(cpu);
    frame.render_widget(block, cpu);
    let percent: Vec<u64> = recording.samples.iter().map(|s| s.cpu.unwrap_or(0.0).round() as u64).collect();
    frame.render_widget(Sparkline::default().data(newest(&percent, inner.width)).max(120).style(Color::Yellow), inner);
    let block = Block::bordered().title(format!(" tasks running, 0 to {MOST_TASKS} "));
    let inner = block.inner(tasks);
    frame.render_widget(block, tasks);
    let running: Vec<u64> = recording.samples.iter().map(|s| u64::from(s.running)).collect();
    frame.render_widget(
        Sparkline::default().data(newest(&running, inner.width)).max(u64::from(MOST_TASKS)).style(Color::Green),
        inner,
    );
}

fn draw_decisions(frame: &mut Frame, area: Rect, decisions: &[Seen]) {
    let lines: Vec<Line> = decisions.iter().rev().take(usize::from(area.height)).map(decision_line).collect();
    let block = Block::bordered().title(" decisions, newest first (beaufort why) ");
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }).block(block), area);
}

fn decision_line(decision: &Seen) -> Line<'_> {
    let style = match decision.code.as_str() {
        "scaled_out" | "scaled_in" => Style::new().cyan().add_modifier(Modifier::BOLD),
        "alarm_raised" => alert(),
        _ => Style::new(),
    };
    Line::from(vec![
        Span::from(format!("{:>6.1} s ", decision.at_ms as f64 / 1e3)).dim(),
        Span::styled(decision.action.clone(), style),
        Span::raw(format!(": {}", decision.reason)),
    ])
}

fn newest(values: &[u64], width: u16) -> &[u64] {
    &values[values.len().saturating_sub(usize::from(width))..]
}

fn by_target(cpu: Option<f64>) -> Style {
    if cpu.is_some_and(|cpu| cpu > TARGET) { alert() } else { calm() }
}

fn alert() -> Style {
    Style::new().red().add_modifier(Modifier::BOLD)
}

fn calm() -> Style {
    Style::new().green()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use tokio::time::Instant;

    use super::*;
    use crate::load::profile::Profile;
    use crate::load::stats::Live;
    use crate::model::Timestamp;

    fn play() -> Play {
        let profile = Profile::parse("calm 8 10s").unwrap();
        Play {
            endpoint: "http://127.0.0.1:1".to_owned(),
            live: Live::new(&profile),
            watched: watch::Watched::new(Timestamp(0), Duration::ZERO, Duration::ZERO),
            began: Instant::now(),
            ends_at: 2,
            profile,
        }
    }

    #[test]
    fn it_draws_on_any_size() {
        for (width, height) in [(120, 40), (80, 24), (40, 10), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &play())).unwrap();
            let text: String = terminal.backend().buffer().content.iter().map(|cell| cell.symbol()).collect();
            assert!(width < 80 || (text.contains("phase calm") && text.contains("open loop")), "{text}");
        }
    }

    #[test]
    fn the_newest_fit() {
        assert_eq!(newest(&[1, 2, 3], 2), [2, 3]);
        assert_eq!(newest(&[1], 5), [1]);
    }
}
