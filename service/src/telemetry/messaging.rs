//! The spans of a message: at its sender, and in the hands of a worker, as one trace.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions for messaging. The worker's
//! span is a child of the sender's, not linked to it: a message is one job, so a trace stays small.

use tracing::{Span, field::Empty};
use uuid::Uuid;

use super::trace::{TARGET, follow};
use crate::queue::Message;

/// The span of putting a job into a queue, `system` by the conventions' name.
pub fn send_span(system: &'static str, queue: &str, job: Uuid) -> Span {
    tracing::debug_span!(
        target: TARGET,
        "send",
        otel.name = format!("send {queue}"),
        otel.kind = "producer",
        messaging.system = system,
        messaging.operation.name = "send",
        "messaging.operation.type" = "send",
        messaging.destination.name = queue,
        messaging.message.id = %job,
    )
}

/// What the log lines of one delivery say about it. Its twin in the trace is [`process_span`].
pub fn job_span(message: &Message) -> Span {
    tracing::info_span!("job", request_id = message.request_id, job_id = %message.job_id)
}

/// The span of one delivery, which continues the trace of the request that made the job.
pub fn process_span(system: &'static str, queue: &str, message: &Message, attempt: u32) -> Span {
    let span = tracing::debug_span!(
        target: TARGET,
        "process",
        otel.name = format!("process {queue}"),
        otel.kind = "consumer",
        otel.status_code = Empty,
        messaging.system = system,
        messaging.operation.name = "process",
        "messaging.operation.type" = "process",
        messaging.destination.name = queue,
        messaging.message.id = %message.job_id,
        request_id = message.request_id,
        user_id = %message.user_id,
        attempt = i64::from(attempt),
        outcome = Empty,
    );
    if let Some(traceparent) = &message.traceparent
        && !span.is_disabled()
    {
        follow(&span, traceparent);
    }
    span
}
