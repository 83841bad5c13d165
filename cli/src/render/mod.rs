//! Everything that is printed. stdout carries data only, stderr the rest.

mod board;
mod diagnostics;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod explain;
mod failure;
mod lines;
pub(crate) mod outline;
pub(crate) mod plan;
pub(crate) mod releases;
pub(crate) mod sandbox;
pub(crate) mod status;
mod terminal;
mod words;

use std::io::{self, IsTerminal, Write};

use console::style;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::exit::Stop;

/// How this process prints. Settled once, at the start.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts about the terminal")]
pub(crate) struct Output {
    /// stdout is read by a program.
    pub(crate) json: bool,
    /// `-v` was given.
    pub(crate) verbose: bool,
    /// stderr is a terminal that can be drawn on.
    live: bool,
    /// There is somebody to ask.
    can_ask: bool,
}

impl Output {
    /// Looks at the terminal and the variables `NO_COLOR`, `CI` and `TERM`, and starts the log.
    pub(crate) fn new(json: bool, verbosity: u8) -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = !is_set("NO_COLOR") && !dumb;
        let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        console::set_colors_enabled(colour && stdout);
        console::set_colors_enabled_stderr(colour && stderr);
        log(verbosity, colour && stderr);
        Self {
            json,
            verbose: verbosity > 0,
            // Log lines and moving rows can't share a screen.
            live: stderr && !dumb && !is_set("CI") && verbosity == 0,
            can_ask: stderr && io::stdin().is_terminal(),
        }
    }

    /// Whether a question would reach a person.
    pub(crate) fn can_ask(self) -> bool {
        self.can_ask
    }

    /// Prints data for a person.
    pub(crate) fn data(self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Prints data for a program: one JSON document.
    pub(crate) fn document(self, document: &impl Serialize) {
        let mut text = serde_json::to_string_pretty(document).unwrap_or_else(|error| {
            // Cannot happen with the types of the contract; said rather than hidden.
            format!("{{\"error\": {:?}}}", error.to_string())
        });
        text.push('\n');
        self.data(&text);
    }

    /// Prints bytes to stdout. A reader that has gone is nobody's error.
    #[expect(clippy::unused_self, reason = "only who knows how to print, prints")]
    pub(crate) fn bytes(self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    /// Prints text to stderr as it is.
    #[expect(clippy::unused_self, reason = "only who knows how to print, prints")]
    pub(crate) fn text(self, text: &str) {
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }

    /// Prints a line to stderr.
    pub(crate) fn note(self, line: &str) {
        self.text(&format!("{line}\n"));
    }

    /// Prints what could be done next.
    pub(crate) fn hint(self, line: &str) {
        self.text(&format!("{} {line}\n", style("hint:").cyan().bold().for_stderr()));
    }

    /// Prints why a command did not reach its end.
    pub(crate) fn report(self, stop: &Stop) {
        self.text(&failure::report(stop));
    }

    /// Wipes the screen, when there is one.
    pub(crate) fn clear_screen(self) {
        if !self.json && io::stdout().is_terminal() {
            let _ = console::Term::stdout().clear_screen();
        }
    }

    /// Asks and reads one line.
    pub(crate) async fn ask(self, question: &str) -> io::Result<String> {
        self.text(question);
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        });
        Ok(line.await.map_err(io::Error::other)??.trim().to_owned())
    }
}

/// The log goes to stderr; `RUST_LOG` wins over `-v`.
fn log(verbosity: u8, colour: bool) {
    let level = match verbosity {
        0 => "warn",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("off,bme={level},bme_runbooks={level}")));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .finish();
    // Fails only when there is one already, which a second call in a test would be.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
