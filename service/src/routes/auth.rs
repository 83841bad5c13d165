//! `/api/auth/…`: the own accounts of `AUTH_MODE=local`, and who is signed in.

use axum::extract::Extension;
use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json, value::RawValue};

use crate::{
    app::App,
    auth::{
        self, ACCESS_TOKEN_LIFETIME, Account, Authority, LockedOut, Principal, Refreshed, Session,
    },
    body::{JsonBody, NoBody, Object, text, text_schema},
    calendar,
    config::{Environment, Secret},
    edge::{self, AccessLine, Peer},
    openapi::{Access, Api, Operation, reference},
    pii::Email,
    problem::Problem,
};

/// Shortest password in characters.
pub(super) const PASSWORD_MIN: usize = 10;

/// Longest password in characters: more only costs the hash.
pub(super) const PASSWORD_MAX: usize = 256;

/// The routes.
pub fn api() -> Api {
    let email = json!({ "type": "string", "minLength": 3, "maxLength": 254, "format": "email" });
    let password = |least| text_schema(least, PASSWORD_MAX);
    let object = |required: Value, properties: Value| {
        json!({
            "type": "object", "required": required, "properties": properties, "additionalProperties": false,
        })
    };
    let register = object(
        json!(["email", "password", "name"]),
        json!({
            "email": email, "password": password(PASSWORD_MIN),
            "name": person_name_schema(),
        }),
    );
    let login =
        object(json!(["email", "password"]), json!({ "email": email, "password": password(1) }));
    let text = json!({ "type": "string" });
    let session = json!({
        "type": "object",
        "required": ["user", "token", "expiresIn"],
        "properties": {
            "user": reference("User"), "token": text, "expiresIn": { "type": "integer" },
            "returnTo": {
                "type": "string",
                "description": "Where the person was when a sign-in by redirection began.",
            },
        },
    });
    let post = |id, summary| Operation::new(Method::POST, id, summary).access(Access::Public);
    Api::default()
        .schema("Session", session)
        .route(
            "/auth/register",
            [post("register", "A new account, signed in at once")
                .body(register)
                .problems([409])
                .answers(201, reference("Session"))
                .on(self::register)],
        )
        .route(
            "/auth/login",
            [post("login", "Sign in")
                .body(login)
                .problems([401])
                .answers(200, reference("Session"))
                .on(self::login)],
        )
        .route(
            "/auth/refresh",
            [post("refresh", "The next access token, for the refresh cookie")
                .problems([401, 403, 408, 413, 415, 422])
                .answers(200, reference("Session"))
                .on(refresh)],
        )
        .route(
            "/auth/logout",
            [post("logout", "End the session of the refresh cookie")
                .problems([403, 408, 413, 415, 422])
                .answers_empty(204, "Signed out.")
                .on(logout)],
        )
}

/// The route of both modes.
pub fn me_api() -> Api {
    let text = json!({ "type": "string" });
    let user = json!({
        "type": "object",
        "required": ["id", "email", "name", "role", "createdAt"],
        "properties": {
            "id": { "type": "string", "format": "uuid" },
            "email": {
                "type": ["string", "null"],
                "description": "Null where the identity provider vouches for none.",
            },
            "name": text,
            "role": { "type": "string", "enum": ["user", "admin"] },
            "createdAt": { "type": "string", "format": "date-time" },
        },
    });
    let me = json!({
        "type": "object", "required": ["user"], "properties": { "user": reference("User") },
    });
    Api::default().schema("User", user).route(
        "/auth/me",
        [Operation::new(Method::GET, "getMe", "Who is signed in").answers(200, me).on(self::me)],
    )
}

/// `POST /api/auth/register`: a new account, signed in at once.
pub async fn register(
    State(app): State<App>,
    Extension(line): Extension<AccessLine>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let mut object = Object::parse(&body)?;
    let email = object.required("email", email);
    let password = object.required("password", text(PASSWORD_MIN, PASSWORD_MAX)).map(Secret::new);
    let name = object.required("name", person_name);
    object.finish()?;
    let (Some(email), Some(password), Some(name)) = (email, password, name) else {
        return Err(Problem::internal());
    };
    let hash = app.passwords.hash(password).await?;
    let registered = app.timings.limit(async {
        let mut tx = app.database.begin().await?;
        let account = auth::insert(&mut *tx, email.expose(), &name, &hash).await?;
        let account = account.map_err(|auth::EmailTaken| {
            Problem::new(
                StatusCode::CONFLICT,
                "email-taken",
                "There is already an account with this e-mail address.",
            )
        })?;
        let session = auth::open(&mut tx, account.id).await?;
        tx.commit().await?;
        Ok((account, session))
    });
    let (account, session) = registered.await?;
    line.set_user(account.id);
    signed_in(&app, StatusCode::CREATED, &account, &session)
}

/// `POST /api/auth/login`. Whether the address has an account shows neither in the answer nor in its
/// time, nor in the lockout.
pub async fn login(
    State(app): State<App>,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(line): Extension<AccessLine>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let mut object = Object::parse(&body)?;
    let email = object.required("email", email);
    let password = object.required("password", text(1, PASSWORD_MAX)).map(Secret::new);
    object.finish()?;
    let (Some(email), Some(password)) = (email, password) else {
        return Err(Problem::internal());
    };
    let email = email.expose();
    let ip = edge::client_ip(&headers, peer, app.http.trusted_proxy_hops);
    app.lockout.attempt(email, ip).await.map_err(|LockedOut(left)| {
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-attempts",
            "Too many sign-in attempts. Try again later.",
        )
        .retry_after(left.as_secs().max(1))
    })?;
    let looked = app.timings.limit(owner(&app, email, password)).await;
    if looked.is_err() {
        app.lockout.withdraw(email, ip).await;
    }
    let Some(account) = looked? else {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "invalid-credentials",
            "The e-mail address or the password is wrong.",
        )
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
    };
    app.lockout.forgive(email, ip).await;
    let opening = app.timings.limit(async {
        let mut tx = app.database.begin().await?;
        let session = auth::open(&mut tx, account.id).await?;
        tx.commit().await?;
        Ok(session)
    });
    let session = opening.await?;
    line.set_user(account.id);
    signed_in(&app, StatusCode::OK, &account, &session)
}

/// The account of this address, if this is its password.
async fn owner(app: &App, email: &str, password: Secret) -> Result<Option<Account>, Problem> {
    let account = auth::find_by_email(&app.database, email).await?;
    let hash = account.as_ref().and_then(|account| account.password_hash.as_deref());
    let matches = app.passwords.verify(password, hash).await?;
    Ok(account.filter(|_| matches))
}

/// `POST /api/auth/refresh`: a new access token and the next refresh token for the present one.
pub async fn refresh(
    State(app): State<App>,
    Extension(line): Extension<AccessLine>,
    headers: HeaderMap,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    let refused = || {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "session-ended",
            "The session has ended. Sign in again.",
        )
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
        .with_header(header::SET_COOKIE, auth::clear_cookie(is_secure(&app)))
    };
    let token = auth::token_in(&headers).ok_or_else(refused)?;
    let refreshing = app.timings.limit(auth::refresh(&app.database, token));
    let Refreshed::Rotated(session) = refreshing.await? else {
        return Err(refused());
    };
    let account = auth::find_by_id(&app.database, session.user).await?.ok_or_else(refused)?;
    line.set_user(account.id);
    signed_in(&app, StatusCode::OK, &account, &session)
}

/// `POST /api/auth/logout`: revokes the session of the cookie. Without one there is nothing to do.
pub async fn logout(
    State(app): State<App>,
    headers: HeaderMap,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    if let Some(token) = auth::token_in(&headers) {
        app.timings.limit(auth::revoke(&app.database, token)).await?;
    }
    let cookie = auth::clear_cookie(is_secure(&app));
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// `GET /api/auth/me`: the account of the access token.
pub async fn me(principal: Principal, State(app): State<App>) -> Result<Response, Problem> {
    let account =
        auth::find_by_id(&app.database, principal.user).await?.ok_or_else(Problem::unauthorized)?;
    let body = json!({ "user": user(&account) });
    Ok(([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response())
}

pub(super) fn signed_in(
    app: &App,
    status: StatusCode,
    account: &Account,
    session: &Session,
) -> Result<Response, Problem> {
    signed_in_at(app, status, account, session, None)
}

/// As [`signed_in`], with the place where the person goes now.
pub(super) fn signed_in_at(
    app: &App,
    status: StatusCode,
    account: &Account,
    session: &Session,
    return_to: Option<String>,
) -> Result<Response, Problem> {
    let authority: &Authority = app.authority.as_ref().ok_or_else(Problem::internal)?;
    let mut body = json!({
        "user": user(account),
        "token": authority.issue(account.id, session.id)?,
        "expiresIn": ACCESS_TOKEN_LIFETIME.as_secs(),
    });
    if let Some(path) = return_to {
        body["returnTo"] = path.into();
    }
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::SET_COOKIE, auth::cookie(session, is_secure(app))),
    ];
    Ok((status, headers, body.to_string()).into_response())
}

fn user(account: &Account) -> Value {
    json!({
        "id": account.id,
        "email": account.email.as_ref().map(Email::expose),
        "name": account.name,
        "role": account.role,
        "createdAt": calendar::format_instant(account.created_at),
    })
}

/// Browsers keep a Secure cookie of plain HTTP on localhost only sometimes.
fn is_secure(app: &App) -> bool {
    app.http.environment != Environment::Local
}

/// An address in lower case. Whether it exists only a message to it can tell, so the shape is
/// checked no further than what can never be delivered.
pub(super) fn email(raw: &RawValue) -> Result<Email, String> {
    let email = text(3, 254)(raw)?.trim().to_lowercase();
    let deliverable = email.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && !domain.contains('@')
            && domain.split('.').count() > 1
            && domain.split('.').all(|label| !label.is_empty())
    });
    let clean = !email.chars().any(|char| char.is_whitespace() || char.is_control());
    // Lower-casing can lengthen a string; the column counts the result.
    if deliverable && clean && email.chars().count() <= 254 {
        Ok(Email::new(email))
    } else {
        Err("must be an e-mail address".to_owned())
    }
}

/// The JSON schema of what [`person_name`] accepts.
pub(super) fn person_name_schema() -> Value {
    let pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
    json!({ "type": "string", "minLength": 1, "maxLength": 100, "pattern": pattern })
}

pub(super) fn person_name(raw: &RawValue) -> Result<String, String> {
    let name = text(1, 100)(raw)?.trim().to_owned();
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err("must be a name without control characters".to_owned());
    }
    Ok(name)
}
