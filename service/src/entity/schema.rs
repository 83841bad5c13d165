//! The OpenAPI schemas of an entity.

use serde_json::{Map, Value, json};

use super::{
    Entity, Kind, Presence,
    kind::{EXERCISE_NAME_MAX, EXERCISE_NOTES_MAX, EXERCISES_MAX, REPETITIONS_MAX, WEIGHT_MAX},
};
use crate::{body::text_schema, currency, money};

impl Kind {
    /// The JSON schema of the values that are accepted.
    pub fn schema(self) -> Value {
        match self {
            Self::Text { min, max } => text_schema(min, max),
            Self::OneOf(values) => json!({ "type": "string", "enum": values }),
            Self::Currency => json!({ "type": "string", "enum": currency::CODES.as_slice() }),
            Self::Money => json!({
                "type": "number", "exclusiveMinimum": 0, "maximum": money::MAX, "multipleOf": 0.01,
            }),
            Self::Decimal { max, positive } => {
                let least = if positive { "exclusiveMinimum" } else { "minimum" };
                json!({ "type": "number", least: 0, "maximum": max, "multipleOf": 0.01 })
            }
            Self::Integer { min, max } => {
                json!({ "type": "integer", "minimum": min, "maximum": max })
            }
            Self::Boolean => json!({ "type": "boolean" }),
            Self::Date => json!({ "type": "string", "format": "date" }),
            Self::Time => json!({ "type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$" }),
            Self::Color => json!({ "type": "string", "pattern": "^#[0-9A-Fa-f]{6}$" }),
            Self::Exercises => json!({
                "type": "array",
                "maxItems": EXERCISES_MAX,
                "items": {
                    "type": "object",
                    "required": ["name", "sets", "reps"],
                    "additionalProperties": false,
                    "properties": {
                        "name": Self::Text { min: 1, max: EXERCISE_NAME_MAX }.schema(),
                        "sets": { "type": "integer", "minimum": 0, "maximum": REPETITIONS_MAX },
                        "reps": { "type": "integer", "minimum": 0, "maximum": REPETITIONS_MAX },
                        "weight": { "type": ["number", "null"], "minimum": 0, "maximum": WEIGHT_MAX },
                        "notes": nullable(&Self::Text { min: 0, max: EXERCISE_NOTES_MAX }.schema()),
                    },
                },
            }),
        }
    }
}

/// The schema that accepts null besides.
pub(super) fn nullable(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

impl Entity {
    /// What is sent to create one, member by member.
    pub fn new_schema(&self) -> Value {
        let required: Vec<_> = self
            .fields
            .iter()
            .filter(|field| matches!(field.presence, Presence::Required))
            .map(|field| field.name)
            .collect();
        let mut schema = json!({
            "type": "object", "properties": self.properties(true), "additionalProperties": false,
        });
        schema["required"] = required.into();
        schema
    }

    /// [`Self::new_schema`] with what the members must fulfil together. Models that are given a
    /// function or a tool take no alternatives at the top of its schema.
    pub fn body_schema(&self) -> Value {
        let mut schema = self.new_schema();
        if let Some(alternatives) = self.alternatives {
            schema["oneOf"] = alternatives();
        }
        schema
    }

    /// What is sent to change one.
    pub fn patch_schema(&self) -> Value {
        json!({ "type": "object", "properties": self.properties(false), "additionalProperties": false })
    }

    /// What is answered.
    pub fn schema(&self) -> Value {
        let mut properties = Map::new();
        properties.insert("id".into(), json!({ "type": "string", "format": "uuid" }));
        properties.extend(self.properties(false));
        for name in ["createdAt", "updatedAt"] {
            properties.insert(name.into(), json!({ "type": "string", "format": "date-time" }));
        }
        let names: Vec<_> = properties.keys().cloned().collect();
        json!({
            "type": "object", "properties": properties, "required": names, "additionalProperties": false,
        })
    }

    fn properties(&self, with_defaults: bool) -> Map<String, Value> {
        self.fields
            .iter()
            .map(|field| {
                let mut schema = field.kind.schema();
                match field.presence {
                    Presence::Nullable => schema = nullable(&schema),
                    Presence::Default(json) if with_defaults => {
                        schema["default"] =
                            serde_json::from_str(json).expect("a default is a JSON text of ours");
                    }
                    Presence::Required | Presence::Default(_) => {}
                }
                (field.name.to_owned(), schema)
            })
            .collect()
    }
}
