//! The bounds within which Application Auto Scaling keeps an ECS service.

use async_trait::async_trait;
use aws_sdk_applicationautoscaling::types::{
    ScalableDimension, ScalableTarget as LiveTarget, ServiceNamespace,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ecs_service::EcsService;
use crate::{
    aws::{Aws, Label, applicationautoscaling::of_ecs, failed, permissions::service_linked_role},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// The bounds of one service.
pub struct ScalableTarget {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The service.
    pub service: Handle<EcsService>,
    /// `service/CLUSTER/SERVICE`.
    pub resource_id: String,
    /// Tasks that always run.
    pub minimum: i32,
    /// Most tasks.
    pub maximum: i32,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct ScalableTargetOutput {
    /// Its ARN.
    pub arn: String,
}

#[async_trait]
impl Resource for ScalableTarget {
    type Output = ScalableTargetOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.service.id()]
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<ScalableTargetOutput>>, Error> {
        let all = self.aws.applicationautoscaling.scalable_targets(since).await?;
        let ours = |target: &&LiveTarget| {
            target.resource_id() == self.resource_id
                && *target.scalable_dimension() == ScalableDimension::EcsServiceDesiredCount
        };
        let Some(target) = all.iter().find(ours) else {
            return Ok(None);
        };
        let arn = target.scalable_target_arn().unwrap_or_default();
        let list = self.aws.applicationautoscaling.client.list_tags_for_resource();
        let tags = list.resource_arn(arn).send().await;
        let tags = tags.map_err(failed("application-autoscaling:ListTagsForResource"))?;
        Ok(Some(Live {
            properties: json!({
                "minCapacity": target.min_capacity(),
                "maxCapacity": target.max_capacity(),
                "tags": tags.tags(),
            }),
            condition: Condition::Ready,
            output: ScalableTargetOutput { arn: arn.to_owned() },
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "minCapacity": self.minimum,
            "maxCapacity": self.maximum,
            "tags": self.label.tags(),
        })
    }

    async fn create(&self, _: &Outputs) -> Result<Option<ScalableTargetOutput>, Error> {
        let arn = self.register(true).await?;
        Ok(Some(ScalableTargetOutput { arn }))
    }

    async fn update(
        &self,
        live: &Live<ScalableTargetOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "minCapacity") || touches(fields, "maxCapacity") {
            self.register(false).await?;
        }
        if touches(fields, "tags") {
            let tag = self.aws.applicationautoscaling.client.tag_resource();
            let tag = tag.resource_arn(&live.output.arn);
            let tag = tag.set_tags(Some(self.label.tags.clone().into_iter().collect()));
            tag.send().await.map_err(failed("application-autoscaling:TagResource"))?;
        }
        Ok(())
    }

    async fn delete(&self, _: &Live<ScalableTargetOutput>) -> Result<(), Error> {
        self.aws
            .applicationautoscaling
            .client
            .deregister_scalable_target()
            .service_namespace(ServiceNamespace::Ecs)
            .resource_id(&self.resource_id)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
            .send()
            .await
            .map_err(failed("application-autoscaling:DeregisterScalableTarget"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        // Their ids are generated.
        let targets = self.aws.arn("application-autoscaling", "scalable-target/*");
        vec![
            Permission::anywhere(["application-autoscaling:DescribeScalableTargets"]),
            Permission::on(
                [
                    "application-autoscaling:DeregisterScalableTarget",
                    "application-autoscaling:RegisterScalableTarget",
                ],
                [targets.clone()],
            )
            .only_if(of_ecs()),
            Permission::on(
                [
                    "application-autoscaling:ListTagsForResource",
                    "application-autoscaling:TagResource",
                ],
                [targets],
            ),
            service_linked_role(&self.aws, "ecs.application-autoscaling.amazonaws.com"),
        ]
    }
}

impl ScalableTarget {
    /// Registers the bounds. Tags are only taken by the first registration.
    async fn register(&self, first: bool) -> Result<String, Error> {
        let tags = first.then(|| self.label.tags.clone().into_iter().collect());
        let registered = self
            .aws
            .applicationautoscaling
            .client
            .register_scalable_target()
            .service_namespace(ServiceNamespace::Ecs)
            .resource_id(&self.resource_id)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
            .min_capacity(self.minimum)
            .max_capacity(self.maximum)
            .set_tags(tags)
            .send()
            .await
            .map_err(failed("application-autoscaling:RegisterScalableTarget"))?;
        Ok(registered.scalable_target_arn.unwrap_or_default())
    }
}
