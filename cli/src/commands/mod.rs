//! One file for each command: its arguments and its run.

pub(crate) mod completions;
pub(crate) mod cost;
pub(crate) mod deploy;
pub(crate) mod destroy;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod graph;
pub(crate) mod init;
pub(crate) mod man;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod provision;
pub(crate) mod releases;
pub(crate) mod rollback;
pub(crate) mod sandbox;
pub(crate) mod status;
pub(crate) mod unlock;

use std::{path::PathBuf, time::Duration};

use bme_runbooks::{
    engine::{
        Interrupt,
        events::{Events, new_run},
    },
    environment::{self, Environment},
    session::{Options, RunError, Selection, Session, Summary},
    steps::STEPS,
};
use clap::builder::{PossibleValue, PossibleValuesParser};
use jiff::SignedDuration;

use crate::{
    Global,
    exit::{Exit, Stop},
    project::Project,
    render::{Output, events},
};

/// The flags that answer a question about the loss of data.
pub(crate) const LOSING_DATA: &str = "`--yes --allow-data-loss`";

/// What every command gets.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) output: Output,
    pub(crate) interrupt: Interrupt,
}

impl Context {
    pub(crate) fn current_directory() -> Result<PathBuf, Stop> {
        std::env::current_dir().map_err(Stop::io("find the current directory"))
    }

    /// The project and the environment that `--env` names.
    pub(crate) fn environment(&self) -> Result<(Project, Environment), Stop> {
        let project = Project::find(self.global.config.as_deref(), &Self::current_directory()?)?;
        let environment = environment::load(&project.environments, &self.global.env)
            .map_err(Stop::Environment)?;
        Ok((project, environment))
    }

    /// Opens the environment; Ctrl-C leaves at once, since nothing has begun.
    pub(crate) async fn open(&self) -> Result<Session, Stop> {
        let (project, environment) = self.environment()?;
        let output = self.output;
        let progress = move |line: &str| output.note(line);
        let mut interrupt = self.interrupt.clone();
        tokio::select! {
            session = Session::open(environment, &project.root, &progress) => Ok(session?),
            () = interrupt.set() => Err(Stop::Interrupted),
        }
    }

    /// Follows a run with the renderer that the output asks for.
    pub(crate) async fn follow(
        &self,
        work: impl AsyncFnOnce(&Events, &Interrupt) -> Result<Summary, RunError>,
    ) -> Result<Exit, Stop> {
        let (events, receiver) = Events::channel(new_run());
        let follower = events::follow(receiver, self.output);
        let ended = work(&events, &self.interrupt).await;
        drop(events);
        follower.end().await;
        ended?;
        Ok(Exit::Done)
    }

    /// Asks before something is done. Without a terminal it never asks but names the flag.
    pub(crate) async fn confirm(&self, question: &str) -> Result<(), Stop> {
        let answer = self.ask(&format!("{question} [y/N] "), "`--yes`").await?;
        match answer.as_deref() {
            None | Some("y" | "Y" | "yes") => Ok(()),
            Some(_) => Err(Stop::Declined),
        }
    }

    /// Asks for a word to be typed, for what can't be undone. Whether it was typed: `--yes` types nothing.
    pub(crate) async fn confirm_by_typing(
        &self,
        question: &str,
        word: &str,
        flags: &str,
    ) -> Result<bool, Stop> {
        match self.ask(&format!("{question}\ntype `{word}` to go on: "), flags).await? {
            None => Ok(false),
            Some(answer) if answer == word => Ok(true),
            Some(_) => Err(Stop::Declined),
        }
    }

    /// The answer; none when `--yes` was given. Without a terminal `flags` are what answers.
    async fn ask(&self, question: &str, flags: &str) -> Result<Option<String>, Stop> {
        if self.global.yes {
            return Ok(None);
        }
        if !self.output.can_ask() {
            return Err(Stop::usage(
                "this needs a yes, and there is no terminal to ask on",
                format!("pass {flags} to go on without a question"),
            ));
        }
        let mut interrupt = self.interrupt.clone();
        tokio::select! {
            answer = self.output.ask(question) => {
                answer.map(Some).map_err(Stop::io("read the answer"))
            }
            () = interrupt.set() => Err(Stop::Interrupted),
        }
    }
}

/// Which steps a command is about.
#[derive(clap::Args, Default)]
pub(crate) struct Steps {
    /// Only this step; may be repeated
    #[arg(long = "step", value_name = "STEP", value_parser = step_names())]
    only: Vec<String>,
    /// From this step on
    #[arg(long, value_name = "STEP", value_parser = step_names())]
    from: Option<String>,
    /// Up to and with this step
    #[arg(long, value_name = "STEP", value_parser = step_names())]
    until: Option<String>,
}

impl From<Steps> for Selection {
    fn from(Steps { only, from, until }: Steps) -> Self {
        Self { steps: only, from, until }
    }
}

/// The ten steps by name or by number.
fn step_names() -> PossibleValuesParser {
    const NUMBERS: [&str; 10] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"];
    PossibleValuesParser::new(
        STEPS
            .iter()
            .zip(NUMBERS)
            .map(|((_, name, title), number)| PossibleValue::new(name).help(*title).alias(number)),
    )
}

/// How a run works.
#[derive(clap::Args)]
pub(crate) struct Running {
    /// Calls to AWS in flight at once, instead of the environment's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    parallelism: Option<u8>,
    /// How long to wait for another run, for instance 10m
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    lock_wait: Duration,
}

impl From<&Running> for Options {
    fn from(running: &Running) -> Self {
        Self {
            parallelism: running.parallelism.map(usize::from),
            lock_wait: running.lock_wait,
            ..Self::default()
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || "write it as 90s, 10m or 1h".to_owned();
    let parsed: SignedDuration = text.parse().map_err(|_| invalid())?;
    Duration::try_from(parsed).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert!(duration("10").is_err());
        assert!(duration("-1s").is_err());
    }
}
