//! The preflight: what would stop a run, found before its first call. It reads and changes nothing.
//!
//! Each kind of check is one file. A check that cannot be made is a warning that says why: it never
//! ends the others, and it is never called good.

mod buckets;
mod fargate;
mod identity;
mod names;
mod permissions;
mod quotas;
mod region;
mod simulation;
mod tools;

use std::{path::Path, sync::Arc, time::Duration};

use serde::Serialize;

use crate::{
    aws::{self, Aws, Caller, introduce},
    engine::{
        Error, Permission, Timings,
        plan::{look_at_all, plan},
    },
    environment::Environment,
    release::records,
    session,
    state::State as Bucket,
    steps::{self, Stack},
};

/// How long a transient error is retried: a preflight that keeps people waiting is not run.
const PATIENCE: Duration = Duration::from_secs(10);

/// The checks that are left out when nobody may be asked.
const ASKED: [&str; 4] = ["region", "permissions", "quotas", "names"];

/// The document of `doctor --output json`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The environment.
    pub env: String,
    /// The account of the credentials; null when nobody could be asked.
    pub account: Option<String>,
    /// The region.
    pub region: String,
    /// What was found.
    pub checks: Vec<Check>,
    /// The checks, counted.
    pub summary: Summary,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, for instance `quota/vpcs`.
    pub name: String,
    /// How it is.
    pub state: State,
    /// What was found.
    pub message: String,
    /// The mend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Good.
    Ok,
    /// It may be in the way, or nobody could tell.
    Warn,
    /// A run would fail.
    Fail,
}

/// The checks, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Good ones.
    pub ok: usize,
    /// Warnings.
    pub warn: usize,
    /// Failed ones.
    pub fail: usize,
}

impl Check {
    fn new(state: State, name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { name: name.into(), state, message: message.into(), hint: None }
    }

    fn ok(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(State::Ok, name, message)
    }

    fn warn(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(State::Warn, name, message)
    }

    fn fail(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(State::Fail, name, message)
    }

    fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A call that the check needs was refused or not answered.
    fn not_made(name: impl Into<String>, error: &Error) -> Self {
        let hint = error.hint.clone();
        Self { hint, ..Self::warn(name, format!("not checked: {error}")) }
    }
}

/// What the checks call besides the reads of a plan; all of it reads.
pub(crate) fn permissions(aws: &Aws) -> Vec<Permission> {
    vec![
        Permission::anywhere([
            "ec2:DescribeAvailabilityZones",
            "ec2:DescribeRegions",
            // What is used already, also by others.
            "ecs:DescribeTasks",
            "ecs:ListClusters",
            "ecs:ListTasks",
            "secretsmanager:ListSecrets",
            "servicequotas:GetAWSDefaultServiceQuota",
            "servicequotas:GetServiceQuota",
        ]),
        Permission::on(
            ["iam:GetRole", "iam:SimulatePrincipalPolicy"],
            ["role", "user"].map(|kind| format!("arn:aws:iam::{}:{kind}/*", aws.account)),
        ),
        // Also a bucket of somebody else that has a name of ours.
        Permission::on(["s3:ListBucket"], ["arn:aws:s3:::bme-*".to_owned()]),
    ]
}

/// What the checks that ask AWS read.
struct Patient<'a> {
    environment: &'a Environment,
    aws: Aws,
    caller: &'a Caller,
    timings: Timings,
}

/// Makes every check, all at once.
pub async fn examine(environment: &Environment, project: &Path) -> Report {
    let (account, mut checks) = cloud(environment).await;
    checks.extend(tools::checks(environment, project));
    let mut summary = Summary::default();
    for check in &checks {
        match check.state {
            State::Ok => summary.ok += 1,
            State::Warn => summary.warn += 1,
            State::Fail => summary.fail += 1,
        }
    }
    Report {
        env: environment.name.clone(),
        account,
        region: environment.aws.region.clone(),
        checks,
        summary,
    }
}

/// The account, and what AWS, or who stands for it, was asked. The sandbox is not started for it.
async fn cloud(environment: &Environment) -> (Option<String>, Vec<Check>) {
    let sandbox = environment.sandbox.as_ref();
    let endpoint = sandbox
        .map(|sandbox| format!("http://127.0.0.1:{}", sandbox.gateway_port))
        .or_else(|| environment.aws.endpoint_url.clone());
    let credentials = sandbox.and_then(|_| session::sandbox_credentials(environment));
    let config = aws::config(&environment.aws.region, endpoint.as_deref(), credentials).await;
    let calls = Arc::default();
    let (introduced, expiry) =
        tokio::join!(introduce(&config, &calls), identity::expiry(config.credentials_provider()));
    let mut checks = identity::checks(environment, &introduced, expiry);
    let Ok(caller) = &introduced.caller else {
        checks.extend(ASKED.map(|name| Check::warn(name, "not checked: nobody is signed in")));
        return (None, checks);
    };
    if caller.allowed(&environment.aws.accounts).is_err() {
        let why = "not checked: the file does not allow this account";
        checks.extend(ASKED.map(|name| Check::warn(name, why)));
        return (Some(caller.account.clone()), checks);
    }
    let timings = session::timings(environment);
    let patient = Patient {
        environment,
        aws: Aws::new(&config, caller.account.clone(), calls),
        caller,
        timings: Timings { retry: timings.retry.min(PATIENCE), ..timings },
    };
    let (region, permissions, observed) = tokio::join!(
        region::check(&patient),
        permissions::checks(&patient),
        names_and_quotas(&patient),
    );
    checks.push(region);
    checks.extend(permissions);
    checks.extend(observed);
    (Some(caller.account.clone()), checks)
}

/// Both rest on one observation, that of the plan.
async fn names_and_quotas(patient: &Patient<'_>) -> Vec<Check> {
    let state = Bucket::new(&patient.aws, &patient.environment.name);
    // A bucket that can't be read shows among the names; services then count as not deployed.
    let release = records::current(&state).await.ok().flatten();
    let stack = Stack {
        environment: patient.environment.clone(),
        aws: patient.aws.clone(),
        release,
        sandbox_ca: None,
        every_way_out: false,
    };
    let graph = steps::graph(&stack);
    let looked = look_at_all(&graph, &patient.timings).await;
    let plan = plan(&graph, &looked.observed);
    let (names, quotas) = tokio::join!(
        names::checks(patient, &stack, &looked, &plan),
        quotas::checks(patient, &plan, looked.observed.since),
    );
    quotas.into_iter().chain(names).collect()
}
