//! IAM, enforced when a test asks for it: every call of the host is held against the policies of
//! whoever signed it, by the evaluator of the emulator, which other people wrote.
//!
//! An access key that is an account number is the sandbox's root. Signatures are not checked. What
//! containers call is not looked at, nor are resource policies, boundaries and service control
//! policies.

mod actions;
mod context;
mod dependent;
mod existing;
mod members;
mod renamed;
mod resources;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::{Request, StatusCode};
use serde::Serialize;

use self::context::{Context, Values};
use self::dependent::When;
use self::existing::Resource;
use self::members::Members;
use super::Gateway;
use super::answer::{self, Answer};
use super::identify::{self, Call, Form, Protocol, Scope, is_account};
use super::rds::element;
use super::upstream::Payload;

/// Whether calls are held against policies, and what is known since they are.
#[derive(Default)]
pub(super) struct Enforcement(Mutex<Option<Memory>>);

#[derive(Default)]
struct Memory {
    /// Who has an access key.
    principals: BTreeMap<String, Principal>,
    decisions: BTreeMap<Question, Decision>,
    /// All actions that were asked for.
    asked: BTreeSet<String>,
    /// Whose registry token is used: the emulator gives everybody the same.
    token_of: Option<String>,
}

/// Somebody whose policies are known.
#[derive(Clone)]
struct Principal {
    /// As AWS shows it: of a user, or of a role's session.
    arn: String,
    /// The user or the role that has the policies.
    source: String,
}

/// What the evaluator is asked: for whom, which action, on what, with which keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    source: String,
    action: String,
    resource: String,
    context: Context,
}

#[derive(Clone, Copy, PartialEq)]
enum Decision {
    Allowed,
    /// No statement allows it.
    Missing,
    /// A statement denies it.
    Denied,
}

/// Of actions that support no resources, and of those that are not known here.
const EVERYTHING: &[&str] = &["*"];

/// An action that a request needs.
struct Need {
    action: String,
    /// Patterns, see [`actions`].
    on: &'static [&'static str],
    /// The operation's own: on `*` when the request names nothing.
    own: bool,
    /// The service that a role is handed to.
    passed_to: Option<&'static str>,
}

/// What `GET /_bme/iam` tells.
#[derive(Serialize)]
pub(super) struct Told {
    enforced: bool,
    /// The actions that were asked for since then.
    asked: BTreeSet<String>,
}

impl Enforcement {
    pub(super) fn start(&self) {
        *self.memory() = Some(Memory::default());
    }

    pub(super) fn stop(&self) {
        *self.memory() = None;
    }

    pub(super) fn is_on(&self) -> bool {
        self.memory().is_some()
    }

    pub(super) fn told(&self) -> Told {
        let memory = self.memory();
        let asked = memory.as_ref().map(|memory| memory.asked.clone()).unwrap_or_default();
        Told { enforced: memory.is_some(), asked }
    }

    /// Forgets decisions once a call has changed what they were about.
    pub(super) fn follow(&self, call: &Call) {
        if call.service == "iam"
            && call.mutating()
            && let Some(memory) = self.memory().as_mut()
        {
            memory.principals.clear();
            memory.decisions.clear();
        }
    }

    /// The access key behind a call; of the registry's, that of whoever has last taken a token.
    fn key(&self, call: &Call, request: &Request<Payload>) -> Option<String> {
        let mut memory = self.memory();
        let memory = memory.as_mut()?;
        let key = match call.protocol {
            Protocol::Registry => memory.token_of.clone(),
            _ => identify::access_key(request),
        };
        if call.name() == "ecr:GetAuthorizationToken" {
            memory.token_of.clone_from(&key);
        }
        key
    }

    fn memory(&self) -> MutexGuard<'_, Option<Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The refusal of a call that its caller's policies do not allow; `None` when they do, and for all
/// calls while nothing is enforced.
pub(super) async fn refusal(
    gateway: &Gateway,
    call: &Call,
    request: &Request<Payload>,
    form: Option<&Form>,
) -> Option<Answer> {
    let key = gateway.iam.key(call, request).filter(|key| !is_account(key))?;
    let members = Members::of(call, request, form);
    let Some(principal) = principal(gateway, &call.scope, &key).await else {
        return Some(unknown_key(call));
    };
    for need in needed(&call.name(), &members) {
        for (resource, made) in asked_on(gateway, &call.scope, &need, &members).await {
            let question = Question {
                source: principal.source.clone(),
                action: need.action.clone(),
                context: context::of(call, &need, &resource, made, &members),
                resource: resource.arn,
            };
            match decision(gateway, &call.scope, &question).await {
                Ok(Decision::Allowed) => {}
                Ok(decision) => return Some(refused(call, &principal, &question, decision)),
                Err(answer) => return Some(undecided(call, &answer)),
            }
        }
    }
    None
}

/// What an operation, as IAM writes it, needs.
fn needed(operation: &str, members: &Members) -> Vec<Need> {
    let need = |action: &str, on, own| Need { action: action.to_owned(), on, own, passed_to: None };
    let other = renamed::OTHER_NAME.iter().find(|(name, _)| *name == operation);
    let mut needs: Vec<Need> = if let Some((_, asked)) = other {
        asked.iter().map(|(action, on)| need(action, *on, true)).collect()
    } else {
        let same = actions::SAME_NAME.iter().find(|(names, _)| names.contains(&operation));
        vec![need(operation, same.map_or(EVERYTHING, |(_, on)| *on), true)]
    };
    for (operations, action, on, when) in dependent::BESIDES {
        let holds = match when {
            When::Always => true,
            When::Tagged => !members.tags.is_empty(),
            When::Has(member) => members.first(member).is_some_and(|value| value != "false"),
        };
        if holds && operations.contains(&operation) {
            needs.push(need(action, *on, false));
        }
    }
    for (name, on, service) in dependent::PASSED {
        if *name == operation {
            let role = need("iam:PassRole", *on, false);
            needs.push(Need { passed_to: Some(*service), ..role });
        }
    }
    needs
}

/// The resources that an action is asked for on, each with whether the call makes it.
async fn asked_on(
    gateway: &Gateway,
    scope: &Scope,
    need: &Need,
    members: &Members,
) -> Vec<(Resource, bool)> {
    let untagged = |arn| Resource { arn, tags: BTreeMap::new() };
    let mut resources = Vec::new();
    for pattern in need.on {
        if pattern.starts_with('?') {
            let found = existing::found(gateway, scope, pattern, members).await;
            resources.extend(found.into_iter().map(|resource| (resource, false)));
        } else if let Some(pattern) = pattern.strip_prefix('+') {
            let arns = resources::arns(pattern, scope, members).into_iter();
            resources.extend(arns.map(|arn| (untagged(arn), true)));
        } else {
            for arn in resources::arns(pattern, scope, members) {
                resources.push((existing::with_tags(gateway, scope, arn).await, false));
            }
        }
    }
    if need.own && resources.is_empty() {
        resources.push((untagged("*".to_owned()), false));
    }
    resources
}

/// Who has an access key: a user, or the session of a role.
async fn principal(gateway: &Gateway, scope: &Scope, key: &str) -> Option<Principal> {
    let known =
        gateway.iam.memory().as_ref().and_then(|memory| memory.principals.get(key).cloned());
    if known.is_some() {
        return known;
    }
    let of_key = Scope { account: key.to_owned(), region: scope.region.clone() };
    let form = [("Action", "GetCallerIdentity"), ("Version", "2011-06-15")];
    let answer = gateway.upstream.query(&of_key, "sts", &form).await;
    let text = answer.text();
    let principal = Principal::of(element(&text, "Arn")?)?;
    if let Some(memory) = gateway.iam.memory().as_mut() {
        memory.principals.insert(key.to_owned(), principal.clone());
    }
    Some(principal)
}

impl Principal {
    /// `None` for the root user, whom the emulator takes for the owner of every key it does not know.
    fn of(arn: &str) -> Option<Self> {
        let source = match arn.split_once(":assumed-role/") {
            Some((account, session)) => {
                let account = account.replace(":sts:", ":iam:");
                format!("{account}:role/{}", session.split('/').next()?)
            }
            None => arn.contains(":user/").then(|| arn.to_owned())?,
        };
        Some(Self { arn: arn.to_owned(), source })
    }
}

/// What the evaluator says; its answer when it says nothing.
async fn decision(
    gateway: &Gateway,
    scope: &Scope,
    question: &Question,
) -> Result<Decision, Answer> {
    if let Some(memory) = gateway.iam.memory().as_mut() {
        memory.asked.insert(question.action.clone());
        if let Some(decision) = memory.decisions.get(question) {
            return Ok(*decision);
        }
    }
    let form = simulation(question);
    let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let answer = gateway.upstream.query(scope, "iam", &form).await;
    let decision = match element(&answer.text(), "EvalDecision") {
        Some("allowed") => Decision::Allowed,
        Some("explicitDeny") => Decision::Denied,
        Some(_) => Decision::Missing,
        None => return Err(answer.clone()),
    };
    if let Some(memory) = gateway.iam.memory().as_mut() {
        memory.decisions.insert(question.clone(), decision);
    }
    Ok(decision)
}

/// The parameters of `SimulatePrincipalPolicy`.
fn simulation(question: &Question) -> Vec<(String, String)> {
    let mut form = vec![
        ("Action".to_owned(), "SimulatePrincipalPolicy".to_owned()),
        ("Version".to_owned(), "2010-05-08".to_owned()),
        ("PolicySourceArn".to_owned(), question.source.clone()),
        ("ActionNames.member.1".to_owned(), question.action.clone()),
        ("ResourceArns.member.1".to_owned(), question.resource.clone()),
    ];
    for (number, (key, values)) in (1..).zip(&question.context) {
        let entry = format!("ContextEntries.member.{number}");
        let (kind, values) = match values {
            Values::One(value) => ("string", std::slice::from_ref(value)),
            Values::Many(values) => ("stringList", values.as_slice()),
        };
        form.push((format!("{entry}.ContextKeyName"), key.clone()));
        form.push((format!("{entry}.ContextKeyType"), kind.to_owned()));
        for (number, value) in (1..).zip(values) {
            form.push((format!("{entry}.ContextKeyValues.member.{number}"), value.clone()));
        }
    }
    form
}

/// AWS's words ("Troubleshoot access denied error messages", IAM user guide), in the code that the
/// call's protocol has for them.
fn refused(call: &Call, principal: &Principal, question: &Question, decision: Decision) -> Answer {
    let Question { action, resource, .. } = question;
    let why = match decision {
        Decision::Denied => "with an explicit deny in an identity-based policy".to_owned(),
        _ => format!("because no identity-based policy allows the {action} action"),
    };
    let message = format!(
        "User: {} is not authorized to perform: {action} on resource: {resource} {why}",
        principal.arn
    );
    let forbidden = StatusCode::FORBIDDEN;
    match call.protocol {
        Protocol::Ec2 => {
            let message = format!("You are not authorized to perform this operation. {message}");
            answer::error(call, forbidden, "UnauthorizedOperation", &message)
        }
        Protocol::Json | Protocol::Cbor => {
            answer::error(call, StatusCode::BAD_REQUEST, "AccessDeniedException", &message)
        }
        Protocol::RestJson => answer::error(call, forbidden, "AccessDeniedException", &message),
        Protocol::Query | Protocol::RestXml | Protocol::S3 => {
            answer::error(call, forbidden, "AccessDenied", &message)
        }
        Protocol::Registry => answer::error(call, forbidden, "DENIED", &message),
    }
}

/// The answer to a key that nobody has.
fn unknown_key(call: &Call) -> Answer {
    let invalid = "The security token included in the request is invalid.";
    let (status, code, message) = match call.protocol {
        Protocol::Ec2 => (
            StatusCode::UNAUTHORIZED,
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
        ),
        Protocol::S3 => (
            StatusCode::FORBIDDEN,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
        Protocol::Json | Protocol::RestJson | Protocol::Cbor => {
            (StatusCode::BAD_REQUEST, "UnrecognizedClientException", invalid)
        }
        Protocol::Query | Protocol::RestXml | Protocol::Registry => {
            (StatusCode::FORBIDDEN, "InvalidClientTokenId", invalid)
        }
    };
    answer::error(call, status, code, message)
}

fn undecided(call: &Call, answer: &Answer) -> Answer {
    let message = format!("sandbox: the emulator does not decide: {}", answer.text());
    answer::error(call, StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure", &message)
}

#[cfg(test)]
mod tests;
