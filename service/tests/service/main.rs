//! The service against a real Postgres and a real Redis, over HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auth;
mod harness;
mod idempotency;
mod operations;
mod outages;
mod problems;
mod queue;
mod transactions;
