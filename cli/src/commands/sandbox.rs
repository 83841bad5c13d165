use std::path::PathBuf;

use bme_runbooks::{
    sandbox::{self, Settings},
    session::sandbox_settings,
};

use super::Context;
use crate::{
    exit::{Exit, Stop},
    render::sandbox::{running, table},
};

/// Start, stop or look at the AWS on this machine
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Start what does not run yet, and install what is missing when that is allowed
    Up,
    /// Stop everything; data stays for the next start
    Down,
    /// Show the parts and whether they run
    Status,
    /// Throw away everything that is in it; it keeps running
    Reset,
    /// Be the sandbox's AWS endpoint
    #[command(hide = true)]
    Gateway {
        /// The sandbox's directory
        #[arg(long, value_name = "DIR")]
        directory: PathBuf,
    },
}

impl Args {
    /// Whether this process is a part of the sandbox, which listens to signals itself.
    pub(crate) fn is_daemon(&self) -> bool {
        matches!(self.action, Action::Gateway { .. })
    }
}

pub(crate) async fn run(args: Args, context: Context) -> Result<Exit, Stop> {
    let output = context.output;
    match args.action {
        Action::Up => {
            let up =
                sandbox::up(&settings(&context)?, &move |line: &str| output.note(line)).await?;
            if output.json {
                output.document(&up);
            } else {
                output.data(&running(&up));
            }
        }
        Action::Down => {
            sandbox::down(&settings(&context)?).await?;
            output.note("the sandbox is down; its data stays for the next start");
        }
        Action::Status => {
            let status = sandbox::status(&settings(&context)?)?;
            if output.json {
                output.document(&status);
            } else {
                output.data(&table(&status));
            }
        }
        Action::Reset => {
            let settings = settings(&context)?;
            context.confirm("this throws away everything in the sandbox; go on?").await?;
            sandbox::reset(&settings).await?;
            output.note("the sandbox is empty");
        }
        Action::Gateway { directory } => sandbox::gateway::serve(&directory).await?,
    }
    Ok(Exit::Done)
}

fn settings(context: &Context) -> Result<Settings, Stop> {
    let (project, environment) = context.environment()?;
    sandbox_settings(&environment, &project.root).ok_or_else(|| {
        Stop::usage(
            format!("the environment `{}` has no sandbox", environment.name),
            "add a `[sandbox]` table to its file, or choose another one with `--env`",
        )
    })
}
