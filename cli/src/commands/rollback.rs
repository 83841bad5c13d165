use bme_runbooks::session::Options;

use super::{Context, Running};
use crate::exit::{Exit, Stop};

/// Restore an earlier release whole: image, configuration, secret versions and web assets
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Release to go back to; the one before the current one when left out
    #[arg(long, value_name = "TAG")]
    to: Option<String>,
    #[command(flatten)]
    running: Running,
}

pub(crate) async fn run(args: Args, context: Context) -> Result<Exit, Stop> {
    let options = Options::from(&args.running);
    let session = context.open().await?;
    context
        .follow(async |events, interrupt| {
            session.rollback(args.to.as_deref(), &options, events, interrupt).await
        })
        .await
}
