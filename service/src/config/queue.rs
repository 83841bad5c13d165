//! Which queue carries voice jobs, where their audio lies, and how often they are tried.

use std::time::Duration;

use super::reader::{Reader, is_http_url};

/// How voice jobs wait.
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// `QUEUE`.
    pub backend: QueueBackend,
    /// `VOICE_WORKER_ATTEMPTS`, default 5: a job that failed this often is dead.
    pub attempts: u32,
    /// `VOICE_LEASE_SECONDS`, default 30: how long a delivery belongs to a worker that says nothing.
    pub lease: Duration,
}

/// What carries voice jobs and keeps their audio.
#[derive(Clone, Debug)]
pub enum QueueBackend {
    /// Redis Streams; the audio is in Redis too.
    Redis,
    /// Amazon SQS and S3.
    Sqs {
        /// `VOICE_QUEUE_URL`.
        voice_queue_url: String,
        /// `VOICE_DEAD_LETTER_QUEUE_URL`.
        dead_letter_queue_url: String,
        /// `AUDIO_BUCKET`.
        audio_bucket: String,
    },
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { backend: QueueBackend::Redis, attempts: 5, lease: Duration::from_secs(30) }
    }
}

impl Reader<'_> {
    pub(super) fn queue(&mut self) -> Option<QueueConfig> {
        let default = QueueConfig::default();
        let attempts =
            self.parsed("VOICE_WORKER_ATTEMPTS", default.attempts, "a number of attempts");
        if !(1..=100).contains(&attempts) {
            self.problem("VOICE_WORKER_ATTEMPTS is not from 1 to 100");
        }
        let lease =
            self.parsed("VOICE_LEASE_SECONDS", default.lease.as_secs(), "a number of seconds");
        // Shorter than 5 s, a pause of one machine costs leases; SQS refuses more than 12 h.
        if !(5..=43_200).contains(&lease) {
            self.problem("VOICE_LEASE_SECONDS is not from 5 to 43200");
        }
        Some(QueueConfig {
            backend: self.queue_backend()?,
            attempts,
            lease: Duration::from_secs(lease),
        })
    }

    fn queue_backend(&mut self) -> Option<QueueBackend> {
        match self.get("QUEUE").as_deref() {
            None | Some("redis") => Some(QueueBackend::Redis),
            Some("sqs") => {
                let voice_queue_url = self.sqs_url("VOICE_QUEUE_URL");
                let dead_letter_queue_url = self.sqs_url("VOICE_DEAD_LETTER_QUEUE_URL");
                let audio_bucket = self.required("AUDIO_BUCKET", "QUEUE is sqs");
                Some(QueueBackend::Sqs {
                    voice_queue_url: voice_queue_url?,
                    dead_letter_queue_url: dead_letter_queue_url?,
                    audio_bucket: audio_bucket?,
                })
            }
            Some(_) => {
                self.problem("QUEUE is not one of redis, sqs");
                None
            }
        }
    }

    fn sqs_url(&mut self, name: &str) -> Option<String> {
        let url = self.required(name, "QUEUE is sqs")?;
        if !is_http_url(&url) {
            self.problem(format!("{name} is not an http or https URL"));
        }
        Some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<QueueConfig, String> {
        let lookup = |name: &str| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let mut reader = Reader::new(&lookup);
        let config = reader.queue();
        reader.check().map_err(|error| error.to_string())?;
        Ok(config.unwrap())
    }

    #[test]
    fn sqs_needs_both_queues_and_a_bucket() {
        let problems = read(&[("QUEUE", "sqs"), ("VOICE_QUEUE_URL", "sqs.internal/voice")]);
        let problems = problems.unwrap_err();
        for name in
            ["VOICE_QUEUE_URL is not", "VOICE_DEAD_LETTER_QUEUE_URL is not set", "AUDIO_BUCKET"]
        {
            assert!(problems.contains(name), "{name} missing in {problems}");
        }
    }

    #[test]
    fn attempts_and_lease_have_bounds() {
        let config = read(&[("VOICE_WORKER_ATTEMPTS", "3"), ("VOICE_LEASE_SECONDS", "60")]);
        let config = config.unwrap();
        assert_eq!((config.attempts, config.lease), (3, Duration::from_mins(1)));
        let problems =
            read(&[("VOICE_WORKER_ATTEMPTS", "0"), ("VOICE_LEASE_SECONDS", "1")]).unwrap_err();
        assert!(problems.contains("VOICE_WORKER_ATTEMPTS"), "{problems}");
        assert!(problems.contains("VOICE_LEASE_SECONDS"), "{problems}");
    }
}
