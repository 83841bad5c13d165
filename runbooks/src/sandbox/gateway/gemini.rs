//! The sandbox's stand-in for the Gemini API, at `/_bme/gemini`: `models.generateContent` (Gemini API
//! reference), answered by a few plain words of the transcript. It is no model and knows no other:
//!
//! * `add expense 12.50 food`, `add income 900 salary usd`: an amount, a category, and EUR unless
//!   another currency is said;
//! * `add sleep 7.5`: hours.
//!
//! Everything else, and all audio, is `unknown`. It calls only functions that the request declares.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Map, Number, Value, json};

use super::answer::{Answer, Body};

/// What comes before the API's own paths.
pub(in crate::sandbox) const PATH: &str = "/_bme/gemini";

/// Answers a request whose path after [`PATH`] is `path`.
pub(super) async fn answer(path: &str, request: Request<Incoming>) -> Response<Body> {
    let model = path.strip_prefix("/v1beta/models/");
    let model = model.and_then(|rest| rest.strip_suffix(":generateContent"));
    let answer = match model {
        Some(model) if request.method() == Method::POST && !model.is_empty() => {
            let key = request.headers().get("x-goog-api-key");
            if key.is_none_or(hyper::http::HeaderValue::is_empty) {
                error(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "x-goog-api-key is missing")
            } else {
                generate(request.into_body()).await
            }
        }
        _ => error(StatusCode::NOT_FOUND, "NOT_FOUND", "the stand-in only has generateContent"),
    };
    answer.into_response()
}

async fn generate(body: Incoming) -> Answer {
    let Ok(body) = body.collect().await else {
        return error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "the body broke off");
    };
    match serde_json::from_slice::<Value>(&body.to_bytes()) {
        Ok(request) => Answer::new(StatusCode::OK, "application/json", reply(&request).to_string()),
        Err(_) => error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "the body is not JSON"),
    }
}

fn reply(request: &Value) -> Value {
    let (name, args) = wanted(request).unwrap_or_else(|| ("unknown".into(), json!({})));
    let part = json!({ "functionCall": { "name": name, "args": args } });
    json!({
        "candidates": [{
            "index": 0,
            "content": { "role": "model", "parts": [part] },
            "finishReason": "STOP",
        }],
        "modelVersion": "bme-sandbox-stand-in",
    })
}

/// The function that the transcript asks for, and its arguments.
fn wanted(request: &Value) -> Option<(String, Value)> {
    let transcript = request.pointer("/contents/0/parts/0/text")?.as_str()?.to_lowercase();
    let words: Vec<&str> = transcript
        .split_whitespace()
        .map(|word| word.trim_matches(|one: char| !one.is_alphanumeric()))
        .collect();
    let says = |word: &str| words.contains(&word);
    if !says("add") {
        return None;
    }
    let number = words.iter().find_map(|word| word.parse::<Number>().ok())?;
    let today = request.pointer("/systemInstruction/parts/0/text")?.as_str()?;
    let date = today.split_once("Today is ")?.1.get(..10)?;
    let mut args = Map::from_iter([("date".into(), date.into())]);
    if says("sleep") {
        declared(request, "add_sleep")?;
        args.insert("sleepHours".into(), number.into());
        return Some(("add_sleep".into(), args.into()));
    }
    let kind = ["expense", "income"].into_iter().find(|kind| says(kind))?;
    let properties = declared(request, "add_transaction")?;
    let said = |field: &str| {
        let choices = properties[field]["enum"].as_array()?.iter().filter_map(Value::as_str);
        choices.into_iter().find(|choice| says(&choice.to_lowercase()))
    };
    args.insert("type".into(), kind.into());
    args.insert("amount".into(), number.into());
    args.insert("category".into(), said("category")?.into());
    args.insert("currency".into(), said("currency").unwrap_or("EUR").into());
    Some(("add_transaction".into(), args.into()))
}

/// The parameters of a function that the request offers.
fn declared<'a>(request: &'a Value, name: &str) -> Option<&'a Value> {
    let functions = request.pointer("/tools/0/functionDeclarations")?.as_array()?;
    let function = functions.iter().find(|function| function["name"] == name)?;
    function.pointer("/parametersJsonSchema/properties")
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let body = json!({
        "error": { "code": status.as_u16(), "status": code, "message": format!("bme sandbox: {message}") },
    });
    Answer::new(status, "application/json", body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(transcript: &str) -> Value {
        let properties = json!({
            "category": { "type": "string", "enum": ["Salary", "Food"] },
            "currency": { "type": "string", "enum": ["ALL", "EUR", "USD"] },
        });
        let request = json!({
            "systemInstruction": { "parts": [{ "text": "Be short. Today is 2026-11-23 in UTC." }] },
            "contents": [{ "role": "user", "parts": [{ "text": transcript }] }],
            "tools": [{ "functionDeclarations": [
                { "name": "add_transaction", "parametersJsonSchema": { "properties": properties } },
            ] }],
        });
        reply(&request)["candidates"][0]["content"]["parts"][0]["functionCall"].clone()
    }

    #[test]
    fn plain_words_become_the_call_of_a_declared_function() {
        let expense = json!({
            "type": "expense", "amount": 12.5, "currency": "EUR", "category": "Food", "date": "2026-11-23",
        });
        let named = |args: &Value| json!({ "name": "add_transaction", "args": args });
        assert_eq!(call("add expense 12.50 food"), named(&expense));
        assert_eq!(call("Please ADD an expense: Food, 12.50."), named(&expense));
        let income = json!({
            "type": "income", "amount": 900, "currency": "USD", "category": "Salary", "date": "2026-11-23",
        });
        assert_eq!(call("add income 900 usd, salary"), named(&income));
    }

    #[test]
    fn everything_else_is_unknown() {
        let unknown = json!({ "name": "unknown", "args": {} });
        for transcript in [
            "",
            "lunch for 12.50",
            "add expense food",
            "add expense 12.50",
            "add 12.50 food",
            // Not offered by this request.
            "add sleep 7.5",
            "delete expense 12.50 food",
        ] {
            assert_eq!(call(transcript), unknown, "{transcript}");
        }
        let audio = json!({ "contents": [{ "parts": [{ "inlineData": { "data": "" } }] }] });
        let reply = reply(&audio);
        assert_eq!(reply["candidates"][0]["content"]["parts"][0]["functionCall"], unknown);
    }
}
