use bme_runbooks::doctor::{State, examine};

use super::Context;
use crate::{
    exit::{Exit, Stop},
    render::doctor::table,
};

/// Check identity, permissions, quotas, names, clock and tools before the first call
///
/// It reads and changes nothing, and does not start the sandbox. Exit code 0 when nothing fails; a
/// warning is what may be in the way, or could not be checked.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: Context) -> Result<Exit, Stop> {
    let (project, environment) = context.environment()?;
    let report = examine(&environment, &project.root).await;
    if context.output.json {
        context.output.document(&report);
    } else {
        context.output.data(&table(&report));
    }
    let fails = report.checks.iter().any(|check| check.state == State::Fail);
    Ok(if fails { Exit::Failed } else { Exit::Done })
}
