use bme_runbooks::session::Options;

use super::{Context, LOSING_DATA, Running};
use crate::exit::{Exit, Stop};

/// Delete everything of the environment
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Keep what holds data: database, bucket, user pool, secrets and images
    #[arg(long)]
    keep_data: bool,
    /// Go on although data is lost for good; at a terminal it is asked for instead
    #[arg(long, conflicts_with = "keep_data")]
    allow_data_loss: bool,
    #[command(flatten)]
    running: Running,
}

pub(crate) async fn run(args: Args, context: Context) -> Result<Exit, Stop> {
    let mut options =
        Options { allow_data_loss: args.allow_data_loss, ..Options::from(&args.running) };
    let (_, environment) = context.environment()?;
    let protected = environment.protected();
    if !protected.is_empty() {
        return Err(Stop::usage(
            format!(
                "`{}` is protected against deletion: {}",
                environment.name,
                protected.join(", ")
            ),
            "set `deletion_protection = false` there, run `bme provision`, then destroy",
        ));
    }
    let what =
        if args.keep_data { "everything but its data" } else { "everything with all its data" };
    let flags =
        if args.keep_data || environment.sandbox.is_some() { "`--yes`" } else { LOSING_DATA };
    let question = format!(
        "this deletes {what}: environment `{}` in {} of account {}",
        environment.name,
        environment.aws.region,
        environment.aws.accounts.join(" or "),
    );
    let typed = context.confirm_by_typing(&question, &environment.name, flags).await?;
    // Whoever was asked about what holds data has not agreed to its loss.
    options.allow_data_loss |= typed && !args.keep_data;
    let session = context.open().await?;
    context
        .follow(async |events, interrupt| {
            session.destroy(args.keep_data, &options, events, interrupt).await
        })
        .await
}
