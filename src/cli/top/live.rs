//! The live table: asks once a second, draws, and obeys keys. The terminal is put back whatever happens.

use std::io;
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row as Drawn, Table, TableState};
use tokio::sync::mpsc;

use super::{HEAD, Row, Sort, TopArgs, Usage, ask, cells, read, rows};
use crate::cli::client::Client;
use crate::cli::screen;

const EVERY: Duration = Duration::from_secs(1);
/// The thread that waits for keys looks this often whether it is still wanted.
const KEY_WAIT: Duration = Duration::from_millis(100);

struct View {
    usage: Vec<Usage>,
    by_task: bool,
    sort: Sort,
    /// What is wrong with the newest answer.
    trouble: Option<String>,
    selected: TableState,
    colours: bool,
}

pub async fn run(client: &Client, args: &TopArgs) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let ended = keep_drawing(&mut terminal, client, args).await;
    ratatui::try_restore()?;
    ended
}

async fn keep_drawing(terminal: &mut ratatui::DefaultTerminal, client: &Client, args: &TopArgs) -> anyhow::Result<()> {
    let mut view = View {
        usage: Vec::new(),
        by_task: args.tasks,
        sort: args.sort,
        trouble: None,
        selected: TableState::default(),
        colours: std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    };
    let mut keys = read_keys();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => match ask(client, args).await.and_then(read) {
                Ok(usage) => (view.usage, view.trouble) = (usage, None),
                // A server that is restarted is shown again.
                Err(error) => view.trouble = Some(error.to_string()),
            },
            event = keys.recv() => match event {
                Some(Ok(event)) if !view.obey(&event) => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
        }
        terminal.draw(|frame| view.draw(frame))?;
    }
}

/// Reading keys blocks: it has a thread of its own, which ends when nobody listens.
fn read_keys() -> mpsc::Receiver<io::Result<Event>> {
    let (to, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !to.is_closed() {
            let event = match event::poll(KEY_WAIT) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let failed = event.is_err();
            if to.blocking_send(event).is_err() || failed {
                return;
            }
        }
    });
    keys
}

impl View {
    /// False: leave.
    fn obey(&mut self, event: &Event) -> bool {
        let Event::Key(key) = event else { return true };
        if key.kind == KeyEventKind::Release {
            return true;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Char('c') => self.sort = Sort::Cpu,
            KeyCode::Char('m') => self.sort = Sort::Memory,
            KeyCode::Char('t') => self.by_task = !self.by_task,
            KeyCode::Down | KeyCode::Char('j') => self.selected.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.selected.select_previous(),
            KeyCode::PageDown => self.selected.scroll_down_by(20),
            KeyCode::PageUp => self.selected.scroll_up_by(20),
            KeyCode::Home => self.selected.select_first(),
            _ => {}
        }
        true
    }

    fn draw(&mut self, frame: &mut Frame) {
        let rows = rows(&self.usage, self.by_task, self.sort);
        let [top, middle, bottom] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
        frame.render_widget(Paragraph::new(self.summary(&rows)), top);
        let widths = [
            Constraint::Fill(2),
            Constraint::Length(8),
            Constraint::Fill(1),
            Constraint::Length(9),
            Constraint::Length(6),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(6),
            Constraint::Length(6),
        ];
        let table = Table::new(rows.iter().map(|r| self.drawn(r)), widths)
            .header(Drawn::new(HEAD).style(Style::new().add_modifier(Modifier::BOLD)))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, middle, &mut self.selected);
        let help = self
            .trouble
            .clone()
            .unwrap_or_else(|| "c CPU  m memory  t tasks/containers  arrows move  q leave   * held back".to_owned());
        let style = if self.trouble.is_some() { self.colour(Color::Red) } else { Style::new().add_modifier(Modifier::DIM) };
        frame.render_widget(Paragraph::new(Line::styled(help, style)), bottom);
    }

    fn summary(&self, rows: &[Row]) -> String {
        let (cores, memory) = rows.iter().fold((0.0, 0), |(c, m), r| (c + r.cores, m + r.memory));
        let what = if self.by_task { "tasks" } else { "containers" };
        let sort = match self.sort {
            Sort::Cpu => "CPU",
            Sort::Memory => "memory",
        };
        format!("{} {what} by {sort}: {:.2} cores, {}", rows.len(), cores, screen::bytes(memory))
    }

    fn drawn(&self, row: &Row) -> Drawn<'static> {
        let share = if row.cores_reserved > 0.0 { row.cores / row.cores_reserved } else { 0.0 };
        let full = row.memory_bound > 0 && row.memory as f64 > 0.9 * row.memory_bound as f64;
        let style = match share {
            _ if full || share > 0.9 => self.colour(Color::Red),
            s if s > 0.6 => self.colour(Color::Yellow),
            _ => Style::new(),
        };
        Drawn::new(cells(row)).style(style)
    }

    fn colour(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::link::UsageSample;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn view() -> View {
        let sample = UsageSample {
            task: "0123456789".into(),
            container: "app".into(),
            cpu_cores: 0.5,
            memory_bytes: 1 << 20,
            ..UsageSample::default()
        };
        let usage = Usage {
            cluster: "default".into(),
            service: Some("web".into()),
            family: "web".into(),
            cpu_reserved: 1024.0,
            memory_reserved_mib: 64.0,
            sample,
        };
        View {
            usage: vec![usage],
            by_task: false,
            sort: Sort::Cpu,
            trouble: None,
            selected: TableState::default(),
            colours: true,
        }
    }

    fn drawn(view: &mut View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(100, 6)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_table_with_a_summary_and_the_trouble_there_is() {
        let mut view = view();
        let text = drawn(&mut view);
        assert!(text.contains("1 containers by CPU: 0.50 cores, 1.0 MiB"), "{text}");
        assert!(text.contains("01234567") && text.contains("50.0%") && text.contains("64.0 MiB"), "{text}");
        view.trouble = Some("nothing answers".to_owned());
        assert!(drawn(&mut view).contains("nothing answers"));
    }

    #[test]
    fn keys() {
        let mut view = view();
        let key = |code: KeyCode| Event::Key(code.into());
        assert!(view.obey(&key(KeyCode::Char('m'))) && view.sort == Sort::Memory);
        assert!(view.obey(&key(KeyCode::Char('t'))) && view.by_task);
        assert!(drawn(&mut view).contains("1 tasks by memory"));
        assert!(!view.obey(&key(KeyCode::Char('q'))));
        let interrupt = event::KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(!view.obey(&Event::Key(interrupt)));
    }
}
