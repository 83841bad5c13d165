//! How voice jobs are worked on, and by which model.

use std::time::Duration;

use super::{
    Secret,
    reader::{Reader, is_http_url},
};

/// How voice jobs are worked on.
#[derive(Clone, Debug)]
pub struct VoiceConfig {
    /// `VOICE_WORKER_CONCURRENCY`, default 4: jobs at the same time.
    pub concurrency: usize,
    /// `GEMINI_API_KEY`.
    pub api_key: Secret,
    /// `GEMINI_BASE_URL`, default the Gemini Developer API.
    pub base_url: String,
    /// `GEMINI_MODEL`.
    pub model: String,
    /// `GEMINI_ATTEMPT_SECONDS`, default 20: one call.
    pub attempt: Duration,
    /// `GEMINI_DEADLINE_SECONDS`, default 50: all calls of one attempt at a job.
    pub deadline: Duration,
}

impl Reader<'_> {
    pub(super) fn voice(&mut self) -> Option<VoiceConfig> {
        let concurrency: usize = self.parsed("VOICE_WORKER_CONCURRENCY", 4, "a whole number");
        if !(1..=64).contains(&concurrency) {
            self.problem("VOICE_WORKER_CONCURRENCY is not from 1 to 64");
        }
        let base_url = self
            .get("GEMINI_BASE_URL")
            .unwrap_or_else(|| "https://generativelanguage.googleapis.com".to_owned());
        if !is_http_url(&base_url) {
            self.problem("GEMINI_BASE_URL is not an http or https URL");
        }
        let model = self.get("GEMINI_MODEL").unwrap_or_else(|| "gemini-2.5-flash".to_owned());
        if !model.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
            self.problem("GEMINI_MODEL is not a model's name");
        }
        let attempt = self.parsed("GEMINI_ATTEMPT_SECONDS", 20, "a number of seconds");
        let deadline = self.parsed("GEMINI_DEADLINE_SECONDS", 50, "a number of seconds");
        // Longer, a person has given up; the leases are extended meanwhile.
        if !(1..=deadline).contains(&attempt) || deadline > 55 {
            self.problem(
                "GEMINI_ATTEMPT_SECONDS is not from 1 to GEMINI_DEADLINE_SECONDS, or that is over 55",
            );
        }
        let api_key = self.get("GEMINI_API_KEY")?;
        if !api_key.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.problem("GEMINI_API_KEY has characters that a header cannot hold");
        }
        Some(VoiceConfig {
            concurrency,
            api_key: Secret::new(api_key),
            base_url: base_url.trim_end_matches('/').to_owned(),
            model,
            attempt: Duration::from_secs(attempt),
            deadline: Duration::from_secs(deadline),
        })
    }
}
