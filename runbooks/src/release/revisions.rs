//! What releases leave in ECS: a revision of a task definition for each of them.

use aws_sdk_ecs::types::TaskDefinitionStatus;

use crate::{
    aws::{Aws, failed},
    engine::Error,
    steps::Stack,
};

/// Families that a release registers.
const FAMILIES: [&str; 3] = ["api", "worker", "migrate"];

/// Removes every revision of every release of the environment. Repeating it finds nothing.
///
/// # Errors
/// ECS refused or did not answer; what was removed is removed.
pub async fn remove_task_definitions(stack: &Stack) -> Result<(), Error> {
    for family in FAMILIES {
        remove(&stack.aws, &stack.label("compute", family, 255).name).await?;
    }
    Ok(())
}

async fn remove(aws: &Aws, family: &str) -> Result<(), Error> {
    let client = &aws.ecs.client;
    for revision in aws.ecs.revisions(family, TaskDefinitionStatus::Active).await? {
        let deregister = client.deregister_task_definition().task_definition(revision);
        deregister.send().await.map_err(failed("ecs:DeregisterTaskDefinition"))?;
    }
    // Only what is deregistered can be deleted, ten in one call (ECS API reference).
    for revisions in aws.ecs.revisions(family, TaskDefinitionStatus::Inactive).await?.chunks(10) {
        let delete =
            client.delete_task_definitions().set_task_definitions(Some(revisions.to_vec()));
        delete.send().await.map_err(failed("ecs:DeleteTaskDefinitions"))?;
    }
    Ok(())
}
