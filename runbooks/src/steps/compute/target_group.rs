//! The target group of the API's tasks.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_elasticloadbalancingv2::types::{
    Matcher, ProtocolEnum, TargetGroup as LiveTargetGroup, TargetGroupAttribute, TargetTypeEnum,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, elasticloadbalancingv2::tags, failed},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    steps::network::vpc::Vpc,
};

/// Where the load balancer sends requests: tasks, each by its own address.
pub struct TargetGroup {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The VPC of the tasks.
    pub vpc: Handle<Vpc>,
    /// The port that the containers listen on.
    pub port: i32,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct TargetGroupOutput {
    /// Its ARN.
    pub arn: String,
    /// `targetgroup/name/id`, the dimension `TargetGroup` of its metrics.
    pub full_name: String,
}

/// Trap 16: `/health` says that the process serves. `/ready` also asks database and cache; here, a
/// short failure of one of them would have ECS replace every task.
const HEALTH: &str = "/health";

/// Seconds between two checks; two in a row decide, so a task takes requests 10 s after its start.
const INTERVAL: i32 = 5;

/// Seconds that a check may take; less than the interval.
const TIMEOUT: i32 = 4;

/// Checks in a row that decide.
const THRESHOLD: i32 = 2;

/// Seconds that a target which leaves may finish its requests; the service stops within 25 s.
const DEREGISTRATION_DELAY: &str = "10";

#[async_trait]
impl Resource for TargetGroup {
    type Output = TargetGroupOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.vpc.id()]
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<TargetGroupOutput>>, Error> {
        let elb = &self.aws.elasticloadbalancingv2;
        let all = elb.target_groups(since).await?;
        let named = |found: &&LiveTargetGroup| found.target_group_name() == Some(&self.label.name);
        let Some(found) = all.iter().find(named) else {
            return Ok(None);
        };
        let arn = found.target_group_arn().unwrap_or_default().to_owned();
        let arns = [arn.clone()];
        let (mut tags, attributes) =
            futures::try_join!(elb.live_tags(&arns), self.live_attributes(&arn))?;
        let tags = tags.remove(&arn).unwrap_or_default();
        self.label.adopt(&tags)?;
        Ok(Some(Live {
            properties: json!({
                "vpcId": found.vpc_id(),
                "targetType": found.target_type().map(TargetTypeEnum::as_str),
                "protocol": found.protocol().map(ProtocolEnum::as_str),
                "port": found.port(),
                "healthCheck": {
                    "protocol": found.health_check_protocol().map(ProtocolEnum::as_str),
                    "port": found.health_check_port(),
                    "path": found.health_check_path(),
                    "intervalSeconds": found.health_check_interval_seconds(),
                    "timeoutSeconds": found.health_check_timeout_seconds(),
                    "healthyThresholdCount": found.healthy_threshold_count(),
                    "unhealthyThresholdCount": found.unhealthy_threshold_count(),
                    "httpCode": found.matcher().and_then(Matcher::http_code),
                },
                "attributes": attributes,
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: output(&arn),
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "vpcId": outputs.show(&self.vpc, |vpc| vpc.id.clone()),
            "targetType": "ip",
            "protocol": "HTTP",
            "port": self.port,
            "healthCheck": {
                "protocol": "HTTP",
                "port": "traffic-port",
                "path": HEALTH,
                "intervalSeconds": INTERVAL,
                "timeoutSeconds": TIMEOUT,
                "healthyThresholdCount": THRESHOLD,
                "unhealthyThresholdCount": THRESHOLD,
                "httpCode": "200",
            },
            "attributes": attributes(),
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("vpcId", "the VPC of a target group is fixed at its creation"),
            ("targetType", "the target type is fixed at its creation"),
            ("protocol", "the protocol of a target group is fixed at its creation"),
            ("port", "the port of a target group is fixed at its creation"),
        ]
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<TargetGroupOutput>, Error> {
        let created = self
            .aws
            .elasticloadbalancingv2
            .client
            .create_target_group()
            .name(&self.label.name)
            .vpc_id(outputs.get(&self.vpc)?.id)
            .target_type(TargetTypeEnum::Ip)
            .protocol(ProtocolEnum::Http)
            .port(self.port)
            .health_check_protocol(ProtocolEnum::Http)
            .health_check_port("traffic-port")
            .health_check_path(HEALTH)
            .health_check_interval_seconds(INTERVAL)
            .health_check_timeout_seconds(TIMEOUT)
            .healthy_threshold_count(THRESHOLD)
            .unhealthy_threshold_count(THRESHOLD)
            .matcher(Matcher::builder().http_code("200").build())
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("elasticloadbalancing:CreateTargetGroup"))?;
        let arn = created.target_groups().first().and_then(LiveTargetGroup::target_group_arn);
        let arn = arn.unwrap_or_default();
        // Killed before this, the next run's comparison finds the attributes.
        self.set_attributes(arn).await?;
        Ok(Some(output(arn)))
    }

    async fn update(
        &self,
        live: &Live<TargetGroupOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        let arn = &live.output.arn;
        if touches(fields, "healthCheck") {
            self.aws
                .elasticloadbalancingv2
                .client
                .modify_target_group()
                .target_group_arn(arn)
                .health_check_protocol(ProtocolEnum::Http)
                .health_check_port("traffic-port")
                .health_check_path(HEALTH)
                .health_check_interval_seconds(INTERVAL)
                .health_check_timeout_seconds(TIMEOUT)
                .healthy_threshold_count(THRESHOLD)
                .unhealthy_threshold_count(THRESHOLD)
                .matcher(Matcher::builder().http_code("200").build())
                .send()
                .await
                .map_err(failed("elasticloadbalancing:ModifyTargetGroup"))?;
        }
        if touches(fields, "attributes") {
            self.set_attributes(arn).await?;
        }
        if touches(fields, "tags") {
            self.aws.elasticloadbalancingv2.tag(arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<TargetGroupOutput>) -> Result<(), Error> {
        let delete = self.aws.elasticloadbalancingv2.client.delete_target_group();
        let delete = delete.target_group_arn(&live.output.arn).send().await;
        delete.map_err(failed("elasticloadbalancing:DeleteTargetGroup"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "elasticloadbalancing:AddTags",
            "elasticloadbalancing:CreateTargetGroup",
            "elasticloadbalancing:DeleteTargetGroup",
            "elasticloadbalancing:ModifyTargetGroup",
            "elasticloadbalancing:ModifyTargetGroupAttributes",
        ];
        let group = format!("targetgroup/{}/*", self.label.name);
        vec![
            Permission::anywhere([
                "elasticloadbalancing:DescribeTags",
                "elasticloadbalancing:DescribeTargetGroupAttributes",
                "elasticloadbalancing:DescribeTargetGroups",
            ]),
            Permission::on(actions, [self.aws.arn("elasticloadbalancing", &group)]),
        ]
    }
}

impl TargetGroup {
    async fn live_attributes(&self, arn: &str) -> Result<BTreeMap<String, String>, Error> {
        let describe = self.aws.elasticloadbalancingv2.client.describe_target_group_attributes();
        let answer = describe.target_group_arn(arn).send().await;
        let answer =
            answer.map_err(failed("elasticloadbalancing:DescribeTargetGroupAttributes"))?;
        let ours = attributes();
        Ok(answer
            .attributes()
            .iter()
            .filter(|attribute| attribute.key().is_some_and(|key| ours.contains_key(key)))
            .filter_map(|attribute| Some((attribute.key()?.into(), attribute.value()?.into())))
            .collect())
    }

    async fn set_attributes(&self, arn: &str) -> Result<(), Error> {
        let attributes = attributes()
            .into_iter()
            .map(|(key, value)| TargetGroupAttribute::builder().key(key).value(value).build())
            .collect();
        self.aws
            .elasticloadbalancingv2
            .client
            .modify_target_group_attributes()
            .target_group_arn(arn)
            .set_attributes(Some(attributes))
            .send()
            .await
            .map_err(failed("elasticloadbalancing:ModifyTargetGroupAttributes"))?;
        Ok(())
    }
}

fn attributes() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([("deregistration_delay.timeout_seconds", DEREGISTRATION_DELAY)])
}

fn output(arn: &str) -> TargetGroupOutput {
    let (_, full_name) = arn.rsplit_once(':').unwrap_or_default();
    TargetGroupOutput { arn: arn.to_owned(), full_name: full_name.to_owned() }
}
