//! The bme service: an axum application behind a load balancer, with Postgres as the truth and
//! Redis as in-flight lock, cache and counter.
//!
//! Read top-down: [`config`] (the environment), [`app`] (what a request can reach), [`server`] (the
//! accept loop and the drain), [`edge`] (what surrounds each request), [`routes`] (what it does).

pub mod app;
pub mod app_log;
pub mod auth;
pub mod aws;
pub mod blob;
pub mod body;
pub mod calendar;
pub mod config;
pub mod cors;
pub mod currency;
pub mod database;
pub mod edge;
pub mod entity;
pub mod healthcheck;
pub mod idempotency;
pub mod kv;
pub mod maintenance;
pub mod mcp;
pub mod metrics;
pub mod migrate;
pub mod money;
pub mod openapi;
pub mod page;
pub mod pii;
pub mod problem;
pub mod query;
pub mod queue;
pub mod rate_limit;
pub mod request_id;
pub mod routes;
pub mod scram;
pub mod server;
pub mod telemetry;
pub mod voice;
pub mod worker;
