//! The router: the same API at `/api` and `/api/v1`, and the probes beside it.

pub mod auth;
pub mod balance;
pub mod crud;
pub mod health;
pub mod voice;

use axum::{
    Router,
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    routing::get,
};

use crate::{
    app::App,
    config::Environment,
    edge::{Edge, surround},
    openapi::Api,
    problem::Problem,
};

/// The whole service.
pub fn router(app: App) -> Router {
    let edge = Edge {
        lifecycle: app.lifecycle.clone(),
        request_timeout: app.timings.request,
        suspicion: app.suspicion.clone(),
        hsts: app.http.environment != Environment::Local,
    };
    let (api, document) = api(app.authority.is_some()).split();
    let document = document.to_string();
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route(
            "/openapi.json",
            get(async move || ([(header::CONTENT_TYPE, "application/json")], document)),
        )
        .nest("/api", api.clone())
        .nest("/api/v1", api)
        .fallback(async || Problem::from_status(StatusCode::NOT_FOUND))
        .with_state(app)
        .layer(from_fn_with_state(edge, surround))
}

/// Everything below `/api`. Where Cognito signs people in, the own accounts' routes do not exist.
pub fn api(own_accounts: bool) -> Api {
    let api = crud::api().merge(balance::api()).merge(voice::api());
    if own_accounts { api.merge(auth::api()) } else { api }
}
