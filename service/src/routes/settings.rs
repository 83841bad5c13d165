//! `GET` and `PUT /api/settings`: how a user wants things shown.

use axum::{
    extract::State,
    http::{Method, StatusCode},
    response::Response,
};
use jiff::tz::TimeZoneDatabase;
use serde_json::{Value, json, value::RawValue};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::crud::json_response;
use crate::{
    app::App,
    auth::Principal,
    body::{JsonBody, Object, text},
    currency,
    openapi::{Api, Operation, reference},
    problem::Problem,
};

const DATE_FORMATS: [&str; 4] = ["YYYY-MM-DD", "DD.MM.YYYY", "DD/MM/YYYY", "MM/DD/YYYY"];

const DAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// What a language looks like: language, script and region of BCP 47 (RFC 5646, section 2.1).
const LANGUAGE: &str = "^[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?$";

/// The settings of one user.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Settings {
    /// ISO 4217.
    pub currency: String,
    /// How days are written.
    pub date_format: String,
    /// BCP 47, for instance `en-GB`.
    pub language: String,
    /// English name in lower case.
    pub first_day_of_week: String,
    /// IANA name, for instance `Europe/Berlin`.
    pub time_zone: String,
}

impl Default for Settings {
    /// What holds for a user who set nothing; dates and weeks as ISO 8601 has them.
    fn default() -> Self {
        Self {
            currency: "EUR".into(),
            date_format: "YYYY-MM-DD".into(),
            language: "en".into(),
            first_day_of_week: "monday".into(),
            time_zone: "UTC".into(),
        }
    }
}

impl Settings {
    /// A user's settings, or the defaults.
    pub async fn of(database: impl PgExecutor<'_>, user: Uuid) -> Result<Self, sqlx::Error> {
        let found = sqlx::query_as(
            "SELECT currency, date_format, language, first_day_of_week, time_zone
             FROM settings WHERE user_id = $1",
        )
        .bind(user)
        .fetch_optional(database)
        .await?;
        Ok(found.unwrap_or_default())
    }

    fn parse(body: &[u8]) -> Result<Self, Problem> {
        let mut object = Object::parse(body)?;
        let currency = object.required("currency", |raw| {
            let code = text(3, 3)(raw).ok().filter(|code| currency::is_known(code));
            code.ok_or_else(|| "must be an ISO 4217 code such as EUR".to_owned())
        });
        let date_format = object.required("dateFormat", one_of(&DATE_FORMATS));
        let language = object.required("language", |raw| {
            let tag = text(2, 35)(raw).ok().filter(|tag| is_language(tag));
            tag.ok_or_else(|| "must be a language tag such as en or pt-BR".to_owned())
        });
        let first_day_of_week = object.required("firstDayOfWeek", one_of(&DAYS));
        let time_zone = object.required("timeZone", |raw| {
            let name = text(1, 64)(raw).ok().and_then(|name| time_zone(&name));
            name.ok_or_else(|| "must be an IANA time zone such as Europe/Berlin".to_owned())
        });
        object.finish()?;
        match (currency, date_format, language, first_day_of_week, time_zone) {
            (
                Some(currency),
                Some(date_format),
                Some(language),
                Some(first_day_of_week),
                Some(time_zone),
            ) => Ok(Self { currency, date_format, language, first_day_of_week, time_zone }),
            _ => Err(Problem::internal()),
        }
    }

    fn json(&self) -> String {
        json!({
            "currency": self.currency,
            "dateFormat": self.date_format,
            "language": self.language,
            "firstDayOfWeek": self.first_day_of_week,
            "timeZone": self.time_zone,
        })
        .to_string()
    }
}

/// The routes.
pub fn api() -> Api {
    Api::default().schema("Settings", schema()).route(
        "/settings",
        [
            Operation::new(Method::GET, "getSettings", "How the user wants things shown")
                .answers(200, reference("Settings"))
                .on(read),
            Operation::new(Method::PUT, "putSettings", "Replace the settings")
                .body(reference("Settings"))
                .answers(200, reference("Settings"))
                .on(replace),
        ],
    )
}

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["currency", "dateFormat", "language", "firstDayOfWeek", "timeZone"],
        "properties": {
            "currency": { "type": "string", "enum": currency::CODES.as_slice() },
            "dateFormat": { "type": "string", "enum": DATE_FORMATS },
            "language": { "type": "string", "pattern": LANGUAGE, "maxLength": 35 },
            "firstDayOfWeek": { "type": "string", "enum": DAYS },
            "timeZone": time_zone_schema(),
        },
        "additionalProperties": false,
    })
}

/// The JSON schema of the name of a time zone.
pub(super) fn time_zone_schema() -> Value {
    json!({
        "type": "string", "format": "time-zone", "description": "An IANA time zone.",
        "minLength": 1, "maxLength": 64,
    })
}

/// `GET /api/settings`.
async fn read(principal: Principal, State(app): State<App>) -> Result<Response, Problem> {
    let settings = Settings::of(&app.database, principal.user).await?;
    Ok(json_response(StatusCode::OK, settings.json()))
}

/// `PUT /api/settings`: all of them at once.
async fn replace(
    principal: Principal,
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let settings = Settings::parse(&body)?;
    let writing = sqlx::query(
        "INSERT INTO settings (user_id, currency, date_format, language, first_day_of_week, time_zone)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (user_id) DO UPDATE SET
             currency = excluded.currency, date_format = excluded.date_format,
             language = excluded.language, first_day_of_week = excluded.first_day_of_week,
             time_zone = excluded.time_zone",
    )
    .bind(principal.user)
    .bind(&settings.currency)
    .bind(&settings.date_format)
    .bind(&settings.language)
    .bind(&settings.first_day_of_week)
    .bind(&settings.time_zone)
    .execute(&app.database);
    let written = app.timings.limit(async {
        writing.await.map_err(|error| match &error {
            // The account was deleted while its token is still valid.
            sqlx::Error::Database(database) if database.is_foreign_key_violation() => {
                Problem::unauthorized()
            }
            _ => error.into(),
        })
    });
    written.await?;
    Ok(json_response(StatusCode::OK, settings.json()))
}

fn one_of(values: &'static [&'static str]) -> impl FnOnce(&RawValue) -> Result<String, String> {
    move |raw| {
        let value = text(0, 50)(raw).ok().filter(|value| values.contains(&value.as_str()));
        value.ok_or_else(|| format!("must be one of {}", values.join(", ")))
    }
}

/// The name in the database's spelling; the database itself does not mind upper and lower case.
fn time_zone(name: &str) -> Option<String> {
    TimeZoneDatabase::bundled().get(name).ok()?.iana_name().map(str::to_owned)
}

/// Whether this is as [`LANGUAGE`] says.
fn is_language(tag: &str) -> bool {
    let all = |part: &str, test: fn(&u8) -> bool| part.bytes().all(|byte| test(&byte));
    let mut parts = tag.split('-').peekable();
    let language = parts.next().unwrap_or_default();
    let script = parts.next_if(|part| {
        part.len() == 4
            && all(&part[..1], u8::is_ascii_uppercase)
            && all(&part[1..], u8::is_ascii_lowercase)
    });
    let region = parts.next_if(|part| match part.len() {
        2 => all(part, u8::is_ascii_uppercase),
        3 => all(part, u8::is_ascii_digit),
        _ => false,
    });
    let _ = (script, region);
    (2..=3).contains(&language.len())
        && all(language, u8::is_ascii_lowercase)
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_tags_of_language_script_and_region() {
        for good in ["en", "en-GB", "pt-BR", "zh-Hant", "zh-Hant-TW", "es-419", "gsw"] {
            assert!(is_language(good), "{good}");
        }
        for bad in ["", "e", "EN", "en_GB", "en-gb", "en-GB-", "en-TW-Hant", "engl", "é", "zh-étxt"]
        {
            assert!(!is_language(bad), "{bad}");
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        let defaults = Settings::default();
        assert_eq!(Settings::parse(defaults.json().as_bytes()).unwrap(), defaults);
    }

    #[test]
    fn time_zones_are_iana_names() {
        assert_eq!(time_zone("europe/berlin").as_deref(), Some("Europe/Berlin"));
        for bad in ["Mars/Olympus", "CEST", "UTC+3", "../etc/passwd", "Europe"] {
            assert_eq!(time_zone(bad), None, "{bad}");
        }
    }
}
