//! The flow log of the VPC.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ec2::types::{
    FlowLog as LiveLog, FlowLogsResourceType, LogDestinationType, ResourceType, TrafficType,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::vpc::Vpc;
use crate::{
    aws::{
        Aws, Label, Seen,
        ec2::{live_tags, refused, tag_specification},
        failed, once,
        permissions::tagging,
    },
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    steps::{compute::role::Role, observability::log_group::LogGroup},
};

/// Seconds over which connections are gathered into one line: the shorter of the two that AWS has.
const AGGREGATION_SECONDS: i32 = 60;

/// A flow log of everything in the VPC, written to `CloudWatch` Logs.
pub struct FlowLog {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// How long a new one may not be seen yet.
    pub lag: Duration,
    /// What is logged.
    pub vpc: Handle<Vpc>,
    /// Where it goes.
    pub log_group: Handle<LogGroup>,
    /// With which rights.
    pub role: Handle<Role>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct FlowLogOutput {
    /// `fl-…`.
    pub id: String,
}

#[async_trait]
impl Resource for FlowLog {
    type Output = FlowLogOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.vpc.id(), self.log_group.id(), self.role.id()]
    }

    /// By tags, or by what nothing else would do: log our VPC into our log group.
    async fn find(
        &self,
        outputs: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<FlowLogOutput>>, Error> {
        let vpc = outputs.when_observed(&self.vpc).await;
        let group = outputs.when_observed(&self.log_group).await;
        let logs = self.aws.ec2.flow_logs(since).await?;
        let found = logs.iter().find(|log| {
            self.label.matches(&live_tags(log.tags()))
                || vpc.as_ref().is_some_and(|vpc| log.resource_id() == Some(&vpc.id))
                    && group.as_ref().is_some_and(|group| log_group_name(log) == Some(&group.name))
        });
        Ok(found.map(|log| Live {
            properties: json!({
                "resourceId": log.resource_id(),
                "trafficType": log.traffic_type().map(TrafficType::as_str),
                "logGroupName": log_group_name(log),
                "tags": live_tags(log.tags()),
            }),
            condition: Condition::Ready,
            output: FlowLogOutput { id: log.flow_log_id().unwrap_or_default().to_owned() },
        }))
    }

    /// Role and aggregation are the same in every flow log of ours and can't be changed by anybody.
    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "resourceId": outputs.show(&self.vpc, |vpc| vpc.id.clone()),
            "trafficType": "ALL",
            "logGroupName": outputs.show(&self.log_group, |group| group.name.clone()),
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        const WHY: &str = "a flow log can't be changed, only made anew";
        &[("resourceId", WHY), ("trafficType", WHY), ("logGroupName", WHY)]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<FlowLogOutput>, Error> {
        const OPERATION: &str = "ec2:CreateFlowLogs";
        let (vpc, group) = (outputs.get(&self.vpc)?.id, outputs.get(&self.log_group)?.name);
        let role = outputs.get(&self.role)?.arn;
        let create = async |token: String| {
            let created = self
                .aws
                .ec2
                .client
                .create_flow_logs()
                .client_token(token)
                .resource_type(FlowLogsResourceType::Vpc)
                .resource_ids(&vpc)
                .traffic_type(TrafficType::All)
                .log_destination_type(LogDestinationType::CloudWatchLogs)
                .log_group_name(&group)
                // Trap 6: "Unable to assume given IAM role" for some seconds after its creation.
                .deliver_logs_permission_arn(&role)
                .max_aggregation_interval(AGGREGATION_SECONDS)
                .tag_specifications(tag_specification(&self.label, ResourceType::VpcFlowLog))
                .send()
                .await
                .map_err(failed(OPERATION))?;
            // The call succeeds and carries its refusals inside.
            if let Some(error) = created.unsuccessful().first().and_then(|item| item.error()) {
                return Err(refused(
                    OPERATION,
                    error.code().unwrap_or_default(),
                    error.message().unwrap_or_default(),
                ));
            }
            Ok(created.flow_log_ids().first().cloned().unwrap_or_default())
        };
        let look = async |id: String| {
            let logs = self.aws.ec2.flow_logs(Instant::now()).await?;
            let there = logs.iter().any(|log| log.flow_log_id() == Some(&id));
            Ok(if there { Seen::Living } else { Seen::Nothing })
        };
        let request = json!([vpc, group, role, self.label.tags]);
        // It was looked for, and is all that was asked for from its creation on.
        let id = once(&self.label, &request, self.lag, create, look).await?;
        Ok(Some(FlowLogOutput { id }))
    }

    async fn update(
        &self,
        live: &Live<FlowLogOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "tags") {
            self.aws.ec2.tag(&live.output.id, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<FlowLogOutput>) -> Result<(), Error> {
        const OPERATION: &str = "ec2:DeleteFlowLogs";
        let delete = self.aws.ec2.client.delete_flow_logs().flow_log_ids(&live.output.id);
        let deleted = delete.send().await.map_err(failed(OPERATION))?;
        match deleted.unsuccessful().first().and_then(|item| item.error()) {
            Some(error) => Err(refused(
                OPERATION,
                error.code().unwrap_or_default(),
                error.message().unwrap_or_default(),
            )),
            None => Ok(()),
        }
    }

    fn permissions(&self) -> Vec<Permission> {
        let (log, vpc) = (self.aws.arn("ec2", "vpc-flow-log/*"), self.aws.arn("ec2", "vpc/*"));
        let ours = self.label.resource_tagged();
        let mut permissions = vec![
            Permission::anywhere(["ec2:DescribeFlowLogs"]),
            Permission::on(["ec2:CreateFlowLogs"], [log.clone()])
                .only_if(self.label.request_tagged()),
            Permission::on(["ec2:CreateFlowLogs"], [vpc]).only_if(ours.clone()),
            Permission::on(["ec2:DeleteFlowLogs"], [log]).only_if(ours),
        ];
        permissions.extend(tagging(&self.aws, &self.label, "vpc-flow-log"));
        permissions
    }
}

/// What was given as a name may come back as a destination.
fn log_group_name(log: &LiveLog) -> Option<&str> {
    log.log_group_name().or(log.log_destination())
}
