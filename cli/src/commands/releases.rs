use super::Context;
use crate::{
    exit::{Exit, Stop},
    render::releases::{detail, table},
};

/// List the releases, or show one whole
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    show: Option<Show>,
}

#[derive(clap::Subcommand)]
enum Show {
    /// Show everything that a rollback to this release restores
    Show {
        /// Tag of the release
        tag: String,
    },
}

pub(crate) async fn run(args: Args, context: Context) -> Result<Exit, Stop> {
    let session = context.open().await?;
    let releases = session.releases().await?;
    let output = context.output;
    let Some(Show::Show { tag }) = args.show else {
        if output.json {
            output.document(&releases);
        } else if releases.is_empty() {
            output.note("there is no release yet; `bme deploy --tag TAG` makes the first");
        } else {
            output.data(&table(&releases));
        }
        return Ok(Exit::Done);
    };
    let Some(release) = releases.iter().find(|release| release.tag == tag) else {
        let message = format!("there is no release `{tag}`");
        return Err(Stop::usage(message, "`bme releases` lists them"));
    };
    if output.json {
        output.document(release);
    } else {
        output.data(&detail(release));
    }
    Ok(Exit::Done)
}
