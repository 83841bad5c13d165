//! Creations by calls that take a client token.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::Label;
use crate::engine::{Error, Fault, pause};

/// Pause between two looks for what a creation has answered.
const LOOK: Duration = Duration::from_secs(1);

/// Resources deleted behind our back that one creation steps over.
const GENERATIONS: usize = 16;

pub(super) const NOT_VISIBLE: Fault = Fault {
    code: "not-visible",
    cause: "AWS has answered a creation with an id that it does not describe: it is slow to show it, \
            or somebody has deleted it at once",
    mend: "look for it in the AWS console; wait some minutes, then run the command again",
};

/// What is seen of the resource that a creation has answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is there.
    Living,
    /// It is described as deleted.
    Gone,
    /// It is not described: deleted, or not visible yet.
    Nothing,
}

/// Creates what `request` asks for, by `create` with a client token, and answers its id.
///
/// A token makes a repeated create answer with what the first one made ("Ensuring idempotency in
/// Amazon EC2 API requests"), which is what a run needs that repeats the create of a killed one. It
/// does so, too, when somebody has deleted that in between, and then the answer is an id of nothing.
/// So each answer is looked for, as long as the read-after-write lag may hide it, and one that is gone
/// gives the next token its generation: the first token is made of the request, the second of the
/// request and the first id that has gone, and so on. Nothing has to be remembered: whoever asks for
/// the same walks along the same ids to the same token. The request is in the token, all of it, as a
/// token with another request is refused.
///
/// # Errors
/// What `create` and `look` answer with.
pub async fn once<C, F, S, G>(
    label: &Label,
    request: &Value,
    lag: Duration,
    create: C,
    look: S,
) -> Result<String, Error>
where
    C: Fn(String) -> F,
    F: Future<Output = Result<String, Error>>,
    S: Fn(String) -> G,
    G: Future<Output = Result<Seen, Error>>,
{
    let mut generation = request.to_string();
    for _ in 0..GENERATIONS {
        let id = create(label.token(&generation)).await?;
        if appears(lag, || look(id.clone())).await? {
            return Ok(id);
        }
        tracing::debug!(resource = %label.id, %id, "the token's resource is gone; taking the next");
        generation = format!("{generation} {id}");
    }
    let what = format!("what {} is created as does not appear", label.id);
    Err(NOT_VISIBLE.error("bme", what))
}

/// Whether something is there, looked for until it is or the lag is over.
///
/// # Errors
/// What `look` answers with.
pub async fn appears<S, G>(lag: Duration, look: S) -> Result<bool, Error>
where
    S: Fn() -> G,
    G: Future<Output = Result<Seen, Error>>,
{
    let deadline = Instant::now() + lag;
    loop {
        match look().await? {
            Seen::Living => return Ok(true),
            Seen::Gone => return Ok(false),
            Seen::Nothing if Instant::now() >= deadline => return Ok(false),
            Seen::Nothing => pause(LOOK.min(lag / 4)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet, HashMap},
        sync::Mutex,
    };

    use serde_json::json;

    use super::*;
    use crate::engine::ResourceId;

    const LAG: Duration = Duration::from_millis(80);

    /// A service that remembers tokens, also of what is deleted.
    #[derive(Default)]
    struct Service {
        tokens: Mutex<HashMap<String, String>>,
        deleted: Mutex<BTreeSet<String>>,
        /// When a resource becomes visible.
        visible: Mutex<HashMap<String, Instant>>,
        hidden_for: Duration,
    }

    impl Service {
        async fn make(&self, request: &Value) -> String {
            let label =
                Label::new("local", &BTreeMap::new(), ResourceId::new("network", "x"), "x", 255);
            let create = async |token: String| {
                let mut tokens = self.tokens.lock().unwrap();
                let next = format!("id-{}", tokens.len());
                let id = tokens.entry(token).or_insert(next).clone();
                let visible = Instant::now() + self.hidden_for;
                self.visible.lock().unwrap().entry(id.clone()).or_insert(visible);
                Ok(id)
            };
            let look = async |id: String| {
                let visible = self.visible.lock().unwrap()[&id] <= Instant::now();
                let lives = visible && !self.deleted.lock().unwrap().contains(&id);
                Ok(if lives { Seen::Living } else { Seen::Nothing })
            };
            once(&label, request, LAG, create, look).await.unwrap()
        }

        fn delete(&self, id: &str) {
            self.deleted.lock().unwrap().insert(id.into());
        }
    }

    #[tokio::test]
    async fn a_killed_run_finds_its_own_again_however_often_it_was_deleted() {
        let service = Service::default();
        let request = json!(["vpc-1"]);
        for generation in ["id-0", "id-1", "id-2"] {
            assert_eq!(service.make(&request).await, generation);
            // The create of a killed run, repeated.
            assert_eq!(service.make(&request).await, generation);
            service.delete(generation);
        }
    }

    #[tokio::test]
    async fn what_is_slow_to_appear_is_not_made_twice() {
        let service = Service { hidden_for: LAG / 2, ..Service::default() };
        assert_eq!(service.make(&json!(["vpc-1"])).await, "id-0");
        assert_eq!(service.tokens.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn another_request_has_another_token() {
        let service = Service::default();
        assert_ne!(service.make(&json!(["vpc-1"])).await, service.make(&json!(["vpc-2"])).await);
    }
}
