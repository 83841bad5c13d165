//! What a message of SQS says, in its body and around it.

use aws_sdk_sqs::types::{Message as Received, MessageSystemAttributeName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::queue::{DeadLetter, Message};

/// The reason of a dead letter that SQS itself has moved.
const RECEIVED_TOO_OFTEN: &str = "received-too-often";

/// The body of a message in SQS.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Body {
    pub(super) attempt: u32,
    /// Holders of earlier copies that fell silent.
    pub(super) stalled: u32,
    /// Milliseconds since 1970.
    enqueued_at: i64,
    /// The reason of the first failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_reason: Option<String>,
    pub(super) message: Value,
}

impl Body {
    pub(super) fn new(message: Value) -> Self {
        Self { attempt: 1, stalled: 0, enqueued_at: now_ms(), first_reason: None, message }
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("a body has no map with keys other than strings")
    }

    pub(super) fn enqueued_at(&self) -> OffsetDateTime {
        instant(self.enqueued_at).unwrap_or_else(OffsetDateTime::now_utc)
    }

    /// The message, if this release can read it.
    pub(super) fn message(&self) -> Option<Message> {
        Message::read(&self.message.to_string())
    }
}

/// What a dead letter is of: its job, or the message that could not be read. Whoever dies between
/// sending a letter and deleting the message leaves two letters of one.
pub(super) fn subject(letter: &Received) -> String {
    let message = || attribute(letter, MESSAGE_ID).unwrap_or_else(|| id(letter).to_owned());
    self::letter(letter).job_id.map_or_else(message, |job| job.to_string())
}

fn attribute(received: &Received, name: &str) -> Option<String> {
    received.message_attributes()?.get(name)?.string_value().map(ToOwned::to_owned)
}

pub(super) fn letter(received: &Received) -> DeadLetter {
    let body = received.body().and_then(|text| serde_json::from_str::<Body>(text).ok());
    let attribute = |name| attribute(received, name);
    let number = |name| attribute(name)?.parse::<i64>().ok();
    let sent = || {
        let attributes = received.attributes()?;
        attributes.get(&MessageSystemAttributeName::SentTimestamp)?.parse().ok()
    };
    let attempts = number("Attempts").and_then(|attempts| u32::try_from(attempts).ok());
    DeadLetter {
        job_id: body.as_ref().and_then(|body| body.message["jobId"].as_str()?.parse().ok()),
        reason: attribute("Reason").unwrap_or_else(|| RECEIVED_TOO_OFTEN.to_owned()),
        first_reason: body.as_ref().and_then(|body| body.first_reason.clone()),
        attempts: attempts.or(body.as_ref().map(|body| body.attempt)).unwrap_or_default(),
        enqueued_at: body.as_ref().and_then(|body| instant(body.enqueued_at)),
        at: number("DiedAt").or_else(sent).and_then(instant).unwrap_or(OffsetDateTime::UNIX_EPOCH),
    }
}

/// Attribute of a dead letter: the id that its message had in the queue.
pub(super) const MESSAGE_ID: &str = "MessageId";

pub(super) fn id(received: &Received) -> &str {
    received.message_id().unwrap_or_default()
}

pub(super) fn handle(received: &Received) -> &str {
    received.receipt_handle().unwrap_or_default()
}

pub(super) fn receives(received: &Received) -> u32 {
    let name = MessageSystemAttributeName::ApproximateReceiveCount;
    let count = received.attributes().and_then(|attributes| attributes.get(&name)?.parse().ok());
    count.unwrap_or(1)
}

fn instant(millis: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()
}

pub(super) fn now_ms() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
