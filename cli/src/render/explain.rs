//! What is known of a word, for people.

use std::fmt::Write as _;

use bme_runbooks::{
    engine::ResourceId,
    explain::{Code, PriceList, Resource, Step},
    prices::Per,
};
use comfy_table::CellAlignment;
use console::style;
use serde::Serialize;

use super::{
    status::{headed, push},
    words::{dollars, elapsed},
};
use crate::exit::Exit;

/// Widest line of running text, characters.
const WIDTH: usize = 96;
/// Where the text begins beside its label.
const INDENT: usize = 11;

/// The document of `explain --output json`.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Explanation {
    Step(Step),
    Resource(Resource),
    Code(Code),
    ExitCode(Code),
    Prices(PriceList),
}

impl Explanation {
    pub(crate) fn exit_code(exit: Exit) -> Self {
        let (cause, mend) = exit.about();
        Self::ExitCode(Code {
            code: (exit as u8).to_string(),
            class: None,
            means: None,
            cause: Some(cause),
            mend: Some(mend),
        })
    }
}

/// The text, with a line break at its end.
pub(crate) fn text(explanation: &Explanation) -> String {
    match explanation {
        Explanation::Step(step) => of_step(step),
        Explanation::Resource(resource) => of_resource(resource),
        Explanation::Code(code) => of_code(&code.code, code),
        Explanation::ExitCode(code) => of_code(&format!("exit code {}", code.code), code),
        Explanation::Prices(prices) => of_prices(prices),
    }
}

fn of_step(step: &Step) -> String {
    let mut text = format!("{}  step {}, {}\n\n", style(step.name).bold(), step.number, step.title);
    row(&mut text, "makes", step.makes);
    row(&mut text, "why", step.why);
    row(&mut text, "order", step.order);
    row(&mut text, "needs", &listed(&step.needs));
    row(&mut text, "needed by", &listed(&step.needed_by));
    let (begins, ready) = (elapsed(step.begins_after_seconds), elapsed(step.ready_after_seconds));
    let times = format!("in a first run from {begins} to {ready}, by typical times");
    row(&mut text, "time", &times);
    let cost = format!(
        "{} a month by list prices of {}; what depends on use comes on top",
        dollars(step.monthly_cost),
        step.price_region
    );
    row(&mut text, "cost", &cost);
    text.push('\n');
    let mut table = headed(&["resource", "typical", "USD a month"]);
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for part in &step.resources {
        let cost = match part.monthly_cost {
            Some(cost) if cost > 0.0 => dollars(cost),
            Some(_) => String::new(),
            None => "unknown".into(),
        };
        table.add_row([part.id.name().to_owned(), elapsed(part.typical_seconds), cost]);
    }
    push(&mut text, &table);
    let _ = writeln!(text, "\n{}", style("what can go wrong").bold());
    for trouble in &step.trouble {
        text.push_str(&wrapped("* ", trouble.sign, 2));
        text.push_str(&wrapped("    ", trouble.mend, 4));
    }
    text
}

fn of_resource(resource: &Resource) -> String {
    let mut text = format!("{}  {}\n\n", style(&resource.id).bold(), resource.step);
    row(&mut text, "time", &format!("typically {}", elapsed(resource.typical_seconds)));
    let cost = match resource.monthly_cost {
        Some(cost) if cost > 0.0 => {
            format!("{} a month, list price of {}", dollars(cost), resource.price_region)
        }
        Some(_) => "nothing, apart from use".into(),
        None => "unknown: `bme explain prices` lists the prices that are known".into(),
    };
    row(&mut text, "cost", &cost);
    row(&mut text, "needs", &listed(&ids(&resource.needs)));
    row(&mut text, "needed by", &listed(&ids(&resource.needed_by)));
    if let Some(why) = &resource.deferred {
        row(&mut text, "first run", why);
    }
    if resource.holds_data {
        row(&mut text, "data", "deleting or replacing it loses data that nobody can bring back");
    }
    if !resource.fixed.is_empty() {
        let _ = writeln!(text, "\n{}", style("replaced, not changed, when these differ").bold());
        for fixed in &resource.fixed {
            text.push_str(&wrapped("* ", &format!("{}: {}", fixed.member, fixed.why), 2));
        }
    }
    text
}

fn of_code(title: &str, code: &Code) -> String {
    let mut text = format!("{}\n\n", style(title).bold());
    let class = code.class.zip(code.means).map(|(class, means)| format!("{class}: {means}"));
    let class = class.as_deref();
    for (label, value) in [("class", class), ("cause", code.cause), ("mend", code.mend)] {
        if let Some(value) = value {
            row(&mut text, label, value);
        }
    }
    text
}

fn of_prices(prices: &PriceList) -> String {
    let mut text = format!("list prices of {}, US dollars\n", style(prices.region).bold());
    for group in &prices.groups {
        let _ = writeln!(text, "\n{}, known of {}", group.source, group.date);
        if let Some(note) = &group.note {
            text.push_str(&wrapped("", note, 0));
        }
        let per = match group.per {
            Per::Hour => "an hour",
            Per::Month => "a month",
        };
        let width = group.usd.keys().map(String::len).max().unwrap_or_default();
        for (name, price) in &group.usd {
            let _ = writeln!(text, "  {name:<width$}  {price} {per}");
        }
    }
    text
}

fn ids(ids: &[ResourceId]) -> Vec<&str> {
    ids.iter().map(ResourceId::as_str).collect()
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

/// A label and its text, whose lines stand under each other.
fn row(text: &mut String, label: &str, value: &str) {
    text.push_str(&wrapped(&format!("{label:<INDENT$}"), value, INDENT));
}

/// The text in lines of at most [`WIDTH`] characters: the first begins with `start`, the others with
/// `indent` spaces.
fn wrapped(start: &str, text: &str, indent: usize) -> String {
    let mut lines = start.to_owned();
    let mut width = start.chars().count();
    let mut is_first = true;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if !is_first && width + 1 + length > WIDTH {
            let _ = write!(lines, "\n{:indent$}", "");
            width = indent;
        } else if !is_first {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += length;
        is_first = false;
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_stands_under_its_first_line() {
        let text = wrapped("why        ", &"word ".repeat(40), INDENT);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{text}");
        assert!(lines[1].starts_with("           word"), "{text}");
        assert!(text.ends_with("word\n"), "{text}");
    }

    #[test]
    fn an_exit_code_has_cause_and_mend() {
        console::set_colors_enabled(false);
        let text = text(&Explanation::exit_code(Exit::Locked));
        assert!(text.starts_with("exit code 4\n\ncause      another run works"), "{text}");
        assert!(text.contains("\nmend       wait for it"), "{text}");
    }
}
