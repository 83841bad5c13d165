//! The last words of a task.

use aws_sdk_ecs::types::{ContainerDefinition, LogDriver, Task, TaskDefinition};
use tokio::time::Instant;

use crate::{
    aws::{Aws, failed},
    engine::{Timings, pause},
};

/// Lines that an error carries.
const LINES: i32 = 20;

/// The last lines of the containers of a task that has stopped, of those that failed if any did.
/// Empty when it never ran, or when they can't be read: they explain an error and must not hide it.
pub(super) async fn tail(
    aws: &Aws,
    timings: &Timings,
    definition: &TaskDefinition,
    task: &Task,
) -> Vec<String> {
    let start = Instant::now();
    let failed = |name: &str| {
        let mut containers = task.containers().iter();
        containers
            .any(|container| container.name() == Some(name) && container.exit_code() != Some(0))
    };
    let streams: Vec<_> = definition
        .container_definitions()
        .iter()
        .filter(|container| failed(container.name().unwrap_or_default()))
        .filter_map(|container| stream(container, task.task_arn().unwrap_or_default()))
        .collect();
    // The agent hands lines in every few seconds, so the last ones come after the task has stopped.
    loop {
        let mut lines = Vec::new();
        for (group, stream) in &streams {
            match read(aws, group, stream).await {
                Ok(read) => lines.extend(read),
                Err(error) => tracing::debug!(%error, group, stream, "no log lines"),
            }
        }
        let never_ran = task.started_at().is_none();
        if !lines.is_empty()
            || never_ran
            || streams.is_empty()
            || start.elapsed() > timings.poll * 3
        {
            return lines;
        }
        pause(timings.poll()).await;
    }
}

/// Group and stream of a container, by the naming of the awslogs driver (ECS Developer Guide).
fn stream(container: &ContainerDefinition, task_arn: &str) -> Option<(String, String)> {
    let log =
        container.log_configuration().filter(|log| *log.log_driver() == LogDriver::Awslogs)?;
    let options = log.options()?;
    let task = task_arn.rsplit('/').next()?;
    let prefix = options.get("awslogs-stream-prefix")?;
    Some((options.get("awslogs-group")?.clone(), format!("{prefix}/{}/{task}", container.name()?)))
}

async fn read(aws: &Aws, group: &str, stream: &str) -> Result<Vec<String>, crate::engine::Error> {
    let answer = aws
        .cloudwatchlogs
        .client
        .get_log_events()
        .log_group_name(group)
        .log_stream_name(stream)
        .start_from_head(false)
        .limit(LINES)
        .send()
        .await
        .map_err(failed("logs:GetLogEvents"))?;
    Ok(answer.events().iter().filter_map(|event| event.message().map(ToOwned::to_owned)).collect())
}

/// Why a task stopped, in ECS's words and its containers'.
pub(super) fn reason(task: &Task) -> String {
    let mut reason =
        task.stopped_reason().unwrap_or("the task stopped without a reason").to_owned();
    for container in task.containers() {
        let name = container.name().unwrap_or_default();
        if let Some(code) = container.exit_code().filter(|code| *code != 0) {
            reason = format!("{reason}; {name} exited with {code}");
        }
        if let Some(why) = container.reason().filter(|why| !why.is_empty() && !reason.contains(why))
        {
            reason = format!("{reason}; {name}: {why}");
        }
    }
    reason
}
