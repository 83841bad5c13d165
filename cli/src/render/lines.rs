//! Events as plain lines on stderr, for logs and for terminals that can't be drawn on.

use std::time::Duration;

use bme_runbooks::engine::events::{Event, Stamped};
use tokio::time::Instant;

use super::{Output, board::Board, events::Renderer, words::doing};

/// Silence that long makes continuous-integration systems, and people, think that it hangs.
const HEARTBEAT: Duration = Duration::from_secs(30);

pub(super) struct Lines {
    output: Output,
    board: Board,
    last: Instant,
}

impl Lines {
    pub(super) fn new(output: Output, now: Instant) -> Self {
        Self { output, board: Board::new(now), last: now }
    }
}

impl Renderer for Lines {
    fn event(&mut self, stamped: &Stamped) {
        let now = Instant::now();
        if let Event::ResourceStarted { id, action, .. } = &stamped.event {
            self.output.note(&format!("{:>9} {id}", doing(*action)));
        }
        if let Some(line) = self.board.take(&stamped.event, now) {
            self.output.note(&line);
        }
        self.last = now;
    }

    fn tick(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last) < HEARTBEAT {
            return;
        }
        self.last = now;
        if let Some(line) = self.board.heartbeat(now) {
            self.output.note(&line);
        }
    }

    fn end(&mut self) {}
}
