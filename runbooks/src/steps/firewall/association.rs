//! The web ACL's place: the load balancer.

use async_trait::async_trait;
use aws_sdk_wafv2::types::ResourceType;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::web_acl::WebAcl;
use crate::{
    aws::{Aws, Label, failed, not_found_is_none},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId, diff::Field,
    },
    steps::compute::load_balancer::LoadBalancer,
};

/// The association of web ACL and load balancer.
pub struct Association {
    /// Its id. It takes no tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// The web ACL.
    pub web_acl: Handle<WebAcl>,
    /// The load balancer.
    pub load_balancer: Handle<LoadBalancer>,
}

#[async_trait]
impl Resource for Association {
    type Output = ();

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        vec![self.web_acl.id(), self.load_balancer.id()]
    }

    async fn find(&self, outputs: &Outputs, _: Instant) -> Result<Option<Live<()>>, Error> {
        let Some(acl) = outputs.when_observed(&self.web_acl).await else { return Ok(None) };
        let answer = self
            .aws
            .wafv2
            .client
            .list_resources_for_web_acl()
            .web_acl_arn(acl.arn)
            .resource_type(ResourceType::ApplicationLoadBalancer)
            .send()
            .await
            .map_err(failed("wafv2:ListResourcesForWebACL"));
        let arns = not_found_is_none(answer)?.and_then(|answer| answer.resource_arns);
        Ok(arns.unwrap_or_default().first().map(|arn| Live {
            properties: json!({ "resourceArn": arn }),
            condition: Condition::Ready,
            output: (),
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        json!({ "resourceArn": outputs.show(&self.load_balancer, |balancer| balancer.arn.clone()) })
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<()>, Error> {
        self.associate(outputs).await?;
        Ok(Some(()))
    }

    async fn update(&self, live: &Live<()>, _: &[Field], outputs: &Outputs) -> Result<(), Error> {
        self.delete(live).await?;
        self.associate(outputs).await
    }

    async fn delete(&self, live: &Live<()>) -> Result<(), Error> {
        self.aws
            .wafv2
            .client
            .disassociate_web_acl()
            .resource_arn(live.properties["resourceArn"].as_str().unwrap_or_default())
            .send()
            .await
            .map_err(failed("wafv2:DisassociateWebACL"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let acl = self.label.sibling(&self.web_acl.id(), 128);
        let acl = self.aws.arn("wafv2", &format!("regional/webacl/{acl}/*"));
        let balancer = self.label.sibling(&self.load_balancer.id(), 32);
        let balancer =
            self.aws.arn("elasticloadbalancing", &format!("loadbalancer/app/{balancer}/*"));
        vec![
            Permission::on(["wafv2:ListResourcesForWebACL"], [acl.clone()]),
            Permission::on(["wafv2:AssociateWebACL", "wafv2:DisassociateWebACL"], [acl, balancer]),
            // WAF tells the load balancer in the caller's name.
            Permission::anywhere(["elasticloadbalancing:SetWebACL"]),
        ]
    }
}

impl Association {
    async fn associate(&self, outputs: &Outputs) -> Result<(), Error> {
        self.aws
            .wafv2
            .client
            .associate_web_acl()
            .web_acl_arn(outputs.get(&self.web_acl)?.arn)
            .resource_arn(outputs.get(&self.load_balancer)?.arn)
            .send()
            .await
            .map_err(failed("wafv2:AssociateWebACL"))?;
        Ok(())
    }
}
