//! The service against a real Postgres and a real Redis, over HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auth;
mod cors;
mod harness;
mod idempotency;
mod maintenance;
mod operations;
mod outages;
mod problems;
mod rate_limits;
mod telemetry;
mod transactions;
