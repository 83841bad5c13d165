//! Whether the caller may do all that a run does, by IAM's own simulation of its policies.

use std::collections::BTreeMap;

use aws_sdk_iam::types::{EvaluationResult, PolicyEvaluationDecisionType, ResourceSpecificResult};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Check, Patient,
    simulation::{Principal, Question, principal, questions},
};
use crate::{
    aws::{Aws, failed},
    engine::Error,
    policy,
    session::Selection,
    steps::STEPS,
};

/// Simulations at once; IAM throttles early.
const ABREAST: usize = 4;

/// Why an action would be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Denied {
    action: &'static str,
    step: &'static str,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// No policy allows it.
    Missing,
    /// A policy denies it.
    Forbidden,
    /// A service control policy of the organisation does.
    Organization,
    /// It hangs on keys of the request that only the request has.
    Unsure(String),
}

/// One check when all is allowed, otherwise one for each step that lacks something.
pub(super) async fn checks(patient: &Patient<'_>) -> Vec<Check> {
    let source = match principal(&patient.caller.arn) {
        Principal::Root => {
            let root = "the root user may do everything; for daily work use a role instead";
            return vec![Check::ok("permissions", root)];
        }
        Principal::Other => {
            let none = "not checked: IAM simulates no policies of a federated user";
            return vec![Check::warn("permissions", none)];
        }
        Principal::User(arn) => arn,
        Principal::Role { name, arn } => role(&patient.aws, &name).await.unwrap_or(arn),
    };
    let needed = STEPS.map(|(_, step, _)| {
        let selection = Selection { steps: vec![step.to_owned()], ..Selection::default() };
        (step, policy::permissions(patient.environment, &selection))
    });
    let asked = questions(needed.into());
    let actions: usize = asked.iter().map(|question| question.actions.len()).sum();
    if actions == 0 {
        return vec![Check::warn("permissions", "not checked: no list of what a run needs")];
    }
    let simulations = asked.iter().map(|question| {
        let source = &source;
        async move { patient.timings.repeat(|| simulate(&patient.aws, source, question)).await }
    });
    let denied: Result<Vec<Vec<Denied>>, Error> =
        stream::iter(simulations).buffered(ABREAST).try_collect().await;
    match denied {
        Ok(denied) => told(&source, actions, denied.concat()),
        Err(error) => {
            let check = Check::not_made("permissions", &error);
            vec![check.with_hint(
                "allow iam:SimulatePrincipalPolicy and iam:GetRole, which `bme policy` has too",
            )]
        }
    }
}

/// Whether the caller may do `action` on the resource of this ARN; `None` when IAM can't be asked.
pub(super) async fn may(patient: &Patient<'_>, action: &str, resource: String) -> Option<bool> {
    let source = match principal(&patient.caller.arn) {
        Principal::Root => return Some(true),
        Principal::Other => return None,
        Principal::User(arn) => arn,
        Principal::Role { name, arn } => role(&patient.aws, &name).await.unwrap_or(arn),
    };
    let simulation = patient.aws.iam.client.simulate_principal_policy().policy_source_arn(source);
    let simulation = simulation.action_names(action).resource_arns(resource);
    let answer = simulation.send().await.ok()?;
    Some(answer.evaluation_results().iter().all(|answer| why(answer).is_none()))
}

/// The ARN of a role with its path, which the ARN of its sessions leaves out: roles of IAM Identity
/// Center have one.
async fn role(aws: &Aws, name: &str) -> Option<String> {
    let answer = aws.iam.client.get_role().role_name(name).send().await.ok()?;
    answer.role().map(|role| role.arn().to_owned())
}

async fn simulate(aws: &Aws, source: &str, question: &Question) -> Result<Vec<Denied>, Error> {
    let simulation = aws
        .iam
        .client
        .simulate_principal_policy()
        .policy_source_arn(source)
        .set_action_names(Some(
            question.actions.iter().map(|(action, _)| (*action).to_owned()).collect(),
        ))
        .set_resource_arns(Some(question.resources.clone()))
        .set_context_entries(Some(question.context.clone()));
    let answers = simulation.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await;
    let answers = answers.map_err(failed("iam:SimulatePrincipalPolicy"))?;
    let denied = question.actions.iter().filter_map(|&(action, step)| {
        // An answer for each resource: one that is refused is enough.
        let why = answers
            .iter()
            .filter(|answer| answer.eval_action_name().eq_ignore_ascii_case(action))
            .find_map(why)?;
        Some(Denied { action, step, why })
    });
    Ok(denied.collect())
}

/// Why an answer is not "allowed".
fn why(answer: &EvaluationResult) -> Option<Why> {
    let allowed = PolicyEvaluationDecisionType::Allowed;
    let specific = answer.resource_specific_results();
    let refused = specific.iter().find(|one| *one.eval_resource_decision() != allowed);
    let decision = match refused {
        Some(one) => one.eval_resource_decision(),
        None => answer.eval_decision(),
    };
    if *decision == allowed {
        return None;
    }
    let organization = answer.organizations_decision_detail();
    if organization.is_some_and(|detail| !detail.allowed_by_organizations()) {
        return Some(Why::Organization);
    }
    let missing = refused
        .map_or(answer.missing_context_values(), ResourceSpecificResult::missing_context_values);
    if !missing.is_empty() {
        return Some(Why::Unsure(missing.join(", ")));
    }
    Some(if *decision == PolicyEvaluationDecisionType::ExplicitDeny {
        Why::Forbidden
    } else {
        Why::Missing
    })
}

/// The findings, step by step.
fn told(source: &str, actions: usize, denied: Vec<Denied>) -> Vec<Check> {
    if denied.is_empty() {
        return vec![Check::ok("permissions", format!("{source} may do all {actions} actions"))];
    }
    let mut by_step: BTreeMap<usize, Vec<Denied>> = BTreeMap::new();
    for one in denied {
        let number = STEPS.iter().position(|(_, step, _)| *step == one.step).unwrap_or_default();
        by_step.entry(number).or_default().push(one);
    }
    let checks = by_step.into_values().map(|denied| {
        let name = format!("permissions/{}", denied[0].step);
        let words: Vec<String> = denied.iter().map(Denied::word).collect();
        let words = words.join(", ");
        if denied.iter().all(|one| matches!(one.why, Why::Unsure(_))) {
            return Check::warn(name, format!("{source} may be refused {words}"))
                .with_hint("the policies ask for keys that only a request has; see them in IAM");
        }
        Check::fail(name, format!("{source} may not {words}")).with_hint(format!(
            "attach what `bme policy --step {}` prints; a denial has to be taken away by its owner",
            denied[0].step
        ))
    });
    checks.collect()
}

impl Denied {
    fn word(&self) -> String {
        match &self.why {
            Why::Missing => self.action.to_owned(),
            Why::Forbidden => format!("{} (denied by a policy)", self.action),
            Why::Organization => format!("{} (denied by the organisation)", self.action),
            Why::Unsure(keys) => format!("{} (hangs on {keys})", self.action),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_iam::types::{OrganizationsDecisionDetail, builders::EvaluationResultBuilder};

    use super::*;
    use crate::doctor::State;

    fn answer(decision: PolicyEvaluationDecisionType) -> EvaluationResultBuilder {
        EvaluationResult::builder().eval_action_name("ec2:CreateVpc").eval_decision(decision)
    }

    #[test]
    fn an_answer_tells_why_not() {
        use PolicyEvaluationDecisionType::{Allowed, ExplicitDeny, ImplicitDeny};
        let told = |builder: EvaluationResultBuilder| why(&builder.build().unwrap());
        assert_eq!(told(answer(Allowed)), None);
        assert_eq!(told(answer(ImplicitDeny)), Some(Why::Missing));
        assert_eq!(told(answer(ExplicitDeny)), Some(Why::Forbidden));
        let organization =
            OrganizationsDecisionDetail::builder().allowed_by_organizations(false).build();
        assert_eq!(
            told(answer(ImplicitDeny).organizations_decision_detail(organization)),
            Some(Why::Organization)
        );
        assert_eq!(
            told(answer(ImplicitDeny).missing_context_values("aws:MultiFactorAuthPresent")),
            Some(Why::Unsure("aws:MultiFactorAuthPresent".into()))
        );
        let one = ResourceSpecificResult::builder()
            .eval_resource_name("arn:1")
            .eval_resource_decision(ImplicitDeny)
            .build()
            .unwrap();
        assert_eq!(told(answer(Allowed).resource_specific_results(one)), Some(Why::Missing));
    }

    #[test]
    fn steps_are_told_in_order_and_doubt_is_no_failure() {
        let denied = |action, step, why| Denied { action, step, why };
        let checks = told(
            "arn:aws:iam::123456789012:user/anna",
            12,
            vec![
                denied("sqs:CreateQueue", "queue", Why::Unsure("aws:SourceIp".into())),
                denied("ec2:CreateVpc", "network", Why::Missing),
                denied("ec2:CreateSubnet", "network", Why::Forbidden),
            ],
        );
        assert_eq!(checks.len(), 2, "{checks:#?}");
        assert_eq!(
            (checks[0].name.as_str(), checks[0].state),
            ("permissions/network", State::Fail)
        );
        assert!(checks[0].message.contains("ec2:CreateVpc, ec2:CreateSubnet (denied by a policy)"));
        assert_eq!(checks[1].state, State::Warn);
        assert_eq!(told("arn", 12, Vec::new())[0].state, State::Ok);
    }
}
