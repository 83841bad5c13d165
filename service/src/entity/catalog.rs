//! The kinds of entity.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{Entity, Field, Item, Kind, Presence};
use crate::problem::FieldError;

/// Every kind.
pub static ALL: [&Entity; 6] = [&TRANSACTION, &SCHEDULE, &WORKOUT, &FOOD_ENTRY, &CHECK_IN, &GOAL];

const INCOME: &[&str] = &["Salary", "Freelance", "Investment", "Gift", "Other"];
const EXPENSE: &[&str] = &[
    "Food",
    "Housing",
    "Transportation",
    "Entertainment",
    "Shopping",
    "Healthcare",
    "Education",
    "Other",
];
const CATEGORIES: &[&str] = &[
    "Salary",
    "Freelance",
    "Investment",
    "Gift",
    "Food",
    "Housing",
    "Transportation",
    "Entertainment",
    "Shopping",
    "Healthcare",
    "Education",
    "Other",
];

/// Income and expenses.
pub static TRANSACTION: Entity = {
    const FIELDS: &[Field] = &[
        required("type", "type", Kind::OneOf(&["income", "expense"])),
        required("amount", "amount", Kind::Money),
        required("currency", "currency", Kind::Currency),
        required("category", "category", Kind::OneOf(CATEGORIES)),
        required("date", "date", Kind::Date),
        default("description", "description", Kind::Text { min: 0, max: 500 }, "\"\""),
        default("isRecurring", "is_recurring", Kind::Boolean, "false"),
    ];
    entity("transactions", "Transaction", "transaction", "transactions", FIELDS)
        .with_check(category_fits_type, categories_of_types)
};

/// What is planned for a day.
pub static SCHEDULE: Entity = {
    const FIELDS: &[Field] = &[
        required("date", "date", Kind::Date),
        required("title", "title", Kind::Text { min: 1, max: 200 }),
        required("startTime", "start_time", Kind::Time),
        required("endTime", "end_time", Kind::Time),
        required(
            "category",
            "category",
            Kind::OneOf(&["Work", "Exercise", "Meal", "Sleep", "Personal", "Social", "Other"]),
        ),
        nullable("emoji", "emoji", Kind::Text { min: 1, max: 16 }),
        default("order", "position", Kind::Integer { min: 0, max: 100_000 }, "0"),
        default("isActive", "is_active", Kind::Boolean, "true"),
        nullable("recurrence", "recurrence", Kind::OneOf(&["daily", "weekdays", "weekends"])),
        nullable("color", "color", Kind::Color),
    ];
    entity("schedule", "ScheduleItem", "schedule item", "schedule_items", FIELDS)
};

/// Training.
pub static WORKOUT: Entity = {
    const FIELDS: &[Field] = &[
        required("date", "date", Kind::Date),
        required("title", "title", Kind::Text { min: 1, max: 200 }),
        required("type", "type", Kind::OneOf(&["strength", "cardio", "flexibility", "sports"])),
        required("durationMinutes", "duration_minutes", Kind::Integer { min: 1, max: 1440 }),
        default("exercises", "exercises", Kind::Exercises, "[]"),
        nullable("notes", "notes", Kind::Text { min: 0, max: 2000 }),
    ];
    entity("workouts", "Workout", "workout", "workouts", FIELDS)
};

/// What was eaten.
pub static FOOD_ENTRY: Entity = {
    const FIELDS: &[Field] = &[
        required("date", "date", Kind::Date),
        required("name", "name", Kind::Text { min: 1, max: 200 }),
        required("calories", "calories", NUTRIENT),
        default("protein", "protein", NUTRIENT, "0"),
        default("carbs", "carbs", NUTRIENT, "0"),
        default("fats", "fats", NUTRIENT, "0"),
        nullable("portionAmount", "portion_amount", Kind::Decimal { max: 100_000, positive: true }),
        nullable("portionUnit", "portion_unit", Kind::Text { min: 1, max: 20 }),
        nullable("startTime", "start_time", Kind::Time),
        nullable("endTime", "end_time", Kind::Time),
    ];
    entity("food-entries", "FoodEntry", "food entry", "food_entries", FIELDS)
};

/// Kilocalories, or grams.
const NUTRIENT: Kind = Kind::Decimal { max: 100_000, positive: false };

/// How a day began.
pub static CHECK_IN: Entity = {
    const FIELDS: &[Field] = &[
        required("date", "date", Kind::Date),
        required("sleepHours", "sleep_hours", Kind::Decimal { max: 24, positive: false }),
    ];
    entity("daily-check-ins", "DailyCheckIn", "daily check-in", "daily_check_ins", FIELDS)
        .with_one_per_day()
};

/// What is aimed at.
pub static GOAL: Entity = {
    const FIELDS: &[Field] = &[
        required("type", "type", Kind::OneOf(&["calories", "workouts", "savings"])),
        required("target", "target", Kind::Money),
        required("period", "period", Kind::OneOf(&["daily", "weekly", "monthly", "yearly"])),
    ];
    entity("goals", "Goal", "goal", "goals", FIELDS)
};

const fn entity(
    path: &'static str,
    schema: &'static str,
    noun: &'static str,
    table: &'static str,
    fields: &'static [Field],
) -> Entity {
    Entity {
        path,
        schema,
        noun,
        table,
        fields,
        one_per_day: false,
        check: no_check,
        alternatives: None,
        statements: OnceLock::new(),
    }
}

impl Entity {
    const fn with_check(
        mut self,
        check: fn(&Item) -> Option<FieldError>,
        alternatives: fn() -> Value,
    ) -> Self {
        self.check = check;
        self.alternatives = Some(alternatives);
        self
    }

    const fn with_one_per_day(mut self) -> Self {
        self.one_per_day = true;
        self
    }
}

const fn required(name: &'static str, column: &'static str, kind: Kind) -> Field {
    Field { name, column, kind, presence: Presence::Required }
}

const fn default(
    name: &'static str,
    column: &'static str,
    kind: Kind,
    json: &'static str,
) -> Field {
    Field { name, column, kind, presence: Presence::Default(json) }
}

const fn nullable(name: &'static str, column: &'static str, kind: Kind) -> Field {
    Field { name, column, kind, presence: Presence::Nullable }
}

fn no_check(_: &Item) -> Option<FieldError> {
    None
}

fn categories_of_types() -> Value {
    [("income", INCOME), ("expense", EXPENSE)]
        .into_iter()
        .map(|(kind, categories)| {
            json!({ "properties": { "type": { "const": kind }, "category": { "enum": categories } } })
        })
        .collect()
}

fn category_fits_type(item: &Item) -> Option<FieldError> {
    let categories = if item.text("type")? == "income" { INCOME } else { EXPENSE };
    if categories.contains(&item.text("category")?) {
        return None;
    }
    Some(FieldError {
        field: "category".to_owned(),
        message: format!("must be one of {}", categories.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_fits_a_type() {
        for category in CATEGORIES {
            assert!(INCOME.contains(category) || EXPENSE.contains(category), "{category}");
        }
        for category in INCOME.iter().chain(EXPENSE) {
            assert!(CATEGORIES.contains(category), "{category}");
        }
    }

    #[test]
    fn defaults_are_values_of_their_kind() {
        for field in ALL.iter().flat_map(|entity| entity.fields) {
            if let Presence::Default(json) = field.presence {
                field.kind.default(json);
            }
        }
    }
}
