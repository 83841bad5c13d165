//! The JSON schema of the types, and what a file has against it.

use std::sync::LazyLock;

use jsonschema::{
    JsonType, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::Value;

use super::{
    Environment,
    parse::{Finding, nearest},
};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(Environment).to_value());

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::validator_for(&SCHEMA).expect("the schema that the types give is a valid schema")
});

/// The JSON schema of an environment file, for editors; checked in as `environments/schema.json`.
pub fn schema_json() -> String {
    let mut text = serde_json::to_string_pretty(&*SCHEMA).expect("a JSON value can be written");
    text.push('\n');
    text
}

/// Everything that `value` has against the schema.
pub(super) fn findings(value: &Value) -> Vec<Finding> {
    VALIDATOR.iter_errors(value).flat_map(|error| from_error(&error)).collect()
}

fn from_error(error: &ValidationError<'_>) -> Vec<Finding> {
    let path = pointer_segments(error.instance_path().as_str());
    let at: Vec<&str> = path.iter().map(String::as_str).collect();
    let name = dotted(&path);
    let instance = error.instance();
    let one = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            return unexpected.iter().map(|field| unknown(error, &path, field)).collect();
        }
        // `Option<T>`: what counts is what the value has against `T`.
        ValidationErrorKind::AnyOf { context } => {
            return context
                .iter()
                .find(|branch| !branch.iter().all(|error| is_null_type(error.kind())))
                .into_iter()
                .flatten()
                .flat_map(from_error)
                .collect();
        }
        ValidationErrorKind::OneOfNotValid { context } => {
            let options: Vec<&Value> =
                context.iter().flatten().filter_map(|error| constant(error.kind())).collect();
            not_an_option(&at, &name, instance, &options)
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<&Value> = options.as_array().into_iter().flatten().collect();
            not_an_option(&at, &name, instance, &options)
        }
        ValidationErrorKind::Constant { expected_value } => {
            not_an_option(&at, &name, instance, &[expected_value])
        }
        ValidationErrorKind::Required { property } => {
            let field = property.as_str().unwrap_or_default();
            let place = if path.is_empty() { "the file".into() } else { format!("`[{name}]`") };
            let mut missing = Finding::at(&at, format!("{place} lacks the field `{field}`"))
                .key()
                .label(format!("add `{field}`"));
            // The place is the table, but what is missing is below it.
            missing.path.push(field.to_owned());
            missing.reads.push(dotted(&missing.path));
            missing.maybe_help(description(field).map(|words| format!("`{field}` is {words}")))
        }
        ValidationErrorKind::Type { kind } => {
            let wanted = types(kind);
            Finding::at(&at, format!("`{name}` must be {wanted}, but is {}", kind_of(instance)))
                .label(format!("not {wanted}"))
        }
        ValidationErrorKind::Minimum { limit } => {
            Finding::at(&at, format!("`{name}` must be at least {limit}, but is {instance}"))
                .label(format!("at least {limit}"))
        }
        ValidationErrorKind::Maximum { limit } => {
            Finding::at(&at, format!("`{name}` must be at most {limit}, but is {instance}"))
                .label(format!("at most {limit}"))
        }
        ValidationErrorKind::MaxLength { limit } => {
            let length = instance.as_str().map_or(0, |text| text.chars().count());
            let message =
                format!("`{name}` may have at most {limit} characters, this one has {length}");
            Finding::at(&at, message).label(format!("{} too many", length as u64 - limit))
        }
        ValidationErrorKind::MinLength { limit } => {
            let length = instance.as_str().map_or(0, |text| text.chars().count());
            let message =
                format!("`{name}` must have at least {limit} characters, this one has {length}");
            Finding::at(&at, message).label("too short")
        }
        ValidationErrorKind::MinItems { limit } => {
            Finding::at(&at, format!("`{name}` must name at least {limit}")).label("too few")
        }
        ValidationErrorKind::Pattern { pattern } => {
            let field: Vec<String> =
                path.iter().filter(|name| name.parse::<usize>().is_err()).cloned().collect();
            let help = description(&dotted(&field)).map_or_else(
                || format!("it must match {pattern}"),
                |words| format!("write {words}"),
            );
            Finding::at(&at, format!("{instance} is not a valid `{}`", dotted(&field)))
                .label("not valid")
                .help(help)
        }
        _ => Finding::at(&at, format!("`{name}`: {error}")),
    };
    vec![one]
}

/// An unknown field, with the field that was most likely meant.
fn unknown(error: &ValidationError<'_>, path: &[String], field: &str) -> Finding {
    let table = dotted(path);
    let place = if path.is_empty() { "an environment file".into() } else { format!("`[{table}]`") };
    let schema = error.schema_path().as_str();
    let parent = schema.rsplit_once('/').map_or("", |(parent, _)| parent);
    let known: Vec<&str> = fields(SCHEMA.pointer(parent));
    let help = match nearest(field, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => match table_of(field) {
            Some(other) => format!("`{field}` belongs into `[{other}]`"),
            None => format!("the fields here are {}", known.join(", ")),
        },
    };
    let mut at: Vec<&str> = path.iter().map(String::as_str).collect();
    at.push(field);
    Finding::at(&at, format!("unknown field `{field}` in {place}"))
        .key()
        .label("unknown")
        .help(help)
}

fn not_an_option(at: &[&str], name: &str, instance: &Value, options: &[&Value]) -> Finding {
    let words: Vec<String> = options.iter().map(ToString::to_string).collect();
    let meant = match instance {
        Value::String(text) => {
            nearest(text, options.iter().filter_map(|option| option.as_str())).map(str::to_owned)
        }
        Value::Number(number) => options
            .iter()
            .filter_map(|option| option.as_i64())
            .min_by_key(|option| (option - number.as_i64().unwrap_or_default()).abs())
            .map(|option| option.to_string()),
        _ => None,
    };
    Finding::at(at, format!("{instance} is not a possible `{name}`"))
        .label(
            meant.map_or_else(|| "not possible".into(), |meant| format!("did you mean {meant}?")),
        )
        .help(format!("possible are {}", words.join(", ")))
}

/// The fields that the object schema `schema` knows.
fn fields(schema: Option<&Value>) -> Vec<&str> {
    schema
        .and_then(|schema| schema.get("properties")?.as_object())
        .into_iter()
        .flat_map(|properties| properties.keys().map(String::as_str))
        .collect()
}

/// The one top-level table that has a field of this name.
fn table_of(field: &str) -> Option<&'static str> {
    let tables = SCHEMA.get("properties")?.as_object()?;
    let mut owners = tables.iter().filter(|(_, schema)| {
        schema
            .get("$ref")
            .or_else(|| schema.pointer("/anyOf/0/$ref"))
            .and_then(Value::as_str)
            .and_then(|reference| SCHEMA.pointer(reference.trim_start_matches('#')))
            .is_some_and(|table| fields(Some(table)).contains(&field))
    });
    let (name, _) = owners.next()?;
    owners.next().is_none().then_some(name)
}

/// What a field that has a pattern, or can't be left out, looks like.
fn description(field: &str) -> Option<&'static str> {
    Some(match field {
        "name" => "lower-case letters, digits and single hyphens, starting with a letter",
        "aws" => "a table with `region` and `accounts`",
        "region" | "aws.region" => "a region such as \"eu-west-1\"",
        "accounts" => "a list of the account ids that may be applied to",
        "aws.accounts" => "an account id of 12 digits",
        "database.postgres_version" => "a major version from \"14\" to \"18\"",
        "database.instance_class" => "an instance class such as \"db.t4g.micro\"",
        "database.name" => "lower-case letters, digits and underscores, starting with a letter",
        "cache.node_type" => "a node type such as \"cache.t4g.micro\"",
        "compute.domain" | "edge.domain" => {
            "a host name in lower case, such as \"app.example.org\""
        }
        "edge.hosted_zone_id" => "the id of a Route 53 zone, such as \"Z0123456789ABCDEFGHIJ\"",
        "compute.certificate_arn" => "the ARN of an ACM certificate",
        "edge.certificate_arn" => {
            "the ARN of an ACM certificate in us-east-1: CloudFront takes no other region"
        }
        "delivery.repository" => "a GitHub repository as \"owner/name\"",
        "delivery.git_ref" => "\"refs/heads/BRANCH\" or \"refs/tags/PATTERN\"",
        "connection_arn" | "delivery.pipeline.connection_arn" => {
            "the ARN of a connection, which `aws codeconnections list-connections` prints"
        }
        "delivery.pipeline.repository" => "a repository as \"owner/name\"",
        "delivery.pipeline.branch" => "the name of a branch, without \"refs/heads/\"",
        _ => return None,
    })
}

fn is_null_type(kind: &ValidationErrorKind) -> bool {
    matches!(kind, ValidationErrorKind::Type { kind: TypeKind::Single(JsonType::Null) })
}

fn constant(kind: &ValidationErrorKind) -> Option<&Value> {
    match kind {
        ValidationErrorKind::Constant { expected_value } => Some(expected_value),
        _ => None,
    }
}

/// The wanted types in TOML's words.
fn types(kind: &TypeKind) -> String {
    let words = |kind: JsonType| match kind {
        JsonType::Array => "an array",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Null => "nothing",
        JsonType::Number => "a number",
        JsonType::Object => "a table",
        JsonType::String => "a string",
    };
    match kind {
        TypeKind::Single(kind) => words(*kind).into(),
        // TOML has no null: a field is there or not.
        TypeKind::Multiple(set) => set
            .iter()
            .filter(|kind| !matches!(kind, JsonType::Null))
            .map(words)
            .collect::<Vec<_>>()
            .join(" or "),
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(flag) => format!("{flag}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {text:?}"),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "a table".into(),
    }
}

/// The segments of a JSON pointer (RFC 6901).
fn pointer_segments(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect()
}

/// `aws.accounts[0]`, as a person would write it.
fn dotted(path: &[String]) -> String {
    let mut text = String::new();
    for name in path {
        if name.parse::<usize>().is_ok() {
            text = format!("{text}[{name}]");
        } else if text.is_empty() {
            text.clone_from(name);
        } else {
            text = format!("{text}.{name}");
        }
    }
    text
}
