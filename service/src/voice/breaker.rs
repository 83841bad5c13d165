//! A circuit breaker: a provider that mostly fails is left alone for a while.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The calls that are looked at.
const WINDOW: Duration = Duration::from_secs(30);
/// Fewer calls than this tell nothing.
const FEWEST_CALLS: usize = 20;
/// How long it stays open before one call may probe.
const OPEN: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    calls: VecDeque<(Instant, bool)>,
    opened: Option<Instant>,
    probing: bool,
}

/// Leave for one call. Dropped without a result it counts as no call.
#[derive(Debug)]
pub(super) struct Leave<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    /// None while it is open.
    pub(super) fn enter(&self, now: Instant) -> Option<Leave<'_>> {
        let mut state = self.state();
        let Some(opened) = state.opened else {
            return Some(Leave { breaker: self, probe: false });
        };
        if state.probing || now.duration_since(opened) < OPEN {
            return None;
        }
        state.probing = true;
        Some(Leave { breaker: self, probe: true })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave<'_> {
    /// How the call ended.
    pub(super) fn settle(self, succeeded: bool, now: Instant) {
        let mut state = self.breaker.state();
        if self.probe {
            state.calls.clear();
            state.opened = (!succeeded).then_some(now);
            return;
        }
        state.calls.push_back((now, succeeded));
        while state.calls.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            state.calls.pop_front();
        }
        let failed = state.calls.iter().filter(|(_, succeeded)| !succeeded).count();
        if state.opened.is_none()
            && state.calls.len() >= FEWEST_CALLS
            && failed * 2 >= state.calls.len()
        {
            state.opened = Some(now);
            tracing::warn!("the model fails too often: it is left alone for a while");
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.state().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_at_half_and_lets_one_probe_through() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for call in 0..FEWEST_CALLS {
            breaker.enter(start).unwrap().settle(call % 2 == 0, start);
        }
        assert!(breaker.enter(start).is_none());
        let later = start + OPEN;
        let probe = breaker.enter(later).unwrap();
        assert!(breaker.enter(later).is_none());
        drop(probe);
        breaker.enter(later).unwrap().settle(false, later);
        assert!(breaker.enter(later).is_none());
        breaker.enter(later + OPEN).unwrap().settle(true, later + OPEN);
        assert!(breaker.enter(later + OPEN).is_some());
    }

    #[test]
    fn forgets_what_is_old() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 1..FEWEST_CALLS {
            breaker.enter(start).unwrap().settle(false, start);
        }
        let later = start + WINDOW + OPEN;
        breaker.enter(later).unwrap().settle(false, later);
        assert!(breaker.enter(later).is_some());
    }
}
