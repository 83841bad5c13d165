//! The preflight for people.

use std::fmt::Write as _;

use bme_runbooks::doctor::{Report, State};
use console::{Style, style};

/// One line for each check, its mend below, and the sum.
pub(crate) fn table(report: &Report) -> String {
    let account = report.account.as_deref().unwrap_or("an unknown account");
    let mut text =
        format!("{} in {} of account {account}\n\n", style(&report.env).bold(), report.region);
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    for check in &report.checks {
        let (word, colour) = match check.state {
            State::Ok => ("ok", Style::new().green()),
            State::Warn => ("warn", Style::new().yellow()),
            State::Fail => ("fail", Style::new().red().bold()),
        };
        let word = colour.apply_to(format!("{word:<4}"));
        let _ = writeln!(text, "  {word}  {:<width$}  {}", check.name, check.message);
        if let Some(hint) = &check.hint {
            let _ = writeln!(text, "  {:4}  {:width$}  {} {hint}", "", "", style("hint:").cyan());
        }
    }
    let summary = report.summary;
    let _ = writeln!(text, "\n{} ok, {} warn, {} fail", summary.ok, summary.warn, summary.fail);
    text
}

#[cfg(test)]
mod tests {
    use bme_runbooks::doctor::{Check, Summary};

    use super::*;

    fn report() -> Report {
        let check = |state, name: &str, message: &str, hint: Option<&str>| Check {
            name: name.into(),
            state,
            message: message.into(),
            hint: hint.map(Into::into),
        };
        Report {
            env: "staging".into(),
            account: Some("123456789012".into()),
            region: "eu-west-1".into(),
            checks: vec![
                check(State::Ok, "clock", "as AWS's, within a minute", None),
                check(
                    State::Fail,
                    "quota/vpcs",
                    "VPCs per Region: 6 of 5 would be used, 5 are now",
                    Some("free some, or ask for more"),
                ),
                check(
                    State::Warn,
                    "names",
                    "not checked: s3:ListAllMyBuckets: AccessDenied: no",
                    None,
                ),
            ],
            summary: Summary { ok: 1, warn: 1, fail: 1 },
        }
    }

    #[test]
    fn for_people() {
        console::set_colors_enabled(false);
        insta::assert_snapshot!(table(&report()));
    }

    #[test]
    fn for_programs() {
        insta::assert_snapshot!(format!("{:#}", serde_json::to_value(report()).unwrap()));
    }
}
