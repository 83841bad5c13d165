use bme_runbooks::{outline::outline, session::Selection};
use clap::ValueEnum;

use super::{Context, Steps};
use crate::{
    exit::{Exit, Stop},
    render::outline::{dot, mermaid},
};

/// Draw the resources of an environment and what each waits for, without asking AWS
///
/// An arrow leads from a resource to what can only be made after it.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    steps: Steps,
    /// Language of the drawing
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Mermaid)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For a Markdown file; GitHub draws it
    Mermaid,
    /// For Graphviz
    Dot,
}

pub(crate) fn run(args: Args, context: &Context) -> Result<Exit, Stop> {
    let (_, environment) = context.environment()?;
    let selection = Selection::from(args.steps);
    let mut planned = outline(&environment);
    planned.retain(|resource| selection.contains(&resource.id));
    match args.format {
        _ if context.output.json => context.output.document(&planned),
        Format::Mermaid => context.output.data(&mermaid(&planned)),
        Format::Dot => context.output.data(&dot(&planned)),
    }
    Ok(Exit::Done)
}
