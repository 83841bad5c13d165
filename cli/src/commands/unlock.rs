use super::Context;
use crate::exit::{Exit, Stop};

/// Take away the lock of a run that is known to be dead
///
/// Hardly ever needed: the next run takes over by itself once the lease has run out. A run that has shown
/// a sign of life since the question keeps its lock.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: Context) -> Result<Exit, Stop> {
    let session = context.open().await?;
    let Some(seen) = session.lock_held().await? else {
        context.output.note("nobody holds the lock");
        return Ok(Exit::Done);
    };
    let holder = &seen.holder;
    context
        .confirm(&format!(
            "{} has held the lock since {}, last seen beating {}; is that run dead?",
            holder.holder, holder.since, holder.last_beat
        ))
        .await?;
    session.unlock(&seen).await?;
    context.output.note("the lock is free");
    Ok(Exit::Done)
}
