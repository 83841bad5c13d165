//! Faults that tests ask for: which call they hit and what happens to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::identify::Call;

/// A rule, as `POST /_bme/faults` takes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    /// `service:Operation` with `*` for anything; without it every call.
    operation: Option<String>,
    /// True: only calls that may change something; false: only reads.
    mutating: Option<bool>,
    /// The first matching call that is hit, from 1; counted since the rule was given.
    #[serde(default = "one")]
    call: u64,
    /// How many matching calls are hit from there on; 0 is all.
    #[serde(default = "one")]
    times: u64,
    /// Counts the calls of each operation apart from those of the others.
    #[serde(default)]
    each: bool,
    /// Only for a while after this operation was last called: how long what it makes is on its way.
    after: Option<String>,
    #[serde(default)]
    within_milliseconds: u64,
    #[serde(flatten)]
    kind: Kind,
}

/// What happens to a call that is hit.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    /// Executed after a while.
    Delay { milliseconds: u64 },
    /// Not executed; an error in the service's shape.
    Status {
        status: u16,
        #[serde(default = "internal_failure", rename = "awsErrorCode")]
        code: String,
        #[serde(default)]
        message: Option<String>,
    },
    /// Not executed; the connection is closed.
    CutBefore,
    /// Executed; the connection is closed without the answer.
    CutAfter,
    /// Not executed; no answer, ever.
    HoldBefore,
    /// Executed; no answer, ever.
    HoldAfter,
    /// Executed; one text in the answer is another: a state that the emulator does not know.
    Rewrite { from: String, to: String },
}

/// What to do with one call.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Delay(Duration),
    Status { status: u16, code: String, message: String },
    Rewrite { from: String, to: String },
    CutBefore,
    CutAfter,
    HoldBefore,
    HoldAfter,
}

impl Verdict {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Delay(_) => "delay",
            Self::Rewrite { .. } => "rewrite",
            Self::Status { .. } => "status",
            Self::CutBefore => "cut_before",
            Self::CutAfter => "cut_after",
            Self::HoldBefore => "hold_before",
            Self::HoldAfter => "hold_after",
        }
    }
}

/// A call that waits for its client to die.
#[derive(Clone, Serialize)]
pub(super) struct Held {
    /// Its number in the record of calls.
    n: usize,
    service: String,
    operation: String,
    kind: &'static str,
}

/// What a rule has seen.
#[derive(Default)]
struct Seen {
    /// How many calls it has matched, by operation where it counts each apart.
    matched: HashMap<String, u64>,
    /// When the operation was last called that it comes after.
    began: Option<Instant>,
}

/// The rules in force and the calls they hold.
#[derive(Default)]
pub(super) struct Faults {
    rules: Mutex<Vec<(Rule, Seen)>>,
    held: Arc<Mutex<Vec<Held>>>,
}

impl Faults {
    pub(super) fn add(&self, rules: Vec<Rule>) {
        self.rules().extend(rules.into_iter().map(|rule| (rule, Seen::default())));
    }

    pub(super) fn clear(&self) {
        self.rules().clear();
    }

    pub(super) fn held(&self) -> Vec<Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first rule that hits `call`; every matching rule counts it.
    pub(super) fn decide(&self, call: &Call) -> Option<Verdict> {
        let mut verdict = None;
        for (rule, seen) in self.rules().iter_mut() {
            if let Some(after) = &rule.after {
                if glob(after, &call.name()) {
                    seen.began = Some(Instant::now());
                }
                let within = Duration::from_millis(rule.within_milliseconds);
                if seen.began.is_none_or(|began| began.elapsed() > within) {
                    continue;
                }
            }
            if !rule.matches(call) {
                continue;
            }
            let counted = if rule.each { call.name() } else { String::new() };
            let seen = seen.matched.entry(counted).or_default();
            *seen += 1;
            let hit = *seen >= rule.call && (rule.times == 0 || *seen < rule.call + rule.times);
            if hit && verdict.is_none() {
                verdict = Some(rule.kind.verdict());
            }
        }
        verdict
    }

    /// Waits until the client goes away, which drops this future with the connection.
    pub(super) async fn hold(&self, call: &Call, n: usize, kind: &'static str) {
        let held =
            Held { n, service: call.service.clone(), operation: call.operation.clone(), kind };
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(held);
        let _shown = Shown { held: Arc::clone(&self.held), n };
        std::future::pending::<()>().await;
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Vec<(Rule, Seen)>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a held call off the list when its client is gone.
struct Shown {
    held: Arc<Mutex<Vec<Held>>>,
    n: usize,
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).retain(|held| held.n != self.n);
    }
}

impl Rule {
    fn matches(&self, call: &Call) -> bool {
        // Image layers are not AWS calls; a rule must name them.
        let named = match &self.operation {
            Some(pattern) => glob(pattern, &call.name()),
            None => call.service != "registry",
        };
        named && self.mutating.is_none_or(|mutating| mutating == call.mutating())
    }
}

impl Kind {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Delay { milliseconds } => Verdict::Delay(Duration::from_millis(*milliseconds)),
            Self::Status { status, code, message } => Verdict::Status {
                status: *status,
                code: code.clone(),
                message: message
                    .clone()
                    .unwrap_or_else(|| format!("fault asked for by a test: {code}")),
            },
            Self::Rewrite { from, to } => Verdict::Rewrite { from: from.clone(), to: to.clone() },
            Self::CutBefore => Verdict::CutBefore,
            Self::CutAfter => Verdict::CutAfter,
            Self::HoldBefore => Verdict::HoldBefore,
            Self::HoldAfter => Verdict::HoldAfter,
        }
    }
}

/// True when `text` is like `pattern`, in which `*` stands for any characters.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|i| rest.is_char_boundary(*i)).any(|i| glob(tail, &rest[i..]))
        }),
    }
}

fn one() -> u64 {
    1
}

fn internal_failure() -> String {
    "InternalFailure".into()
}

#[cfg(test)]
mod tests {
    use super::super::identify::{Protocol, Scope};
    use super::*;

    fn call(service: &str, operation: &str) -> Call {
        Call {
            service: service.into(),
            operation: operation.into(),
            protocol: Protocol::Query,
            scope: Scope { account: "000000000000".into(), region: "us-east-1".into() },
            bucket: None,
            key: None,
        }
    }

    fn faults(rules: &str) -> Faults {
        let faults = Faults::default();
        faults.add(serde_json::from_str(rules).expect("the rules of the test are valid"));
        faults
    }

    #[test]
    fn globs_match_anywhere() {
        assert!(glob("ec2:CreateVpc", "ec2:CreateVpc"));
        assert!(!glob("ec2:CreateVpc", "ec2:CreateVpcEndpoint"));
        assert!(glob("ec2:Create*", "ec2:CreateVpcEndpoint"));
        assert!(glob("*:Create*Endpoint", "ec2:CreateVpcEndpoint"));
        assert!(!glob("*:Delete*", "ec2:CreateVpc"));
    }

    #[test]
    fn a_rule_hits_the_nth_matching_call_as_often_as_it_says() {
        let faults =
            faults(r#"[{"operation": "ec2:Create*", "call": 2, "times": 2, "kind": "cut_after"}]"#);
        let verdicts: Vec<bool> =
            ["CreateVpc", "DescribeVpcs", "CreateSubnet", "CreateVpc", "CreateVpc"]
                .iter()
                .map(|operation| faults.decide(&call("ec2", operation)).is_some())
                .collect();
        assert_eq!(verdicts, [false, false, true, true, false]);
    }

    #[test]
    fn a_rule_can_hit_each_operation_once() {
        let faults = faults(r#"[{"mutating": true, "each": true, "kind": "cut_before"}]"#);
        let verdicts: Vec<bool> = ["CreateVpc", "CreateSubnet", "CreateVpc", "CreateSubnet"]
            .iter()
            .map(|operation| faults.decide(&call("ec2", operation)).is_some())
            .collect();
        assert_eq!(verdicts, [true, true, false, false]);
    }

    #[test]
    fn a_rule_can_last_for_a_while_after_a_call() {
        let faults = faults(
            r#"[{"operation": "rds:DescribeDBInstances", "after": "rds:CreateDBInstance", "times": 0,
                 "withinMilliseconds": 60000, "kind": "rewrite", "from": "a", "to": "b"}]"#,
        );
        let hit = |operation| faults.decide(&call("rds", operation)).is_some();
        assert!(!hit("DescribeDBInstances"));
        assert!(!hit("CreateDBInstance"));
        assert!(hit("DescribeDBInstances") && hit("DescribeDBInstances"));
    }

    #[test]
    fn rules_can_be_limited_to_mutating_calls_and_have_no_end() {
        let faults = faults(
            r#"[{"mutating": true, "times": 0, "kind": "status", "status": 503, "awsErrorCode": "SlowDown"}]"#,
        );
        assert_eq!(faults.decide(&call("s3", "GetObject")), None);
        for _ in 0..3 {
            let verdict = faults.decide(&call("s3", "PutObject"));
            assert!(matches!(verdict, Some(Verdict::Status { status: 503, .. })), "{verdict:?}");
        }
    }

    #[test]
    fn unknown_kinds_are_refused() {
        assert!(serde_json::from_str::<Rule>(r#"{"kind": "explode"}"#).is_err());
        assert!(serde_json::from_str::<Rule>(r#"{"kind": "delay"}"#).is_err());
    }
}
