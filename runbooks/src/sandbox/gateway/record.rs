//! The record of every AWS call that came from the host.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::identify::Call;

/// One call, as `GET /_bme/calls` shows it.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    /// Counts from 1 since the last clearing.
    n: usize,
    /// When it arrived, RFC 3339.
    time: String,
    /// The service's IAM prefix, or `registry`.
    service: String,
    operation: String,
    mutating: bool,
    /// `null` while it runs and when no answer was sent.
    status: Option<u16>,
    /// Until the answer's headers; `null` as `status`.
    milliseconds: Option<f64>,
    request_id: Option<String>,
    /// The account of the credential.
    account: String,
    /// The client, by its User-Agent header.
    sent_by: Option<String>,
    /// When it was signed, as `X-Amz-Date` says.
    signed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bucket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The fault that was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
}

/// All calls since the last clearing.
#[derive(Default)]
pub(super) struct Record {
    entries: Arc<Mutex<Vec<Entry>>>,
}

/// A call that is being answered.
pub(super) struct Open {
    entries: Arc<Mutex<Vec<Entry>>>,
    number: usize,
    /// Tells the entry apart from one of the same number after a clearing.
    time: String,
    began: Instant,
}

impl Record {
    pub(super) fn begin(
        &self,
        call: &Call,
        sent_by: Option<String>,
        signed: Option<String>,
    ) -> Open {
        let time = jiff::Timestamp::now().to_string();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let number = entries.len() + 1;
        entries.push(Entry {
            n: number,
            time: time.clone(),
            service: call.service.clone(),
            operation: call.operation.clone(),
            mutating: call.mutating(),
            status: None,
            milliseconds: None,
            request_id: None,
            account: call.scope.account.clone(),
            sent_by,
            signed,
            bucket: call.bucket.clone(),
            key: call.key.clone(),
            fault: None,
        });
        Open { entries: Arc::clone(&self.entries), number, time, began: Instant::now() }
    }

    pub(super) fn since(&self, number: usize) -> Vec<Entry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(number..).unwrap_or_default().to_vec()
    }

    pub(super) fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Open {
    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn fault(&self, name: &'static str) {
        self.change(|entry| entry.fault = Some(name));
    }

    pub(super) fn finish(&self, status: u16, request_id: Option<&str>) {
        let milliseconds = (self.began.elapsed().as_secs_f64() * 100_000.0).round() / 100.0;
        self.change(|entry| {
            entry.status = Some(status);
            entry.milliseconds = Some(milliseconds);
            entry.request_id = request_id.map(str::to_owned);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) =
            entries.get_mut(self.number - 1).filter(|entry| entry.time == self.time)
        {
            change(entry);
        }
    }
}
