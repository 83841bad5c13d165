//! Bounded concurrency that lets the longest pole go first, and leaves a service alone that has said
//! that it is called too often.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// A semaphore whose waiters are served by priority, not by arrival.
#[derive(Clone)]
pub(super) struct Gate(Arc<Mutex<State>>);

struct State {
    free: usize,
    waiting: BinaryHeap<Waiter>,
    /// Until when a service is left alone.
    cooling: HashMap<String, Instant>,
}

struct Waiter {
    priority: Duration,
    admit: oneshot::Sender<Permit>,
}

/// The right to have a call in flight; given back when dropped.
pub(super) struct Permit(Option<Gate>);

impl Gate {
    pub(super) fn new(free: usize) -> Self {
        let (waiting, cooling) = (BinaryHeap::new(), HashMap::new());
        Self(Arc::new(Mutex::new(State { free, waiting, cooling })))
    }

    /// From now on `service` is left alone for a while: its limit is one of the account, so whoever
    /// calls it next would only be refused as well.
    pub(super) fn cool(&self, service: &str, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cooling = state.cooling.entry(service.to_owned()).or_insert(until);
        *cooling = until.max(*cooling);
    }

    /// How long one of `services` is still to be left alone.
    pub(super) fn cooling(&self, services: &[&str]) -> Option<Duration> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = services.iter().filter_map(|service| state.cooling.get(*service)).max()?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
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

    #[test]
    fn a_service_that_is_called_too_often_is_left_alone_and_no_other() {
        let gate = Gate::new(1);
        gate.cool("ec2", Duration::from_mins(1));
        gate.cool("ec2", Duration::ZERO);
        gate.cool("iam", Duration::ZERO);
        assert!(gate.cooling(&["rds", "ec2"]).is_some_and(|left| left > Duration::from_secs(50)));
        assert_eq!(gate.cooling(&["rds", "iam"]), None);
        assert_eq!(gate.cooling(&[]), None);
    }

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
