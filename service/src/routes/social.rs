//! Signing in with somebody else's account: `/api/auth/google` and `/api/auth/facebook` take an ID
//! token that the provider gave to the browser; `/api/auth/twitter/…` sends the browser to X and back,
//! after which `/api/auth/exchange-code` opens the session.

use axum::{
    extract::{Extension, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use crate::{
    app::App,
    auth::{self, EmailUnproven, IdProvider, Identity, KeysUnavailable, ProviderError, Twitter},
    body::{JsonBody, Object, text, text_schema},
    config::Secret,
    edge::AccessLine,
    kv::KvError,
    openapi::{Access, Api, Operation, query, reference},
    problem::Problem,
    query::Query,
    routes::auth::{signed_in, signed_in_at},
};

/// Longest ID token in characters.
const ID_TOKEN_MAX: usize = 8192;

/// Longest nonce in characters.
const NONCE_MAX: usize = 256;

/// Longest accepted one-time code, `state` or authorization code in characters.
const CODE_MAX: usize = 1024;

/// Longest path to return to in characters.
const RETURN_TO_MAX: usize = 200;

/// Why a sign-in by redirection ended without a session.
#[derive(Debug, thiserror::Error)]
enum SignInError {
    /// The person said no.
    #[error("access was denied")]
    Denied,
    /// This browser did not begin it, or too long ago, or it has ended already.
    #[error("the state is not valid")]
    State,
    /// The provider does not stand by the code.
    #[error("the provider refused")]
    Refused,
    /// The provider gives no usable answer.
    #[error("the provider is not available")]
    Provider,
    /// A part of this service does not answer.
    #[error("a dependency is not available")]
    Unavailable,
}

impl SignInError {
    /// Stable: the front end branches on it.
    fn code(&self) -> &'static str {
        match self {
            Self::Denied => "access-denied",
            Self::State => "invalid-state",
            Self::Refused => "identity-provider-refused",
            Self::Provider => "identity-provider-unavailable",
            Self::Unavailable => "sign-in-unavailable",
        }
    }
}

impl From<ProviderError> for SignInError {
    fn from(error: ProviderError) -> Self {
        tracing::warn!(%error, "sign-in not confirmed by the provider");
        match error {
            ProviderError::Status(StatusCode::BAD_REQUEST) => Self::Refused,
            _ => Self::Provider,
        }
    }
}

impl From<KvError> for SignInError {
    fn from(error: KvError) -> Self {
        tracing::warn!(%error, "sign-in not recalled");
        Self::Unavailable
    }
}

impl From<Problem> for SignInError {
    fn from(_: Problem) -> Self {
        Self::Unavailable
    }
}

/// The routes.
pub fn api() -> Api {
    let mut nonce = text_schema(1, NONCE_MAX);
    nonce["description"] = "The nonce that the token was asked for with.".into();
    let body = json!({
        "type": "object", "required": ["idToken"], "additionalProperties": false,
        "properties": {
            "idToken": text_schema(1, ID_TOKEN_MAX),
            "nonce": nonce,
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
        .merge(redirection_api())
}

fn redirection_api() -> Api {
    // Whatever comes, the front end tells the person.
    let text = || json!({ "type": "string" });
    let begin = Operation::new(Method::GET, "beginSignInWithX", "Send the browser to X")
        .access(Access::Public)
        .parameter(query(
            "returnTo",
            "A path of the front end, handed back by exchange-code.",
            json!({ "type": "string", "maxLength": RETURN_TO_MAX, "pattern": "^/[A-Za-z0-9_/-]*$" }),
        ))
        .problems([404])
        .answers_empty(302, "To X; a cookie binds the sign-in to this browser.");
    let finish = Operation::new(Method::GET, "finishSignInWithX", "X sends the browser here")
        .access(Access::Public)
        .parameter(query("state", "The state X was given.", text()))
        .parameter(query("code", "X's authorization code.", text()))
        .parameter(query("error", "Why there is no code.", text()))
        .problems([404])
        .answers_empty(302, "To /auth/callback of the front end with ?code= or ?error=.");
    let body = json!({
        "type": "object", "required": ["code"], "additionalProperties": false,
        "properties": { "code": text_schema(1, CODE_MAX) },
    });
    let exchange = Operation::new(Method::POST, "exchangeCode", "A session for a one-time code")
        .access(Access::Public)
        .body(body)
        .problems([404])
        .answers(200, reference("Session"));
    Api::default()
        .route("/auth/twitter/redirect", [begin.on(twitter_redirect)])
        .route("/auth/twitter/callback", [finish.on(twitter_callback)])
        .route("/auth/exchange-code", [exchange.on(exchange_code)])
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
    let token = object.required("idToken", text(1, ID_TOKEN_MAX)).map(Secret::new);
    let nonce = object.optional("nonce", text(1, NONCE_MAX));
    object.finish()?;
    let token = token.ok_or_else(Problem::internal)?;
    let claims =
        provider.check(token.expose(), nonce.as_deref()).await.map_err(|KeysUnavailable| {
            Problem::unavailable(
                "identity-provider-unavailable",
                "The identity provider does not answer at the moment.",
                5,
            )
        })?;
    let claims = claims.ok_or_else(|| {
        Problem::new(StatusCode::UNAUTHORIZED, "invalid-id-token", "The ID token is not valid.")
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    })?;
    let verified = claims.email_verified && provider.name == "google";
    let identity = Identity {
        provider: provider.name,
        subject: &claims.sub,
        email: claims.email.as_ref(),
        email_verified: verified,
        name: claims.name.as_deref(),
    };
    let opening = app.timings.limit(async {
        let user = auth::resolve(&app.database, &identity).await?.map_err(|EmailUnproven| {
            Problem::new(
                StatusCode::CONFLICT,
                "email-not-verified",
                "There is already an account with this e-mail address, and the provider does not \
                 say that it is verified. Sign in to the account in the way you did before.",
            )
        })?;
        let mut tx = app.database.begin().await?;
        let account = auth::find_by_id(&mut *tx, user).await?.ok_or_else(Problem::unauthorized)?;
        let session = auth::open(&mut tx, account.id).await?;
        tx.commit().await?;
        Ok((account, session))
    });
    let (account, session) = opening.await?;
    line.set_user(account.id);
    signed_in(app, StatusCode::OK, &account, &session)
}

/// `GET /api/auth/twitter/redirect`.
pub async fn twitter_redirect(State(app): State<App>, uri: Uri) -> Result<Response, Problem> {
    let twitter = twitter(&app)?;
    let mut query = Query::parse(uri.query());
    let return_to = query.take("returnTo", "must be a path of the front end", path);
    query.finish()?;
    let opened = app.sign_ins.open(return_to).await?;
    let mut response = found(twitter.authorize_url(&opened.state, &opened.challenge).as_str())?;
    response.headers_mut().insert(header::SET_COOKIE, opened.cookie);
    Ok(response)
}

/// `GET /api/auth/twitter/callback`: a person is here, so whatever happens the front end tells it.
pub async fn twitter_callback(
    State(app): State<App>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let twitter = twitter(&app)?;
    match finish_twitter(&app, twitter, &headers, uri.query()).await {
        Ok(code) => found(&twitter.front_end("code", code.expose())),
        Err(error) => found(&twitter.front_end("error", error.code())),
    }
}

async fn finish_twitter(
    app: &App,
    twitter: &Twitter,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Secret, SignInError> {
    // Parameters that we do not know are ignored (RFC 6749, section 4.1.2).
    let mut query = Query::parse(query);
    let mut take =
        |name| query.take(name, "", |text| (text.len() <= CODE_MAX).then(|| text.to_owned()));
    let (state, code, error) = (take("state"), take("code"), take("error"));
    let state = state.ok_or(SignInError::State)?;
    let pending = app.sign_ins.take_pending(&state, headers).await?.ok_or(SignInError::State)?;
    if error.as_deref() == Some("access_denied") {
        return Err(SignInError::Denied);
    }
    let code = code.filter(|_| error.is_none()).ok_or(SignInError::Refused)?;
    let person = twitter.user(&code, &pending.verifier).await?;
    let identity = Identity {
        provider: "twitter",
        subject: &person.id,
        email: None,
        email_verified: false,
        name: person.name.as_deref(),
    };
    let resolving = app
        .timings
        .limit(async { auth::resolve(&app.database, &identity).await.map_err(Problem::from) });
    // Without an address there is none that could belong to somebody else.
    let user = resolving.await?.map_err(|EmailUnproven| SignInError::Unavailable)?;
    Ok(app.sign_ins.grant(pending, user).await?)
}

/// `POST /api/auth/exchange-code`.
pub async fn exchange_code(
    State(app): State<App>,
    Extension(line): Extension<AccessLine>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    twitter(&app)?;
    let mut object = Object::parse(&body)?;
    let code = object.required("code", text(1, CODE_MAX)).map(Secret::new);
    object.finish()?;
    let code = code.ok_or_else(Problem::internal)?;
    let refused =
        || Problem::bad_request("invalid-code", "The sign-in is not valid any more. Begin again.");
    let granted = app.sign_ins.take_granted(code.expose(), &headers).await?.ok_or_else(refused)?;
    let opening = app.timings.limit(async {
        let mut tx = app.database.begin().await?;
        let account = auth::find_by_id(&mut *tx, granted.user).await?.ok_or_else(refused)?;
        let session = auth::open(&mut tx, account.id).await?;
        tx.commit().await?;
        Ok((account, session))
    });
    let (account, session) = opening.await?;
    line.set_user(account.id);
    let mut response = signed_in_at(&app, StatusCode::OK, &account, &session, granted.return_to)?;
    response.headers_mut().append(header::SET_COOKIE, app.sign_ins.clear_cookie());
    Ok(response)
}

fn twitter(app: &App) -> Result<&Twitter, Problem> {
    app.twitter.as_ref().ok_or_else(|| Problem::from_status(StatusCode::NOT_FOUND))
}

fn found(location: &str) -> Result<Response, Problem> {
    let location = HeaderValue::try_from(location).map_err(|_| Problem::internal())?;
    Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
}

/// A path of the front end. What is allowed is listed, so that no spelling leads to another origin:
/// words between single slashes.
fn path(text: &str) -> Option<String> {
    let word = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let rest = text.strip_prefix('/').filter(|_| text.len() <= RETURN_TO_MAX)?;
    (rest.is_empty() || rest.split('/').all(word)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_to_paths_of_the_front_end_only() {
        for good in ["/", "/goals", "/schedule/2026-11-27", "/food_entries"] {
            assert_eq!(path(good).as_deref(), Some(good));
        }
        let long = format!("/{}", "a".repeat(RETURN_TO_MAX));
        for bad in [
            "",
            "goals",
            "//evil.example",
            "/\\evil.example",
            "/\\/evil.example",
            "/a//b",
            "/a/",
            "https://evil.example",
            "/.",
            "/..",
            "/a?b",
            "/a#b",
            "/%2Fevil",
            "/a b",
            "/\ta",
            "/é",
            "/a:b",
            "/@evil",
            &long,
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }
}
