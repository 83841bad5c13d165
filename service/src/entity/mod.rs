//! What a user keeps: one description per kind, from which reading, checking, SQL, JSON and the
//! OpenAPI schema all follow. Adding a kind is one entry in [`catalog`] and one migration.

mod catalog;
mod kind;
mod schema;
mod store;

use std::sync::OnceLock;

use serde_json::{Value, value::RawValue};

pub use catalog::{ALL, CHECK_IN, FOOD_ENTRY, GOAL, SCHEDULE, TRANSACTION, WORKOUT};
pub use kind::{Datum, Kind};
pub use store::{Inserted, Range, Row};

use crate::{
    body::Object,
    problem::{FieldError, Problem},
};
use store::Statements;

/// The description of one kind of entity.
#[derive(Debug)]
pub struct Entity {
    /// Its path below `/api`, without the slash.
    pub path: &'static str,
    /// Its name in the OpenAPI document.
    pub schema: &'static str,
    /// What a person calls one of them.
    pub noun: &'static str,
    /// Its table.
    pub table: &'static str,
    /// Its members, in the order of the JSON document.
    pub fields: &'static [Field],
    /// At most one per user and day: creating a second one replaces the first.
    pub one_per_day: bool,
    /// What its members must fulfil together.
    pub check: fn(&Item) -> Option<FieldError>,
    /// The same as schemas, of which exactly one holds.
    alternatives: Option<fn() -> Value>,
    statements: OnceLock<Statements>,
}

/// One member.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its column.
    pub column: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// Whether it may be left out.
    pub presence: Presence,
}

/// Whether a member may be left out when one is created.
#[derive(Clone, Copy, Debug)]
pub enum Presence {
    /// It must be there.
    Required,
    /// This JSON text stands for it when it is left out.
    Default(&'static str),
    /// It may be left out or null.
    Nullable,
}

/// The members of one entity, in the order of [`Entity::fields`].
#[derive(Clone, Debug)]
pub struct Item {
    entity: &'static Entity,
    values: Vec<Datum>,
}

/// The members that a change names; the others stay.
#[derive(Clone, Debug)]
pub struct Patch(Vec<Option<Datum>>);

impl Field {
    fn read(&self, raw: &RawValue) -> Result<Datum, String> {
        if matches!(self.presence, Presence::Nullable) && raw.get() == "null" {
            return Ok(Datum::Null);
        }
        self.kind.read(raw)
    }
}

impl Entity {
    /// Reads the body of a request that creates one.
    pub fn parse_new(&'static self, body: &[u8]) -> Result<Item, Problem> {
        self.read_new(Object::parse(body)?)
    }

    /// Takes every member out of an object that describes a new one.
    pub fn read_new(&'static self, mut object: Object) -> Result<Item, Problem> {
        let values: Vec<Option<Datum>> = self
            .fields
            .iter()
            .map(|field| match field.presence {
                Presence::Required => object.required(field.name, |raw| field.read(raw)),
                Presence::Nullable => {
                    let absent = !object.has(field.name);
                    let value = object.optional(field.name, |raw| field.read(raw));
                    if absent { Some(Datum::Null) } else { value }
                }
                Presence::Default(default) => {
                    let absent = !object.has(field.name);
                    let value = object.optional(field.name, |raw| field.read(raw));
                    if absent { Some(field.kind.default(default)) } else { value }
                }
            })
            .collect();
        // Members that depend on each other are looked at as soon as those that are needed are
        // there, so that the answer names everything at once.
        let probe = Item {
            entity: self,
            values: values.iter().map(|value| value.clone().unwrap_or(Datum::Null)).collect(),
        };
        if let Some(error) = (self.check)(&probe) {
            object.error(&error.field, error.message);
        }
        object.finish()?;
        let values: Option<Vec<_>> = values.into_iter().collect();
        Ok(Item { entity: self, values: values.ok_or_else(Problem::internal)? })
    }

    /// Reads the body of a request that changes one.
    pub fn parse_patch(&'static self, body: &[u8]) -> Result<Patch, Problem> {
        self.read_patch(Object::parse(body)?)
    }

    /// Takes the members that an object names.
    pub fn read_patch(&'static self, mut object: Object) -> Result<Patch, Problem> {
        let values = self
            .fields
            .iter()
            .map(|field| object.optional(field.name, |raw| field.read(raw)))
            .collect();
        object.finish()?;
        Ok(Patch(values))
    }

    /// Whether it belongs to a day; lists are then by day and can be narrowed to a month.
    pub fn is_dated(&self) -> bool {
        self.fields.iter().any(|field| field.name == "date")
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// The answer for somebody else's, an unknown and a malformed id: the same to the caller.
    pub fn absent(&self) -> Problem {
        Problem::not_found(format!("There is no such {}.", self.noun))
    }
}

impl Patch {
    /// Whether no member is named.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// The value that a member is given, if it is named.
    pub fn get(&self, entity: &Entity, name: &str) -> Option<&Datum> {
        self.0.get(entity.position(name)?)?.as_ref()
    }

    /// Whether every named member has this value in an item; the case of letters does not matter.
    pub fn matches(&self, item: &Item) -> bool {
        self.0.iter().zip(&item.values).all(|(wanted, value)| match (wanted, value) {
            (None, _) => true,
            (Some(Datum::Text(wanted)), Datum::Text(value)) => {
                wanted.to_lowercase() == value.to_lowercase()
            }
            (Some(wanted), value) => wanted == value,
        })
    }
}

impl Item {
    /// The value of a member.
    pub fn get(&self, name: &str) -> &Datum {
        self.entity.position(name).map_or(&Datum::Null, |position| &self.values[position])
    }

    /// The text of a member that holds text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Datum::Text(text) => Some(text),
            _ => None,
        }
    }

    /// This with the members that a change names.
    pub fn patched(mut self, patch: Patch) -> Result<Self, Problem> {
        for (value, change) in self.values.iter_mut().zip(patch.0) {
            if let Some(change) = change {
                *value = change;
            }
        }
        match (self.entity.check)(&self) {
            Some(error) => Err(Problem::invalid(vec![error])),
            None => Ok(self),
        }
    }
}
