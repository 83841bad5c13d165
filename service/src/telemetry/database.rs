//! The statements of sqlx as spans, made from the events in which it reports each that has ended.
//!
//! A span has the operation and the table, never the values. Statements outside of a trace (probes,
//! housekeeping) get none.

use std::time::{Duration, SystemTime};

use opentelemetry::{
    KeyValue,
    trace::{
        Span as _, SpanBuilder, SpanKind, TraceContextExt as _, Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::{Event, Subscriber, dispatcher, field};
use tracing_opentelemetry::get_otel_context;
use tracing_subscriber::{Layer, filter::filter_fn, layer::Context, registry::LookupSpan};

use super::trace::{SCOPE, is_exported};

/// The target of those events.
const REPORTS: &str = "sqlx::query";

/// Makes the spans.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    // A layer sees only what its filter lets through, and these need their parents.
    Statements(provider.tracer(SCOPE)).with_filter(filter_fn(|metadata| {
        is_exported(metadata) || (metadata.is_event() && metadata.target() == REPORTS)
    }))
}

struct Statements(SdkTracer);

impl<S> Layer<S> for Statements
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // The subscriber of the whole process: one of a scope is not to be had in here.
        let parent = context.event_span(event).and_then(|span| {
            dispatcher::get_default(|dispatch| get_otel_context(&span.id(), dispatch))
        });
        let Some(parent) = parent.filter(|parent| parent.span().span_context().is_sampled()) else {
            return;
        };
        let mut report = Report::default();
        event.record(&mut report);
        let (operation, table) = summary(report.sql());
        let name = table.map_or(operation.clone(), |table| format!("{operation} {table}"));
        let end = SystemTime::now();
        let mut attributes = vec![
            KeyValue::new("db.system.name", "postgresql"),
            KeyValue::new("db.query.summary", name.clone()),
            KeyValue::new("db.operation.name", operation),
        ];
        attributes.extend(table.map(|table| KeyValue::new("db.collection.name", table.to_owned())));
        attributes.extend(report.rows.map(|rows| KeyValue::new("db.response.returned_rows", rows)));
        let span = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Client)
            .with_start_time(end.checked_sub(report.elapsed).unwrap_or(end))
            .with_attributes(attributes);
        self.0.build_with_context(span, &parent).end_with_timestamp(end);
    }
}

/// What sqlx says about a statement. Its text has placeholders for the values.
#[derive(Default)]
struct Report {
    summary: String,
    statement: String,
    rows: Option<i64>,
    elapsed: Duration,
}

impl Report {
    /// The whole statement: a short one is its own summary.
    fn sql(&self) -> &str {
        if self.statement.is_empty() { &self.summary } else { &self.statement }
    }
}

impl field::Visit for Report {
    fn record_str(&mut self, field: &field::Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.statement),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &field::Field, value: u64) {
        if field.name() == "rows_returned" {
            self.rows = i64::try_from(value).ok();
        }
    }

    fn record_f64(&mut self, field: &field::Field, value: f64) {
        if field.name() == "elapsed_secs" {
            self.elapsed = Duration::try_from_secs_f64(value).unwrap_or_default();
        }
    }

    fn record_debug(&mut self, _: &field::Field, _: &dyn std::fmt::Debug) {}
}

/// The operation, and the table that it is about where that is plain to see.
fn summary(sql: &str) -> (String, Option<&str>) {
    let mut words = sql.split_whitespace();
    let operation = words.next().unwrap_or_default().to_ascii_uppercase();
    let table = if operation == "UPDATE" {
        words.next()
    } else {
        words.find(|word| ["FROM", "INTO"].contains(word)).and_then(|_| words.next())
    };
    let table = table.map(|table| table.trim_end_matches([',', ';', ')']));
    let is_name = |table: &&str| {
        !table.is_empty()
            && table.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
    };
    (operation, table.filter(is_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_named_by_operation_and_table() {
        for (sql, operation, table) in [
            ("SELECT a, b\n FROM users WHERE id = $1 FOR UPDATE", "SELECT", Some("users")),
            ("INSERT INTO goals (id) VALUES ($1)", "INSERT", Some("goals")),
            ("UPDATE voice_jobs SET state = $1", "UPDATE", Some("voice_jobs")),
            ("delete from x", "DELETE", None),
            ("SELECT 1 FROM (SELECT 2) AS two", "SELECT", None),
            ("SELECT 1", "SELECT", None),
            ("BEGIN", "BEGIN", None),
            ("", "", None),
        ] {
            assert_eq!(summary(sql), (operation.to_owned(), table), "{sql}");
        }
    }
}
