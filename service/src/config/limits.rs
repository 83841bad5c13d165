//! How many requests one caller may send.

use std::num::NonZeroU32;

use super::reader::Reader;

/// Requests per minute and caller, one figure for each bucket. Each is also the burst.
#[derive(Clone, Copy, Debug)]
pub struct LimitsConfig {
    /// `RATE_LIMIT_LOGIN_PER_MINUTE`, default 20: the POST routes below `/auth`.
    pub login: NonZeroU32,
    /// `RATE_LIMIT_VOICE_PER_MINUTE`, default 20: each costs a call of the model.
    pub voice: NonZeroU32,
    /// `RATE_LIMIT_PER_MINUTE`, default 300: everything else.
    pub rest: NonZeroU32,
}

impl Reader<'_> {
    pub(super) fn limits(&mut self) -> LimitsConfig {
        let mut limit = |name, default: u32| {
            let default = NonZeroU32::MIN.saturating_add(default - 1);
            self.parsed(name, default, "a whole number of at least 1")
        };
        LimitsConfig {
            login: limit("RATE_LIMIT_LOGIN_PER_MINUTE", 20),
            voice: limit("RATE_LIMIT_VOICE_PER_MINUTE", 20),
            rest: limit("RATE_LIMIT_PER_MINUTE", 300),
        }
    }
}
