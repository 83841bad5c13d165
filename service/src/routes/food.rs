//! `GET /api/food/search`: what common foods contain.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    extract::{RawQuery, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use rust_decimal::Decimal;
use serde_json::{Value, json, value::RawValue};

use crate::{
    app::App,
    auth::Principal,
    openapi::{Api, Operation, query, reference},
    problem::Problem,
    query::Query,
};

/// Longest text that is searched for in characters.
const TEXT_MAX: usize = 100;

/// Most foods of one answer.
const LIMIT_MAX: u8 = 50;

/// Foods of one answer when the client names no limit.
const LIMIT_DEFAULT: u8 = 20;

/// How long an answer is kept, in Redis and by the client. Foods change with a release.
const LIFETIME_SECONDS: u32 = 3600;

/// Longest wait for Redis: the database answers in less than twice this.
const REDIS_BUDGET: Duration = Duration::from_millis(50);

#[derive(Debug, sqlx::FromRow)]
struct Food {
    name: String,
    calories: Decimal,
    protein: Decimal,
    carbs: Decimal,
    fats: Decimal,
}

/// The route.
pub fn api() -> Api {
    let text = json!({
        "type": "string", "minLength": 1, "maxLength": TEXT_MAX,
        "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$",
    });
    let limit = json!({
        "type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT,
    });
    let mut wanted = query("q", "A part of the name; misspelt ones are found too.", text);
    wanted["required"] = true.into();
    Api::default().schema("Food", schema()).route(
        "/food/search",
        [Operation::new(Method::GET, "searchFoods", "Common foods by name, best match first")
            .parameter(wanted)
            .parameter(query("limit", "Most foods of the answer.", limit))
            .answers(
                200,
                json!({
                    "type": "object",
                    "required": ["items"],
                    "properties": { "items": { "type": "array", "items": reference("Food") } },
                }),
            )
            .on(search)],
    )
}

fn schema() -> Value {
    let number = json!({ "type": "number", "minimum": 0 });
    json!({
        "type": "object",
        "description": "Kilocalories and grams per 100 g: generic, rounded values.",
        "required": ["name", "calories", "protein", "carbs", "fats"],
        "properties": {
            "name": { "type": "string" },
            "calories": number, "protein": number, "carbs": number, "fats": number,
        },
    })
}

/// `GET /api/food/search?q=…[&limit=1..50]`.
async fn search(
    _: Principal,
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (wanted, limit) = parse(query.as_deref())?;
    let key = cache_key(&wanted, limit);
    if let Some(body) = cached(&app, &key).await {
        return Ok(answer(body));
    }
    let foods: Vec<Food> =
        sqlx::query_as("SELECT name, calories, protein, carbs, fats FROM search_foods($1, $2, $3)")
            .bind(&wanted)
            .bind(pattern(&wanted))
            .bind(i32::from(limit))
            .fetch_all(&app.database)
            .await?;
    let body = render(&foods)?;
    keep(&app, &key, &body).await;
    Ok(answer(body))
}

fn parse(query: Option<&str>) -> Result<(String, u8), Problem> {
    let mut query = Query::parse(query);
    let given = query.has("q");
    let wanted = query.take("q", "must be a text of 1 to 100 characters", |text| {
        let text = normalize(text);
        let fits = (1..=TEXT_MAX).contains(&text.chars().count()) && !text.contains('\0');
        fits.then_some(text)
    });
    if !given {
        query.error("q", "is required");
    }
    let limit = query.take("limit", "must be a number from 1 to 50", |text| {
        text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit))
    });
    query.finish()?;
    Ok((wanted.ok_or_else(Problem::internal)?, limit.unwrap_or(LIMIT_DEFAULT)))
}

/// Lower case, and one space where there was any white space: one cache entry for one meaning.
fn normalize(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// The text for `LIKE`, where `%`, `_` and the backslash would mean something.
fn pattern(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// A digest: what people look for is not to be read from the keys.
fn cache_key(wanted: &str, limit: u8) -> String {
    use std::fmt::Write as _;
    let digest = digest(&SHA256, format!("{limit}\0{wanted}").as_bytes());
    digest.as_ref().iter().fold("food:search:".to_owned(), |mut key, byte| {
        let _ = write!(key, "{byte:02x}");
        key
    })
}

/// The answer kept in Redis. Without Redis there is none.
async fn cached(app: &App, key: &str) -> Option<String> {
    let found = app.kv.query(redis::cmd("GET").arg(key), REDIS_BUDGET).await;
    found.unwrap_or_else(|error| {
        tracing::debug!(%error, "foods are searched without the cache");
        None
    })
}

async fn keep(app: &App, key: &str, body: &str) {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(body).arg("EX").arg(LIFETIME_SECONDS);
    if let Err(error) = app.kv.query::<()>(&command, REDIS_BUDGET).await {
        tracing::debug!(%error, "answer not kept");
    }
}

fn render(foods: &[Food]) -> Result<String, Problem> {
    let number = |value: Decimal| {
        RawValue::from_string(value.normalize().to_string()).map_err(|_| Problem::internal())
    };
    let items = foods
        .iter()
        .map(|food| {
            Ok(format!(
                "{{\"name\":{},\"calories\":{},\"protein\":{},\"carbs\":{},\"fats\":{}}}",
                Value::from(food.name.as_str()),
                number(food.calories)?,
                number(food.protein)?,
                number(food.carbs)?,
                number(food.fats)?,
            ))
        })
        .collect::<Result<Vec<_>, Problem>>()?;
    Ok(format!("{{\"items\":[{}]}}", items.join(",")))
}

fn answer(body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CACHE_CONTROL, format!("private, max-age={LIFETIME_SECONDS}")),
    ];
    (StatusCode::OK, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_meaning_has_one_key() {
        let parsed = |query| parse(Some(query)).unwrap();
        assert_eq!(parsed("q=%20Greek%09%20YOGHURT+"), ("greek yoghurt".to_owned(), 20));
        assert_ne!(cache_key("a", 20), cache_key("a", 2));
        assert_ne!(cache_key("a", 20), cache_key("b", 20));
        assert!(!cache_key("apple", 20).contains("apple"));
    }

    #[test]
    fn wildcards_are_characters() {
        assert_eq!(pattern(r"50% a_b\"), r"50\% a\_b\\");
    }
}
