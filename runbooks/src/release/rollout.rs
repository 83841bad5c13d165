//! Watches a rollout at task level: told good only when the new tasks serve, told bad at the first
//! task that can't run.
//!
//! A service is judged by its PRIMARY deployment's id: failed deployments stay in the list, and a
//! circuit breaker that puts the old one back makes that PRIMARY again.

mod probe;
mod tasks;

use std::{collections::HashMap, time::Duration};

use aws_sdk_ecs::types::{
    Deployment, DeploymentRolloutState, DesiredStatus, Service as Live, Task, TaskDefinition,
    TaskStopCode,
};
use aws_smithy_types::DateTime;
use tokio::time::Instant;

use super::{Error, Platform, Progress, Release, Service, Tell, log, migrate, secrets};
use crate::{
    aws::Aws,
    engine::{self, Timings, pause},
};
use probe::Probe;
use tasks::{address, describe, healthy, is_final, tasks};

/// What a look needs and remembers.
pub(super) struct Rollout<'a> {
    aws: &'a Aws,
    timings: &'a Timings,
    platform: &'a Platform,
    release: &'a Release,
    http: reqwest::Client,
    start: Instant,
    /// When the services began to be changed: what stopped before is none of this rollout's.
    since: DateTime,
    definitions: HashMap<String, TaskDefinition>,
    /// Id and task definition of the PRIMARY deployment that is watched, by service.
    watched: HashMap<String, (String, String)>,
    said: HashMap<String, Progress>,
}

/// How far a service is.
#[derive(Debug, Default, Clone)]
struct Look {
    desired: i32,
    running: i32,
    healthy: Option<usize>,
    /// All of the new tasks run and, behind a load balancer, are healthy.
    up: bool,
    /// No task of an older deployment runs any more.
    drained: bool,
    /// Why it is not up.
    missing: String,
}

impl<'a> Rollout<'a> {
    /// `since` is when the services began to be changed.
    pub(super) fn new(
        aws: &'a Aws,
        timings: &'a Timings,
        platform: &'a Platform,
        release: &'a Release,
        since: DateTime,
    ) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| engine::Error::fatal("GET", "not-sent", error.to_string()))?;
        Ok(Self {
            aws,
            timings,
            platform,
            release,
            http,
            start: Instant::now(),
            since,
            definitions: HashMap::new(),
            watched: HashMap::new(),
            said: HashMap::new(),
        })
    }

    /// Waits until the release serves.
    ///
    /// # Errors
    /// [`Error::Rollout`] when it will not, or not in time.
    pub(super) async fn watch(&mut self, tell: Tell<'_>) -> Result<(), Error> {
        loop {
            let looks = self.look(tell).await?;
            let behind = looks.iter().find(|(_, look)| !look.up);
            let (service, missing) = match behind {
                Some((service, look)) => (service.clone(), look.missing.clone()),
                None => match self.probe(&looks).await {
                    Ok(()) => return Ok(()),
                    Err(missing) => {
                        let first =
                            self.platform.services.iter().find(|one| one.target_group.is_some());
                        (first.map_or("service", |one| &one.name).to_owned(), missing)
                    }
                },
            };
            if self.start.elapsed() > self.timings.rollout {
                let reason =
                    format!("not up after {} s: {missing}", self.timings.rollout.as_secs());
                let log = self.log_of_running(&service).await;
                return Err(Error::Rollout { service, reason, log });
            }
            pause(self.timings.poll()).await;
        }
    }

    /// Whether the release serves now, by one look.
    pub(super) async fn is_up(&mut self) -> Result<bool, Error> {
        let looks = match self.look(&|_| ()).await {
            Ok(looks) => looks,
            Err(Error::Rollout { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        Ok(looks.iter().all(|(_, look)| look.up) && self.probe(&looks).await.is_ok())
    }

    /// Why the services don't come up, from the tasks themselves; none when no task of the release
    /// has failed.
    pub(super) async fn explain(&mut self) -> Option<Error> {
        let live = describe(self.aws, self.platform).await.ok()?;
        for service in &self.platform.services {
            let live = live.iter().find(|live| live.service_name() == Some(&service.name));
            for deployment in live.map(Live::deployments).unwrap_or_default() {
                if self.runs_release(deployment).await.ok()?
                    && let Err(error @ Error::Rollout { .. }) =
                        self.refuse_failed(service, deployment).await
                {
                    return Some(error);
                }
            }
        }
        None
    }

    async fn look(&mut self, tell: Tell<'_>) -> Result<Vec<(String, Look)>, Error> {
        let (aws, timings, platform) = (self.aws, self.timings, self.platform);
        let live = timings.repeat(|| describe(aws, platform)).await?;
        let mut looks = Vec::new();
        for service in &platform.services {
            let live = live.iter().find(|live| live.service_name() == Some(&service.name));
            let look = match live {
                Some(live) => self.judge(service, live).await?,
                None => Look { missing: "the service does not exist".into(), ..Look::default() },
            };
            let progress = Progress::Rollout {
                service: service.name.clone(),
                desired: look.desired,
                running: look.running,
                healthy: look.healthy,
            };
            if self.said.get(&service.name) != Some(&progress) {
                self.said.insert(service.name.clone(), progress.clone());
                tell(progress);
            }
            looks.push((service.name.clone(), look));
        }
        Ok(looks)
    }

    async fn judge(&mut self, service: &Service, live: &Live) -> Result<Look, Error> {
        let Some(primary) = live.deployments().iter().find(|one| one.status() == Some("PRIMARY"))
        else {
            return Ok(Look { missing: "it has no deployment yet".into(), ..Look::default() });
        };
        if !self.runs_release(primary).await? {
            return self.not_primary(service, live).await;
        }
        let (id, definition) = key(primary);
        self.watched.insert(service.name.clone(), (id, definition.clone()));
        self.refuse_failed(service, primary).await?;
        let desired = live.desired_count();
        let running = primary.running_count();
        let others = live.deployments().iter().filter(|one| one.id() != primary.id());
        let healthy = match &service.target_group {
            Some(group) => Some(self.healthy(service, group, &definition).await?),
            None => None,
        };
        let completed = primary.rollout_state() == Some(&DeploymentRolloutState::Completed);
        // Without a load balancer, RUNNING alone says nothing: ECS's own steady state does.
        let served =
            healthy.map_or(completed, |healthy| i32::try_from(healthy).is_ok_and(|n| n >= desired));
        Ok(Look {
            desired,
            running,
            healthy,
            up: running == desired && served,
            drained: others.map(Deployment::running_count).sum::<i32>() == 0,
            missing: match healthy {
                Some(healthy) => format!("{running} of {desired} tasks run, {healthy} are healthy"),
                None => format!(
                    "{running} of {desired} tasks run, the deployment is {}",
                    state(primary)
                ),
            },
        })
    }

    /// The PRIMARY deployment is another release's: it was put back, or the change is not seen yet.
    async fn not_primary(&mut self, service: &Service, live: &Live) -> Result<Look, Error> {
        let watched = self.watched.get(&service.name).map(|(id, _)| id.clone());
        for deployment in live.deployments() {
            let ours = watched.as_deref() == deployment.id() && watched.is_some();
            let failed = deployment.rollout_state() == Some(&DeploymentRolloutState::Failed);
            let new = deployment.updated_at().is_some_and(|at| *at >= self.since);
            if ours || failed && new && self.runs_release(deployment).await? {
                return Err(self.failure(service, deployment, None).await);
            }
        }
        let lagging = watched.is_none() && self.start.elapsed() <= self.timings.lag;
        let missing = "it runs another release".to_owned();
        if lagging {
            return Ok(Look { missing, ..Look::default() });
        }
        Err(Error::Rollout { service: service.name.clone(), reason: missing, log: Vec::new() })
    }

    /// A task that could not start or that ended by itself will not do better the next time.
    async fn refuse_failed(
        &mut self,
        service: &Service,
        primary: &Deployment,
    ) -> Result<(), Error> {
        let (id, definition) = key(primary);
        let old = primary.created_at().is_none_or(|at| *at < self.since);
        let stopped = self.tasks(service, DesiredStatus::Stopped).await?;
        let final_one = stopped.into_iter().find(|task| {
            let of_this = task.started_by() == Some(&id)
                || task.task_definition_arn() == Some(&definition)
                    && task.created_at() >= primary.created_at();
            let now = !old || task.stopped_at().is_some_and(|at| *at >= self.since);
            of_this && now && is_final(task)
        });
        let failed = primary.rollout_state() == Some(&DeploymentRolloutState::Failed);
        if final_one.is_none() && !failed {
            return Ok(());
        }
        Err(self.failure(service, primary, final_one).await)
    }

    /// The error of a deployment, with the reason of a task of it where there is one.
    async fn failure(
        &mut self,
        service: &Service,
        deployment: &Deployment,
        task: Option<Task>,
    ) -> Error {
        let (id, definition) = key(deployment);
        let task = match task {
            Some(task) => Some(task),
            // What the tasks say only adds to what is known; a failed look must not hide that.
            None => self
                .tasks(service, DesiredStatus::Stopped)
                .await
                .unwrap_or_default()
                .into_iter()
                .find(|task| {
                    (task.started_by() == Some(&id)
                        || task.task_definition_arn() == Some(&definition))
                        && task.stop_code() != Some(&TaskStopCode::ServiceSchedulerInitiated)
                }),
        };
        let said = deployment.rollout_state_reason().unwrap_or("the deployment failed").to_owned();
        let (reason, log) = match &task {
            Some(task) => match self.definition(&definition).await {
                Ok(definition) => {
                    (log::reason(task), log::tail(self.aws, self.timings, &definition, task).await)
                }
                Err(_) => (log::reason(task), Vec::new()),
            },
            None => (said, Vec::new()),
        };
        Error::Rollout { service: service.name.clone(), reason, log }
    }

    async fn runs_release(&mut self, deployment: &Deployment) -> Result<bool, Error> {
        let definition = self.definition(deployment.task_definition().unwrap_or_default()).await?;
        let (tag, read) = (&self.release.tag, &self.platform.secrets);
        let of_servers = read.iter().filter(|secret| !secret.of_release);
        let versions = self.release.versions_mark(of_servers.map(|secret| secret.name.as_str()));
        Ok(definition.container_definitions().iter().any(|container| {
            let mut environment = container.environment().iter();
            container.image() == Some(&self.release.image)
                && environment.all(|pair| match pair.name() {
                    // Two tags may name one image.
                    Some("RELEASE_TAG") => pair.value() == Some(tag),
                    // And one tag may have been deployed again, with other secrets.
                    Some("SECRET_VERSIONS") => pair.value() == Some(&versions),
                    _ => true,
                })
                && secrets::are_own(container, read, self.release)
        }))
    }

    /// A revision never changes, so each is asked for once.
    async fn definition(&mut self, arn: &str) -> Result<TaskDefinition, Error> {
        if let Some(known) = self.definitions.get(arn) {
            return Ok(known.clone());
        }
        let aws = self.aws;
        let definition = self.timings.repeat(|| migrate::definition(aws, arn)).await?;
        self.definitions.insert(arn.to_owned(), definition.clone());
        Ok(definition)
    }

    async fn tasks(&self, service: &Service, desired: DesiredStatus) -> Result<Vec<Task>, Error> {
        let (aws, cluster) = (self.aws, &self.platform.cluster);
        let tasks = || tasks(aws, cluster, &service.name, desired.clone());
        Ok(self.timings.repeat(tasks).await?)
    }

    /// New tasks that the load balancer calls healthy.
    async fn healthy(
        &self,
        service: &Service,
        group: &str,
        definition: &str,
    ) -> Result<usize, Error> {
        let running = self.tasks(service, DesiredStatus::Running).await?;
        let aws = self.aws;
        let healthy = self.timings.repeat(|| healthy(aws, group)).await?;
        let new = running.iter().filter(|task| task.task_definition_arn() == Some(definition));
        Ok(new.filter_map(address).filter(|address| healthy.contains(address)).count())
    }

    /// Whether the new tasks answer.
    async fn probe(&self, looks: &[(String, Look)]) -> Result<(), String> {
        let behind: Vec<&Look> =
            looks.iter().map(|(_, look)| look).filter(|look| look.healthy.is_some()).collect();
        let probe = Probe {
            http: &self.http,
            url: &self.platform.url,
            tag: &self.release.tag,
            alone: behind.iter().all(|look| look.drained),
        };
        // As often in a row as there are tasks, since the load balancer goes round them.
        for _ in 0..behind.iter().map(|look| look.desired).max().unwrap_or(0) {
            probe.ask().await?;
        }
        Ok(())
    }

    /// Last lines of a task that runs but does not serve.
    async fn log_of_running(&mut self, service: &str) -> Vec<String> {
        let Some((_, definition)) = self.watched.get(service).cloned() else {
            return Vec::new();
        };
        let service = Service { name: service.to_owned(), target_group: None };
        let running = self.tasks(&service, DesiredStatus::Running).await.unwrap_or_default();
        let task = running.into_iter().find(|task| task.task_definition_arn() == Some(&definition));
        match (task, self.definition(&definition).await) {
            (Some(task), Ok(definition)) => {
                log::tail(self.aws, self.timings, &definition, &task).await
            }
            _ => Vec::new(),
        }
    }
}

fn key(deployment: &Deployment) -> (String, String) {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    (text(deployment.id()), text(deployment.task_definition()))
}

fn state(deployment: &Deployment) -> &str {
    deployment.rollout_state().map_or("not started", DeploymentRolloutState::as_str)
}
