//! Service Quotas: its client. Quotas are asked for one by one, since `ListServiceQuotas` leaves out
//! those of which an account has nothing but AWS's default.

use aws_config::SdkConfig;
use aws_sdk_servicequotas as sdk;

use super::{Calls, failed, not_found_is_none};
use crate::engine::Error;

/// The client.
pub struct ServiceQuotas {
    /// The SDK's client.
    pub client: sdk::Client,
}

impl ServiceQuotas {
    pub(super) fn new(config: &SdkConfig, calls: &Calls) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config) }
    }

    /// The value of a quota in this account and region: what was applied, otherwise AWS's default;
    /// none when AWS tells neither.
    pub async fn value(&self, service: &str, code: &str) -> Result<Option<f64>, Error> {
        let applied =
            self.client.get_service_quota().service_code(service).quota_code(code).send().await;
        let applied = not_found_is_none(applied.map_err(failed("servicequotas:GetServiceQuota")))?;
        if let Some(value) = applied.as_ref().and_then(|answer| answer.quota()?.value()) {
            return Ok(Some(value));
        }
        let default = self.client.get_aws_default_service_quota();
        let default = default.service_code(service).quota_code(code).send().await;
        let default = default.map_err(failed("servicequotas:GetAWSDefaultServiceQuota"));
        let default = not_found_is_none(default)?;
        Ok(default.as_ref().and_then(|answer| answer.quota()?.value()))
    }
}
