//! Why something failed, in one look: what, the operation, the status, the state left, a hint.

use std::fmt::Write as _;

use bme_runbooks::{
    engine, release, sandbox,
    session::{LOCKED, RunError, SessionError},
};
use console::style;

use super::{diagnostics, words::count};
use crate::exit::Stop;

/// One failure, ready to be printed.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// What failed and why, lower case, without a full stop.
    pub(super) what: String,
    /// Label and value of each further line; one without a value is left out.
    pub(super) rows: Vec<(&'static str, Option<String>)>,
    /// The next command or setting.
    pub(super) hint: Option<String>,
}

impl Block {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }

    fn row(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.rows.push((label, Some(value.into())));
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The text, with a line break at its end.
    pub(super) fn render(&self) -> String {
        let mut text = format!("{} {}\n", style("error:").red().bold().for_stderr(), self.what);
        for (label, value) in &self.rows {
            if let Some(value) = value {
                // Further lines of a value stand under its first one.
                let value = value.replace('\n', &format!("\n{:13}", ""));
                let _ = writeln!(text, "  {label:<10} {value}");
            }
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "{} {hint}", style("hint:").cyan().bold().for_stderr());
        }
        text
    }
}

/// The code and, for the service's support, the request.
pub(super) fn status(code: &str, request_id: Option<&str>) -> String {
    match request_id {
        Some(id) => format!("{code} (request id {id})"),
        None => code.to_owned(),
    }
}

/// Everything that a person needs to know of it.
pub(super) fn report(stop: &Stop) -> String {
    let block = match stop {
        Stop::Environment(problems) => return diagnostics::render(problems),
        Stop::Usage { message, hint } => Block::new(message).hint(hint),
        Stop::Session(error) => match &**error {
            SessionError::Sandbox(error) => from_sandbox(error),
            SessionError::Aws(error) => from_call(error),
            error @ SessionError::Certificate { .. } => Block::new(error.to_string()),
        },
        Stop::Sandbox(error) => from_sandbox(error),
        Stop::Aws(error) => from_call(error),
        Stop::Run(error) => from_run(error),
        Stop::StalePlan(file) => {
            Block::new(stop.to_string()).row("state", "nothing was changed").hint(format!(
                "run `bme plan --out {}` again and read what is different",
                file.display()
            ))
        }
        Stop::Io { .. } => Block::new(stop.to_string()),
        Stop::Declined => return format!("{stop}\n"),
        Stop::Interrupted => {
            return format!("{stop}; run the command again to go on where it stopped\n");
        }
    };
    block.render()
}

fn from_sandbox(error: &sandbox::Error) -> Block {
    Block::new(error.to_string()).hint(error.hint())
}

fn from_call(error: &engine::Error) -> Block {
    Block {
        what: error.message.clone(),
        rows: vec![
            ("operation", Some(error.operation.clone())),
            ("status", Some(status(&error.code, error.request_id.as_deref()))),
        ],
        hint: error.hint.clone(),
    }
}

fn from_run(error: &RunError) -> Block {
    match error {
        RunError::Locked(holder) => Block::new(LOCKED.cause)
            .row("holder", &holder.holder)
            .row("since", &holder.since)
            .row("last beat", &holder.last_beat)
            .hint(LOCKED.mend),
        RunError::DataLoss(_) => Block::new(error.to_string())
            .row("state", "nothing was changed")
            .hint("to go on, run it at a terminal and type the environment's name, or pass `--allow-data-loss`; `bme plan` tells why something is replaced"),
        RunError::Grown(_) => Block::new(error.to_string())
            .row("state", "nothing was changed")
            .hint("run `bme plan` (with `--out FILE` for a saved one) and read what is different, then run this again"),
        RunError::Protected(_) => Block::new(error.to_string())
            .row("state", "nothing was changed")
            .hint("set `deletion_protection = false` for it, in the file as it was where that asks for another one by now, and run `bme provision`, which takes the protection off; then make the change, or destroy"),
        RunError::Failed { failures, held_back, summary } => {
            let done = summary.changed();
            let names: Vec<String> =
                failures.iter().map(|failure| format!("`{}`", failure.id)).collect();
            let block = if failures.is_empty() {
                Block::new(format!("{} could not be worked on", count(*held_back, "resource")))
            } else {
                Block::new(format!(
                    "{} failed: {}",
                    count(failures.len(), "resource"),
                    names.join(", ")
                ))
            };
            block
                .row(
                    "state",
                    format!(
                        "{done} changed and {} right before stay as they are; {held_back} not tried, since they need what failed",
                        summary.unchanged
                    ),
                )
                .hint("mend the cause and run the same command again: it goes on where this one stopped")
        }
        RunError::Stopped { error, summary } => from_call(error).row(
            "state",
            format!(
                "{} changed and {} right before stay as they are",
                summary.changed(),
                summary.unchanged
            ),
        ),
        RunError::Aws(error) => from_call(error),
        RunError::Interrupted => Block::new("interrupted")
            .row("state", "what was in flight is finished, nothing new was begun")
            .hint("run the same command again: it goes on where this one stopped"),
        RunError::RolledBack(_) => Block::new(error.to_string())
            .row("state", "the release before runs")
            .hint("mend the cause and deploy again; `bme status` shows what runs"),
        RunError::Release(release::Error::Call(error)) => from_call(error),
        RunError::Release(error) => {
            Block { hint: error.hint(), ..Block::new(error.to_string()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use bme_runbooks::{
        engine::{Class, ResourceId, apply::Failure, lock::Holder},
        session::Summary,
    };

    use super::*;

    fn error() -> engine::Error {
        engine::Error {
            operation: "elasticache:CreateReplicationGroup".into(),
            code: "InsufficientCacheClusterCapacity".into(),
            message: "no capacity for cache.t4g.small in eu-west-1a".into(),
            request_id: Some("7f3c".into()),
            class: Class::Fatal,
            hint: Some("set `cache.node_type = \"cache.t4g.medium\"`".into()),
        }
    }

    fn look(stop: &Stop) -> String {
        console::set_colors_enabled_stderr(false);
        report(stop)
    }

    #[test]
    fn failed_call() {
        insta::assert_snapshot!(look(&error().into()));
    }

    #[test]
    fn failed_run() {
        let summary = Summary {
            created: 12,
            updated: 1,
            replaced: 0,
            deleted: 0,
            unchanged: 80,
            seconds: 10.0,
            read: 60,
            mutating: 14,
        };
        let failure = Failure { id: ResourceId::new("cache", "replication-group"), error: error() };
        insta::assert_snapshot!(look(&Stop::from(RunError::Failed {
            failures: vec![failure],
            held_back: 7,
            summary,
        })));
    }

    #[test]
    fn locked() {
        insta::assert_snapshot!(look(&Stop::from(RunError::Locked(Holder {
            holder: "anna@laptop (pid 4711)".into(),
            run: "20261123T195439-4711".into(),
            since: "2026-11-23T19:54:39Z".into(),
            last_beat: "2026-11-23T19:55:09Z".into(),
        }))));
    }

    #[test]
    fn a_release_that_stands_on_nothing_says_what_makes_it() {
        let call = look(&Stop::from(RunError::Release(error().into())));
        assert!(call.contains("hint: set `cache.node_type"), "{call}");
        let nothing = look(&Stop::from(RunError::Release(release::Error::NothingBefore)));
        assert!(nothing.contains("hint: `bme releases`"), "{nothing}");
    }

    #[test]
    fn bad_usage() {
        insta::assert_snapshot!(look(&Stop::usage(
            "this needs a yes, and there is no terminal to ask on",
            "pass `--yes` to go on without a question",
        )));
    }
}
