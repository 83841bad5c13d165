//! The migration: one task of its own, which must end with exit code 0.

use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, LaunchType, NetworkConfiguration, Task, TaskDefinition,
};
use tokio::time::Instant;

use super::{Error, Platform, Progress, Release, Tell, log};
use crate::{
    aws::{Aws, failed},
    engine::{self, Class, Fault, Timings, pause},
};

pub(super) const WRONG_IMAGE: Fault = Fault {
    code: "wrong-image",
    cause: "the newest migration task runs another image than the release",
    mend: "another run has registered one since: deploy again",
};

/// Runs the migrate task definition, which must name the release's image, and waits for its end.
/// `attempt` names this run of `bme`: a call that is repeated after its answer was lost finds the
/// task that the first one started.
///
/// # Errors
/// [`Error::Migration`] when the task did not end with 0, otherwise a call failed.
pub(super) async fn migrate(
    aws: &Aws,
    timings: &Timings,
    platform: &Platform,
    release: &Release,
    attempt: &str,
    tell: Tell<'_>,
) -> Result<(), Error> {
    let start = Instant::now();
    let definition = timings.repeat(|| definition(aws, &platform.migrate_family)).await?;
    if !definition.container_definitions().iter().any(|one| one.image() == Some(&release.image)) {
        let what =
            format!("the newest `{}` does not run {}", platform.migrate_family, release.image);
        return Err(WRONG_IMAGE.error("ecs:RunTask", what).into());
    }
    let arn = definition.task_definition_arn().unwrap_or_default();
    let task = timings.repeat(|| run(aws, platform, arn, attempt)).await?;
    let id = task.rsplit('/').next().unwrap_or_default().to_owned();
    let failure = |reason: String, log| Error::Migration { tag: release.tag.clone(), reason, log };
    let mut said = String::new();
    loop {
        let seen = timings.repeat(|| describe(aws, &platform.cluster, &task)).await?;
        let status = seen.as_ref().and_then(Task::last_status).unwrap_or("PROVISIONING");
        if status != said {
            status.clone_into(&mut said);
            tell(Progress::Migrating { task: id.clone(), status: said.clone() });
        }
        if let Some(task) = seen.filter(|task| task.last_status() == Some("STOPPED")) {
            // A container that never ran has no exit code, which is not 0.
            let done = task.containers().iter().all(|container| container.exit_code() == Some(0));
            if done && !task.containers().is_empty() {
                return Ok(());
            }
            let log = log::tail(aws, timings, &definition, &task).await;
            return Err(failure(log::reason(&task), log));
        }
        if start.elapsed() > timings.rollout {
            stop(aws, &platform.cluster, &task).await?;
            let reason = format!(
                "it still ran after {} s and was stopped; `engine.rollout_seconds` is how long it may take",
                timings.rollout.as_secs()
            );
            return Err(failure(reason, Vec::new()));
        }
        pause(timings.poll()).await;
    }
}

/// The newest revision of a family, or the revision of an ARN.
pub(super) async fn definition(aws: &Aws, name: &str) -> Result<TaskDefinition, engine::Error> {
    const OPERATION: &str = "ecs:DescribeTaskDefinition";
    let answer = aws.ecs.client.describe_task_definition().task_definition(name).send().await;
    let answer = answer.map_err(failed(OPERATION))?;
    answer.task_definition.ok_or_else(|| {
        engine::Error::fatal(OPERATION, "invalid-answer", format!("no task definition `{name}`"))
    })
}

/// Starts the task unless this attempt has started it; its ARN. The token makes ECS itself answer
/// with the first task; the look before is for what takes no token.
async fn run(
    aws: &Aws,
    platform: &Platform,
    definition: &str,
    attempt: &str,
) -> Result<String, engine::Error> {
    const OPERATION: &str = "ecs:RunTask";
    for desired in
        [aws_sdk_ecs::types::DesiredStatus::Running, aws_sdk_ecs::types::DesiredStatus::Stopped]
    {
        let list = aws.ecs.client.list_tasks().cluster(&platform.cluster).started_by(attempt);
        let list = list.desired_status(desired).send().await.map_err(failed("ecs:ListTasks"))?;
        if let Some(task) = list.task_arns().first() {
            return Ok(task.clone());
        }
    }
    let network = AwsVpcConfiguration::builder()
        .set_subnets(Some(platform.subnets.clone()))
        .set_security_groups(Some(platform.security_groups.clone()))
        .assign_public_ip(AssignPublicIp::Disabled)
        .build()
        .map_err(|error| engine::Error::fatal(OPERATION, "invalid-input", error.to_string()))?;
    let answer = aws
        .ecs
        .client
        .run_task()
        .cluster(&platform.cluster)
        .task_definition(definition)
        .launch_type(LaunchType::Fargate)
        .network_configuration(
            NetworkConfiguration::builder().awsvpc_configuration(network).build(),
        )
        .client_token(attempt)
        .started_by(attempt)
        .send()
        .await
        .map_err(failed(OPERATION))?;
    if let Some(task) = answer.tasks().first().and_then(Task::task_arn) {
        return Ok(task.to_owned());
    }
    let why = answer.failures().first().and_then(|failure| failure.reason()).unwrap_or("no task");
    let error = engine::Error::fatal(OPERATION, "not-started", why);
    // RunTask answers with 200 and a failure when Fargate has no room at the moment.
    Err(if why.contains("apacity") {
        engine::Error { class: Class::Throttled, ..error }
    } else {
        error
    })
}

/// The task; none for the moment in which ECS does not know yet what it has just started.
async fn describe(aws: &Aws, cluster: &str, task: &str) -> Result<Option<Task>, engine::Error> {
    let answer = aws.ecs.client.describe_tasks().cluster(cluster).tasks(task).send().await;
    Ok(answer.map_err(failed("ecs:DescribeTasks"))?.tasks.unwrap_or_default().into_iter().next())
}

async fn stop(aws: &Aws, cluster: &str, task: &str) -> Result<(), engine::Error> {
    let stop = aws.ecs.client.stop_task().cluster(cluster).task(task).reason("bme: took too long");
    stop.send().await.map_err(failed("ecs:StopTask"))?;
    Ok(())
}
