//! Cognito: its client and its batched answers. User pools have no unique name: all that carry one
//! of our names are described, and matched by their tags.

use std::sync::Arc;

use aws_config::SdkConfig;
use aws_sdk_cognitoidentityprovider as sdk;
use futures::{StreamExt, TryStreamExt, stream};
use sdk::types::UserPoolType;
use tokio::time::Instant;

use super::{Batch, Calls, failed};
use crate::engine::Error;

/// Details asked for at once.
const ABREAST: usize = 8;

/// The client and what it has answered.
pub struct CognitoIdentityProvider {
    /// The SDK's client.
    pub client: sdk::Client,
    user_pools: Batch<Vec<UserPoolType>>,
}

impl CognitoIdentityProvider {
    pub(super) fn new(config: &SdkConfig, calls: &Arc<Calls>) -> Self {
        let config = sdk::config::Builder::from(config).interceptor(Calls::clone(calls)).build();
        Self { client: sdk::Client::from_conf(config), user_pools: Batch::default() }
    }

    /// All user pools whose name is one that `bme` gives, with their tags.
    pub async fn user_pools(&self, since: Instant) -> Result<Arc<Vec<UserPoolType>>, Error> {
        self.user_pools
            .get(since, async {
                // 60 is the largest page (AWS API reference, ListUserPools).
                let pages = self.client.list_user_pools().max_results(60).into_paginator();
                let listed = pages
                    .items()
                    .send()
                    .collect::<Result<Vec<_>, _>>()
                    .await
                    .map_err(failed("cognito-idp:ListUserPools"))?;
                let ours = listed
                    .into_iter()
                    .filter(|pool| pool.name().is_some_and(|name| name.starts_with("bme-")))
                    .filter_map(|pool| pool.id);
                stream::iter(ours)
                    .map(|id| self.user_pool(id))
                    .buffer_unordered(ABREAST)
                    .try_filter_map(async |pool| Ok(pool))
                    .try_collect()
                    .await
            })
            .await
    }

    /// One user pool; none when it is gone.
    async fn user_pool(&self, id: String) -> Result<Option<UserPoolType>, Error> {
        let answer = self.client.describe_user_pool().user_pool_id(id).send().await;
        let answer =
            super::not_found_is_none(answer.map_err(failed("cognito-idp:DescribeUserPool")))?;
        Ok(answer.and_then(|answer| answer.user_pool))
    }
}
