//! One Describe call for all who ask at the same time.

use std::{future::Future, sync::Arc};

use tokio::{sync::Mutex, time::Instant};

use crate::engine::Error;

/// The last answer of one Describe operation. Whoever asks names how fresh it must be; those who
/// ask while a call is under way share its answer.
pub struct Batch<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Batch<T> {
    /// The answer, fetched anew unless the last one was asked for at or after `since`.
    pub async fn get<F>(&self, since: Instant, fetch: F) -> Result<Arc<T>, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut last = self.0.lock().await;
        if let Some((asked, answer)) = &*last
            && *asked >= since
        {
            return Ok(Arc::clone(answer));
        }
        let asked = Instant::now();
        let answer = Arc::new(fetch.await?);
        *last = Some((asked, Arc::clone(&answer)));
        Ok(answer)
    }
}
