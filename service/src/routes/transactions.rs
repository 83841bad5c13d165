//! `/api/transactions`: income and expenses.

use axum::{
    extract::{Path, RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use time::{Date, OffsetDateTime, macros::date};
use uuid::Uuid;

use crate::{
    app::App,
    auth::Principal,
    body::{JsonBody, Object, boolean, text},
    calendar, currency,
    idempotency::{Answer, Call},
    money,
    page::{Cursor, DEFAULT_LIMIT, MAX_LIMIT, Page},
    problem::Problem,
    query::Query,
};

const INCOME: [&str; 5] = ["Salary", "Freelance", "Investment", "Gift", "Other"];
const EXPENSE: [&str; 8] = [
    "Food",
    "Housing",
    "Transportation",
    "Entertainment",
    "Shopping",
    "Healthcare",
    "Education",
    "Other",
];

/// Longest description in characters.
const DESCRIPTION_MAX: usize = 500;

#[derive(Debug, sqlx::FromRow)]
struct Row {
    id: Uuid,
    r#type: String,
    amount: Decimal,
    currency: String,
    category: String,
    date: Date,
    description: String,
    is_recurring: bool,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

/// A transaction on the wire.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Transaction {
    id: Uuid,
    r#type: String,
    amount: Box<RawValue>,
    currency: String,
    category: String,
    date: String,
    description: String,
    is_recurring: bool,
    created_at: String,
    updated_at: String,
}

impl From<Row> for Transaction {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            r#type: row.r#type,
            amount: money::to_json(row.amount),
            currency: row.currency,
            category: row.category,
            date: calendar::format_date(row.date),
            description: row.description,
            is_recurring: row.is_recurring,
            created_at: calendar::format_instant(row.created_at),
            updated_at: calendar::format_instant(row.updated_at),
        }
    }
}

/// A valid request to create one.
#[derive(Debug)]
struct New {
    r#type: String,
    amount: Decimal,
    currency: String,
    category: String,
    date: Date,
    description: String,
    is_recurring: bool,
}

impl New {
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        let mut object = Object::parse(body)?;
        let kind = object.required("type", kind);
        let amount = object.required("amount", amount);
        let currency = object.required("currency", currency_code);
        let category = object.required("category", text(1, 50));
        let date = object.required("date", date);
        let description =
            object.optional("description", text(0, DESCRIPTION_MAX)).unwrap_or_default();
        let is_recurring = object.optional("isRecurring", boolean).unwrap_or_default();
        if let (Some(kind), Some(category)) = (&kind, &category)
            && !fits(kind, category)
        {
            object.error("category", expected_category(kind));
        }
        object.finish()?;
        let (Some(r#type), Some(amount), Some(currency), Some(category), Some(date)) =
            (kind, amount, currency, category, date)
        else {
            return Err(Problem::internal());
        };
        Ok(Self { r#type, amount, currency, category, date, description, is_recurring })
    }
}

/// A valid request to change one: what is absent stays.
#[derive(Debug)]
struct Patch {
    r#type: Option<String>,
    amount: Option<Decimal>,
    currency: Option<String>,
    category: Option<String>,
    date: Option<Date>,
    description: Option<String>,
    is_recurring: Option<bool>,
}

impl Patch {
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        let mut object = Object::parse(body)?;
        let patch = Self {
            r#type: object.optional("type", kind),
            amount: object.optional("amount", amount),
            currency: object.optional("currency", currency_code),
            category: object.optional("category", text(1, 50)),
            date: object.optional("date", date),
            description: object.optional("description", text(0, DESCRIPTION_MAX)),
            is_recurring: object.optional("isRecurring", boolean),
        };
        object.finish()?;
        Ok(patch)
    }
}

/// `GET /api/transactions[?month=YYYY-MM][&limit=1..100][&cursor=…]`: newest day first.
pub async fn list(
    principal: Principal,
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref());
    let month = query.take("month", "must be a month as YYYY-MM", calendar::parse_month);
    let limit = query.take("limit", "must be a number from 1 to 100", |text| {
        text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
    });
    let cursor = query.take("cursor", "must be a nextCursor of this list", Cursor::decode);
    query.finish()?;
    let (first, last) = month.unwrap_or((date!(0001 - 01 - 01), Date::MAX));
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    let cursor = cursor.unwrap_or(Cursor::START);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, type, amount, currency, category, date, description, is_recurring, created_at, updated_at
         FROM transactions
         WHERE user_id = $1 AND date BETWEEN $2 AND $3 AND (date, id) < ($4, $5)
         ORDER BY date DESC, id DESC LIMIT $6",
    )
    .bind(principal.user)
    .bind(first)
    .bind(last)
    .bind(cursor.date)
    .bind(cursor.id)
    .bind(i64::from(limit) + 1)
    .fetch_all(&app.database)
    .await?;
    let page = Page::from_rows(
        rows,
        limit,
        |row| Cursor { date: row.date, id: row.id },
        Transaction::from,
    );
    json(StatusCode::OK, &page)
}

/// `POST /api/transactions`, at most once per idempotency key.
pub async fn create(
    principal: Principal,
    call: Call,
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let user = principal.user;
    app.idempotency
        .run(user, &call, &body, New::parse, |new, database| {
            Box::pin(async move {
                let row = insert(database, user, &new).await?;
                let location = format!("/api/transactions/{}", row.id);
                let body =
                    serde_json::to_vec(&Transaction::from(row)).map_err(|_| Problem::internal())?;
                Ok(Answer::json(StatusCode::CREATED, body, &[(header::LOCATION, location)]))
            })
        })
        .await
}

async fn insert(database: &mut PgConnection, user: Uuid, new: &New) -> Result<Row, Problem> {
    let inserted = sqlx::query_as(
        "INSERT INTO transactions (id, user_id, type, amount, currency, category, date, description, is_recurring)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         RETURNING id, type, amount, currency, category, date, description, is_recurring, created_at, updated_at",
    )
    .bind(Uuid::now_v7())
    .bind(user)
    .bind(&new.r#type)
    .bind(new.amount)
    .bind(&new.currency)
    .bind(&new.category)
    .bind(new.date)
    .bind(&new.description)
    .bind(new.is_recurring)
    .fetch_one(database)
    .await;
    match inserted {
        Ok(row) => Ok(row),
        // The account was deleted while its token is still valid.
        Err(sqlx::Error::Database(error))
            if error.constraint() == Some("transactions_user_id_fkey") =>
        {
            Err(Problem::unauthorized())
        }
        Err(error) => Err(error.into()),
    }
}

/// `GET /api/transactions/{id}`.
pub async fn read(
    principal: Principal,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, type, amount, currency, category, date, description, is_recurring, created_at, updated_at
         FROM transactions WHERE id = $1 AND user_id = $2",
    )
    .bind(parse_id(&id)?)
    .bind(principal.user)
    .fetch_optional(&app.database)
    .await?;
    json(StatusCode::OK, &Transaction::from(row.ok_or_else(absent)?))
}

/// `PATCH /api/transactions/{id}`: changes the members that are given.
pub async fn update(
    principal: Principal,
    State(app): State<App>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let patch = Patch::parse(&body)?;
    let mut tx = app.database.begin().await?;
    // Locked, so that the type and the category that are checked together are written together.
    let present: Option<(String, String)> = sqlx::query_as(
        "SELECT type, category FROM transactions WHERE id = $1 AND user_id = $2 FOR UPDATE",
    )
    .bind(id)
    .bind(principal.user)
    .fetch_optional(&mut *tx)
    .await?;
    let (present_type, present_category) = present.ok_or_else(absent)?;
    let kind = patch.r#type.as_ref().unwrap_or(&present_type);
    let category = patch.category.as_ref().unwrap_or(&present_category);
    if !fits(kind, category) {
        let error = crate::problem::FieldError {
            field: "category".to_owned(),
            message: expected_category(kind),
        };
        return Err(Problem::invalid(vec![error]));
    }
    let row: Row = sqlx::query_as(
        "UPDATE transactions
         SET type = $3, category = $4, amount = coalesce($5, amount), currency = coalesce($6, currency),
             date = coalesce($7, date), description = coalesce($8, description),
             is_recurring = coalesce($9, is_recurring)
         WHERE id = $1 AND user_id = $2
         RETURNING id, type, amount, currency, category, date, description, is_recurring, created_at, updated_at",
    )
    .bind(id)
    .bind(principal.user)
    .bind(kind)
    .bind(category)
    .bind(patch.amount)
    .bind(&patch.currency)
    .bind(patch.date)
    .bind(&patch.description)
    .bind(patch.is_recurring)
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    json(StatusCode::OK, &Transaction::from(row))
}

/// `DELETE /api/transactions/{id}`.
pub async fn delete(
    principal: Principal,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let deleted = sqlx::query("DELETE FROM transactions WHERE id = $1 AND user_id = $2")
        .bind(parse_id(&id)?)
        .bind(principal.user)
        .execute(&app.database)
        .await?;
    if deleted.rows_affected() == 0 {
        return Err(absent());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Somebody else's, an unknown and a malformed id are the same to the caller.
fn absent() -> Problem {
    Problem::not_found("There is no such transaction.")
}

fn parse_id(id: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(id).map_err(|_| absent())
}

fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|_| Problem::internal())?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn kind(raw: &RawValue) -> Result<String, String> {
    let kind = text(1, 10)(raw)?;
    if kind == "income" || kind == "expense" {
        Ok(kind)
    } else {
        Err("must be income or expense".to_owned())
    }
}

fn amount(raw: &RawValue) -> Result<Decimal, String> {
    money::parse_amount(raw.get()).map_err(str::to_owned)
}

fn currency_code(raw: &RawValue) -> Result<String, String> {
    let code = text(3, 3)(raw)?;
    if currency::is_known(&code) {
        Ok(code)
    } else {
        Err("must be an ISO 4217 code such as EUR".to_owned())
    }
}

fn date(raw: &RawValue) -> Result<Date, String> {
    calendar::parse_date(&text(10, 10)(raw)?)
        .ok_or_else(|| "must be an existing day as YYYY-MM-DD".to_owned())
}

fn fits(kind: &str, category: &str) -> bool {
    if kind == "income" { INCOME.contains(&category) } else { EXPENSE.contains(&category) }
}

fn expected_category(kind: &str) -> String {
    let categories = if kind == "income" { INCOME.join(", ") } else { EXPENSE.join(", ") };
    format!("must be one of {categories}")
}
