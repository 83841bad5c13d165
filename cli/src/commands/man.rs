use std::path::PathBuf;

use clap::CommandFactory;

use super::Context;
use crate::{
    Cli,
    exit::{Exit, Stop},
};

/// Print the manual page, or write those of all commands
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write one page for each command into this directory
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(crate) fn run(args: Args, context: &Context) -> Result<Exit, Stop> {
    let Some(directory) = args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(Stop::io("make the manual page"))?;
        context.output.bytes(&page);
        return Ok(Exit::Done);
    };
    std::fs::create_dir_all(&directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &directory))
        .map_err(Stop::io(format!("write to {}", directory.display())))?;
    context.output.note(&format!("the manual pages are in {}", directory.display()));
    Ok(Exit::Done)
}
