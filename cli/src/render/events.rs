//! The engine's events, told in one of three ways: moving rows, plain lines, or JSON lines.

use std::time::Duration;

use bme_runbooks::engine::events::Stamped;
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{Output, lines::Lines, terminal::Terminal};

/// Tells the events of one run.
pub(super) trait Renderer: Send {
    /// An event came.
    fn event(&mut self, stamped: &Stamped);
    /// Time passes.
    fn tick(&mut self, now: Instant);
    /// No more will come.
    fn end(&mut self);
}

/// How often rows are drawn anew; a spinner that is slower looks stuck.
const TICK: Duration = Duration::from_millis(120);

/// A run that is followed.
pub(crate) struct Follower {
    done: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Follows a run until [`Follower::end`].
pub(crate) fn follow(mut receiver: UnboundedReceiver<Stamped>, output: Output) -> Follower {
    let mut renderer: Box<dyn Renderer> = if output.json {
        Box::new(Json(output))
    } else if output.live {
        Box::new(Terminal::new(Instant::now()))
    } else {
        Box::new(Lines::new(output, Instant::now()))
    };
    let (done, mut finished) = oneshot::channel();
    let task = tokio::spawn(async move {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                stamped = receiver.recv() => match stamped {
                    Some(stamped) => renderer.event(&stamped),
                    None => break,
                },
                // What was sent before still comes out of a closed channel.
                _ = &mut finished, if !receiver.is_closed() => receiver.close(),
                now = ticks.tick() => renderer.tick(now),
            }
        }
        renderer.end();
    });
    Follower { done, task }
}

impl Follower {
    /// Tells what is left and ends.
    pub(crate) async fn end(self) {
        let _ = self.done.send(());
        // A renderer that panicked has said so; the run's own result counts.
        let _ = self.task.await;
    }
}

/// One JSON object a line, on stdout, at once.
struct Json(Output);

impl Renderer for Json {
    fn event(&mut self, stamped: &Stamped) {
        self.0.data(&stamped.line());
    }

    fn tick(&mut self, _: Instant) {}

    fn end(&mut self) {}
}
