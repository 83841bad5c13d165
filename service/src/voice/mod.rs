//! Voice jobs: what a user said becomes actions on what the user keeps.
//!
//! [`submit`] takes a request, [`job`] is the row, [`consumer`] works on deliveries of the queue: it
//! asks [`gemini`], reads the answer as [`intent`]s, and [`apply`] carries them out.

pub mod apply;
pub mod audio;
mod breaker;
pub mod consumer;
pub mod gemini;
pub mod intent;
pub mod job;
pub mod submit;

use std::sync::Arc;

use crate::{
    blob::{self, Blobs},
    config::QueueConfig,
    kv::Kv,
    queue::{self, Queue},
};

/// The name of the queue in traces and metrics.
pub const QUEUE: &str = "voice";

/// Where jobs wait, and where their audio lies.
#[derive(Clone)]
pub struct Voice {
    /// The queue.
    pub queue: Arc<dyn Queue>,
    /// The audio.
    pub blobs: Arc<dyn Blobs>,
}

impl Voice {
    /// What the configuration names; waits for neither, so that the service starts while they are
    /// down.
    pub async fn connect(config: &QueueConfig, kv: &Kv) -> Self {
        let queue = queue::connect(config, kv).await;
        let blobs = blob::connect(config, kv).await;
        Self { queue, blobs }
    }
}
