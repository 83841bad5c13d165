//! Environment files: from TOML to a typed, validated [`Environment`].
//!
//! A file is checked in three passes that each go on after an error, so that every problem is told
//! at once: the TOML syntax, the JSON schema of the types, and what only the typed values show.

mod check;
mod model;
mod parse;
mod schema;

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use model::*;
pub use schema::schema_json;

use parse::{Document, Finding};

/// The account of the files that come with `bme`; it stands for "set your own".
pub const PLACEHOLDER_ACCOUNT: &str = "111122223333";

/// One thing that is wrong with an environment file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}:{column}: {message}", file.display())]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Its text, which `span` points into; empty when the file can't be read.
    pub source_text: Arc<str>,
    /// Line, from 1; 0 when the problem has no place in the file.
    pub line: usize,
    /// Column in characters, from 1; 0 when the problem has no place in the file.
    pub column: usize,
    /// The bytes of `source_text` that the problem is about.
    pub span: Range<usize>,
    /// What is wrong, in one line.
    pub message: String,
    /// A few words for the place.
    pub label: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

/// Where the calls of this environment go, which decides whether a placeholder account may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The AWS of Amazon, unless the file names an endpoint.
    Aws,
    /// An emulator: `AWS_ENDPOINT_URL` is set.
    Emulator,
}

impl Target {
    /// What the standard variable `AWS_ENDPOINT_URL` says.
    pub fn from_variables() -> Self {
        match std::env::var_os("AWS_ENDPOINT_URL") {
            Some(url) if !url.is_empty() => Self::Emulator,
            _ => Self::Aws,
        }
    }
}

/// Reads `DIRECTORY/NAME.toml`.
///
/// # Errors
/// Every problem of the file, in the order of their places in it.
pub fn load(directory: &Path, name: &str) -> Result<Environment, Vec<Problem>> {
    let file = directory.join(format!("{name}.toml"));
    match fs::read_to_string(&file) {
        Ok(text) => parse(&file, &text, Target::from_variables()),
        Err(error) => Err(vec![unreadable(directory, name, file, &error)]),
    }
}

/// Checks and types the text of an environment file; `file` gives the name that it must have.
///
/// # Errors
/// Every problem of the text, in the order of their places in it.
pub fn parse(file: &Path, text: &str, target: Target) -> Result<Environment, Vec<Problem>> {
    let document = Document::parse(file, text).map_err(|problem| vec![*problem])?;
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let mut value = document.to_json();
    let mut findings = schema::findings(&value);
    findings.extend(check::range_findings(&value));
    // What is wrong already is taken out, so that its default stands in while the rest is checked.
    for finding in &findings {
        finding.mend(&mut value, stem);
    }
    let environment = match serde_json::from_value::<Environment>(value) {
        Ok(environment) => environment,
        Err(error) => {
            findings.push(Finding::at(&[], error.to_string()));
            return Err(document.problems(findings));
        }
    };
    let about_wrong_fields = |finding: &Finding, known: &[Finding]| {
        finding.reads.iter().any(|path| known.iter().any(|known| known.covers(path)))
    };
    let mut more = check::findings(&environment, stem, target);
    more.retain(|finding| !about_wrong_fields(finding, &findings));
    findings.append(&mut more);
    if findings.is_empty() { Ok(environment) } else { Err(document.problems(findings)) }
}

/// Names of the environments in `directory`, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

fn unreadable(directory: &Path, name: &str, file: PathBuf, error: &io::Error) -> Problem {
    let names = names(directory);
    let (message, help) = if error.kind() == io::ErrorKind::NotFound {
        let there = match names.as_slice() {
            [] => format!("`bme init {name}` writes one"),
            names => format!("there are {}; `bme init {name}` writes a new one", list(names)),
        };
        let help = match parse::nearest(name, names.iter().map(String::as_str)) {
            Some(nearest) => format!("did you mean `--env {nearest}`?"),
            None => there,
        };
        (format!("there is no environment `{name}` in {}", directory.display()), Some(help))
    } else {
        (format!("cannot read {}: {error}", file.display()), None)
    };
    Problem {
        file,
        source_text: "".into(),
        line: 0,
        column: 0,
        span: 0..0,
        message,
        label: None,
        help,
    }
}

/// `a`, `b` and `c`, in back-ticks.
fn list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| format!("`{item}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
