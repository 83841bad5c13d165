//! `POST /api/schedule/batch`: up to 100 schedule items, all or none.

use axum::{
    extract::State,
    http::{Method, StatusCode},
    response::Response,
};
use serde_json::{json, value::RawValue};

use crate::{
    app::App,
    auth::Principal,
    body::{JsonBody, Object},
    entity::{Item, SCHEDULE},
    idempotency::{Answer, Call},
    openapi::{Api, Operation, reference},
    problem::Problem,
};

/// Most items of one request.
const ITEMS_MAX: usize = 100;

/// The route.
pub fn api() -> Api {
    let items = |schema: &str, most: Option<usize>| {
        let mut list = json!({ "type": "array", "items": reference(schema), "minItems": 1 });
        if let Some(most) = most {
            list["maxItems"] = most.into();
        }
        json!({
            "type": "object",
            "required": ["items"],
            "properties": { "items": list },
            "additionalProperties": false,
        })
    };
    Api::default().route(
        "/schedule/batch",
        [Operation::new(Method::POST, "createScheduleItems", "New schedule items, all or none")
            .body(items("NewScheduleItem", Some(ITEMS_MAX)))
            .idempotent()
            .answers(201, items("ScheduleItem", None))
            .on(create)],
    )
}

/// `POST /api/schedule/batch`, at most once per idempotency key.
async fn create(
    principal: Principal,
    call: Call,
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let user = principal.user;
    app.idempotency
        .run(user, &call, &body, parse, |items, database| {
            Box::pin(async move {
                let mut rows = Vec::with_capacity(items.len());
                for item in items {
                    rows.push(SCHEDULE.insert(database, user, item).await?.row.json());
                }
                let body = format!("{{\"items\":[{}]}}", rows.join(","));
                Ok(Answer::json(StatusCode::CREATED, body.into_bytes(), &[]))
            })
        })
        .await
}

/// The items, or everything that is wrong with any of them, by place: `items[3].title`.
fn parse(body: &[u8]) -> Result<Vec<Item>, Problem> {
    let mut object = Object::parse(body)?;
    let texts = object.required("items", |raw| {
        let items: Vec<Box<RawValue>> =
            serde_json::from_str(raw.get()).map_err(|_| "must be a list".to_owned())?;
        if (1..=ITEMS_MAX).contains(&items.len()) {
            Ok(items)
        } else {
            Err(format!("must have 1 to {ITEMS_MAX} items"))
        }
    });
    let mut items = Vec::new();
    for (at, text) in texts.into_iter().flatten().enumerate() {
        let place = format!("items[{at}]");
        let Ok(members) = Object::parse(text.get().as_bytes()) else {
            object.error(&place, "must be an object");
            continue;
        };
        match SCHEDULE.read_new(members) {
            Ok(item) => items.push(item),
            Err(problem) => {
                for error in problem.errors() {
                    object.error(&format!("{place}.{}", error.field), error.message.clone());
                }
            }
        }
    }
    object.finish()?;
    Ok(items)
}
