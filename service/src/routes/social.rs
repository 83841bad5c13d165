//! `/api/auth/google` and `/api/auth/facebook`: signing in with an ID token that the provider gave
//! to the browser.

use axum::{
    extract::{Extension, State},
    http::{Method, StatusCode},
    response::Response,
};
use serde_json::json;

use crate::{
    app::App,
    auth::{self, EmailUnproven, IdProvider, Identity, KeysUnavailable},
    body::{JsonBody, Object, text},
    edge::AccessLine,
    openapi::{Access, Api, Operation, reference},
    problem::Problem,
    routes::auth::signed_in,
};

/// Longest ID token in characters.
const ID_TOKEN_MAX: usize = 8192;

/// Longest nonce in characters.
const NONCE_MAX: usize = 256;

/// The routes.
pub fn api() -> Api {
    let body = json!({
        "type": "object", "required": ["idToken"], "additionalProperties": false,
        "properties": {
            "idToken": { "type": "string", "minLength": 1, "maxLength": ID_TOKEN_MAX },
            "nonce": {
                "type": "string", "minLength": 1, "maxLength": NONCE_MAX,
                "description": "The nonce that the token was asked for with.",
            },
        },
    });
    let post = |id, summary| {
        Operation::new(Method::POST, id, summary)
            .access(Access::Public)
            .body(body.clone())
            .problems([401, 404, 409])
            .answers(200, reference("Session"))
    };
    Api::default()
        .route("/auth/google", [post("signInWithGoogle", "Sign in with Google").on(google)])
        .route(
            "/auth/facebook",
            [post("signInWithFacebook", "Sign in with Facebook Limited Login").on(facebook)],
        )
}

/// `POST /api/auth/google`.
pub async fn google(
    State(app): State<App>,
    Extension(line): Extension<AccessLine>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    sign_in(&app, app.google.as_ref(), &line, &body).await
}

/// `POST /api/auth/facebook`.
pub async fn facebook(
    State(app): State<App>,
    Extension(line): Extension<AccessLine>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    sign_in(&app, app.facebook.as_ref(), &line, &body).await
}

async fn sign_in(
    app: &App,
    provider: Option<&IdProvider>,
    line: &AccessLine,
    body: &[u8],
) -> Result<Response, Problem> {
    let provider = provider.ok_or_else(|| Problem::from_status(StatusCode::NOT_FOUND))?;
    let mut object = Object::parse(body)?;
    let token = object.required("idToken", text(1, ID_TOKEN_MAX));
    let nonce = object.optional("nonce", text(1, NONCE_MAX));
    object.finish()?;
    let token = token.ok_or_else(Problem::internal)?;
    let claims = provider.check(&token, nonce.as_deref()).await.map_err(|KeysUnavailable| {
        Problem::unavailable(
            "identity-provider-unavailable",
            "The identity provider does not answer at the moment.",
            5,
        )
    })?;
    let claims = claims.ok_or_else(|| {
        Problem::new(StatusCode::UNAUTHORIZED, "invalid-id-token", "The ID token is not valid.")
    })?;
    let identity = Identity {
        provider: provider.name,
        subject: &claims.sub,
        email: claims.email.as_deref(),
        email_verified: claims.email_verified && provider.name == "google",
        name: claims.name.as_deref(),
    };
    let user = auth::resolve(&app.database, &identity).await?.map_err(|EmailUnproven| {
        Problem::new(
            StatusCode::CONFLICT,
            "email-not-verified",
            "There is already an account with this e-mail address, and the provider does not say \
             that it is verified. Sign in to the account in the way you did before.",
        )
    })?;
    let account = auth::find_by_id(&app.database, user).await?.ok_or_else(Problem::unauthorized)?;
    let mut tx = app.database.begin().await?;
    let session = auth::open(&mut tx, account.id).await?;
    tx.commit().await?;
    line.set_user(account.id);
    signed_in(app, StatusCode::OK, &account, &session)
}
