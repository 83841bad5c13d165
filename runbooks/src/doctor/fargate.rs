//! vCPUs that run on Fargate now. No call tells the sum: every cluster's tasks are described.

use aws_sdk_ecs::types::{LaunchType, Task};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    aws::{Aws, failed},
    engine::Error,
};

/// Clusters asked for at once.
const ABREAST: usize = 4;

/// The most tasks that one call describes (Amazon ECS API reference, `DescribeTasks`).
const DESCRIBED: usize = 100;

/// vCPUs of running On-Demand tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Running {
    /// In all clusters.
    pub(super) all: f64,
    /// In the cluster that was named.
    pub(super) ours: f64,
}

/// Sums up the tasks of all clusters; `ours` is the name of this environment's.
pub(super) async fn running(aws: &Aws, ours: &str) -> Result<Running, Error> {
    let pages = aws.ecs.client.list_clusters().into_paginator().items().send();
    let clusters =
        pages.collect::<Result<Vec<_>, _>>().await.map_err(failed("ecs:ListClusters"))?;
    let sums = clusters.into_iter().map(|cluster| async move {
        let sum = in_cluster(aws, &cluster).await?;
        let is_ours = cluster.rsplit('/').next() == Some(ours);
        Ok::<_, Error>(Running { all: sum, ours: if is_ours { sum } else { 0.0 } })
    });
    let sums: Vec<Running> = stream::iter(sums).buffer_unordered(ABREAST).try_collect().await?;
    Ok(sums.iter().fold(Running::default(), |total, one| Running {
        all: total.all + one.all,
        ours: total.ours + one.ours,
    }))
}

async fn in_cluster(aws: &Aws, cluster: &str) -> Result<f64, Error> {
    let pages = aws.ecs.client.list_tasks().cluster(cluster).into_paginator().items().send();
    let tasks = pages.collect::<Result<Vec<_>, _>>().await.map_err(failed("ecs:ListTasks"))?;
    let mut sum = 0.0;
    for some in tasks.chunks(DESCRIBED) {
        let describe = aws.ecs.client.describe_tasks().cluster(cluster);
        let answer = describe.set_tasks(Some(some.to_vec())).send().await;
        let answer = answer.map_err(failed("ecs:DescribeTasks"))?;
        sum += answer.tasks().iter().map(vcpus).sum::<f64>();
    }
    Ok(sum)
}

/// vCPUs of a task that counts; Fargate Spot has a quota of its own.
fn vcpus(task: &Task) -> f64 {
    let counts = task.launch_type() == Some(&LaunchType::Fargate)
        && task.capacity_provider_name() != Some("FARGATE_SPOT");
    let units = task.cpu().and_then(|cpu| cpu.parse::<f64>().ok()).unwrap_or_default();
    if counts { units / 1024.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_on_demand_tasks_on_fargate_count() {
        let task = Task::builder().cpu("512").launch_type(LaunchType::Fargate);
        let half = vcpus(&task.clone().build());
        assert!((half - 0.5).abs() < f64::EPSILON, "{half}");
        let spot = vcpus(&task.clone().capacity_provider_name("FARGATE_SPOT").build());
        let own = vcpus(&task.launch_type(LaunchType::Ec2).build());
        assert!(spot + own < f64::EPSILON, "{spot} and {own}");
    }
}
