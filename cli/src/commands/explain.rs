use bme_runbooks::{explain, steps::STEPS};

use super::Context;
use crate::{
    exit::{Exit, Stop},
    render::explain::{Explanation, text},
};

/// Explain a step, a resource, an error code or an exit code, without asking AWS
///
/// Steps and resources are those of the environment: `network`, `cache/replication-group`. An error
/// code is what an error shows as its status: `not-ours`, `DependencyViolation`. A number is an exit
/// code. `prices` lists the prices that costs are reckoned with, with their sources and dates.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Step, resource, error code, exit code, or `prices`
    word: String,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Stop> {
    let word = args.word.trim();
    let explanation = explained(word, context)?;
    if context.output.json {
        context.output.document(&explanation);
    } else {
        context.output.data(&text(&explanation));
    }
    Ok(Exit::Done)
}

fn explained(word: &str, context: &Context) -> Result<Explanation, Stop> {
    if let Some(exit) = Exit::ALL.into_iter().find(|exit| (*exit as u8).to_string() == word) {
        return Ok(Explanation::exit_code(exit));
    }
    if let Some(code) = explain::code(word) {
        return Ok(Explanation::Code(code));
    }
    let environment = match context.environment() {
        Ok((_, environment)) => environment,
        Err(stop) => {
            let needs_one = word == PRICES
                || word.contains('/')
                || STEPS.iter().any(|(_, name, _)| *name == word);
            return Err(if needs_one {
                stop
            } else {
                unknown(word, &explain::nearest(word, None))
            });
        }
    };
    if word == PRICES {
        return Ok(Explanation::Prices(explain::prices(&environment)));
    }
    explain::step(&environment, word)
        .map(Explanation::Step)
        .or_else(|| explain::resource(&environment, word).map(Explanation::Resource))
        .ok_or_else(|| unknown(word, &explain::nearest(word, Some(&environment))))
}

const PRICES: &str = "prices";

fn unknown(word: &str, nearest: &[String]) -> Stop {
    let quoted: Vec<_> = nearest.iter().map(|near| format!("`{near}`")).collect();
    let hint = match quoted.split_last() {
        Some((last, [])) => format!("did you mean {last}?"),
        Some((last, others)) => format!("did you mean {} or {last}?", others.join(", ")),
        None => {
            let steps: Vec<_> = STEPS.iter().map(|(_, name, _)| *name).collect();
            format!(
                "name a step ({}), a resource as `bme graph` shows it, or the code of an error",
                steps.join(", ")
            )
        }
    };
    Stop::usage(format!("there is nothing to explain about `{word}`"), hint)
}
