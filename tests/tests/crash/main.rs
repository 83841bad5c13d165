//! Killed with -9 at any call of a provision, an update or a destroy, and run again: the same
//! resources, none twice, none left, none without an owner, and nobody had to help.
//!
//! `make test` tries points drawn with a seed that it prints; `BME_CRASH=all` tries every point there
//! is and prints the table of docs/crash-safety.md.

mod points;
mod stage;
mod tally;

use std::{
    env,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, ensure};
use points::{Phase, Point};
use stage::{Settings, Stage, Undisturbed};
use tally::Tally;
use tokio::{runtime::Handle, task::JoinSet};

/// Points of `make test`, over all phases.
const SAMPLE: usize = 60;

/// Sandboxes side by side.
const SANDBOXES: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_the_local_stack_converges() -> Result<()> {
    converges(Settings::Local, SAMPLE * 2 / 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_a_stack_like_staging_converges() -> Result<()> {
    converges(Settings::Staging, SAMPLE / 3).await
}

async fn converges(settings: Settings, sample: usize) -> Result<()> {
    let all = env::var("BME_CRASH").is_ok_and(|which| which == "all");
    let seed = env::var("BME_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    say(&format!("{settings:?}: BME_SEED={seed}"));

    let first = Stage::new(settings)?;
    let undisturbed = first.undisturbed().await?;
    let mut points = undisturbed.points();
    let there_are = points.len();
    if !all {
        let mut random = fastrand::Rng::with_seed(seed);
        random.shuffle(&mut points);
        points.truncate(sample);
    }
    say(&format!("{settings:?}: {} of {there_are} points", points.len()));

    let mut stages = vec![first];
    while stages.len() < if all { SANDBOXES } else { 1 } {
        let stage = Stage::new(settings)?;
        stage.start()?;
        stages.push(stage);
    }
    let (queue, expected) = (Arc::new(Mutex::new(points)), Arc::new(undisturbed));
    let mut work = JoinSet::new();
    for stage in stages {
        let (queue, expected) = (Arc::clone(&queue), Arc::clone(&expected));
        // Whoever waits for `bme` keeps a thread.
        let runtime = Handle::current();
        work.spawn_blocking(move || runtime.block_on(cycles(stage, settings, &queue, &expected)));
    }
    let mut tally = Tally::default();
    while let Some(ended) = work.join_next().await {
        tally.add(ended??);
    }
    say(&tally.table(settings, there_are));
    let failures = tally.failures();
    ensure!(failures.is_empty(), "seed {seed}:\n{}", failures.join("\n"));
    Ok(())
}

/// A stack comes, changes, changes back and goes, and is killed once in each phase that has a point
/// left, until none is left.
async fn cycles(
    mut stage: Stage,
    settings: Settings,
    queue: &Mutex<Vec<Point>>,
    expected: &Undisturbed,
) -> Result<Tally> {
    let mut tally = Tally::default();
    loop {
        let cycle: Vec<_> = Phase::ALL.iter().map(|phase| (*phase, take(queue, *phase))).collect();
        let Some(last) = cycle.iter().rposition(|(_, point)| point.is_some()) else {
            return Ok(tally);
        };
        for (at, (phase, point)) in cycle.into_iter().enumerate() {
            // Of the last cycle's end only what leads to a point is needed.
            if at > last && phase != Phase::Destroy {
                continue;
            }
            let tried = stage.go(phase, point.as_ref(), expected).await;
            let broken = tried.is_err();
            match (point, tried) {
                (Some(point), tried) => tally.note(&point, tried),
                (None, Ok(_)) => {}
                (None, Err(error)) => tally.fault(phase, format!("without a point: {error:#}")),
            }
            if broken {
                // What one point has broken must not be held against the next.
                stage = Stage::new(settings)?;
                stage.start()?;
                break;
            }
        }
    }
}

fn take(queue: &Mutex<Vec<Point>>, phase: Phase) -> Option<Point> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    let at = queue.iter().position(|point| point.phase == phase)?;
    Some(queue.remove(at))
}

#[expect(clippy::print_stderr, reason = "the seed and the table of a run")]
fn say(text: &str) {
    eprintln!("{text}");
}
