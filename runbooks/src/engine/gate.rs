//! Bounded concurrency that lets the longest pole go first.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

/// A semaphore whose waiters are served by priority, not by arrival.
#[derive(Clone)]
pub(super) struct Gate(Arc<Mutex<State>>);

struct State {
    free: usize,
    waiting: BinaryHeap<Waiter>,
}

struct Waiter {
    priority: Duration,
    admit: oneshot::Sender<Permit>,
}

/// The right to have a call in flight; given back when dropped.
pub(super) struct Permit(Option<Gate>);

impl Gate {
    pub(super) fn new(free: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free, waiting: BinaryHeap::new() })))
    }

    pub(super) async fn enter(&self, priority: Duration) -> Permit {
        let receiver = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.free > 0 {
                state.free -= 1;
                return Permit(Some(self.clone()));
            }
            let (admit, receiver) = oneshot::channel();
            state.waiting.push(Waiter { priority, admit });
            receiver
        };
        // The sender lives in the heap as long as the gate does; should the gate go, nobody counts.
        receiver.await.unwrap_or(Permit(None))
    }

    fn leave(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(waiter) = state.waiting.pop() {
            match waiter.admit.send(Permit(Some(self.clone()))) {
                Ok(()) => return,
                // The waiter has gone; its permit must not be given back by dropping it here,
                // while the lock is held.
                Err(mut permit) => permit.0 = None,
            }
        }
        state.free += 1;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.leave();
        }
    }
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.priority == other.priority
    }
}
impl Eq for Waiter {}
impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> Ordering {
        self.priority.cmp(&other.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_pole_goes_first() {
        let gate = Gate::new(1);
        let held = gate.enter(Duration::ZERO).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = [1, 9, 5]
            .into_iter()
            .map(|seconds| {
                let (gate, order) = (gate.clone(), order.clone());
                tokio::spawn(async move {
                    let _permit = gate.enter(Duration::from_secs(seconds)).await;
                    order.lock().unwrap().push(seconds);
                })
            })
            .collect();
        while gate.0.lock().unwrap().waiting.len() < 3 {
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [9, 5, 1]);
        assert_eq!(gate.0.lock().unwrap().free, 1);
    }
}
