//! `/api/auth/forgot-password` and `/api/auth/reset-password`.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use axum::{
    extract::{Extension, State},
    http::{HeaderMap, Method, StatusCode},
    response::Response,
};
use serde_json::json;
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::{
    app::App,
    auth::{self, LockedOut, Mailer},
    body::{JsonBody, Object, text, text_schema},
    config::Secret,
    edge::{self, Peer},
    openapi::{Access, Api, Operation},
    pii::Email,
    problem::Problem,
    routes::{
        auth::{PASSWORD_MAX, PASSWORD_MIN, email},
        crud::json_response,
    },
};

/// Longest accepted text for a token; a real one has 43 characters.
const TOKEN_MAX: usize = 128;

/// Longest time for a link from the look-up of the account until the mail has left, below the 25 s
/// that a drain waits.
const LINK_TIMEOUT: Duration = Duration::from_secs(22);

/// The routes.
pub fn api() -> Api {
    let object = |required: serde_json::Value, properties: serde_json::Value| {
        json!({
            "type": "object", "required": required, "properties": properties, "additionalProperties": false,
        })
    };
    let forgot = object(
        json!(["email"]),
        json!({ "email": { "type": "string", "minLength": 3, "maxLength": 254, "format": "email" } }),
    );
    let reset = object(
        json!(["token", "password"]),
        json!({
            "token": text_schema(1, TOKEN_MAX),
            "password": text_schema(PASSWORD_MIN, PASSWORD_MAX),
        }),
    );
    let message = json!({
        "type": "object", "required": ["message"],
        "properties": { "message": { "type": "string" } },
    });
    let post = |id, summary| {
        Operation::new(Method::POST, id, summary).access(Access::Public).problems([404])
    };
    Api::default()
        .route(
            "/auth/forgot-password",
            [post("forgotPassword", "Ask for a mail with a link for a new password")
                .body(forgot)
                .answers(200, message.clone())
                .on(forgot_password)],
        )
        .route(
            "/auth/reset-password",
            [post("resetPassword", "Set a new password with the token of the link")
                .body(reset)
                .answers(200, message)
                .on(reset_password)],
        )
}

/// `POST /api/auth/forgot-password`: the same answer at the same time whether or not there is such
/// an account, because the work is done after it.
pub async fn forgot_password(
    State(app): State<App>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let mailer = mailer(&app)?.clone();
    let mut object = Object::parse(&body)?;
    let email = object.required("email", email);
    object.finish()?;
    let email = email.ok_or_else(Problem::internal)?;
    let ip = edge::client_ip(&headers, peer, app.http.trusted_proxy_hops);
    app.resets.attempt(email.expose(), ip).await.map_err(|LockedOut(left)| {
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-attempts",
            "Too many requests for this address. Try again later.",
        )
        .retry_after(left.as_secs().max(1))
    })?;
    // Tracked, so that a drain waits for it.
    app.lifecycle.tasks.spawn(send_link_in_time(app.clone(), mailer, email).in_current_span());
    Ok(told("If there is an account with this address, a mail is on its way."))
}

async fn send_link_in_time(app: App, mailer: Mailer, email: Email) {
    if timeout(LINK_TIMEOUT, send_link(&app, &mailer, &email)).await.is_err() {
        tracing::error!("link of a password reset not sent in time");
    }
}

async fn send_link(app: &App, mailer: &Mailer, email: &Email) {
    let email = email.expose();
    // Whoever asks from many addresses must not fill the mailbox. That shows in no answer.
    let anywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    if app.resets.attempt(email, anywhere).await.is_err() {
        return;
    }
    let account = match auth::find_by_email(&app.database, email).await {
        Ok(Some(account)) => account,
        Ok(None) => return,
        Err(error) => {
            tracing::error!(%error, "account of a password reset not looked up");
            return;
        }
    };
    let storing = app.timings.limit(auth::new_reset_token(&app.database, account.id));
    let Ok(token) = storing.await else {
        tracing::error!(user_id = %account.id, "token of a password reset not stored");
        return;
    };
    if let Err(error) = mailer.send_reset_link(email, &token).await {
        tracing::error!(%error, user_id = %account.id, "mail of a password reset not sent");
    }
}

/// `POST /api/auth/reset-password`.
pub async fn reset_password(
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    mailer(&app)?;
    let mut object = Object::parse(&body)?;
    let token = object.required("token", text(1, TOKEN_MAX)).map(Secret::new);
    let password = object.required("password", text(PASSWORD_MIN, PASSWORD_MAX)).map(Secret::new);
    object.finish()?;
    let (Some(token), Some(password)) = (token, password) else {
        return Err(Problem::internal());
    };
    let refused = || {
        Problem::bad_request(
            "invalid-reset-token",
            "The link is not valid any more. Ask for a new one.",
        )
    };
    if !auth::is_reset_token(&app.database, token.expose()).await? {
        return Err(refused());
    }
    let hash = app.passwords.hash(password).await?;
    let resetting = app.timings.limit(async {
        auth::reset_password(&app.database, token.expose(), &hash).await.map_err(Problem::from)
    });
    resetting.await?.ok_or_else(refused)?;
    Ok(told("The password is the new one, and every session has ended. Sign in with it."))
}

fn told(message: &str) -> Response {
    json_response(StatusCode::OK, json!({ "message": message }).to_string())
}

fn mailer(app: &App) -> Result<&Mailer, Problem> {
    app.mailer.as_ref().ok_or_else(|| Problem::from_status(StatusCode::NOT_FOUND))
}
