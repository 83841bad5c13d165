//! Counts the calls of a run, by what they do, and stops those that a run may no longer make.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{
            Intercept, context::BeforeTransmitInterceptorContextRef, dyn_dispatch_hint,
        },
        orchestrator::Metadata,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;

use crate::engine::lock::Fence;

/// Number of calls sent, shared by all clients of a run.
#[derive(Debug, Default, Clone)]
pub struct Calls {
    read: Arc<AtomicU64>,
    mutating: Arc<AtomicU64>,
    fence: Arc<Mutex<Option<Fence>>>,
}

impl Calls {
    /// Calls that only read.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Calls that may change something.
    pub fn mutating(&self) -> u64 {
        self.mutating.load(Ordering::Relaxed)
    }

    /// From now on no call that may change something is sent but while `fence` holds: not even the
    /// second call of a creation whose process was stopped after the first.
    pub fn guard(&self, fence: Option<Fence>) {
        *self.guarded() = fence;
    }

    fn guarded(&self) -> std::sync::MutexGuard<'_, Option<Fence>> {
        self.fence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an operation only reads, by AWS's naming of operations.
fn is_read(operation: &str) -> bool {
    ["Describe", "List", "Get", "Head", "BatchGet", "BatchCheck", "Check", "Filter", "Simulate"]
        .iter()
        .any(|verb| operation.starts_with(verb))
}

#[dyn_dispatch_hint]
impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "Calls"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let reads = config.load::<Metadata>().is_some_and(|metadata| is_read(metadata.name()));
        if !reads && let Some(fence) = &*self.guarded() {
            fence.check()?;
        }
        let counter = if reads { &self.read } else { &self.mutating };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
