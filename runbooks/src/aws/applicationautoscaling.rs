//! Application Auto Scaling: its client and its batched answers, of ECS only.

use std::sync::Arc;

use aws_config::SdkConfig;
use aws_sdk_applicationautoscaling as sdk;
use sdk::types::{ScalableTarget, ScalingPolicy, ServiceNamespace};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Batch, Calls, failed};
use crate::engine::Error;

/// The client and what it has answered.
pub struct ApplicationAutoScaling {
    /// The SDK's client.
    pub client: sdk::Client,
    scalable_targets: Batch<Vec<ScalableTarget>>,
    scaling_policies: Batch<Vec<ScalingPolicy>>,
}

impl ApplicationAutoScaling {
    pub(super) fn new(config: &SdkConfig, calls: &Calls) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self {
            client: sdk::Client::from_conf(config),
            scalable_targets: Batch::default(),
            scaling_policies: Batch::default(),
        }
    }

    /// All scalable ECS services.
    pub async fn scalable_targets(
        &self,
        since: Instant,
    ) -> Result<Arc<Vec<ScalableTarget>>, Error> {
        self.scalable_targets
            .get(since, async {
                let pages = self
                    .client
                    .describe_scalable_targets()
                    .service_namespace(ServiceNamespace::Ecs)
                    .into_paginator()
                    .items()
                    .send();
                pages
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("application-autoscaling:DescribeScalableTargets"))
            })
            .await
    }

    /// The scaling policies of all ECS services.
    pub async fn scaling_policies(&self, since: Instant) -> Result<Arc<Vec<ScalingPolicy>>, Error> {
        self.scaling_policies
            .get(since, async {
                let pages = self
                    .client
                    .describe_scaling_policies()
                    .service_namespace(ServiceNamespace::Ecs)
                    .into_paginator()
                    .items()
                    .send();
                pages
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("application-autoscaling:DescribeScalingPolicies"))
            })
            .await
    }
}

/// Of a permission: only on what scales ECS services; the ids of scalable targets are generated.
pub fn of_ecs() -> Value {
    json!({ "StringEquals": { "application-autoscaling:service-namespace": "ecs" } })
}
