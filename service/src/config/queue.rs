//! Which queue carries voice jobs.

use super::reader::{Reader, is_http_url};

/// Which queue carries voice jobs (`QUEUE`).
#[derive(Clone, Debug)]
pub enum QueueConfig {
    /// Redis Streams.
    Redis,
    /// Amazon SQS.
    Sqs {
        /// `VOICE_QUEUE_URL`.
        voice_queue_url: String,
    },
}

impl Reader<'_> {
    pub(super) fn queue(&mut self) -> Option<QueueConfig> {
        match self.get("QUEUE").as_deref() {
            None | Some("redis") => Some(QueueConfig::Redis),
            Some("sqs") => {
                let voice_queue_url = self.required("VOICE_QUEUE_URL", "QUEUE is sqs")?;
                if !is_http_url(&voice_queue_url) {
                    self.problem("VOICE_QUEUE_URL is not an http or https URL");
                }
                Some(QueueConfig::Sqs { voice_queue_url })
            }
            Some(_) => {
                self.problem("QUEUE is not one of redis, sqs");
                None
            }
        }
    }
}
