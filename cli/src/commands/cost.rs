use bme_runbooks::{outline::outline, session::Selection};

use super::{Context, Steps};
use crate::{
    exit::{Exit, Stop},
    render::outline::{Estimate, cost},
};

/// Tell what an environment will cost a month, without asking AWS
///
/// List prices of the environment's region for what always runs, or of us-east-1 where those are not
/// known. What depends on use comes on top: traffic, requests, storage that grows, logs.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    steps: Steps,
}

pub(crate) fn run(args: Args, context: &Context) -> Result<Exit, Stop> {
    let (_, environment) = context.environment()?;
    let selection = Selection::from(args.steps);
    let mut planned = outline(&environment);
    planned.retain(|resource| selection.contains(&resource.id));
    let document = Estimate::new(&environment.name, &environment.aws.region, &planned);
    if context.output.json {
        context.output.document(&document);
    } else {
        context.output.data(&cost(&document));
        context.output.text(&document.reservations());
        context.output.note("what depends on use is not in it: traffic, requests, storage, logs");
    }
    Ok(Exit::Done)
}
