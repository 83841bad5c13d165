//! The ECS cluster.

use async_trait::async_trait;
use aws_sdk_ecs::types::{ClusterSetting, ClusterSettingName};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{
        Aws, Label,
        ecs::{live_tags, tags},
        failed,
        permissions::service_linked_role,
    },
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// A cluster for Fargate tasks.
pub struct Cluster {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Metrics of every task, which `CloudWatch` charges for.
    pub container_insights: bool,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct ClusterOutput {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
}

#[async_trait]
impl Resource for Cluster {
    type Output = ClusterOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<ClusterOutput>>, Error> {
        let Some(cluster) = self.aws.ecs.cluster(&self.label.name).await? else {
            return Ok(None);
        };
        let tags = live_tags(cluster.tags());
        self.label.adopt(&tags)?;
        let insights = cluster
            .settings()
            .iter()
            .find(|setting| setting.name() == Some(&ClusterSettingName::ContainerInsights));
        let state = || cluster.status().unwrap_or_default().to_lowercase();
        Ok(Some(Live {
            properties: json!({
                "containerInsights": insights.and_then(ClusterSetting::value),
                "tags": tags,
            }),
            condition: match cluster.status() {
                Some("ACTIVE") => Condition::Ready,
                Some("DEPROVISIONING") => Condition::Deleting(state()),
                Some("FAILED") => Condition::Failed("its capacity providers failed".into()),
                _ => Condition::Pending(state()),
            },
            output: self.output(cluster.cluster_arn()),
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({"containerInsights": self.insights(), "tags": self.label.tags()})
    }

    async fn create(&self, _: &Outputs) -> Result<Option<ClusterOutput>, Error> {
        let created = self
            .aws
            .ecs
            .client
            .create_cluster()
            .cluster_name(&self.label.name)
            .settings(self.setting())
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("ecs:CreateCluster"))?;
        Ok(created.cluster().map(|cluster| self.output(cluster.cluster_arn())))
    }

    async fn update(
        &self,
        live: &Live<ClusterOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "containerInsights") {
            let update = self.aws.ecs.client.update_cluster_settings().cluster(&self.label.name);
            let update = update.settings(self.setting());
            update.send().await.map_err(failed("ecs:UpdateClusterSettings"))?;
        }
        if touches(fields, "tags") {
            self.aws.ecs.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<ClusterOutput>) -> Result<(), Error> {
        let delete = self.aws.ecs.client.delete_cluster().cluster(&live.output.arn);
        delete.send().await.map_err(failed("ecs:DeleteCluster"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "ecs:CreateCluster",
            "ecs:DeleteCluster",
            "ecs:DescribeClusters",
            "ecs:TagResource",
            "ecs:UpdateClusterSettings",
        ];
        vec![
            Permission::on(actions, [self.aws.arn("ecs", &format!("cluster/{}", self.label.name))]),
            service_linked_role(&self.aws, "ecs.amazonaws.com"),
        ]
    }
}

impl Cluster {
    fn output(&self, arn: Option<&str>) -> ClusterOutput {
        ClusterOutput { arn: arn.unwrap_or_default().to_owned(), name: self.label.name.clone() }
    }

    fn insights(&self) -> &'static str {
        if self.container_insights { "enabled" } else { "disabled" }
    }

    fn setting(&self) -> ClusterSetting {
        let setting = ClusterSetting::builder().name(ClusterSettingName::ContainerInsights);
        setting.value(self.insights()).build()
    }
}
