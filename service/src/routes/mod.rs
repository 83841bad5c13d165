//! The router: the same API at `/api` and `/api/v1`, and the probes beside it.

pub mod admin;
pub mod auth;
pub mod balance;
pub mod crud;
pub mod food;
pub mod health;
pub mod password_reset;
pub mod schedule_batch;
pub mod settings;
pub mod social;
pub mod voice;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    routing::get,
};

use crate::{
    app::{App, Lifecycle},
    config::{Environment, HttpConfig},
    cors::{self, Origins},
    edge::{Edge, surround},
    mcp,
    openapi::Api,
    problem::Problem,
    rate_limit,
};

/// The whole service.
pub fn router(app: App) -> Router {
    let edge = Edge {
        lifecycle: app.lifecycle.clone(),
        request_timeout: app.timings.request,
        hsts: app.http.environment != Environment::Local,
    };
    let origins = Origins::of(&app.http);
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
        .merge(mcp::routes(&app, Arc::new(app.clone())))
        .fallback(async || Problem::from_status(StatusCode::NOT_FOUND))
        .with_state(app.clone())
        .layer(from_fn_with_state(app, rate_limit::limit))
        .layer(from_fn_with_state(origins.clone(), cors::guard))
        .layer(from_fn_with_state(edge, surround))
        .layer(from_fn_with_state(origins, cors::share))
}

/// While the process starts: the probe says so, and so does everything else.
pub fn starting(http: &HttpConfig, lifecycle: Lifecycle) -> Router {
    let edge = Edge {
        lifecycle: lifecycle.clone(),
        request_timeout: Duration::from_secs(5),
        hsts: http.environment != Environment::Local,
    };
    Router::new()
        .route("/health", get(health::health))
        .fallback(async || health::starting())
        .with_state(lifecycle)
        .layer(from_fn_with_state(edge, surround))
}

/// Everything below `/api`. Where Cognito signs people in, the own accounts' routes do not exist.
pub fn api(own_accounts: bool) -> Api {
    let api = crud::api().merge(balance::api()).merge(voice::api());
    let api = api.merge(schedule_batch::api()).merge(settings::api()).merge(food::api());
    let api = api.merge(admin::api(own_accounts)).merge(auth::me_api());
    if own_accounts {
        api.merge(auth::api()).merge(social::api()).merge(password_reset::api())
    } else {
        api
    }
}
