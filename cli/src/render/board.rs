//! What a run looks like at one moment: ten steps, and below each what is being worked on.

use std::collections::BTreeMap;

use bme_runbooks::{
    engine::{
        events::{Event, Outcome},
        plan::Action,
    },
    steps::STEPS,
};
use console::style;
use tokio::time::Instant;

use super::{
    failure::{Block, status},
    words::{count, did, doing, elapsed, verb},
};

/// Rows at most, so that the whole fits the smallest usual terminal.
pub(super) const ROWS: usize = 24;

/// The run so far.
pub(super) struct Board {
    start: Instant,
    command: String,
    estimated_seconds: f64,
    steps: BTreeMap<String, Tally>,
    active: Vec<Active>,
}

#[derive(Default)]
struct Tally {
    done: usize,
    failed: usize,
}

struct Active {
    id: String,
    step: String,
    action: Action,
    state: String,
    since: Instant,
}

impl Board {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            command: String::new(),
            estimated_seconds: 0.0,
            steps: BTreeMap::new(),
            active: Vec::new(),
        }
    }

    /// Takes an event in. Gives what is worth a line that stays.
    pub(super) fn take(&mut self, event: &Event, now: Instant) -> Option<String> {
        match event {
            Event::RunStarted { command, env, account, region, resources, estimated_seconds } => {
                self.command.clone_from(command);
                self.estimated_seconds = *estimated_seconds;
                let resources = count(*resources, "resource");
                let about = if *estimated_seconds >= 1.0 {
                    format!(", about {}", elapsed(*estimated_seconds))
                } else {
                    String::new()
                };
                Some(format!(
                    "{command} `{env}` in {region} of account {account}: {resources}{about}"
                ))
            }
            Event::LockWaiting { holder, since, last_beat } => Some(format!(
                "waiting for {holder}, who works since {since}, last seen beating {last_beat}"
            )),
            Event::ResourceStarted { id, step, action } => {
                self.active.push(Active {
                    id: id.clone(),
                    step: step.clone(),
                    action: *action,
                    state: String::new(),
                    since: now,
                });
                None
            }
            Event::ResourceProgress { id, state } => {
                if let Some(active) = self.active.iter_mut().find(|active| active.id == *id) {
                    active.state.clone_from(state);
                }
                None
            }
            Event::ResourceDone { id, seconds } => {
                let action = self.leave(id, |tally| tally.done += 1);
                Some(format!(
                    "{:>9} {id} {}",
                    did(action),
                    faint(&format!("({})", elapsed(*seconds)))
                ))
            }
            Event::ResourceFailed { id, operation, code, request_id, message, hint } => {
                let action = self.leave(id, |tally| tally.failed += 1);
                let block = Block {
                    what: format!("cannot {} `{id}`: {message}", verb(action)),
                    rows: vec![
                        ("operation", Some(operation.clone())),
                        ("status", Some(status(code, request_id.as_deref()))),
                        ("state", Some(left_behind(action).into())),
                    ],
                    hint: hint.clone(),
                };
                Some(block.render().trim_end().to_owned())
            }
            Event::Note { message } => Some(message.clone()),
            Event::RunFinished { .. } => Some(self.summary(event)),
        }
    }

    /// Takes a resource off the board and says what was done with it.
    fn leave(&mut self, id: &str, tally: impl FnOnce(&mut Tally)) -> Action {
        let step = id.split('/').next().unwrap_or(id).to_owned();
        tally(self.steps.entry(step).or_default());
        match self.active.iter().position(|active| active.id == id) {
            Some(position) => self.active.remove(position).action,
            None => Action::None,
        }
    }

    fn summary(&self, event: &Event) -> String {
        let Event::RunFinished {
            outcome,
            created,
            updated,
            replaced,
            deleted,
            unchanged,
            seconds,
            aws_calls,
        } = event
        else {
            return String::new();
        };
        let word = match outcome {
            Outcome::Done => style("done").green(),
            Outcome::Failed => style("failed").red(),
            Outcome::RolledBack => style("rolled back").red(),
            Outcome::Interrupted => style("interrupted").yellow(),
        };
        let changes: Vec<String> = [
            (created, "created"),
            (updated, "updated"),
            (replaced, "replaced"),
            (deleted, "deleted"),
            (unchanged, "unchanged"),
        ]
        .into_iter()
        .filter(|(number, _)| **number > 0)
        .map(|(number, word)| format!("{number} {word}"))
        .collect();
        let changes = if changes.is_empty() { "nothing to do".into() } else { changes.join(", ") };
        format!(
            "{} {}: {changes} in {} {}",
            self.command,
            word.bold().for_stderr(),
            elapsed(*seconds),
            faint(&format!("({} reads, {} changes)", aws_calls.read, aws_calls.mutating)),
        )
    }

    /// One line about everything that is on its way.
    pub(super) fn heartbeat(&self, now: Instant) -> Option<String> {
        if self.active.is_empty() {
            return None;
        }
        let names: Vec<String> = self
            .active
            .iter()
            .map(|active| {
                let since = elapsed((now - active.since).as_secs_f64());
                format!("{} ({since})", active.id)
            })
            .collect();
        Some(format!("still at it: {}", names.join(", ")))
    }

    /// The rows, at most [`ROWS`].
    pub(super) fn rows(&self, now: Instant) -> Vec<String> {
        let room = ROWS - STEPS.len() - 1;
        // One row says how many more there are, when not all fit.
        let shown = if self.active.len() > room { room - 1 } else { self.active.len() };
        let mut rows = Vec::new();
        for (number, name, _) in STEPS {
            rows.push(self.step(number, name));
            for active in self.active.iter().take(shown).filter(|active| active.step == name) {
                let since = elapsed((now - active.since).as_secs_f64());
                let state = if active.state.is_empty() {
                    String::new()
                } else {
                    format!(" {}", faint(&active.state))
                };
                rows.push(format!("       {} {} {since}{state}", doing(active.action), active.id));
            }
        }
        if self.active.len() > shown {
            rows.push(format!("       and {} more", self.active.len() - shown));
        }
        let about = if self.estimated_seconds >= 1.0 {
            format!(" of about {}", elapsed(self.estimated_seconds))
        } else {
            String::new()
        };
        rows.push(format!("    {}{about}", elapsed((now - self.start).as_secs_f64())));
        rows
    }

    fn step(&self, number: u8, name: &str) -> String {
        let tally = self.steps.get(name);
        let (done, failed) = tally.map_or((0, 0), |tally| (tally.done, tally.failed));
        let active = self.active.iter().filter(|active| active.step == name).count();
        let sign = match (failed, active, done) {
            (1.., ..) => style("✗").red(),
            (0, 1.., _) => style("•").yellow(),
            (0, 0, 1..) => style("✓").green(),
            (0, 0, 0) => style(" ").dim(),
        };
        let mut counts = Vec::new();
        for (number, word) in [(done, "done"), (active, "active"), (failed, "failed")] {
            if number > 0 {
                counts.push(format!("{number} {word}"));
            }
        }
        let row = format!("{} {number:>2} {name:<14} {}", sign.for_stderr(), counts.join(", "));
        row.trim_end().to_owned()
    }
}

/// What a failed action leaves, as far as can be said without looking.
fn left_behind(action: Action) -> &'static str {
    match action {
        Action::Create => "not made, or not finished; the next run looks before it makes it",
        Action::Update => "as it was, or partly changed; the next run compares again",
        Action::Replace => "the old one may be gone; the next run goes on from there",
        Action::Delete => "still there, or on its way out; the next run looks again",
        Action::None | Action::Deferred => "left as it was",
    }
}

fn faint(text: &str) -> String {
    style(text).dim().for_stderr().to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bme_runbooks::engine::events::AwsCalls;

    use super::*;

    fn started(step: &str, name: &str) -> Event {
        Event::ResourceStarted {
            id: format!("{step}/{name}"),
            step: step.into(),
            action: Action::Create,
        }
    }

    fn board(start: Instant) -> Board {
        console::set_colors_enabled_stderr(false);
        let mut board = Board::new(start);
        board.take(
            &Event::RunStarted {
                command: "provision".into(),
                env: "staging".into(),
                account: "123456789012".into(),
                region: "eu-west-1".into(),
                resources: 120,
                estimated_seconds: 540.0,
            },
            start,
        );
        board
    }

    #[test]
    fn rows_while_it_works() {
        let start = Instant::now();
        let mut board = board(start);
        board.take(&started("network", "vpc"), start);
        board.take(&started("cache", "replication-group"), start);
        board.take(&started("database", "instance"), start);
        board.take(&Event::ResourceDone { id: "network/vpc".into(), seconds: 1.2 }, start);
        board.take(
            &Event::ResourceProgress { id: "database/instance".into(), state: "creating".into() },
            start,
        );
        insta::assert_snapshot!(board.rows(start + Duration::from_secs(95)).join("\n"));
    }

    #[test]
    fn many_active_resources_fit_the_screen() {
        let start = Instant::now();
        let mut board = board(start);
        for number in 0..40 {
            board.take(&started("network", &format!("subnet-{number}")), start);
        }
        let rows = board.rows(start);
        assert_eq!(rows.len(), ROWS);
        assert!(rows.iter().any(|row| row.contains("and 28 more")), "{rows:#?}");
    }

    #[test]
    fn lines_that_stay() {
        let start = Instant::now();
        let mut board = board(start);
        let mut lines = Vec::new();
        for event in [
            started("cache", "replication-group"),
            started("network", "vpc"),
            Event::ResourceDone { id: "network/vpc".into(), seconds: 1.2 },
            Event::ResourceFailed {
                id: "cache/replication-group".into(),
                operation: "elasticache:CreateReplicationGroup".into(),
                code: "InsufficientCacheClusterCapacity".into(),
                request_id: Some("7f3c".into()),
                message: "no capacity for cache.t4g.small in eu-west-1a".into(),
                hint: Some("set `cache.node_type = \"cache.t4g.medium\"`".into()),
            },
            Event::RunFinished {
                outcome: Outcome::Failed,
                created: 1,
                updated: 0,
                replaced: 0,
                deleted: 0,
                unchanged: 3,
                seconds: 483.0,
                aws_calls: AwsCalls { read: 60, mutating: 4 },
            },
        ] {
            lines.extend(board.take(&event, start));
        }
        insta::assert_snapshot!(lines.join("\n"));
    }
}
