//! The `CloudFront` distribution.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_cloudfront::types::{
    Distribution as LiveDistribution, DistributionConfig, DistributionConfigWithTags,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    ORIGIN_KEY, OriginSecret,
    bucket::Bucket,
    distribution_config::{Settings, Wanted},
    distribution_members::{origin_header, shown},
    function::Function,
    origin_access_control::OriginAccessControl,
    response_headers_policy::ResponseHeadersPolicy,
};
use crate::{
    aws::{Aws, Label, Seen, appears, cloudfront::tags, failed},
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    steps::{compute::load_balancer::LoadBalancer, domain::Served},
};

/// The distribution: the web application from the bucket, the service from the load balancer.
pub struct Distribution {
    /// Id, tags, and the name, which is its comment: a distribution has no name of its own.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// How long a new one may not be seen yet.
    pub lag: Duration,
    /// What the environment decides.
    pub settings: Settings,
    /// The certificate of its domain.
    pub certificate: Option<Served>,
    /// Where the web application is.
    pub bucket: Handle<Bucket>,
    /// How it is read.
    pub origin_access_control: Handle<OriginAccessControl>,
    /// Headers of its responses.
    pub response_headers_policy: Handle<ResponseHeadersPolicy>,
    /// What every request goes through.
    pub function: Handle<Function>,
    /// Where the service is.
    pub load_balancer: Handle<LoadBalancer>,
    /// What proves to the load balancer that a request came through here.
    pub origin_secret: OriginSecret,
}

/// Distributions deleted by hand that a creation steps over.
const GENERATIONS: usize = 16;

/// What others need of it.
#[derive(Debug, Clone)]
pub struct DistributionOutput {
    /// `E…`.
    pub id: String,
    /// `arn:aws:cloudfront::…:distribution/…`.
    pub arn: String,
    /// `….cloudfront.net`.
    pub domain_name: String,
}

#[async_trait]
impl Resource for Distribution {
    type Output = DistributionOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let certificate = self.certificate.iter().flat_map(Served::needs);
        certificate
            .chain([
                self.bucket.id(),
                self.origin_access_control.id(),
                self.response_headers_policy.id(),
                self.function.id(),
                self.load_balancer.id(),
                self.origin_secret.id(),
            ])
            .collect()
    }

    async fn find(
        &self,
        outputs: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<DistributionOutput>>, Error> {
        let distributions = self.aws.cloudfront.distributions(since).await?;
        let Some(found) = distributions.iter().find(|found| self.label.matches(&found.tags)) else {
            return Ok(None);
        };
        let distribution = &found.distribution;
        let config = distribution.distribution_config();
        let mut properties = config.map_or_else(|| json!({}), shown);
        properties["originSecret"] = self.origin_secret_of(config, outputs).await?;
        properties["tags"] = json!(found.tags);
        Ok(Some(Live {
            properties,
            // Accepted is enough for those who need its name; Deployed means in all edge locations.
            condition: match distribution.status() {
                "Deployed" => Condition::Ready,
                _ => Condition::Usable,
            },
            output: output(distribution),
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let wanted = self.wanted(outputs, String::new());
        let mut desired = wanted.config(None).map_or_else(|_| json!({}), |config| shown(&config));
        desired["originSecret"] =
            outputs.show(&self.origin_secret, |secret| secret.fingerprint.clone());
        desired["tags"] = self.label.tags();
        desired
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<DistributionOutput>, Error> {
        let mut wanted = self.wanted(outputs, self.origin_secret(outputs).await?);
        let first = wanted.caller_reference.clone();
        for generation in 1..=GENERATIONS {
            match self.create_with(wanted.config(None)?).await {
                // By its code: a domain that another distribution has is `CNAMEAlreadyExists`.
                Err(error) if error.code == "DistributionAlreadyExists" => {}
                other => return other,
            }
            // Somebody has used the reference: a killed run of ours, whose distribution is there, or
            // one whose distribution was deleted by hand. A reference is never free again, so the
            // next one is taken; whoever asks for the same comes to the same one.
            if appears(self.lag, || self.look()).await? {
                return Ok(None);
            }
            wanted.caller_reference = self.label.token(&format!("{first} {generation}"));
        }
        let what = format!("{GENERATIONS} references of `{}` are used up", self.label.name);
        Err(Error::fatal("cloudfront:CreateDistribution", "no-reference", what)
            .with_hint("delete the origin access control of the same environment, then run again"))
    }

    /// Reads, changes, writes back with the `ETag`: `UpdateDistribution` resets what it is not given
    /// (trap 5).
    async fn update(
        &self,
        live: &Live<DistributionOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if fields.iter().any(|field| !field.path.starts_with("tags")) {
            let (now, e_tag) = self.config(&live.output.id).await?;
            let wanted = self.wanted(outputs, self.origin_secret(outputs).await?);
            self.write(&live.output.id, wanted.config(Some(now))?, e_tag).await?;
        }
        if touches(fields, "tags") {
            self.aws.cloudfront.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    /// Disables it, then waits until that is deployed, then deletes it (trap 8): one step a call.
    async fn delete(&self, live: &Live<DistributionOutput>) -> Result<(), Error> {
        let (mut now, e_tag) = self.config(&live.output.id).await?;
        if now.enabled {
            now.enabled = false;
            return self.write(&live.output.id, now, e_tag).await;
        }
        if live.condition != Condition::Ready {
            return Ok(());
        }
        self.aws
            .cloudfront
            .client
            .delete_distribution()
            .id(&live.output.id)
            .set_if_match(e_tag)
            .send()
            .await
            .map_err(failed("cloudfront:DeleteDistribution"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "cloudfront:DeleteDistribution",
            "cloudfront:GetDistribution",
            "cloudfront:GetDistributionConfig",
            "cloudfront:ListTagsForResource",
            "cloudfront:UpdateDistribution",
        ];
        // Their ids are generated, and which of them is ours only its tags say.
        let distributions = self.aws.global_arn("cloudfront", "distribution/*");
        let secret = self.label.sibling(&self.origin_secret.id(), 512);
        vec![
            Permission::anywhere(["cloudfront:ListDistributions"]),
            Permission::anywhere(["cloudfront:CreateDistribution"])
                .only_if(self.label.request_tagged()),
            Permission::on(["cloudfront:TagResource"], [distributions.clone()])
                .only_if(self.label.request_tagged()),
            Permission::on(actions, [distributions]),
            Permission::on(["secretsmanager:GetSecretValue"], [self.aws.secret_arn(&secret)]),
        ]
    }

    fn typical(&self) -> Duration {
        Duration::from_secs(170)
    }
}

impl Distribution {
    /// What was made, when it is deployed at once.
    async fn create_with(
        &self,
        config: DistributionConfig,
    ) -> Result<Option<DistributionOutput>, Error> {
        let config = DistributionConfigWithTags::builder()
            .distribution_config(config)
            .tags(tags(&self.label)?)
            .build();
        let create = self.aws.cloudfront.client.create_distribution_with_tags();
        let created = create.distribution_config_with_tags(config).send().await;
        let created = created.map_err(failed("cloudfront:CreateDistribution"))?;
        let deployed = created.distribution().filter(|made| made.status() == "Deployed");
        Ok(deployed.map(output))
    }

    async fn look(&self) -> Result<Seen, Error> {
        let distributions = self.aws.cloudfront.distributions(Instant::now()).await?;
        let there = distributions.iter().any(|found| self.label.matches(&found.tags));
        Ok(if there { Seen::Living } else { Seen::Nothing })
    }

    fn wanted(&self, outputs: &Outputs, origin_secret: String) -> Wanted<'_> {
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        Wanted {
            settings: &self.settings,
            comment: &self.label.name,
            // Our own reference: the same create twice makes one distribution. A reference that was
            // used once is refused, so it changes with the access control, which is made anew when
            // the environment is provisioned again after a destroy.
            caller_reference: self.label.token(&text(
                outputs.show(&self.origin_access_control, |control| control.id.clone()),
            )),
            bucket_domain: text(
                outputs.show(&self.bucket, |bucket| bucket.regional_domain_name.clone()),
            ),
            origin_access_control: text(
                outputs.show(&self.origin_access_control, |control| control.id.clone()),
            ),
            response_headers_policy: text(
                outputs.show(&self.response_headers_policy, |policy| policy.id.clone()),
            ),
            function: text(outputs.show(&self.function, |function| function.arn.clone())),
            certificate: self.certificate.as_ref().map(|served| text(served.show(outputs))),
            load_balancer_domain: text(
                outputs.show(&self.load_balancer, |balancer| balancer.dns_name.clone()),
            ),
            origin_secret,
        }
    }

    async fn origin_secret(&self, outputs: &Outputs) -> Result<String, Error> {
        let arn = outputs.get(&self.origin_secret)?.arn;
        self.aws.secretsmanager.value(&arn, ORIGIN_KEY).await
    }

    /// The fingerprint of the secret when the live header is what the secret holds now; otherwise
    /// only that it is another one. The value itself goes nowhere (trap 11).
    async fn origin_secret_of(
        &self,
        config: Option<&DistributionConfig>,
        outputs: &Outputs,
    ) -> Result<Value, Error> {
        let Some(secret) = outputs.when_observed(&self.origin_secret).await else {
            return Ok("another".into());
        };
        let value = self.aws.secretsmanager.value(&secret.arn, ORIGIN_KEY).await?;
        let same = config.and_then(origin_header) == Some(value.as_str());
        Ok(if same { secret.fingerprint } else { "another".into() }.into())
    }

    async fn config(&self, id: &str) -> Result<(DistributionConfig, Option<String>), Error> {
        let get = self.aws.cloudfront.client.get_distribution_config().id(id);
        let answer = get.send().await.map_err(failed("cloudfront:GetDistributionConfig"))?;
        let config = answer.distribution_config.ok_or_else(|| {
            Error::fatal(
                "cloudfront:GetDistributionConfig",
                "empty-answer",
                format!("no config of {id}"),
            )
        })?;
        Ok((config, answer.e_tag))
    }

    async fn write(
        &self,
        id: &str,
        config: DistributionConfig,
        e_tag: Option<String>,
    ) -> Result<(), Error> {
        self.aws
            .cloudfront
            .client
            .update_distribution()
            .id(id)
            .set_if_match(e_tag)
            .distribution_config(config)
            .send()
            .await
            .map_err(failed("cloudfront:UpdateDistribution"))?;
        Ok(())
    }
}

fn output(distribution: &LiveDistribution) -> DistributionOutput {
    DistributionOutput {
        id: distribution.id().to_owned(),
        arn: distribution.arn().to_owned(),
        domain_name: distribution.domain_name().to_owned(),
    }
}
