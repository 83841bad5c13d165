//! What a member may hold: how it is read from JSON, written to it, and bound to a statement.

use rust_decimal::Decimal;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, Unexpected},
};
use serde_json::{Value, value::RawValue};
use sqlx::{Postgres, Row as _, postgres::PgArguments, postgres::PgRow, query::Query, types::Json};
use time::{Date, Time};

use crate::{
    body::{boolean, integer, text},
    calendar, currency, money,
};

/// What a member may hold.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A string of that many characters.
    Text {
        /// Fewest characters.
        min: usize,
        /// Most characters.
        max: usize,
    },
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// An ISO 4217 code.
    Currency,
    /// More than 0, at most two decimals: `numeric(14,2)`.
    Money,
    /// From 0 (`positive`: more than 0) to `max`, at most two decimals.
    Decimal {
        /// The largest value.
        max: u32,
        /// 0 is refused.
        positive: bool,
    },
    /// A whole number.
    Integer {
        /// The smallest.
        min: i32,
        /// The largest.
        max: i32,
    },
    /// True or false.
    Boolean,
    /// A calendar day.
    Date,
    /// A time of day, `HH:MM`.
    Time,
    /// `#rrggbb`.
    Color,
    /// The exercises of a workout.
    Exercises,
}

/// A value of a [`Kind`].
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// None.
    Null,
    /// A string.
    Text(String),
    /// An exact decimal number.
    Decimal(Decimal),
    /// A whole number.
    Integer(i32),
    /// True or false.
    Boolean(bool),
    /// A calendar day.
    Date(Date),
    /// A time of day.
    Time(Time),
    /// A document, checked.
    Json(Value),
}

/// One exercise of a workout.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exercise {
    name: String,
    #[serde(deserialize_with = "count")]
    sets: u16,
    #[serde(deserialize_with = "count")]
    reps: u16,
    /// Kilograms or pounds, as the user counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notes: Option<String>,
}

/// Most exercises of one workout.
pub(super) const EXERCISES_MAX: usize = 100;
/// Most sets, and most repetitions, of one exercise.
pub(super) const REPETITIONS_MAX: u16 = 10_000;
/// The heaviest weight.
pub(super) const WEIGHT_MAX: f64 = 10_000.0;
/// Longest name of an exercise in characters.
pub(super) const EXERCISE_NAME_MAX: usize = 200;
/// Longest note on an exercise in characters.
pub(super) const EXERCISE_NOTES_MAX: usize = 1_000;

impl Kind {
    /// Reads the text of a JSON value; an error says what it must be.
    pub fn read(self, raw: &RawValue) -> Result<Datum, String> {
        match self {
            Self::Text { min, max } => text(min, max)(raw).map(Datum::Text),
            Self::OneOf(values) => {
                let value = text(0, 50)(raw).ok().filter(|value| values.contains(&value.as_str()));
                value
                    .map(Datum::Text)
                    .ok_or_else(|| format!("must be one of {}", values.join(", ")))
            }
            Self::Currency => text(3, 3)(raw)
                .ok()
                .filter(|code| currency::is_known(code))
                .map(Datum::Text)
                .ok_or_else(|| "must be an ISO 4217 code such as EUR".to_owned()),
            Self::Money => {
                money::parse_amount(raw.get()).map(Datum::Decimal).map_err(str::to_owned)
            }
            Self::Decimal { max, positive } => {
                money::parse_decimal(raw.get()).map_err(str::to_owned).and_then(|number| {
                    if number > Decimal::from(max) {
                        Err(format!("must be at most {max}"))
                    } else if positive && number.is_zero() {
                        Err("must be greater than 0".to_owned())
                    } else {
                        Ok(Datum::Decimal(number))
                    }
                })
            }
            Self::Integer { min, max } => integer(raw)
                .filter(|number| (min..=max).contains(number))
                .map(Datum::Integer)
                .ok_or_else(|| format!("must be a whole number from {min} to {max}")),
            Self::Boolean => boolean(raw).map(Datum::Boolean),
            Self::Date => text(10, 10)(raw)
                .ok()
                .and_then(|text| calendar::parse_date(&text))
                .map(Datum::Date)
                .ok_or_else(|| "must be an existing day as YYYY-MM-DD".to_owned()),
            Self::Time => text(5, 5)(raw)
                .ok()
                .and_then(|text| calendar::parse_time(&text))
                .map(Datum::Time)
                .ok_or_else(|| "must be a time of day as HH:MM".to_owned()),
            Self::Color => text(7, 7)(raw)
                .ok()
                .filter(|color| {
                    color.starts_with('#')
                        && color[1..].bytes().all(|byte| byte.is_ascii_hexdigit())
                })
                .map(Datum::Text)
                .ok_or_else(|| "must be a color as #rrggbb".to_owned()),
            Self::Exercises => exercises(raw).map(Datum::Json),
        }
    }

    /// The value that a JSON text of ours stands for.
    pub(super) fn default(self, json: &'static str) -> Datum {
        let raw: Box<RawValue> =
            RawValue::from_string(json.to_owned()).expect("a default is a JSON text of ours");
        self.read(&raw).expect("a default is a valid value of its kind")
    }

    /// Binds a value to the next parameter of a statement.
    pub(super) fn bind(
        self,
        query: Query<'_, Postgres, PgArguments>,
        datum: Datum,
    ) -> Query<'_, Postgres, PgArguments> {
        match datum {
            Datum::Text(text) => query.bind(text),
            Datum::Decimal(decimal) => query.bind(decimal),
            Datum::Integer(integer) => query.bind(integer),
            Datum::Boolean(boolean) => query.bind(boolean),
            Datum::Date(date) => query.bind(date),
            Datum::Time(time) => query.bind(time),
            Datum::Json(value) => query.bind(Json(value)),
            Datum::Null => match self {
                Self::Text { .. } | Self::OneOf(_) | Self::Currency | Self::Color => {
                    query.bind(None::<String>)
                }
                Self::Money | Self::Decimal { .. } => query.bind(None::<Decimal>),
                Self::Integer { .. } => query.bind(None::<i32>),
                Self::Boolean => query.bind(None::<bool>),
                Self::Date => query.bind(None::<Date>),
                Self::Time => query.bind(None::<Time>),
                Self::Exercises => query.bind(None::<Json<Value>>),
            },
        }
    }

    /// Reads a column.
    pub(super) fn column(self, row: &PgRow, name: &str) -> Result<Datum, sqlx::Error> {
        let datum = match self {
            Self::Text { .. } | Self::OneOf(_) | Self::Currency | Self::Color => {
                row.try_get::<Option<String>, _>(name)?.map(Datum::Text)
            }
            Self::Money | Self::Decimal { .. } => {
                row.try_get::<Option<Decimal>, _>(name)?.map(Datum::Decimal)
            }
            Self::Integer { .. } => row.try_get::<Option<i32>, _>(name)?.map(Datum::Integer),
            Self::Boolean => row.try_get::<Option<bool>, _>(name)?.map(Datum::Boolean),
            Self::Date => row.try_get::<Option<Date>, _>(name)?.map(Datum::Date),
            Self::Time => row.try_get::<Option<Time>, _>(name)?.map(Datum::Time),
            Self::Exercises => {
                row.try_get::<Option<Json<Value>>, _>(name)?.map(|Json(value)| Datum::Json(value))
            }
        };
        Ok(datum.unwrap_or(Datum::Null))
    }

    /// Appends a value as JSON. Decimals never pass through a binary float.
    pub(super) fn write(self, datum: &Datum, json: &mut String) {
        match datum {
            Datum::Null => json.push_str("null"),
            Datum::Text(text) => json.push_str(&Value::from(text.as_str()).to_string()),
            Datum::Decimal(decimal) if matches!(self, Self::Money) => {
                json.push_str(money::to_json(*decimal).get());
            }
            Datum::Decimal(decimal) => json.push_str(&decimal.normalize().to_string()),
            Datum::Integer(integer) => json.push_str(&integer.to_string()),
            Datum::Boolean(boolean) => json.push_str(if *boolean { "true" } else { "false" }),
            Datum::Date(date) => {
                json.push('"');
                json.push_str(&calendar::format_date(*date));
                json.push('"');
            }
            Datum::Time(time) => {
                json.push('"');
                json.push_str(&calendar::format_time(*time));
                json.push('"');
            }
            Datum::Json(value) => json.push_str(&value.to_string()),
        }
    }
}

fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let raw: &RawValue = Deserialize::deserialize(deserializer)?;
    integer(raw).and_then(|number| number.try_into().ok()).ok_or_else(|| {
        D::Error::invalid_value(Unexpected::Other(raw.get()), &"a whole number of at least 0")
    })
}

fn exercises(raw: &RawValue) -> Result<Value, String> {
    let shape = "must be a list of {name, sets, reps, weight?, notes?}";
    let list: Vec<Exercise> = serde_json::from_str(raw.get()).map_err(|_| shape.to_owned())?;
    if list.len() > EXERCISES_MAX {
        return Err(format!("must have at most {EXERCISES_MAX} exercises"));
    }
    for exercise in &list {
        let name = exercise.name.chars().count();
        let notes = exercise.notes.as_deref().unwrap_or_default();
        if !(1..=EXERCISE_NAME_MAX).contains(&name) || notes.chars().count() > EXERCISE_NOTES_MAX {
            return Err(format!(
                "must have names of 1 to {EXERCISE_NAME_MAX} and notes of at most {EXERCISE_NOTES_MAX} characters"
            ));
        }
        if exercise.name.contains('\0') || notes.contains('\0') {
            return Err("must not contain NUL characters".to_owned());
        }
        let counts = 0..=REPETITIONS_MAX;
        if !counts.contains(&exercise.sets) || !counts.contains(&exercise.reps) {
            return Err(format!("must have sets and reps from 0 to {REPETITIONS_MAX}"));
        }
        if exercise.weight.is_some_and(|weight| !(0.0..=WEIGHT_MAX).contains(&weight)) {
            return Err(format!("must have weights from 0 to {WEIGHT_MAX}"));
        }
    }
    serde_json::to_value(list).map_err(|_| shape.to_owned())
}
