//! The five routes that every entity has, from its description.

use axum::{
    extract::{Path, RawQuery, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    app::App,
    auth::Principal,
    body::JsonBody,
    calendar,
    entity::{self, Entity, Range, Row},
    idempotency::{Answer, Call},
    openapi::{Api, Operation, query, reference},
    page::{Cursor, DEFAULT_LIMIT, MAX_LIMIT, cursor_parameter, limit_parameter},
    problem::Problem,
    query::Query,
};

/// The routes of every entity.
pub fn api() -> Api {
    entity::ALL.into_iter().fold(Api::default(), |api, entity| api.merge(routes(entity)))
}

fn routes(entity: &'static Entity) -> Api {
    let (one, new, patch) =
        (entity.schema, format!("New{}", entity.schema), format!("{}Patch", entity.schema));
    let page = json!({
        "type": "object",
        "required": ["items", "nextCursor"],
        "properties": {
            "items": { "type": "array", "items": reference(one) },
            "nextCursor": { "type": ["string", "null"] },
        },
    });
    let id = |verb: &str| format!("{verb}{one}");
    let mut list = Operation::new(Method::GET, id("list"), format!("Newest {} first", entity.noun))
        .parameter(limit_parameter())
        .parameter(cursor_parameter())
        .answers(200, page);
    if entity.is_dated() {
        list = list.parameter(query(
            "month",
            "Only the days of this month.",
            json!({ "type": "string", "pattern": calendar::MONTH_PATTERN }),
        ));
    }
    let mut create = Operation::new(Method::POST, id("create"), format!("A new {}", entity.noun))
        .body(reference(&new))
        .idempotent()
        .located()
        .link(id("get"), "/id")
        .link(id("update"), "/id")
        .link(id("delete"), "/id")
        .answers(201, reference(one));
    if entity.one_per_day {
        create = create.answers(200, reference(one));
    }
    Api::default()
        .schema(one, entity.schema())
        .schema(&new, entity.body_schema())
        .schema(&patch, entity.patch_schema())
        .route(
            &format!("/{}", entity.path),
            [
                list.on(move |principal: Principal, app: State<App>, query: RawQuery| {
                    self::list(entity, principal, app, query)
                }),
                create.on(
                    move |principal: Principal, call: Call, app: State<App>, body: JsonBody| {
                        self::create(entity, principal, call, app, body)
                    },
                ),
            ],
        )
        .route(
            &format!("/{}/{{id}}", entity.path),
            [
                Operation::new(Method::GET, id("get"), format!("One {}", entity.noun))
                    .answers(200, reference(one))
                    .on(move |principal: Principal, app: State<App>, path: Path<String>| {
                        read(entity, principal, app, path)
                    }),
                Operation::new(
                    Method::PATCH,
                    id("update"),
                    format!("Change the members that are given of a {}", entity.noun),
                )
                .body(reference(&patch))
                .problems([409])
                .answers(200, reference(one))
                .on(
                    move |principal: Principal,
                          app: State<App>,
                          path: Path<String>,
                          body: JsonBody| {
                        update(entity, principal, app, path, body)
                    },
                ),
                Operation::new(Method::DELETE, id("delete"), format!("Delete a {}", entity.noun))
                    .answers_empty(204, "Deleted.")
                    .on(move |principal: Principal, app: State<App>, path: Path<String>| {
                        delete(entity, principal, app, path)
                    }),
            ],
        )
}

/// `GET /api/{entities}[?month=YYYY-MM][&limit=1..100][&cursor=…]`: newest first.
async fn list(
    entity: &'static Entity,
    principal: Principal,
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref());
    let month = if entity.is_dated() {
        query.take("month", "must be a month as YYYY-MM", calendar::parse_month)
    } else {
        None
    };
    let limit = query.take("limit", "must be a number from 1 to 100", |text| {
        text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
    });
    let cursor = query.take("cursor", "must be a nextCursor of this list", Cursor::decode);
    query.finish()?;
    let range = month.map_or(Range::ALL, |(first, last)| Range { first, last });
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    let cursor = cursor.unwrap_or(Cursor::START);
    let rows =
        entity.list(&app.database, principal.user, range, cursor, i64::from(limit) + 1).await?;
    Ok(json_response(StatusCode::OK, page(&rows, usize::from(limit), usize::MAX)))
}

/// Up to `limit` of the rows; one row more only tells that there is more. The page ends before it
/// has more than `most` bytes, but not before its first item.
pub fn page(rows: &[Row], limit: usize, most: usize) -> String {
    let mut bytes = 0;
    let items: Vec<_> = rows
        .iter()
        .take(limit)
        .map(Row::json)
        .enumerate()
        .take_while(|(at, item)| {
            bytes += item.len();
            *at == 0 || bytes <= most
        })
        .map(|(_, item)| item)
        .collect();
    let next = (rows.len() > items.len())
        .then(|| items.len().checked_sub(1).map(|last| rows[last].cursor().encode()))
        .flatten()
        .map_or_else(|| "null".to_owned(), |cursor| format!("\"{cursor}\""));
    format!("{{\"items\":[{}],\"nextCursor\":{next}}}", items.join(","))
}

/// `POST /api/{entities}`, at most once per idempotency key.
async fn create(
    entity: &'static Entity,
    principal: Principal,
    call: Call,
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let user = principal.user;
    app.idempotency
        .run(
            user,
            &call,
            &body,
            |body| entity.parse_new(body),
            |item, database| {
                Box::pin(async move {
                    let inserted = entity.insert(database, user, item).await?;
                    let location = format!("/api/{}/{}", entity.path, inserted.row.id);
                    let status =
                        if inserted.replaced { StatusCode::OK } else { StatusCode::CREATED };
                    let body = inserted.row.json().into_bytes();
                    Ok(Answer::json(status, body, &[(header::LOCATION, location)]))
                })
            },
        )
        .await
}

/// `GET /api/{entities}/{id}`.
async fn read(
    entity: &'static Entity,
    principal: Principal,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = parse_id(entity, &id)?;
    let row = entity.find(&app.database, principal.user, id).await?;
    let row = row.ok_or_else(|| entity.absent())?;
    Ok(json_response(StatusCode::OK, row.json()))
}

/// `PATCH /api/{entities}/{id}`: changes the members that are given.
async fn update(
    entity: &'static Entity,
    principal: Principal,
    State(app): State<App>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let id = parse_id(entity, &id)?;
    let patch = entity.parse_patch(&body)?;
    let row = app.timings.limit(async {
        let mut tx = app.database.begin().await?;
        let row = entity.update(&mut tx, principal.user, id, patch).await?;
        let row = row.ok_or_else(|| entity.absent())?;
        tx.commit().await?;
        Ok(row)
    });
    Ok(json_response(StatusCode::OK, row.await?.json()))
}

/// `DELETE /api/{entities}/{id}`.
async fn delete(
    entity: &'static Entity,
    principal: Principal,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = parse_id(entity, &id)?;
    let deleted = app.timings.limit(async {
        entity.delete(&app.database, principal.user, id).await.map_err(Problem::from)
    });
    if deleted.await? { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(entity.absent()) }
}

fn parse_id(entity: &Entity, id: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(id).map_err(|_| entity.absent())
}

/// A response whose body is JSON text already.
pub fn json_response(status: StatusCode, json: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], json).into_response()
}
