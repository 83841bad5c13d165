use std::path::PathBuf;

use bme_runbooks::{
    engine::plan::Plan,
    session::{Options, Selection, Session},
};

use super::{Context, LOSING_DATA, Running, Steps};
use crate::{
    exit::{Exit, Stop},
    render::plan::{Document, Saved, table},
};

/// Make everything as the environment file says
///
/// Safe to run again at any time: what is right is left alone, and what a killed run left half done
/// is finished.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    steps: Steps,
    /// Apply only what this file, written by `bme plan --out FILE`, says
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "from", "until"])]
    plan: Option<PathBuf>,
    /// Go on although data is lost for good; at a terminal it is asked for instead
    #[arg(long)]
    allow_data_loss: bool,
    #[command(flatten)]
    running: Running,
}

pub(crate) async fn run(args: Args, context: Context) -> Result<Exit, Stop> {
    let mut options =
        Options { allow_data_loss: args.allow_data_loss, ..Options::from(&args.running) };
    let saved = args.plan.as_ref().map(Saved::read).transpose()?;
    let session = context.open().await?;
    let selection = match &saved {
        Some(saved) => saved.selection(),
        None => Selection::from(args.steps),
    };
    // With `--yes` and no saved plan nobody reads the preview, so it is not made.
    if !context.global.yes || saved.is_some() {
        let plan = session.plan(&selection).await?;
        options.allow_data_loss |=
            preview(&session, &plan, saved.as_ref().zip(args.plan), &context).await?;
        options.agreed = Some(plan);
    }
    context
        .follow(async |events, interrupt| {
            session.provision(&selection, &options, events, interrupt).await
        })
        .await
}

/// Shows what will be done and asks, unless there is nothing to do. Whether the answer was given to the
/// loss of data, which wants more than a yes.
async fn preview(
    session: &Session,
    plan: &Plan,
    saved: Option<(&Saved, PathBuf)>,
    context: &Context,
) -> Result<bool, Stop> {
    let environment = &session.environment().name;
    let document = Document::new(plan, environment, session.account(), session.region());
    if let Some((saved, file)) = saved {
        // Whoever wrote the file has read it: it is applied without another question.
        return if saved.is_for(&document) { Ok(false) } else { Err(Stop::StalePlan(file)) };
    }
    if !plan.has_changes() {
        return Ok(false);
    }
    context.output.text(&table(plan, &document, context.output.verbose));
    let question = format!("apply this to `{environment}`?");
    if plan.losing_data().is_empty() {
        context.confirm(&question).await?;
        return Ok(false);
    }
    let question = format!("{question} It loses data for good.");
    context.confirm_by_typing(&question, environment, LOSING_DATA).await
}
