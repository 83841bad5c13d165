//! The tools: what they take follows from the entities' descriptions.

use serde_json::{Value, json};

use super::{
    MAX_OUTPUT,
    auth::Caller,
    record::{Outcome, Record},
};
use crate::{
    app::App,
    body::{Object, text},
    calendar,
    entity::{Entity, GOAL, Range, SCHEDULE, TRANSACTION},
    page::{Cursor, DEFAULT_LIMIT, MAX_LIMIT},
    problem::Problem,
    routes::{balance, crud},
};

/// One tool.
#[derive(Debug)]
pub struct Tool {
    /// Its name in the protocol.
    pub name: &'static str,
    /// What it does, for the model that chooses it.
    pub description: &'static str,
    action: Action,
}

#[derive(Debug)]
enum Action {
    List(&'static Entity),
    Balance,
    Add(&'static Entity),
}

/// Every tool. Those that add are off unless they are allowed.
pub static TOOLS: [Tool; 7] = [
    Tool {
        name: "list_schedule",
        description: "The user's schedule, newest day first. Narrow it to a day or a month.",
        action: Action::List(&SCHEDULE),
    },
    Tool {
        name: "list_transactions",
        description: "The user's income and expenses, newest day first. Narrow them to a day or a month.",
        action: Action::List(&TRANSACTION),
    },
    Tool {
        name: "get_balance",
        description: "The user's income, expenses and balance, per currency, of all time or of a month.",
        action: Action::Balance,
    },
    Tool { name: "list_goals", description: "What the user aims at.", action: Action::List(&GOAL) },
    Tool {
        name: "add_schedule_item",
        description: "Adds one item to the user's schedule.",
        action: Action::Add(&SCHEDULE),
    },
    Tool {
        name: "add_transaction",
        description: "Adds one income or expense of the user.",
        action: Action::Add(&TRANSACTION),
    },
    Tool {
        name: "add_goal",
        description: "Adds one goal of the user.",
        action: Action::Add(&GOAL),
    },
];

impl Tool {
    /// A tool that may be called.
    pub(super) fn find(name: &str, allowed: &[String]) -> Option<&'static Self> {
        TOOLS.iter().find(|tool| tool.name == name && tool.is_on(allowed))
    }

    /// Whether it adds something.
    pub fn writes(&self) -> bool {
        matches!(self.action, Action::Add(_))
    }

    /// Whether it may be called where these are allowed.
    pub(super) fn is_on(&self, allowed: &[String]) -> bool {
        !self.writes() || allowed.iter().any(|name| name == self.name)
    }

    /// The JSON schema of its arguments.
    pub(super) fn input(&self) -> Value {
        let month = json!({ "type": "string", "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$", "description": "YYYY-MM" });
        let mut properties = json!({});
        match self.action {
            Action::Add(entity) => return entity.new_schema(),
            Action::Balance => properties["month"] = month,
            Action::List(entity) => {
                if entity.is_dated() {
                    properties["month"] = month;
                    properties["date"] =
                        json!({ "type": "string", "format": "date", "description": "YYYY-MM-DD" });
                }
                properties["limit"] = json!({
                    "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT,
                });
                properties["cursor"] = json!({ "type": "string", "description": "The nextCursor of the page before." });
            }
        }
        json!({ "type": "object", "properties": properties, "additionalProperties": false })
    }

    /// Runs it for a caller, whose the data is: never for a user that the arguments name.
    pub(super) async fn run(
        &self,
        app: &App,
        caller: Caller,
        record: &Record,
        arguments: &str,
    ) -> Result<String, Problem> {
        let mut object = Object::parse(arguments.as_bytes())?;
        match self.action {
            Action::List(entity) => {
                let range = range(entity.is_dated(), &mut object);
                let limit = object.optional("limit", |raw| {
                    let limit = raw.get().parse().ok();
                    limit
                        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                        .ok_or_else(|| format!("must be a number from 1 to {MAX_LIMIT}"))
                });
                let cursor = object.optional("cursor", |raw| {
                    let cursor = text(1, 100)(raw).ok().and_then(|text| Cursor::decode(&text));
                    cursor.ok_or_else(|| "must be a nextCursor of this list".to_owned())
                });
                object.finish()?;
                let cursor = cursor.unwrap_or(Cursor::START);
                list(app, caller, entity, range, cursor, limit.unwrap_or(DEFAULT_LIMIT)).await
            }
            Action::Balance => {
                let range = month(&mut object).unwrap_or(Range::ALL);
                object.finish()?;
                balance::of(&app.database, caller.user, range).await
            }
            Action::Add(entity) => {
                let item = entity.read_new(object)?;
                // The protocol runs this in a task of its own, which the end of the request does not end.
                let adding = app.timings.limit(async {
                    let mut tx = app.database.begin().await?;
                    let inserted = entity.insert(&mut tx, caller.user, item).await?;
                    record.write(&mut *tx, Outcome::Ok).await?;
                    tx.commit().await?;
                    Ok(inserted)
                });
                let inserted = adding.await?;
                record.set_written();
                Ok(inserted.row.json())
            }
        }
    }
}

/// A page of a user's entities.
pub(super) async fn list(
    app: &App,
    caller: Caller,
    entity: &'static Entity,
    range: Range,
    cursor: Cursor,
    limit: u8,
) -> Result<String, Problem> {
    let rows = i64::from(limit) + 1;
    let rows = entity.list(&app.database, caller.user, range, cursor, rows).await?;
    Ok(crud::page(&rows, usize::from(limit), MAX_OUTPUT))
}

fn range(dated: bool, object: &mut Object) -> Range {
    if !dated {
        return Range::ALL;
    }
    let both = object.has("month") && object.has("date");
    let month = month(object);
    let day = object.optional("date", |raw| {
        let day = text(10, 10)(raw).ok().and_then(|text| calendar::parse_date(&text));
        day.ok_or_else(|| "must be an existing day as YYYY-MM-DD".to_owned())
    });
    if both {
        object.error("date", "must not be given with month");
    }
    day.map(|day| Range { first: day, last: day }).or(month).unwrap_or(Range::ALL)
}

fn month(object: &mut Object) -> Option<Range> {
    object.optional("month", |raw| {
        let days = text(7, 7)(raw).ok().and_then(|text| calendar::parse_month(&text));
        let (first, last) = days.ok_or_else(|| "must be a month as YYYY-MM".to_owned())?;
        Ok(Range { first, last })
    })
}
