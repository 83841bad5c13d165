//! The TOML document: its values as JSON, and the place of each path in the text.

use std::{ops::Range, path::Path, sync::Arc};

use serde_json::{Map, Number, Value};
use toml_edit::Item;

use super::Problem;

/// A parsed file that still knows where everything stands.
pub(super) struct Document {
    file: std::path::PathBuf,
    text: Arc<str>,
    toml: toml_edit::Document<String>,
}

/// Something wrong at a path of the document.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    /// The path it is told at: member names and array indices.
    pub(super) path: Vec<String>,
    /// All paths whose values led to it, dotted.
    pub(super) reads: Vec<String>,
    /// Whether the key is to be pointed at, not the value.
    pub(super) at_key: bool,
    pub(super) message: String,
    pub(super) label: Option<String>,
    pub(super) help: Option<String>,
}

impl Finding {
    pub(super) fn at(path: &[&str], message: impl Into<String>) -> Self {
        Self {
            path: path.iter().map(ToString::to_string).collect(),
            reads: vec![path.join(".")],
            at_key: false,
            message: message.into(),
            label: None,
            help: None,
        }
    }

    pub(super) fn key(mut self) -> Self {
        self.at_key = true;
        self
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// Says that the value at this dotted path led to the finding as well.
    pub(super) fn reads(mut self, path: &str) -> Self {
        self.reads.push(path.to_owned());
        self
    }

    /// Whether the dotted `path` lies at, above or below this finding's place.
    pub(super) fn covers(&self, path: &str) -> bool {
        let own = self.path.join(".");
        let below = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        !own.is_empty() && (below(path, &own) || below(&own, path))
    }

    /// Takes the wrong member out of `value`, and puts in what can't be left out, so that the rest
    /// can still be typed and checked. `stem` is the name that the file must have.
    pub(super) fn mend(&self, value: &mut Value, stem: &str) {
        let mut at = &mut *value;
        for (depth, name) in self.path.iter().enumerate() {
            let Value::Object(members) = at else { break };
            let is_table = members.get(name).is_some_and(Value::is_object);
            if depth + 1 == self.path.len() || !is_table {
                members.shift_remove(name);
                break;
            }
            let Some(below) = members.get_mut(name) else {
                break;
            };
            at = below;
        }
        // A pipeline without its connection can't be typed.
        if let Some(Value::Object(delivery)) = value.get_mut("delivery")
            && delivery.get("pipeline").is_some_and(|it| it.get("connection_arn").is_none())
        {
            delivery.shift_remove("pipeline");
        }
        let stand_in = serde_json::json!({
            "name": stem,
            "aws": {"region": "us-east-1", "accounts": ["000000000000"]},
        });
        fill(value, &stand_in);
    }
}

/// Adds the members of `stand_in` that `value` lacks.
fn fill(value: &mut Value, stand_in: &Value) {
    let (Value::Object(members), Value::Object(defaults)) = (value, stand_in) else {
        return;
    };
    for (name, default) in defaults {
        match members.get_mut(name) {
            Some(member) => fill(member, default),
            None => {
                members.insert(name.clone(), default.clone());
            }
        }
    }
}

impl Document {
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self, Box<Problem>> {
        let source: Arc<str> = text.into();
        match toml_edit::Document::parse(text.to_owned()) {
            Ok(toml) => Ok(Self { file: file.to_owned(), text: source, toml }),
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                let (line, column) = line_and_column(text, span.start);
                let words = error.message().trim().replace('\n', ", ");
                Err(Box::new(Problem {
                    file: file.to_owned(),
                    source_text: source,
                    line,
                    column,
                    span,
                    message: format!("this is not TOML: {words}"),
                    label: Some("here".into()),
                    help: None,
                }))
            }
        }
    }

    /// The values as JSON; a date becomes a string.
    pub(super) fn to_json(&self) -> Value {
        item_to_json(self.toml.as_item())
    }

    /// The findings with their places, in the order of the text.
    pub(super) fn problems(&self, findings: Vec<Finding>) -> Vec<Problem> {
        let mut problems: Vec<Problem> =
            findings.into_iter().map(|finding| self.problem(finding)).collect();
        problems.sort_by_key(|problem| problem.span.start);
        problems.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        problems
    }

    fn problem(&self, finding: Finding) -> Problem {
        let span = self.span(&finding.path, finding.at_key);
        let (line, column) = line_and_column(&self.text, span.start);
        Problem {
            file: self.file.clone(),
            source_text: Arc::clone(&self.text),
            line,
            column,
            span,
            message: finding.message,
            label: finding.label,
            help: finding.help,
        }
    }

    /// The place of the deepest part of `path` that is in the file.
    fn span(&self, path: &[String], at_key: bool) -> Range<usize> {
        let mut item = self.toml.as_item();
        let mut span = 0..0;
        for (depth, name) in path.iter().enumerate() {
            let below = match (item.as_table_like(), item.as_array()) {
                (Some(table), _) => table.get_key_value(name),
                (None, Some(array)) => {
                    let value = name.parse().ok().and_then(|index: usize| array.get(index));
                    return value.and_then(toml_edit::Value::span).unwrap_or(span);
                }
                (None, None) => None,
            };
            let Some((key, value)) = below else { break };
            let key_wanted = at_key || value.is_table() || depth + 1 < path.len();
            let place = if key_wanted { key.span() } else { value.span() };
            span = place.or_else(|| value.span()).unwrap_or(span);
            item = value;
        }
        span
    }
}

/// Line and column, in characters from 1, of a byte of `text`.
fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn item_to_json(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Value(value) => value_to_json(value),
        Item::Table(table) => Value::Object(
            table.iter().map(|(name, item)| (name.to_owned(), item_to_json(item))).collect(),
        ),
        Item::ArrayOfTables(tables) => Value::Array(
            tables
                .iter()
                .map(|table| {
                    let members: Map<String, Value> = table
                        .iter()
                        .map(|(name, item)| (name.to_owned(), item_to_json(item)))
                        .collect();
                    Value::Object(members)
                })
                .collect(),
        ),
    }
}

fn value_to_json(value: &toml_edit::Value) -> Value {
    use toml_edit::Value as Toml;
    match value {
        Toml::String(text) => Value::String(text.value().clone()),
        Toml::Integer(number) => Value::from(*number.value()),
        // JSON has no infinity; as a string it fails the type check, with its place.
        Toml::Float(number) => Number::from_f64(*number.value())
            .map_or_else(|| Value::String(number.value().to_string()), Value::Number),
        Toml::Boolean(flag) => Value::Bool(*flag.value()),
        Toml::Datetime(date) => Value::String(date.value().to_string()),
        Toml::Array(array) => Value::Array(array.iter().map(value_to_json).collect()),
        Toml::InlineTable(table) => Value::Object(
            table.iter().map(|(name, value)| (name.to_owned(), value_to_json(value))).collect(),
        ),
    }
}

/// The candidate that `wrong` was most likely meant to be.
pub(super) fn nearest<'a>(
    wrong: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(wrong, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
