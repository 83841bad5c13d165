//! Password hashing: argon2id off the async threads, a bounded number at a time.

use std::{sync::Arc, time::Duration};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::{config::Secret, problem::Problem};

/// Longest wait for a turn. Each hash holds 19 MiB (OWASP's minimum parameters, the crate's
/// default), so the number at work is bounded and the rest must not pile up for ever.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Hashes and verifies passwords.
#[derive(Clone, Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    /// Verified instead of the hash of an account that does not exist, so that the time of the
    /// answer does not tell.
    decoy: Arc<str>,
}

impl Passwords {
    /// One hash at a time per core. None if the operating system gives no random bytes.
    pub fn new() -> Option<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let decoy = hash_now(b"no account has this hash").ok()?;
        Some(Self { turns: Arc::new(Semaphore::new(cores)), decoy: decoy.into() })
    }

    /// The PHC string of a password, with a new salt.
    pub async fn hash(&self, password: Secret) -> Result<String, Problem> {
        self.work(move || hash_now(password.expose().as_bytes())).await?.map_err(|error| {
            tracing::error!(%error, "password not hashed");
            Problem::internal()
        })
    }

    /// Whether the password is that of `hash`. Without a hash it takes as long and is false.
    pub async fn verify(&self, password: Secret, hash: Option<&str>) -> Result<bool, Problem> {
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.decoy).to_owned();
        let matches = self
            .work(move || {
                PasswordHash::new(&hash).is_ok_and(|hash| {
                    Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok()
                })
            })
            .await?;
        Ok(known && matches)
    }

    async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = timeout(QUEUE_TIMEOUT, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Problem::unavailable("busy", "Too many sign-ins at the moment.", 5));
        };
        let done = spawn_blocking(move || {
            let outcome = job();
            drop(turn);
            outcome
        });
        done.await.map_err(|error| {
            tracing::error!(%error, "password task ended");
            Problem::internal()
        })
    }
}

fn hash_now(password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(password)?.to_string())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn without_a_hash_as_much_is_computed() {
        let passwords = Passwords::new().unwrap();
        let password = || Secret::new("correct horse battery");
        let real = passwords.hash(password()).await.unwrap();
        // The same work: algorithm, version and costs.
        let cost = |hash: &str| hash.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(cost(&passwords.decoy), cost(&real));
        assert!(passwords.verify(password(), Some(&real)).await.unwrap());
        assert!(!passwords.verify(password(), None).await.unwrap());
        // Not even who knows the decoy's password gets in.
        let known = Secret::new("no account has this hash");
        assert!(passwords.verify(known.clone(), Some(&*passwords.decoy)).await.unwrap());
        assert!(!passwords.verify(known, None).await.unwrap());
        // While nobody has a turn, nobody is told anything.
        let turns = u32::try_from(passwords.turns.available_permits()).unwrap();
        let _all = passwords.turns.acquire_many(turns).await.unwrap();
        for hash in [Some(&*real), None] {
            assert!(passwords.verify(password(), hash).now_or_never().is_none(), "{hash:?}");
        }
    }
}
