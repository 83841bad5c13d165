//! Request bodies: `application/json` only, bounded in size and time, one object of known members.

use std::{collections::BTreeMap, fmt};

use axum::{
    body::HttpBody as _,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json, value::RawValue};
use tokio::time::timeout;

use crate::{
    app::App,
    problem::{FieldError, Problem},
};

/// Largest body in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// Most rejected members that one answer lists.
const MAX_ERRORS: usize = 50;

/// The bytes of a JSON body, not parsed yet.
#[derive(Debug)]
pub struct JsonBody(pub Bytes);

impl FromRequest<App> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        check_media_type(request.headers())?;
        Ok(Self(read(request, app, MAX_BODY).await?))
    }
}

/// A [`JsonBody`] of a route with its own limit in bytes.
#[derive(Debug)]
pub struct LimitedJson<const LIMIT: usize>(pub Bytes);

impl<const LIMIT: usize> FromRequest<App> for LimitedJson<LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        check_media_type(request.headers())?;
        Ok(Self(read(request, app, LIMIT).await?))
    }
}

/// A body that must be absent, or an empty JSON object.
#[derive(Debug)]
pub struct NoBody;

impl FromRequest<App> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let body = read(request, app, MAX_BODY).await?;
        if !body.is_empty() {
            check_media_type(&headers)?;
            Object::parse(&body)?.finish()?;
        }
        Ok(Self)
    }
}

/// The media type of a request in lower case, without parameters.
pub fn essence(headers: &HeaderMap) -> String {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|essence| essence.trim().to_ascii_lowercase())
        .unwrap_or_default()
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let identity = headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if identity && essence(headers) == "application/json" && charset_is_utf8(headers) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "The body must be application/json in UTF-8, not compressed.",
    ))
}

fn charset_is_utf8(headers: &HeaderMap) -> bool {
    let parameters =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    parameters.split(';').skip(1).all(|parameter| {
        let parameter = parameter.trim().to_ascii_lowercase();
        parameter
            .strip_prefix("charset=")
            .is_none_or(|charset| charset.trim_matches('"') == "utf-8")
    })
}

async fn read(request: Request, app: &App, limit: usize) -> Result<Bytes, Problem> {
    let body = request.into_body();
    // Content-Length, where there is one, tells before the first byte is read.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    match timeout(app.timings.body, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(_)) => Err(Problem::bad_request("incomplete-body", "The body ended early.")),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "request-timeout",
            "The body did not arrive in time.",
        )),
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
        format!("The body is larger than {} KiB.", limit / 1024),
    )
}

/// A JSON object whose members are taken one by one. [`Object::finish`] reports everything that is
/// wrong at once, members that nobody took included.
#[derive(Debug)]
pub struct Object {
    members: BTreeMap<String, Box<RawValue>>,
    errors: Vec<FieldError>,
}

impl Object {
    /// Parses the outer object; the values stay text until they are taken.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let members: Members = serde_json::from_slice(body).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            if error.is_data() {
                Problem::bad_request("invalid-json", "The body must be a JSON object.")
            } else {
                Problem::bad_request(
                    "invalid-json",
                    format!("The body is not valid JSON ({place})."),
                )
            }
        })?;
        let mut object = Self { members: BTreeMap::new(), errors: Vec::new() };
        for (name, value) in members.0 {
            if object.members.contains_key(&name) {
                object.error(&name, "must be given once");
            }
            object.members.insert(name, value);
        }
        Ok(object)
    }

    /// Whether there is such a member, not yet taken.
    pub fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Takes a member that must be there. None only together with a reported error.
    pub fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&RawValue) -> Result<T, String>,
    ) -> Option<T> {
        if !self.members.contains_key(name) {
            self.error(name, "is required");
        }
        self.optional(name, read)
    }

    /// Takes a member that may be absent.
    pub fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&RawValue) -> Result<T, String>,
    ) -> Option<T> {
        match read(&self.members.remove(name)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.error(name, message);
                None
            }
        }
    }

    /// Reports an error that concerns a member.
    pub fn error(&mut self, field: &str, message: impl Into<String>) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(FieldError { field: field.to_owned(), message: message.into() });
        }
    }

    /// Whether every member was known and valid.
    pub fn finish(mut self) -> Result<(), Problem> {
        for name in std::mem::take(&mut self.members).into_keys() {
            let name: String = name.chars().take(64).collect();
            self.error(&name, "is not a known member");
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

/// A string of `min` to `max` characters without NUL, which Postgres cannot store.
pub fn text(min: usize, max: usize) -> impl FnOnce(&RawValue) -> Result<String, String> {
    move |raw| {
        let text: String =
            serde_json::from_str(raw.get()).map_err(|_| "must be a string".to_owned())?;
        if text.contains('\0') {
            return Err("must not contain NUL characters".to_owned());
        }
        match text.chars().count() {
            length if length < min => Err(format!("must have at least {min} characters")),
            length if length > max => Err(format!("must have at most {max} characters")),
            _ => Ok(text),
        }
    }
}

/// The JSON schema of what [`text`] accepts.
pub fn text_schema(min: usize, max: usize) -> Value {
    json!({ "type": "string", "minLength": min, "maxLength": max, "pattern": "^[^\\u0000]*$" })
}

/// The text of a JSON number without a fraction: `5` and `5.0` are one number (JSON Schema 2020-12
/// core, section 4.2.3).
pub fn integer(raw: &RawValue) -> Option<i32> {
    let (number, fraction) = raw.get().split_once('.').unwrap_or((raw.get(), "0"));
    fraction.bytes().all(|byte| byte == b'0').then(|| number.parse().ok()).flatten()
}

/// `true` or `false`.
pub fn boolean(raw: &RawValue) -> Result<bool, String> {
    raw.get().parse().map_err(|_| "must be true or false".to_owned())
}

/// Members in order, repetitions kept: serde's maps would silently keep the last.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    members.push(entry);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(body: &str) -> Result<(), (u16, String)> {
        let outcome = Object::parse(body.as_bytes()).and_then(|mut object| {
            object.required("name", text(1, 5));
            object.optional("flag", boolean);
            object.finish()
        });
        outcome.map_err(|problem| {
            (problem.status().as_u16(), String::from_utf8(problem.render("r").to_vec()).unwrap())
        })
    }

    #[test]
    fn reports_all_members_at_once() {
        let (status, text) =
            codes(r#"{"name":"too long","flag":"yes","other":1,"other":2}"#).unwrap_err();
        assert_eq!(status, 422);
        for part in ["at most 5", "true or false", "given once", "not a known member"] {
            assert!(text.contains(part), "{part} missing in {text}");
        }
        assert_eq!(codes("{}").unwrap_err().0, 422);
        assert!(codes(r#"{"flag":false,"name":"\u0041é"}"#).is_ok());
    }

    #[test]
    fn an_integer_may_have_a_fraction_of_zero() {
        let integer = |text: &str| integer(&RawValue::from_string(text.to_owned()).unwrap());
        for (text, number) in [("5", 5), ("5.0", 5), ("-7.000", -7), ("0.0", 0), ("-0", 0)] {
            assert_eq!(integer(text), Some(number), "{text}");
        }
        for bad in ["5.1", "1e2", "1.0e2", "4294967296", "\"5\"", "true", "null", "[5]"] {
            assert_eq!(integer(bad), None, "{bad}");
        }
    }

    #[test]
    fn tells_broken_json_from_broken_members() {
        for broken in
            ["", "{", "[]", "null", "1", "{\"name\":}", "{}{}", "{\"name\":\"a\"} x", "\u{feff}{}"]
        {
            assert_eq!(codes(broken).unwrap_err().0, 400, "{broken}");
        }
        for invalid in [
            r#"{"name":"a\u0000"}"#,
            r#"{"name":null}"#,
            r#"{"name":"\ud800"}"#,
            r#"{"name":["a"]}"#,
        ] {
            assert_eq!(codes(invalid).unwrap_err().0, 422, "{invalid}");
        }
        assert_eq!(Object::parse(b"{\"a\":\"\xff\"}").unwrap_err().status(), 400);
    }
}
