//! Events as rows that move, on stderr.

use bme_runbooks::engine::events::{Event, Stamped};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::{board::Board, events::Renderer};

pub(super) struct Terminal {
    board: Board,
    rows: Vec<ProgressBar>,
    screen: MultiProgress,
    over: bool,
}

impl Terminal {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            board: Board::new(now),
            rows: Vec::new(),
            screen: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            over: false,
        }
    }

    /// Puts a line above the rows, where it stays.
    fn line(&self, line: &str) {
        // A terminal that has gone is noticed elsewhere.
        let _ = self.screen.println(line);
    }

    fn draw(&mut self, now: Instant) {
        if self.over {
            return;
        }
        let texts = self.board.rows(now);
        while self.rows.len() > texts.len() {
            if let Some(row) = self.rows.pop() {
                row.finish_and_clear();
                self.screen.remove(&row);
            }
        }
        while self.rows.len() < texts.len() {
            let row = self.screen.add(ProgressBar::new_spinner());
            row.set_style(style());
            self.rows.push(row);
        }
        for (row, text) in self.rows.iter().zip(texts) {
            row.set_message(text);
        }
    }
}

/// A row is one message, cut to the width of the terminal.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl Renderer for Terminal {
    fn event(&mut self, stamped: &Stamped) {
        let now = Instant::now();
        if let Event::RunFinished { .. } = stamped.event {
            // The steps stay on the screen, what was active is over.
            self.end();
            for row in self.board.rows(now) {
                self.line(&row);
            }
        }
        if let Some(line) = self.board.take(&stamped.event, now) {
            self.line(&line);
        }
    }

    fn tick(&mut self, now: Instant) {
        self.draw(now);
    }

    fn end(&mut self) {
        self.over = true;
        for row in self.rows.drain(..) {
            row.finish_and_clear();
        }
        let _ = self.screen.clear();
    }
}
