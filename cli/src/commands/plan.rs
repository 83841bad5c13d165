use std::path::PathBuf;

use bme_runbooks::session::Selection;

use super::{Context, Steps};
use crate::{
    exit::{Exit, Stop},
    render::plan::{Document, Saved, table},
};

/// Show what would be changed, what that risks, costs and how long it takes
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    steps: Steps,
    /// Also write the plan to a file, for `bme provision --plan FILE`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Exit with code 3 when there is something to change
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run(args: Args, context: Context) -> Result<Exit, Stop> {
    let session = context.open().await?;
    let selection = Selection::from(args.steps);
    let plan = session.plan(&selection).await?;
    let environment = &session.environment().name;
    let document = Document::new(&plan, environment, session.account(), session.region());
    if let Some(file) = &args.out {
        let saved = Saved::new(&selection, &document);
        std::fs::write(file, saved.to_json())
            .map_err(Stop::io(format!("write {}", file.display())))?;
    }
    if context.output.json {
        context.output.document(&document);
    } else {
        context.output.data(&table(&plan, &document, context.output.verbose));
    }
    Ok(if args.check && plan.has_changes() { Exit::Changes } else { Exit::Done })
}
