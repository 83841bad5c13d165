//! `bme` takes a team from a git tag to a hardened, running AWS stack.
//!
//! Arguments come in, the engine of `bme-runbooks` works, and `render` prints. Nothing here calls
//! AWS or decides what is right.

mod commands;
mod exit;
mod project;
mod render;

use std::process::ExitCode;

use bme_runbooks::engine::Interrupt;
use clap::{Parser, Subcommand, ValueEnum};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use commands::Context;
use exit::{Exit, Stop};
use render::Output;

/// Provision, release and run the bme stack on AWS, without a state file
///
/// AWS itself, read through names and tags, is the state: a run that was killed is resumed by
/// running it again. `--env local` runs the whole stack on this machine.
///
/// Exit codes: 0 done, 1 failed, 2 bad usage or invalid environment file, 3 `plan --check` found
/// changes, 4 locked by another run, 5 deploy failed and was rolled back, 130 interrupted.
#[derive(Parser)]
#[command(name = "bme", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes.
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Environment to work on: the file NAME.toml in the directory of environments
    #[arg(
        long,
        env = "BME_ENV",
        hide_env_values = true,
        value_name = "NAME",
        default_value = "local",
        global = true
    )]
    env: String,
    /// Directory of the environment files; found upwards from the current directory when left out
    #[arg(long, value_name = "DIR", global = true)]
    config: Option<std::path::PathBuf>,
    /// What is written to stdout: text for people, or JSON for programs
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Human, global = true)]
    output: Format,
    /// Answer every question with yes
    #[arg(long, short, global = true)]
    yes: bool,
    /// Say more on stderr; twice for even more
    #[arg(long, short, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text for people
    Human,
    /// One JSON document, or JSON lines for what takes time
    Json,
}

#[derive(Subcommand)]
enum Command {
    Init(commands::init::Args),
    Doctor(commands::doctor::Args),
    Plan(commands::plan::Args),
    Provision(commands::provision::Args),
    Status(commands::status::Args),
    Cost(commands::cost::Args),
    Graph(commands::graph::Args),
    Explain(commands::explain::Args),
    Policy(commands::policy::Args),
    Deploy(commands::deploy::Args),
    Rollback(commands::rollback::Args),
    Releases(commands::releases::Args),
    Destroy(commands::destroy::Args),
    Unlock(commands::unlock::Args),
    Sandbox(commands::sandbox::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
}

/// Who acts on Ctrl-C and SIGTERM.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnSignal {
    /// The first one ends the process.
    Stop,
    /// The first one lets the engine finish what is in flight, the second ends the process.
    FinishInFlight,
    /// The command listens itself.
    Own,
}

impl Command {
    fn on_signal(&self) -> OnSignal {
        match self {
            Self::Provision(_) | Self::Deploy(_) | Self::Rollback(_) | Self::Destroy(_) => {
                OnSignal::FinishInFlight
            }
            Self::Sandbox(args) if args.is_daemon() => OnSignal::Own,
            _ => OnSignal::Stop,
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version end here too, with code 0. A closed pipe is nobody's error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let output = Output::new(cli.global.output == Format::Json, cli.global.verbose);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.report(&Stop::Io { what: "start the runtime".into(), source: error });
            return Exit::Failed.into();
        }
    };
    let exit = runtime.block_on(run(cli, output));
    // A question that nobody answered still waits on stdin; the process ends all the same.
    runtime.shutdown_background();
    exit.into()
}

async fn run(cli: Cli, output: Output) -> Exit {
    let on_signal = cli.command.on_signal();
    let (switch, interrupt) = Interrupt::new();
    let context = Context { global: cli.global, output, interrupt };
    let ended = tokio::select! {
        ended = dispatch(cli.command, context) => ended,
        () = stopped(on_signal, &switch, output) => Err(Stop::Interrupted),
    };
    ended.unwrap_or_else(|stop| {
        output.report(&stop);
        stop.exit()
    })
}

async fn dispatch(command: Command, context: Context) -> Result<Exit, Stop> {
    match command {
        Command::Init(args) => commands::init::run(&args, &context),
        Command::Doctor(args) => commands::doctor::run(args, context).await,
        Command::Plan(args) => commands::plan::run(args, context).await,
        Command::Provision(args) => commands::provision::run(args, context).await,
        Command::Status(args) => commands::status::run(args, context).await,
        Command::Cost(args) => commands::cost::run(args, &context),
        Command::Graph(args) => commands::graph::run(args, &context),
        Command::Explain(args) => commands::explain::run(&args, &context),
        Command::Policy(args) => commands::policy::run(args, &context),
        Command::Deploy(args) => commands::deploy::run(args, context).await,
        Command::Rollback(args) => commands::rollback::run(args, context).await,
        Command::Releases(args) => commands::releases::run(args, context).await,
        Command::Destroy(args) => commands::destroy::run(args, context).await,
        Command::Unlock(args) => commands::unlock::run(args, context).await,
        Command::Sandbox(args) => commands::sandbox::run(args, context).await,
        Command::Completions(args) => commands::completions::run(&args, &context),
        Command::Man(args) => commands::man::run(args, &context),
    }
}

/// Returns when the process has to end.
async fn stopped(on_signal: OnSignal, switch: &watch::Sender<bool>, output: Output) {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return std::future::pending().await;
    };
    if on_signal == OnSignal::Own {
        return std::future::pending().await;
    }
    let mut next =
        async || tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () };
    next().await;
    if on_signal == OnSignal::FinishInFlight {
        output.note("finishing what is in flight; press Ctrl-C again to stop at once");
        switch.send_replace(true);
        next().await;
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_texts() {
        let mut command = Cli::command().term_width(100);
        command.build();
        insta::assert_snapshot!("help", command.render_long_help());
        for sub in command.get_subcommands_mut() {
            let name = format!("help-{}", sub.get_name());
            let help = sub.clone().term_width(100).render_long_help();
            insta::assert_snapshot!(name, help);
        }
    }
}
