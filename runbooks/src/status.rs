//! What `bme status` tells: the ten steps, the release, the services, the queue, the lock.

use serde::Serialize;

use crate::{
    aws::failed,
    engine::{Error, lock::Holder, plan::Action},
    release::{Release, records},
    session::Session,
    steps::STEPS,
};

/// The document of `status --output json`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The environment.
    pub env: String,
    /// Where it answers; null before the edge exists.
    pub url: Option<String>,
    /// The ten steps.
    pub steps: Vec<Step>,
    /// The release that runs.
    pub release: Option<Running>,
    /// The ECS services.
    pub services: Vec<Service>,
    /// The voice queue; null before it exists.
    pub queue: Option<Queue>,
    /// Who works on the environment now.
    pub lock: Option<Holder>,
}

/// One step.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// 1 to 10.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// How far it is.
    pub state: State,
    /// Its resources, counted.
    pub resources: Resources,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Everything is there and as it should be.
    Complete,
    /// Something is missing or on its way.
    Incomplete,
    /// Everything is there, but something differs.
    Drifted,
    /// Nothing is there.
    Absent,
}

/// Resources of a step, counted.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Resources {
    /// All.
    pub total: usize,
    /// As they should be.
    pub ready: usize,
    /// Not there, or on their way.
    pub missing: usize,
    /// There, but different.
    pub drifted: usize,
}

/// The release that runs.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// The git tag.
    pub tag: String,
    /// The image.
    pub digest: String,
    /// RFC 3339.
    pub deployed_at: String,
}

/// One ECS service.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// `api` or `worker`.
    pub name: String,
    /// Tasks wanted.
    pub desired: i32,
    /// Tasks running.
    pub running: i32,
    /// Tasks that the load balancer, or for a worker its own health check, calls healthy.
    pub healthy: i32,
    /// ARN of the task definition.
    pub task_definition: String,
}

/// The voice queue, in messages.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Waiting.
    pub visible: i64,
    /// Being worked on.
    pub in_flight: i64,
    /// In the dead-letter queue.
    pub dead: i64,
}

impl Session {
    /// Reads everything; changes nothing.
    pub async fn status(&self) -> Result<Status, Error> {
        // Whoever watches sees a deploy come: the release is that of now, not that of the first look.
        let release = self.timings.repeat(|| records::current(&self.state)).await?;
        let (plan, services, queue, lock, url) = tokio::try_join!(
            self.plan_with(release.clone()),
            self.services(),
            self.queue(),
            self.lock_holder(),
            self.url(),
        )?;
        let steps = STEPS
            .iter()
            .map(|(number, name, _)| {
                let mut resources = Resources::default();
                let mut exists = false;
                for change in plan.changes.iter().filter(|change| change.step == *name) {
                    resources.total += 1;
                    exists |= change.exists;
                    match change.action {
                        Action::None if change.ready => resources.ready += 1,
                        Action::Update | Action::Replace | Action::Delete => resources.drifted += 1,
                        Action::None | Action::Create | Action::Deferred => {
                            resources.missing += 1;
                        }
                    }
                }
                let state = match resources {
                    Resources { missing: 0, drifted: 0, .. } => State::Complete,
                    _ if !exists => State::Absent,
                    Resources { missing: 0, .. } => State::Drifted,
                    _ => State::Incomplete,
                };
                Step { number: *number, name, state, resources }
            })
            .collect();
        Ok(Status {
            env: self.environment.name.clone(),
            url,
            steps,
            release: release.map(|Release { tag, digest, deployed_at, .. }| Running {
                tag,
                digest,
                deployed_at,
            }),
            services,
            queue,
            lock,
        })
    }

    /// Where the environment answers: its own domain, the sandbox's load balancer, or the
    /// distribution's domain.
    pub async fn url(&self) -> Result<Option<String>, Error> {
        if let Some(url) = self.sandbox_url() {
            return Ok(Some(url.to_owned()));
        }
        if let Some(domain) = &self.environment.edge.domain {
            return Ok(Some(format!("https://{domain}")));
        }
        let comment = self.stack(None).label("edge", "distribution", 128).name;
        let pages = self.aws.cloudfront.client.list_distributions().into_paginator().send();
        let pages = pages
            .collect::<Result<Vec<_>, _>>()
            .await
            .map_err(failed("cloudfront:ListDistributions"))?;
        Ok(pages
            .iter()
            .filter_map(|page| page.distribution_list())
            .flat_map(aws_sdk_cloudfront::types::DistributionList::items)
            .find(|distribution| distribution.comment() == comment)
            .map(|distribution| format!("https://{}", distribution.domain_name())))
    }

    async fn services(&self) -> Result<Vec<Service>, Error> {
        let stack = self.stack(None);
        let cluster = stack.label("compute", "cluster", 255).name;
        let names = ["api", "worker"];
        let mut describe = self.aws.ecs.client.describe_services().cluster(&cluster);
        for name in names {
            describe = describe.services(stack.label("compute", name, 255).name);
        }
        let answer = match describe.send().await.map_err(failed("ecs:DescribeServices")) {
            Ok(answer) => answer,
            Err(error) if error.class == crate::engine::Class::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut services = Vec::new();
        for service in answer.services().iter().filter(|service| service.status() == Some("ACTIVE"))
        {
            let own = service.service_name().unwrap_or_default();
            let name = names.into_iter().find(|name| own == stack.label("compute", name, 255).name);
            let healthy = match service
                .load_balancers()
                .first()
                .and_then(|balancer| balancer.target_group_arn())
            {
                Some(arn) => self.healthy_targets(arn).await?,
                None => service.running_count(),
            };
            services.push(Service {
                name: name.unwrap_or(own).to_owned(),
                desired: service.desired_count(),
                running: service.running_count(),
                healthy,
                task_definition: service.task_definition().unwrap_or_default().to_owned(),
            });
        }
        Ok(services)
    }

    async fn healthy_targets(&self, arn: &str) -> Result<i32, Error> {
        let client = &self.aws.elasticloadbalancingv2.client;
        let health = client.describe_target_health().target_group_arn(arn).send().await;
        let health = health.map_err(failed("elasticloadbalancing:DescribeTargetHealth"))?;
        let healthy = health
            .target_health_descriptions()
            .iter()
            .filter(|target| {
                let state = target.target_health().and_then(|health| health.state());
                state
                    == Some(&aws_sdk_elasticloadbalancingv2::types::TargetHealthStateEnum::Healthy)
            })
            .count();
        Ok(i32::try_from(healthy).unwrap_or(i32::MAX))
    }

    async fn queue(&self) -> Result<Option<Queue>, Error> {
        let stack = self.stack(None);
        let voice = self.messages(&stack.label("queue", "voice", 80).name).await?;
        let dead = self.messages(&stack.label("queue", "voice-dead-letter", 80).name).await?;
        Ok(voice.map(|(visible, in_flight)| Queue {
            visible,
            in_flight,
            dead: dead.map_or(0, |(visible, in_flight)| visible + in_flight),
        }))
    }

    async fn messages(&self, name: &str) -> Result<Option<(i64, i64)>, Error> {
        use aws_sdk_sqs::types::QueueAttributeName::{
            ApproximateNumberOfMessages as Visible,
            ApproximateNumberOfMessagesNotVisible as InFlight,
        };
        let client = &self.aws.sqs.client;
        let url =
            client.get_queue_url().queue_name(name).send().await.map_err(failed("sqs:GetQueueUrl"));
        let Some(url) = crate::aws::not_found_is_none(url)? else { return Ok(None) };
        let attributes = client
            .get_queue_attributes()
            .set_queue_url(url.queue_url)
            .attribute_names(Visible)
            .attribute_names(InFlight)
            .send()
            .await
            .map_err(failed("sqs:GetQueueAttributes"))?;
        let count = |name| {
            attributes
                .attributes()
                .and_then(|map| map.get(&name))
                .and_then(|count| count.parse().ok())
                .unwrap_or(0)
        };
        Ok(Some((count(Visible), count(InFlight))))
    }
}
