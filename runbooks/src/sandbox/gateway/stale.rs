//! Eventual consistency: what has just been made is not in the next answers yet. For tests only; an
//! emulator sees its own writes at once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::Response;

use super::answer::{Answer, Body};
use super::identify::Call;
use super::upstream::Payload;

/// A read, by all that its answer depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    service: String,
    account: String,
    operation: String,
    body: Bytes,
}

/// What each read was answered before the last creation of its service.
#[derive(Default)]
pub(super) struct Answers(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// How many answers after a creation are of before it; 0 when nothing is stale.
    lag: u64,
    answers: HashMap<Question, Former>,
}

struct Former {
    answer: Answer,
    /// How often it is given again.
    due: u64,
    /// Something was made after it. What is made next is seen no later for that.
    old: bool,
}

impl Question {
    /// None for what changes something and for requests whose body streams past.
    pub(super) fn of(call: &Call, payload: &Payload) -> Option<Self> {
        let body = payload.whole().filter(|_| !call.mutating() && call.service != "s3")?;
        Some(Self {
            service: call.service.clone(),
            account: call.scope.account.clone(),
            operation: call.operation.clone(),
            body: body.clone(),
        })
    }
}

impl Answers {
    /// From now on `lag` answers after each creation are of before it; 0 ends that.
    pub(super) fn lag(&self, lag: u64) {
        *self.known() = Known { lag, ..Known::default() };
    }

    /// The answer of before the creation, while it is due.
    pub(super) fn former(&self, question: &Question) -> Option<Answer> {
        let mut known = self.known();
        let former = known.answers.get_mut(question)?;
        former.due = former.due.checked_sub(1)?;
        Some(former.answer.clone())
    }

    /// Keeps the answer to a read, and takes note of a creation.
    pub(super) async fn remember(
        &self,
        call: &Call,
        question: Option<Question>,
        response: Response<Body>,
    ) -> Response<Body> {
        let lag = self.known().lag;
        if lag == 0 {
            return response;
        }
        let Some(question) = question else {
            if call.operation.starts_with("Create") {
                let mut known = self.known();
                for (question, former) in &mut known.answers {
                    let concerned =
                        question.service == call.service && question.account == call.scope.account;
                    if concerned && !former.old {
                        (former.due, former.old) = (lag, true);
                    }
                }
            }
            return response;
        };
        let status = response.status();
        let Some(answer) = Answer::of(response).await else {
            return Answer::new(status, "text/plain", "").into_response();
        };
        if answer.is_success() {
            let former = Former { answer: answer.clone(), due: 0, old: false };
            self.known().answers.insert(question, former);
        }
        answer.into_response()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
