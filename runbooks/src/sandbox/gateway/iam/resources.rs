//! From the patterns of [`super::actions`] to ARNs.

use super::super::identify::Scope;
use super::members::Members;

/// The ARNs that a pattern stands for in a request; none when a member of it is missing.
pub(super) fn arns(pattern: &str, scope: &Scope, members: &Members) -> Vec<String> {
    let mut arns: Vec<String> = Vec::new();
    for text in filled(pattern, members) {
        let arn = arn(text, scope);
        // A thousand versions of one object are one resource.
        if !arns.contains(&arn) {
            arns.push(arn);
        }
    }
    arns
}

/// `service:rest`, `service::rest` or `service:::rest` as an ARN; `*` and ARNs as they are.
pub(super) fn arn(text: String, scope: &Scope) -> String {
    if text.starts_with("arn:") {
        return text;
    }
    let Some((service, rest)) = text.split_once(':') else { return text };
    let Scope { account, region } = scope;
    if let Some(rest) = rest.strip_prefix("::") {
        return format!("arn:aws:{service}:::{rest}");
    }
    match rest.strip_prefix(':') {
        Some(rest) => format!("arn:aws:{service}::{account}:{rest}"),
        None => format!("arn:aws:{service}:{region}:{account}:{rest}"),
    }
}

/// The pattern with every combination of its members' values.
fn filled(pattern: &str, members: &Members) -> Vec<String> {
    let parts = pattern.split_once('{').and_then(|(before, rest)| {
        rest.split_once('}').map(|(member, after)| (before, member, after))
    });
    let Some((before, member, after)) = parts else { return vec![pattern.to_owned()] };
    let (path, part) = Part::of(member);
    let mut texts = Vec::new();
    for value in members.all(path) {
        let is_last = !after.contains('{');
        if is_last && matches!(part, Part::Whole) && value.starts_with("arn:") {
            texts.push(value.to_owned());
            continue;
        }
        let value = part.of_value(value);
        for end in filled(after, members) {
            texts.push(if end.starts_with("arn:") { end } else { format!("{before}{value}{end}") });
        }
    }
    texts
}

/// What of a member's value is meant.
enum Part<'a> {
    /// All of it; of an ARN in front of another member its name.
    Whole,
    /// The last word of a path.
    LastWord,
    /// What follows this.
    After(&'a str),
}

impl<'a> Part<'a> {
    /// The path and the part of `{…}`.
    fn of(member: &'a str) -> (&'a str, Self) {
        if let Some((path, start)) = member.split_once('>') {
            return (path, Self::After(start));
        }
        match member.strip_suffix('/') {
            Some(path) => (path, Self::LastWord),
            None => (member, Self::Whole),
        }
    }

    fn of_value<'v>(&self, value: &'v str) -> &'v str {
        let last_word = || value.rsplit('/').next().unwrap_or(value);
        match self {
            Self::After(start) => value.split_once(start).map_or(value, |(_, rest)| rest),
            Self::LastWord => last_word(),
            Self::Whole if value.starts_with("arn:") => last_word(),
            // IAM names an identity provider by its address without the scheme.
            Self::Whole => value.strip_prefix("https://").unwrap_or(value),
        }
    }
}
