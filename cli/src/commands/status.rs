use std::time::Duration;

use bme_runbooks::engine::pause;

use super::Context;
use crate::{
    exit::{Exit, Stop},
    render::status::table,
};

/// Show the ten steps, the release, the services, the queue and the lock
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Look again every few seconds until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

/// Between two looks of `--watch`: often enough to follow a rollout, far below any API limit.
const PAUSE: Duration = Duration::from_secs(3);

pub(crate) async fn run(args: Args, context: Context) -> Result<Exit, Stop> {
    let session = context.open().await?;
    loop {
        let status = session.status().await?;
        if args.watch {
            context.output.clear_screen();
        }
        if context.output.json {
            context.output.document(&status);
        } else {
            context.output.data(&table(&status));
        }
        if !args.watch {
            return Ok(Exit::Done);
        }
        pause(PAUSE).await;
    }
}
