use clap::CommandFactory;
use clap_complete::Shell;

use super::Context;
use crate::{
    Cli,
    exit::{Exit, Stop},
};

/// Print a completion script for a shell
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

#[expect(clippy::unnecessary_wraps, reason = "every command's run has one shape")]
pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Stop> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bme", &mut script);
    context.output.bytes(&script);
    Ok(Exit::Done)
}
