//! The deployments of an ECS service: how they are made, and how far the latest one is.

use aws_sdk_ecs::types::{
    Deployment, DeploymentCircuitBreaker, DeploymentConfiguration, DeploymentRolloutState, Service,
    Task, TaskStopCode, ThresholdConfiguration, ThresholdType,
};

use crate::{aws::built, engine::Error};

/// Trap 9: by default ECS tries at least three times before it calls a deployment failed. The second
/// task that fails is enough.
pub(super) const FAILED_TASKS: i32 = 2;

/// How far the latest deployment of a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rollout {
    /// Every task runs the new task definition and is healthy.
    Completed,
    /// On its way; holds the numbers.
    InProgress(String),
    /// ECS gave it up; holds why. The tasks of the former deployment go on.
    Failed(String),
}

/// Trap 14: a failed deployment stays in the list, so only the PRIMARY one counts, and it counts by
/// its state, never by the number of deployments.
pub(super) fn rollout(service: &Service) -> Rollout {
    let Some(primary) = primary(service) else {
        return Rollout::InProgress("no deployment yet".into());
    };
    let running =
        format!("{} of {} tasks running", primary.running_count(), primary.desired_count());
    match primary.rollout_state() {
        Some(DeploymentRolloutState::Completed)
            if primary.running_count() >= primary.desired_count() =>
        {
            Rollout::Completed
        }
        Some(DeploymentRolloutState::Failed) => Rollout::Failed(
            primary.rollout_state_reason().unwrap_or("the deployment failed").to_owned(),
        ),
        _ => Rollout::InProgress(running),
    }
}

pub(super) fn primary(service: &Service) -> Option<&Deployment> {
    service.deployments().iter().find(|deployment| deployment.status() == Some("PRIMARY"))
}

pub(super) fn primary_id(service: &Service) -> Option<String> {
    primary(service)?.id().map(ToOwned::to_owned)
}

/// Tasks are replaced one after another with all of them still serving. `rollback` is off: ECS would
/// put back the task definition alone, while a release is also web assets and configuration, which
/// `bme` puts back together; two of them restoring at once end in neither release.
pub(super) fn deployment_configuration() -> Result<DeploymentConfiguration, Error> {
    let threshold =
        ThresholdConfiguration::builder().r#type(ThresholdType::Count).value(FAILED_TASKS);
    let breaker = DeploymentCircuitBreaker::builder()
        .enable(true)
        .rollback(false)
        .threshold_configuration(threshold.build().map_err(built("ecs:CreateService"))?)
        .build();
    Ok(DeploymentConfiguration::builder()
        .minimum_healthy_percent(100)
        .maximum_percent(200)
        .deployment_circuit_breaker(breaker)
        .build())
}

/// `now` with the members that are shown as they are in `wanted`.
pub(super) fn hold(
    mut now: DeploymentConfiguration,
    wanted: DeploymentConfiguration,
) -> DeploymentConfiguration {
    now.minimum_healthy_percent = wanted.minimum_healthy_percent;
    now.maximum_percent = wanted.maximum_percent;
    now.deployment_circuit_breaker = wanted.deployment_circuit_breaker;
    now
}

pub(super) fn threshold(breaker: &DeploymentCircuitBreaker) -> String {
    match breaker.threshold_configuration() {
        _ if !breaker.enable() => "off".into(),
        Some(threshold) => format!("after {} {}", threshold.r#type(), threshold.value()),
        None => "after ECS's own threshold".into(),
    }
}

/// Why a task stopped.
pub(super) struct Stopped {
    pub(super) reason: String,
    /// Trying again will not help: the image can't be had, or the service itself gave up.
    pub(super) is_final: bool,
}

impl Stopped {
    pub(super) fn of(task: &Task) -> Option<Self> {
        let code = task.stop_code()?;
        let stopped = task.stopped_reason().unwrap_or_default();
        let container = task.containers().iter().find_map(|container| {
            let reason = container.reason().map(ToOwned::to_owned);
            let exit =
                || Some(format!("{} exited with {}", container.name()?, container.exit_code()?));
            reason.or_else(exit)
        });
        let reason =
            container.map_or(stopped.to_owned(), |container| format!("{stopped}: {container}"));
        let is_final = match code {
            TaskStopCode::EssentialContainerExited => true,
            TaskStopCode::TaskFailedToStart => reason.contains("CannotPull"),
            // Stopped by ECS or by a person.
            _ => return None,
        };
        Some(Self { reason, is_final })
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::DeploymentAlarms;

    use super::*;

    #[test]
    fn a_teams_alarms_survive_an_update() {
        let alarms = DeploymentAlarms::builder().enable(true).rollback(false).alarm_names("theirs");
        let mut theirs = deployment_configuration().unwrap();
        theirs.alarms = Some(alarms.build().unwrap());
        let mut drifted = theirs.clone();
        drifted.maximum_percent = Some(100);
        drifted.deployment_circuit_breaker = None;
        assert_eq!(hold(drifted, deployment_configuration().unwrap()), theirs);
    }
}
