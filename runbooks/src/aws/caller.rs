//! Who is calling, and by which clock: what STS answers before anything else is asked.

use std::sync::{Arc, Mutex, PoisonError};

use aws_config::SdkConfig;
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{
            Intercept, context::BeforeDeserializationInterceptorContextRef, dyn_dispatch_hint,
        },
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::{DateTime, config_bag::ConfigBag, date_time::Format};
use jiff::{SignedDuration, Timestamp};

use super::{Calls, WRONG_ACCOUNT, failed};
use crate::engine::Error;

/// The identity behind the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account id, 12 digits.
    pub account: String,
    /// The ARN of the user, of the role's session, or of the root user.
    pub arn: String,
}

/// What the first call has told.
#[derive(Debug)]
pub struct Introduced {
    /// Who is calling, or why AWS does not say.
    pub caller: Result<Caller, Error>,
    /// How far this machine's clock is ahead of AWS's, seconds; also known when AWS refused because
    /// of it.
    pub ahead: Option<SignedDuration>,
}

/// Asks STS who is calling.
pub async fn introduce(config: &SdkConfig, calls: &Arc<Calls>) -> Introduced {
    let clock = Clock::default();
    let sts = aws_sdk_sts::Client::from_conf(
        aws_sdk_sts::config::Builder::from(config)
            .interceptor(Calls::clone(calls))
            .interceptor(clock.clone())
            .build(),
    );
    let answer = sts.get_caller_identity().send().await;
    let caller = answer.map_err(failed("sts:GetCallerIdentity")).map(|identity| Caller {
        account: identity.account().unwrap_or_default().to_owned(),
        arn: identity.arn().unwrap_or_default().to_owned(),
    });
    Introduced { caller, ahead: *clock.0.lock().unwrap_or_else(PoisonError::into_inner) }
}

impl Caller {
    /// Whether the environment may be worked on with these credentials.
    ///
    /// # Errors
    /// The account is not among `accounts`.
    pub fn allowed(&self, accounts: &[String]) -> Result<(), Error> {
        if accounts.contains(&self.account) {
            return Ok(());
        }
        Err(WRONG_ACCOUNT.error(
            "sts:GetCallerIdentity",
            format!(
                "these credentials belong to account {}, but the environment allows {}",
                self.account,
                accounts.join(", ")
            ),
        ))
    }
}

/// Compares this machine's clock with the `Date` of an answer.
#[derive(Debug, Default, Clone)]
struct Clock(Arc<Mutex<Option<SignedDuration>>>);

#[dyn_dispatch_hint]
impl Intercept for Clock {
    fn name(&self) -> &'static str {
        "Clock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(theirs) = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok())
        {
            let ahead = Timestamp::now().as_second() - theirs.secs();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(SignedDuration::from_secs(ahead));
        }
        Ok(())
    }
}
