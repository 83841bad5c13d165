//! `/api/admin/users`.

use axum::{
    extract::{Extension, Path, RawQuery, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json, value::RawValue};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Administrator, operation, page, page_of, paging};
use crate::{
    app::App,
    app_log,
    body::{JsonBody, Object, text, text_schema},
    calendar,
    config::Secret,
    idempotency::{Answer, Call},
    openapi::{Api, reference},
    page::{cursor_parameter, limit_parameter},
    pii::Email,
    problem::Problem,
    query::Query,
    request_id::RequestId,
    routes::{
        auth::{PASSWORD_MAX, PASSWORD_MIN, email, person_name, person_name_schema},
        crud::json_response,
    },
};

#[derive(Debug, sqlx::FromRow)]
struct Account {
    id: Uuid,
    /// An account of another identity provider may have none.
    email: Option<Email>,
    name: String,
    role: String,
    created_at: OffsetDateTime,
}

/// The routes. Where others keep the accounts, none is created here.
pub(super) fn api(own_accounts: bool) -> Api {
    let list = operation(Method::GET, "listUsers", "Accounts, newest first")
        .parameter(limit_parameter())
        .parameter(cursor_parameter())
        .answers(200, page_of("Account"))
        .on(list_users);
    let create = operation(Method::POST, "createUser", "A new account")
        .body(reference("NewAccount"))
        .idempotent()
        .located()
        .link("updateUser", "/id")
        .link("deleteUser", "/id")
        .answers(201, reference("Account"))
        .on(create_user);
    let api = Api::default()
        .schema("Account", account_schema())
        .schema(
            "AccountPatch",
            json!({
                "type": "object",
                "properties": { "name": person_name_schema(), "role": role_schema() },
                "additionalProperties": false,
            }),
        )
        .route(
            "/admin/users/{id}",
            [
                operation(Method::PATCH, "updateUser", "Change the members that are given")
                    .body(reference("AccountPatch"))
                    .problems([409])
                    .answers(200, reference("Account"))
                    .on(update_user),
                operation(Method::DELETE, "deleteUser", "Delete an account with all it has")
                    .problems([409])
                    .answers_empty(204, "Deleted.")
                    .on(delete_user),
            ],
        );
    if !own_accounts {
        return api.route("/admin/users", [list]);
    }
    api.route("/admin/users", [list, create]).schema(
        "NewAccount",
        json!({
            "type": "object",
            "required": ["email", "name", "password"],
            "properties": {
                "email": { "type": "string", "minLength": 3, "maxLength": 254, "format": "email" },
                "name": person_name_schema(),
                "password": text_schema(PASSWORD_MIN, PASSWORD_MAX),
                "role": { "type": "string", "enum": ["user", "admin"], "default": "user" },
            },
            "additionalProperties": false,
        }),
    )
}

fn role_schema() -> Value {
    json!({ "type": "string", "enum": ["user", "admin"] })
}

fn account_schema() -> Value {
    json!({
        "type": "object",
        "required": ["id", "email", "name", "role", "createdAt"],
        "properties": {
            "id": { "type": "string", "format": "uuid" },
            "email": { "type": ["string", "null"] },
            "name": { "type": "string" },
            "role": role_schema(),
            "createdAt": { "type": "string", "format": "date-time" },
        },
    })
}

/// `GET /api/admin/users[?limit=1..100][&cursor=…]`.
async fn list_users(
    _: Administrator,
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref());
    let (limit, cursor) = paging(&mut query);
    query.finish()?;
    let accounts: Vec<Account> = sqlx::query_as(
        "SELECT id, email, name, role, created_at FROM users
         WHERE id < $1 ORDER BY id DESC LIMIT $2",
    )
    .bind(cursor)
    .bind(i64::from(limit) + 1)
    .fetch_all(&app.database)
    .await?;
    Ok(page(&accounts, limit, account_json, |account| account.id))
}

/// `POST /api/admin/users`, at most once per idempotency key.
async fn create_user(
    administrator: Administrator,
    call: Call,
    Extension(request_id): Extension<RequestId>,
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let passwords = app.passwords.clone();
    app.idempotency
        .run(administrator.user, &call, &body, parse_new, |new, database| {
            Box::pin(async move {
                let hash = passwords.hash(new.password).await?;
                let account: Account = sqlx::query_as(
                    "INSERT INTO users (id, email, name, role, password_hash)
                     VALUES ($1, $2, $3, $4, $5) RETURNING id, email, name, role, created_at",
                )
                .bind(Uuid::now_v7())
                .bind(new.email.expose())
                .bind(new.name)
                .bind(new.role)
                .bind(hash)
                .fetch_one(&mut *database)
                .await
                .map_err(|error| match &error {
                    sqlx::Error::Database(database) if database.is_unique_violation() => {
                        Problem::new(
                            StatusCode::CONFLICT,
                            "email-taken",
                            "There is already an account with this e-mail address.",
                        )
                    }
                    _ => error.into(),
                })?;
                let detail = json!({ "user": account.id, "role": account.role });
                let event = "admin.user.created";
                record(database, event, administrator, &request_id, detail).await?;
                let body = account_json(&account).to_string().into_bytes();
                let location = format!("/api/admin/users/{}", account.id);
                Ok(Answer::json(StatusCode::CREATED, body, &[(header::LOCATION, location)]))
            })
        })
        .await
}

/// `PATCH /api/admin/users/{id}`. Somebody must stay administrator.
async fn update_user(
    administrator: Administrator,
    Path(id): Path<String>,
    Extension(request_id): Extension<RequestId>,
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let mut object = Object::parse(&body)?;
    let name = object.optional("name", person_name);
    let role = object.optional("role", role);
    object.finish()?;
    let account = app.timings.limit(async {
        let mut tx = app.database.begin().await?;
        if role == Some("user") {
            keep_one_administrator(&mut tx, id).await?;
        }
        let account: Option<Account> = sqlx::query_as(
            "UPDATE users SET name = coalesce($2, name), role = coalesce($3, role) WHERE id = $1
             RETURNING id, email, name, role, created_at",
        )
        .bind(id)
        .bind(&name)
        .bind(role)
        .fetch_optional(&mut *tx)
        .await?;
        let account = account.ok_or_else(absent)?;
        let changed: Vec<_> =
            name.iter().map(|_| "name").chain(role.iter().map(|_| "role")).collect();
        let detail = json!({ "user": id, "changed": changed, "role": account.role });
        record(&mut tx, "admin.user.changed", administrator, &request_id, detail).await?;
        tx.commit().await?;
        Ok(account)
    });
    Ok(json_response(StatusCode::OK, account_json(&account.await?).to_string()))
}

/// `DELETE /api/admin/users/{id}`: the account, its sessions, and everything it kept.
async fn delete_user(
    administrator: Administrator,
    Path(id): Path<String>,
    Extension(request_id): Extension<RequestId>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let deleting = app.timings.limit(async {
        let mut tx = app.database.begin().await?;
        keep_one_administrator(&mut tx, id).await?;
        let deleting = sqlx::query("DELETE FROM users WHERE id = $1").bind(id);
        if deleting.execute(&mut *tx).await?.rows_affected() == 0 {
            return Err(absent());
        }
        let detail = json!({ "user": id });
        record(&mut tx, "admin.user.deleted", administrator, &request_id, detail).await?;
        tx.commit().await?;
        Ok(())
    });
    deleting.await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// 409 when the account is the only administrator. The administrators' rows are locked in one order,
/// so that two who remove each other follow each other.
async fn keep_one_administrator(database: &mut PgConnection, id: Uuid) -> Result<(), Problem> {
    let administrators: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM users WHERE role = 'admin' ORDER BY id FOR UPDATE")
            .fetch_all(database)
            .await?;
    if administrators == [id] {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "last-administrator",
            "This is the last administrator.",
        ));
    }
    Ok(())
}

/// Writes what an administrator did. Who did it is part of the detail: the row outlives the account.
async fn record(
    database: &mut PgConnection,
    event: &'static str,
    administrator: Administrator,
    request_id: &RequestId,
    mut detail: Value,
) -> Result<(), sqlx::Error> {
    detail["administrator"] = administrator.user.to_string().into();
    app_log::write(database, "info", event, Some(request_id.as_str()), None, detail).await
}

struct NewAccount {
    email: Email,
    name: String,
    password: Secret,
    role: &'static str,
}

fn parse_new(body: &[u8]) -> Result<NewAccount, Problem> {
    let mut object = Object::parse(body)?;
    let address = object.required("email", email);
    let name = object.required("name", person_name);
    let password = object.required("password", text(PASSWORD_MIN, PASSWORD_MAX)).map(Secret::new);
    let role = object.optional("role", role).unwrap_or("user");
    object.finish()?;
    match (address, name, password) {
        (Some(email), Some(name), Some(password)) => Ok(NewAccount { email, name, password, role }),
        _ => Err(Problem::internal()),
    }
}

fn role(raw: &RawValue) -> Result<&'static str, String> {
    match text(4, 5)(raw).as_deref() {
        Ok("user") => Ok("user"),
        Ok("admin") => Ok("admin"),
        _ => Err("must be one of user, admin".to_owned()),
    }
}

fn account_json(account: &Account) -> Value {
    json!({
        "id": account.id,
        "email": account.email.as_ref().map(Email::expose),
        "name": account.name,
        "role": account.role,
        "createdAt": calendar::format_instant(account.created_at),
    })
}

fn parse_id(id: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(id).map_err(|_| absent())
}

fn absent() -> Problem {
    Problem::not_found("There is no such account.")
}
