//! The service against a real Postgres and a real Redis, over HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod auth;
mod bad_input;
mod chaos;
mod chaos_idempotency;
mod cognito;
mod cors;
mod data;
mod documents;
mod entities;
mod entity_values;
mod food;
mod harness;
mod idempotency;
mod idempotency_edges;
mod maintenance;
mod mcp;
mod mcp_scopes;
mod openapi;
mod operations;
mod outages;
mod password_reset;
mod problems;
mod queue;
mod rate_limits;
mod schedule_batch;
mod schema_steps;
mod schemathesis;
mod settings;
mod social;
mod telemetry;
mod telemetry_gauges;
mod telemetry_received;
mod tls;
mod transactions;
mod twitter;
mod voice;
mod voice_backend;
mod voice_gemini;
mod voice_kill;
mod voice_memory;
mod voice_outage;
mod voice_relay;
mod voice_worker;
