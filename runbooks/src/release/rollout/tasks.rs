//! What ECS and the load balancer say about the tasks of a service.

use aws_sdk_ecs::types::{Attachment, DesiredStatus, Service, Task, TaskStopCode};
use aws_sdk_elasticloadbalancingv2::types::TargetHealthStateEnum;

use crate::{
    aws::{Aws, failed},
    engine::Error,
    release::{Platform, log},
};

/// ECS tries again by itself; that helps only against a lack of room.
pub(super) fn is_final(task: &Task) -> bool {
    let reason = log::reason(task);
    let room = ["Capacity is unavailable", "network interface provisioning"];
    match task.stop_code() {
        Some(TaskStopCode::EssentialContainerExited) => true,
        Some(TaskStopCode::TaskFailedToStart) => !room.iter().any(|text| reason.contains(text)),
        _ => reason.contains("CannotPullContainerError"),
    }
}

/// The task's own address, under which it is in the target group.
pub(super) fn address(task: &Task) -> Option<String> {
    let interface =
        task.attachments().iter().find(|one| one.r#type() == Some("ElasticNetworkInterface"));
    let mut details = interface.map(Attachment::details).unwrap_or_default().iter();
    details
        .find(|pair| pair.name() == Some("privateIPv4Address"))
        .and_then(|pair| pair.value().map(ToOwned::to_owned))
}

/// The services of the platform.
pub(super) async fn describe(aws: &Aws, platform: &Platform) -> Result<Vec<Service>, Error> {
    let names = platform.services.iter().map(|service| service.name.clone()).collect();
    let describe = aws.ecs.client.describe_services().cluster(&platform.cluster);
    let answer = describe.set_services(Some(names)).send().await;
    Ok(answer.map_err(failed("ecs:DescribeServices"))?.services.unwrap_or_default())
}

/// The tasks of a service, at most the 100 that one call describes.
pub(super) async fn tasks(
    aws: &Aws,
    cluster: &str,
    service: &str,
    desired: DesiredStatus,
) -> Result<Vec<Task>, Error> {
    let list = aws.ecs.client.list_tasks().cluster(cluster).service_name(service);
    let list = list.desired_status(desired).send().await.map_err(failed("ecs:ListTasks"))?;
    if list.task_arns().is_empty() {
        return Ok(Vec::new());
    }
    let describe = aws.ecs.client.describe_tasks().cluster(cluster).set_tasks(list.task_arns);
    Ok(describe.send().await.map_err(failed("ecs:DescribeTasks"))?.tasks.unwrap_or_default())
}

/// Addresses that the target group calls healthy.
pub(super) async fn healthy(aws: &Aws, group: &str) -> Result<Vec<String>, Error> {
    let describe =
        aws.elasticloadbalancingv2.client.describe_target_health().target_group_arn(group);
    let answer =
        describe.send().await.map_err(failed("elasticloadbalancing:DescribeTargetHealth"))?;
    let targets = answer.target_health_descriptions().iter().filter(|target| {
        target.target_health().and_then(|health| health.state())
            == Some(&TargetHealthStateEnum::Healthy)
    });
    Ok(targets.filter_map(|target| target.target()?.id().map(ToOwned::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::Container;

    use super::*;

    fn stopped(code: TaskStopCode, reason: &str, container: Container) -> Task {
        Task::builder().stop_code(code).stopped_reason(reason).containers(container).build()
    }

    #[test]
    fn a_task_that_ended_by_itself_is_final_and_says_why() {
        let container = Container::builder().name("api").exit_code(1).build();
        let task = stopped(
            TaskStopCode::EssentialContainerExited,
            "Essential container in task exited",
            container,
        );
        assert!(is_final(&task));
        assert_eq!(log::reason(&task), "Essential container in task exited; api exited with 1");
    }

    #[test]
    fn a_missing_image_is_final() {
        let container = Container::builder()
            .name("api")
            .reason("CannotPullContainerError: manifest unknown")
            .build();
        let task = stopped(TaskStopCode::TaskFailedToStart, "Task failed to start", container);
        assert!(is_final(&task));
        assert!(log::reason(&task).ends_with("api: CannotPullContainerError: manifest unknown"));
    }

    #[test]
    fn a_lack_of_room_and_a_drain_are_not_final() {
        let none = || Container::builder().name("api").build();
        let room = "Capacity is unavailable at this time. Please try again later";
        assert!(!is_final(&stopped(TaskStopCode::TaskFailedToStart, room, none())));
        let drained = Container::builder().name("api").exit_code(0).build();
        assert!(!is_final(&stopped(
            TaskStopCode::ServiceSchedulerInitiated,
            "Scaling activity",
            drained
        )));
    }
}
