//! Repeated creations, which AWS answers with the first result and the emulator does not: by
//! client token (EC2, ECS, Secrets Manager, ACM), or by name and equal settings (load balancers).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hyper::Request;
use sha2::{Digest, Sha256};

use super::Gateway;
use super::answer::{self, Answer};
use super::identify::{Call, Form};
use super::upstream::Payload;

/// What makes two requests the same creation.
pub(super) struct Key {
    identity: String,
    /// Hash of all parameters.
    fingerprint: [u8; 32],
    /// True when the emulator, asked again, would make a second resource; otherwise it refuses
    /// the repetition, and only then the first answer is given.
    duplicates: bool,
}

/// First answers by the identity of their creation. Kept while the gateway runs.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<String, ([u8; 32], Answer)>>);

impl Key {
    /// The key of a creation that AWS makes idempotent; `None` for all other calls.
    pub(super) fn of(call: &Call, body: &Payload, form: Option<&Form>) -> Option<Self> {
        let creates =
            call.operation.starts_with("Create") || call.operation == "RequestCertificate";
        let changes_ec2 = call.service == "ec2" && call.mutating();
        if !creates && !changes_ec2 {
            return None;
        }
        let bytes = body.whole()?;
        let json_field = |field: &str| body.json()[field].as_str().map(str::to_owned);
        let (token, duplicates) = match call.service.as_str() {
            "ec2" => (form?.get("ClientToken")?.to_owned(), true),
            "elasticloadbalancing" => (form?.get("Name")?.to_owned(), false),
            "ecs" => (json_field("clientToken")?, false),
            "secretsmanager" => (json_field("ClientRequestToken")?, false),
            "acm" => (json_field("IdempotencyToken")?, true),
            _ => return None,
        };
        let identity =
            [&call.scope.account, &call.scope.region, &call.service, &call.operation, &token]
                .map(String::as_str)
                .join("|");
        Some(Self { identity, fingerprint: Sha256::digest(bytes).into(), duplicates })
    }
}

/// Passes the call on, unless it repeats one whose answer is known.
pub(super) async fn answer(
    gateway: &Gateway,
    call: &Call,
    request: &Request<Payload>,
    key: Key,
) -> Answer {
    let known = gateway.idempotency.first(&key.identity);
    if key.duplicates
        && let Some((fingerprint, first)) = &known
    {
        if *fingerprint == key.fingerprint {
            return first.clone();
        }
        let message =
            "The request uses the same client token as a previous, but non-identical request.";
        return answer::error(
            call,
            hyper::StatusCode::BAD_REQUEST,
            "IdempotentParameterMismatch",
            message,
        );
    }
    let body = request.body().whole().cloned().unwrap_or_default();
    let answer = gateway.emulator(request, body).await;
    if answer.is_success() {
        gateway.idempotency.remember(key, answer.clone());
        return answer;
    }
    match known {
        Some((fingerprint, first)) if fingerprint == key.fingerprint && is_duplicate(&answer) => {
            first
        }
        _ => answer,
    }
}

impl Memory {
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets creations whose resource a call deletes: a token belongs to a living resource, so that a
    /// stack can be made again with the tokens of the destroyed one.
    pub(super) fn forget_deleted(&self, call: &Call, body: &Payload, form: Option<&Form>) {
        if !call.operation.starts_with("Delete") {
            return;
        }
        let gone: Vec<String> = match (call.service.as_str(), form) {
            ("ec2", Some(form)) => form
                .0
                .iter()
                .filter(|(key, _)| key.contains("Id"))
                .map(|(_, id)| format!("Id>{id}<"))
                .collect(),
            ("secretsmanager", _) => {
                body.json()["SecretId"].as_str().map(|id| format!("\"{id}\"")).into_iter().collect()
            }
            _ => return,
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, (_, first)| !gone.iter().any(|id| first.text().contains(id)));
    }

    fn first(&self, identity: &str) -> Option<([u8; 32], Answer)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(identity).cloned()
    }

    fn remember(&self, key: Key, answer: Answer) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.identity, (key.fingerprint, answer));
    }
}

/// True for the errors by which the emulator refuses what is there already.
fn is_duplicate(answer: &Answer) -> bool {
    let text = answer.text();
    ["Duplicate", "not idempotent", "ResourceExistsException"]
        .iter()
        .any(|word| text.contains(word))
}
