//! The listener of the load balancer.

use async_trait::async_trait;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, Certificate, FixedResponseActionConfig, Listener as LiveListener,
    ProtocolEnum,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::load_balancer::LoadBalancer;
use crate::{
    aws::{Aws, Label, elasticloadbalancingv2::tags, failed},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    steps::domain::Served,
};

/// HTTPS with a certificate, HTTP without one; either answers 403 to everybody, and a rule forwards
/// what carries the secret header, which only `CloudFront` knows.
pub struct Listener {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The load balancer.
    pub load_balancer: Handle<LoadBalancer>,
    /// The certificate for HTTPS.
    pub certificate: Option<Served>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct ListenerOutput {
    /// Its ARN.
    pub arn: String,
}

/// TLS 1.2 and 1.3 with forward secrecy: AWS's own recommendation for new listeners.
const TLS: &str = "ELBSecurityPolicy-TLS13-1-2-2021-06";

#[async_trait]
impl Resource for Listener {
    type Output = ListenerOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let certificate = self.certificate.iter().flat_map(Served::needs);
        certificate.chain([self.load_balancer.id()]).collect()
    }

    async fn find(
        &self,
        outputs: &Outputs,
        _: Instant,
    ) -> Result<Option<Live<ListenerOutput>>, Error> {
        let elb = &self.aws.elasticloadbalancingv2;
        let Some(load_balancer) = outputs.when_observed(&self.load_balancer).await else {
            return Ok(None);
        };
        let listeners = elb.listeners(&load_balancer.arn).await?;
        let arn_of =
            |listener: &LiveListener| listener.listener_arn().unwrap_or_default().to_owned();
        let tags = elb.live_tags(&listeners.iter().map(arn_of).collect::<Vec<_>>()).await?;
        // By tags, or by the port, of which a load balancer has one listener.
        let of = |listener: &LiveListener| tags.get(&arn_of(listener)).cloned().unwrap_or_default();
        let tagged = listeners.iter().find(|listener| self.label.matches(&of(listener)));
        let on_port = || listeners.iter().find(|listener| listener.port() == Some(self.port()));
        let Some(listener) = tagged.or_else(on_port) else {
            return Ok(None);
        };
        let certificate = listener.certificates().first().and_then(Certificate::certificate_arn);
        Ok(Some(Live {
            properties: json!({
                "port": listener.port(),
                "protocol": listener.protocol().map(ProtocolEnum::as_str),
                "sslPolicy": listener.ssl_policy(),
                "certificateArn": certificate,
                "defaultAction": listener.default_actions().first().map_or(Value::Null, action),
                "tags": of(listener),
            }),
            condition: Condition::Ready,
            output: ListenerOutput { arn: arn_of(listener) },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({
            "port": self.port(),
            "protocol": self.protocol().as_str(),
            "sslPolicy": self.certificate.as_ref().map(|_| TLS),
            "certificateArn": self.certificate.as_ref().map(|certificate| certificate.show(outputs)),
            "defaultAction": {"fixedResponse": "403"},
            "tags": self.label.tags(),
        })
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<ListenerOutput>, Error> {
        let created = self
            .aws
            .elasticloadbalancingv2
            .client
            .create_listener()
            .load_balancer_arn(outputs.get(&self.load_balancer)?.arn)
            .port(self.port())
            .protocol(self.protocol())
            .set_ssl_policy(self.certificate.as_ref().map(|_| TLS.into()))
            .set_certificates(self.certificates(outputs)?)
            .default_actions(refuse())
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("elasticloadbalancing:CreateListener"))?;
        let arn = created.listeners().first().and_then(LiveListener::listener_arn);
        Ok(Some(ListenerOutput { arn: arn.unwrap_or_default().to_owned() }))
    }

    async fn update(
        &self,
        live: &Live<ListenerOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if fields.iter().any(|field| !field.path.starts_with("tags")) {
            self.aws
                .elasticloadbalancingv2
                .client
                .modify_listener()
                .listener_arn(&live.output.arn)
                .port(self.port())
                .protocol(self.protocol())
                .set_ssl_policy(self.certificate.as_ref().map(|_| TLS.into()))
                .set_certificates(self.certificates(outputs)?)
                .default_actions(refuse())
                .send()
                .await
                .map_err(failed("elasticloadbalancing:ModifyListener"))?;
        }
        if touches(fields, "tags") {
            self.aws.elasticloadbalancingv2.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<ListenerOutput>) -> Result<(), Error> {
        let delete = self.aws.elasticloadbalancingv2.client.delete_listener();
        let delete = delete.listener_arn(&live.output.arn).send().await;
        delete.map_err(failed("elasticloadbalancing:DeleteListener"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "elasticloadbalancing:AddTags",
            "elasticloadbalancing:DeleteListener",
            "elasticloadbalancing:ModifyListener",
        ];
        let balancer = self.label.sibling(&self.load_balancer.id(), 32);
        let elb = |rest: String| self.aws.arn("elasticloadbalancing", &rest);
        vec![
            Permission::anywhere([
                "elasticloadbalancing:DescribeListeners",
                "elasticloadbalancing:DescribeTags",
            ]),
            Permission::on(
                ["elasticloadbalancing:CreateListener"],
                [elb(format!("loadbalancer/app/{balancer}/*"))],
            ),
            Permission::on(actions, [elb(format!("listener/app/{balancer}/*"))]),
        ]
    }

    fn interrupts(&self, path: &str) -> bool {
        // CloudFront goes on speaking the old protocol to the old port until it is told otherwise.
        path.starts_with("port") || path.starts_with("protocol")
    }
}

impl Listener {
    fn port(&self) -> i32 {
        if self.certificate.is_some() { 443 } else { 80 }
    }

    fn protocol(&self) -> ProtocolEnum {
        if self.certificate.is_some() { ProtocolEnum::Https } else { ProtocolEnum::Http }
    }

    fn certificates(&self, outputs: &Outputs) -> Result<Option<Vec<Certificate>>, Error> {
        let Some(certificate) = &self.certificate else { return Ok(None) };
        let arn = certificate.arn(outputs)?;
        Ok(Some(vec![Certificate::builder().certificate_arn(arn).build()]))
    }
}

/// The action that answers 403.
fn refuse() -> Action {
    let refuse = FixedResponseActionConfig::builder()
        .status_code("403")
        .content_type("text/plain")
        .message_body("Forbidden")
        .build();
    Action::builder().r#type(ActionTypeEnum::FixedResponse).fixed_response_config(refuse).build()
}

/// The action that forwards to a target group.
pub(super) fn forward(target_group: &str) -> Action {
    Action::builder().r#type(ActionTypeEnum::Forward).target_group_arn(target_group).build()
}

/// An action, as the members of a desired state name it.
pub(super) fn action(action: &Action) -> Value {
    match action.r#type() {
        Some(ActionTypeEnum::Forward) => json!({"forward": action.target_group_arn()}),
        Some(ActionTypeEnum::FixedResponse) => {
            json!({"fixedResponse": action.fixed_response_config().and_then(|fixed| fixed.status_code())})
        }
        other => json!({"other": other.map(ActionTypeEnum::as_str)}),
    }
}
