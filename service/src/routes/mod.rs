//! The router: the same API at `/api` and `/api/v1`, and the probes beside it.

pub mod auth;
pub mod balance;
pub mod health;
pub mod transactions;

use axum::{
    Router,
    http::StatusCode,
    middleware::from_fn_with_state,
    routing::{get, post},
};

use crate::{
    app::App,
    config::Environment,
    edge::{Edge, surround},
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
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .nest("/api", api(&app))
        .nest("/api/v1", api(&app))
        .fallback(async || Problem::from_status(StatusCode::NOT_FOUND))
        .with_state(app)
        .layer(from_fn_with_state(edge, surround))
}

fn api(app: &App) -> Router<App> {
    let api = Router::new()
        .route("/transactions", get(transactions::list).post(transactions::create))
        .route(
            "/transactions/{id}",
            get(transactions::read).patch(transactions::update).delete(transactions::delete),
        )
        .route("/balance", get(balance::balance));
    // In cognito mode these routes do not exist.
    if app.authority.is_none() {
        return api;
    }
    api.route("/auth/register", post(auth::register))
        .route("/auth/login", post(auth::login))
        .route("/auth/refresh", post(auth::refresh))
        .route("/auth/logout", post(auth::logout))
        .route("/auth/me", get(auth::me))
}
