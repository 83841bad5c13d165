//! The single calls to SQS.

use std::{error::Error, time::Duration};

use aws_config::{retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_sqs::{
    config::{Builder, http::HttpResponse},
    error::{ProvideErrorMetadata, SdkError},
    types::{
        Message as Received, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    },
};

use super::{
    Delivery, QueueError, SqsQueue,
    body::{MESSAGE_ID, now_ms},
};
use crate::aws;

/// Most messages of one receive.
pub(super) const BATCH: usize = 10;

/// Longest poll.
const WAIT_MOST: Duration = Duration::from_secs(20);

/// Longest delay of a message.
const DELAY_MOST: Duration = Duration::from_mins(15);

/// What one receive may take beyond its wait.
const SLACK: Duration = Duration::from_secs(5);

impl SqsQueue {
    /// One receive, without the SDK's repetitions: an answer that got lost has assigned messages.
    pub(super) async fn receive_from(
        &self,
        url: &str,
        max: usize,
        wait: Duration,
        lease: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        let wait = wait.min(WAIT_MOST);
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(wait + SLACK)
            .operation_timeout(wait + SLACK)
            .build();
        let once = Builder::new().retry_config(RetryConfig::disabled()).timeout_config(timeouts);
        let answer = self
            .0
            .client
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(i32::try_from(max.clamp(1, BATCH)).unwrap_or(1))
            .wait_time_seconds(seconds(wait))
            .visibility_timeout(seconds(lease))
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .customize()
            .config_override(once)
            .send()
            .await?;
        Ok(answer.messages.unwrap_or_default())
    }

    pub(super) async fn send(&self, text: &str, after: Duration) -> Result<(), QueueError> {
        self.0
            .client
            .send_message()
            .queue_url(&self.0.url)
            .message_body(text)
            .delay_seconds(seconds(after.min(DELAY_MOST)))
            .send()
            .await?;
        Ok(())
    }

    /// Deletes a message whose copy was sent. A failure leaves both, which is allowed.
    pub(super) async fn delete(&self, url: &str, handle: &str) {
        let call = self.0.client.delete_message().queue_url(url).receipt_handle(handle);
        if let Err(error) = call.send().await {
            let error = QueueError::from(error);
            tracing::warn!(%error, "a message is there twice");
        }
    }

    pub(super) async fn bury(
        &self,
        text: &str,
        handle: &str,
        message_id: Option<&str>,
        reason: &str,
        attempts: u32,
    ) -> Result<(), QueueError> {
        // SQS refuses an empty attribute.
        let reason = if reason.is_empty() { "unknown" } else { reason };
        let mut letter = self.0.client.send_message();
        if let Some(id) = message_id {
            letter = letter.message_attributes(MESSAGE_ID, attribute("String", id));
        }
        letter
            .queue_url(&self.0.dead_url)
            .message_body(text)
            .message_attributes("Reason", attribute("String", reason))
            .message_attributes("Attempts", attribute("Number", &attempts.to_string()))
            .message_attributes("DiedAt", attribute("Number", &now_ms().to_string()))
            .send()
            .await?;
        self.delete(&self.0.url, handle).await;
        Ok(())
    }

    pub(super) async fn attributes(&self, url: &str) -> Result<[u64; 3], QueueError> {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let call = self.0.client.get_queue_attributes().queue_url(url);
        let answer = call.set_attribute_names(Some(names.to_vec())).send().await;
        let attributes = answer?.attributes.unwrap_or_default();
        Ok(names.map(|name| {
            attributes.get(&name).and_then(|number| number.parse().ok()).unwrap_or_default()
        }))
    }

    /// Codes for a handle that is good for nothing any more; the last one is what SQS says about a
    /// message that is not in flight, or that was held for 12 h.
    pub(super) fn refused<E: ProvideErrorMetadata + Error + Send + Sync + 'static>(
        &self,
        delivery: &Delivery,
        error: &SdkError<E, HttpResponse>,
    ) -> QueueError {
        let lost = ["ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"];
        if error.code().is_some_and(|code| lost.iter().any(|lost| code.ends_with(lost))) {
            self.held().remove(&delivery.handle);
            return QueueError::LostLease;
        }
        QueueError::Unreachable(aws::describe(error))
    }
}

impl<E: Error + Send + Sync + 'static> From<SdkError<E, HttpResponse>> for QueueError {
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        Self::Unreachable(aws::describe(&error))
    }
}

fn attribute(kind: &str, value: &str) -> MessageAttributeValue {
    MessageAttributeValue::builder()
        .data_type(kind)
        .string_value(value)
        .build()
        .expect("the only required field is set")
}

/// Whole seconds, rounded up: shorter waits would be none.
pub(super) fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}
