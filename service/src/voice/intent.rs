//! What the model may ask for, and reading its answer. The answer is untrusted: it goes through the
//! same checks as a request.

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use uuid::Uuid;

use crate::{
    body::{Object, text},
    entity::{self, Entity, Item, Patch},
    problem::Problem,
};

/// Most actions of one job.
const MAX_ACTIONS: usize = 20;

/// What the model calls the kinds.
const NOUNS: [(&str, &Entity); 6] = [
    ("transaction", &entity::TRANSACTION),
    ("schedule", &entity::SCHEDULE),
    ("workout", &entity::WORKOUT),
    ("food_entry", &entity::FOOD_ENTRY),
    ("sleep", &entity::CHECK_IN),
    ("goal", &entity::GOAL),
];

/// One thing to do.
#[derive(Debug)]
pub struct Intent {
    /// `add`, `edit`, `delete` or `unknown`.
    pub verb: &'static str,
    /// What the model calls the kind; empty for `unknown`.
    pub noun: &'static str,
    /// The arguments as they came, checked.
    pub arguments: Box<RawValue>,
    /// What to do.
    pub action: Action,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Make a new one.
    Add(&'static Entity, Item),
    /// Change one.
    Edit(&'static Entity, Selector, Patch),
    /// Delete one.
    Delete(&'static Entity, Selector),
    /// Nothing that this service does.
    Unknown,
}

/// Which one is meant.
#[derive(Debug)]
pub struct Selector {
    /// By its id.
    pub id: Option<Uuid>,
    /// By what it holds.
    pub fields: Patch,
}

/// An answer that cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[error("the model's answer is not valid")]
pub struct Invalid;

impl From<Problem> for Invalid {
    fn from(_: Problem) -> Self {
        Self
    }
}

#[derive(Deserialize)]
struct Answer {
    candidates: Vec<Candidate>,
}

#[derive(Deserialize)]
struct Candidate {
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "functionCall")]
    call: Option<Call>,
}

#[derive(Deserialize)]
struct Call {
    name: String,
    args: Option<Box<RawValue>>,
}

/// The functions that the model may call, from the descriptions of the entities.
pub fn declarations() -> Value {
    let mut functions = vec![json!({
        "name": "unknown",
        "description": "The user wants nothing that the other functions do, or it is not clear what.",
        "parametersJsonSchema": { "type": "object", "properties": {} },
    })];
    for (noun, entity) in NOUNS {
        let mut selector = entity.patch_schema();
        selector["properties"]["id"] = json!({ "type": "string", "format": "uuid" });
        let changed = json!({
            "type": "object", "required": ["match", "changes"], "additionalProperties": false,
            "properties": { "match": selector, "changes": entity.patch_schema() },
        });
        let deleted = json!({
            "type": "object", "required": ["match"], "additionalProperties": false,
            "properties": { "match": selector },
        });
        for (verb, schema) in [("add", entity.new_schema()), ("edit", changed), ("delete", deleted)]
        {
            functions.push(json!({
                "name": format!("{verb}_{noun}"),
                "description": format!("{verb} a {}", entity.noun),
                "parametersJsonSchema": schema,
            }));
        }
    }
    functions.into()
}

/// The intents of an answer, all of them valid. An answer without any is one `unknown`.
pub fn read(answer: &str) -> Result<Vec<Intent>, Invalid> {
    let answer: Answer = serde_json::from_str(answer).map_err(|_| Invalid)?;
    let parts = answer.candidates.into_iter().next().ok_or(Invalid)?.content.parts;
    let calls: Vec<_> = parts.into_iter().filter_map(|part| part.call).collect();
    if calls.len() > MAX_ACTIONS {
        return Err(Invalid);
    }
    if calls.is_empty() {
        return Ok(vec![unknown()]);
    }
    calls.into_iter().map(intent).collect()
}

fn intent(call: Call) -> Result<Intent, Invalid> {
    if call.name == "unknown" {
        return Ok(unknown());
    }
    let (verb, name) = call.name.split_once('_').ok_or(Invalid)?;
    let (noun, entity) = NOUNS.into_iter().find(|(noun, _)| *noun == name).ok_or(Invalid)?;
    let arguments = call.args.ok_or(Invalid)?;
    let mut object = Object::parse(arguments.get().as_bytes())?;
    let (verb, action) = match verb {
        "add" => ("add", Action::Add(entity, entity.read_new(object)?)),
        "edit" => {
            let selector = selector(entity, &mut object)?;
            let changes = object.required("changes", |raw| Ok(raw.to_owned())).ok_or(Invalid)?;
            object.finish()?;
            let changes = entity.parse_patch(changes.get().as_bytes())?;
            if changes.is_empty() {
                return Err(Invalid);
            }
            ("edit", Action::Edit(entity, selector, changes))
        }
        "delete" => {
            let selector = selector(entity, &mut object)?;
            object.finish()?;
            ("delete", Action::Delete(entity, selector))
        }
        _ => return Err(Invalid),
    };
    Ok(Intent { verb, noun, arguments, action })
}

fn selector(entity: &'static Entity, arguments: &mut Object) -> Result<Selector, Invalid> {
    let raw = arguments.required("match", |raw| Ok(raw.to_owned())).ok_or(Invalid)?;
    let mut object = Object::parse(raw.get().as_bytes())?;
    let given = object.has("id");
    let id = object.optional("id", text(36, 36)).and_then(|id| Uuid::try_parse(&id).ok());
    if given && id.is_none() {
        return Err(Invalid);
    }
    let fields = entity.read_patch(object)?;
    if id.is_none() && fields.is_empty() {
        return Err(Invalid);
    }
    Ok(Selector { id, fields })
}

fn unknown() -> Intent {
    let arguments = RawValue::from_string("{}".to_owned()).expect("{} is JSON");
    Intent { verb: "unknown", noun: "", arguments, action: Action::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verbs(calls: &Value) -> Result<Vec<&'static str>, Invalid> {
        let answer = json!({ "candidates": [{ "content": { "parts": calls } }] });
        Ok(read(&answer.to_string())?.iter().map(|intent| intent.verb).collect())
    }

    fn call(name: &str, args: &Value) -> Value {
        json!([{ "functionCall": { "name": name, "args": args } }])
    }

    #[test]
    fn every_kind_has_three_functions() {
        assert_eq!(declarations().as_array().unwrap().len(), 1 + 3 * NOUNS.len());
        assert_eq!(NOUNS.len(), entity::ALL.len());
    }

    #[test]
    fn reads_what_is_valid() {
        let sleep = json!({ "date": "2026-11-23", "sleepHours": 7.5 });
        assert_eq!(verbs(&call("add_sleep", &sleep)).unwrap(), ["add"]);
        let edit = json!({ "match": { "date": "2026-11-23" }, "changes": { "sleepHours": 8 } });
        assert_eq!(verbs(&call("edit_sleep", &edit)).unwrap(), ["edit"]);
        let delete = json!({ "match": { "name": "Soup" } });
        assert_eq!(verbs(&call("delete_food_entry", &delete)).unwrap(), ["delete"]);
        assert_eq!(verbs(&json!([{ "text": "sorry" }])).unwrap(), ["unknown"]);
        assert_eq!(verbs(&json!([])).unwrap(), ["unknown"]);
    }

    #[test]
    fn refuses_injections() {
        for (name, args) in [
            ("add_sleep", json!({ "date": "2026-11-23", "sleepHours": 7, "userId": Uuid::nil() })),
            ("add_sleep", json!({ "date": "2026-11-23", "sleepHours": 1e300 })),
            ("add_sleep", json!({ "date": "2026-11-23'; DROP TABLE users; --", "sleepHours": 7 })),
            ("add_users", json!({ "email": "a@b.c" })),
            ("drop_sleep", json!({ "match": { "date": "2026-11-23" } })),
            ("delete_goal", json!({ "match": {} })),
            ("delete_goal", json!({ "match": { "id": "*" } })),
            ("delete_goal", json!({ "match": { "id": Uuid::nil(), "user_id": Uuid::nil() } })),
            ("edit_goal", json!({ "match": { "type": "savings" }, "changes": {} })),
            (
                "edit_goal",
                json!({ "match": { "type": "savings" }, "changes": { "id": Uuid::nil() } }),
            ),
        ] {
            assert!(verbs(&call(name, &args)).is_err(), "{name} {args}");
        }
        let many: Vec<_> =
            (0..=MAX_ACTIONS).map(|_| call("unknown", &json!({}))[0].clone()).collect();
        assert!(verbs(&many.into()).is_err());
        for garbage in ["", "[]", "{}", "null", r#"{"candidates":[]}"#, "<html>"] {
            assert!(read(garbage).is_err(), "{garbage}");
        }
    }
}
