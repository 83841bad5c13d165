//! `GET /api/balance`: income, expense and their difference, per currency.

use axum::{
    extract::{RawQuery, State},
    http::{Method, header},
    response::{IntoResponse as _, Response},
};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{json, value::RawValue};
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::{
    app::App,
    auth::Principal,
    calendar,
    entity::Range,
    money,
    openapi::{Api, Operation, query},
    problem::Problem,
    query::Query,
};

#[derive(Debug, sqlx::FromRow)]
struct Row {
    currency: String,
    income: Decimal,
    expense: Decimal,
}

#[derive(Debug, Serialize)]
struct Balances {
    balances: Vec<Balance>,
}

#[derive(Debug, Serialize)]
struct Balance {
    currency: String,
    income: Box<RawValue>,
    expense: Box<RawValue>,
    #[serde(rename = "balance")]
    difference: Box<RawValue>,
}

/// The route.
pub fn api() -> Api {
    let number = json!({ "type": "number" });
    let balance = json!({
        "type": "object",
        "required": ["currency", "income", "expense", "balance"],
        "properties": {
            "currency": { "type": "string" }, "income": number, "expense": number, "balance": number,
        },
    });
    let month = json!({ "type": "string", "pattern": calendar::MONTH_PATTERN });
    Api::default().route(
        "/balance",
        [Operation::new(Method::GET, "getBalance", "Income, expense and balance per currency")
            .parameter(query("month", "Only the days of this month.", month))
            .answers(
                200,
                json!({
                    "type": "object",
                    "required": ["balances"],
                    "properties": { "balances": { "type": "array", "items": balance } },
                }),
            )
            .on(self::balance)],
    )
}

/// `GET /api/balance[?month=YYYY-MM]`. Currencies are never added to each other.
pub async fn balance(
    principal: Principal,
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref());
    let month = query.take("month", "must be a month as YYYY-MM", calendar::parse_month);
    query.finish()?;
    let range = month.map_or(Range::ALL, |(first, last)| Range { first, last });
    let body = of(&app.database, principal.user, range).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The balances of a user as a JSON document.
pub async fn of(
    database: impl PgExecutor<'_>,
    user: Uuid,
    range: Range,
) -> Result<String, Problem> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT currency,
                coalesce(sum(amount) FILTER (WHERE type = 'income'), 0) AS income,
                coalesce(sum(amount) FILTER (WHERE type = 'expense'), 0) AS expense
         FROM transactions WHERE user_id = $1 AND date BETWEEN $2 AND $3
         GROUP BY currency ORDER BY currency",
    )
    .bind(user)
    .bind(range.first)
    .bind(range.last)
    .fetch_all(database)
    .await?;
    let balances = rows.into_iter().map(|row| Balance {
        income: money::to_json(row.income),
        expense: money::to_json(row.expense),
        difference: money::to_json(row.income - row.expense),
        currency: row.currency,
    });
    serde_json::to_string(&Balances { balances: balances.collect() })
        .map_err(|_| Problem::internal())
}
