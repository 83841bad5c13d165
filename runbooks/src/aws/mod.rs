//! AWS: clients, labels, error classification, and one module per service that batches its
//! Describe calls.

mod batch;
mod caller;
mod calls;
mod codes;
mod error;
mod label;
mod once;

pub mod acm;
pub mod applicationautoscaling;
pub mod cloudfront;
pub mod cloudwatch;
pub mod cloudwatchlogs;
pub mod codebuild;
pub mod codepipeline;
pub mod cognitoidentityprovider;
pub mod ec2;
pub mod ecr;
pub mod ecs;
pub mod elasticache;
pub mod elasticloadbalancingv2;
pub mod iam;
pub mod permissions;
pub mod rds;
pub mod route53;
pub mod s3;
pub mod secretsmanager;
pub mod servicequotas;
pub mod sns;
pub mod sqs;
pub mod wafv2;
pub mod xray;

use std::{sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};

pub use batch::Batch;
pub use caller::{Caller, Introduced, introduce};
pub use calls::Calls;
pub(crate) use codes::CODES;
pub(crate) use error::NO_ANSWER;
pub use error::{built, class, failed, not_found_is_none};
pub use label::Label;
pub use once::{Seen, appears, once};

use crate::engine::{Class, Error, Fault};

const WRONG_ACCOUNT: Fault = Fault {
    code: "wrong-account",
    cause: "the credentials belong to an account that the environment file does not allow; nothing \
            but \"who am I\" was called",
    mend: "use the right AWS_PROFILE, or add the account to `aws.accounts`",
};

const NO_CALLER: &str = "run `bme doctor`, or check AWS_PROFILE, the endpoint and your network";

/// The errors of ours about AWS.
pub(crate) const FAULTS: &[Fault] = &[
    label::NOT_OURS,
    once::NOT_VISIBLE,
    secretsmanager::BAD_SECRET,
    WRONG_ACCOUNT,
    error::NO_CREDENTIALS,
    error::UNREACHABLE,
    error::NO_ANSWER,
    error::NOT_SENT,
];

/// All clients of one account and region, each with the answers that it has batched. Cheap to clone.
#[derive(Clone)]
pub struct Aws(Arc<Services>);

/// The services, by AWS's names for them.
pub struct Services {
    /// The account id, 12 digits.
    pub account: String,
    /// The region.
    pub region: String,
    /// Calls made so far.
    pub calls: Arc<Calls>,
    /// ACM of the region.
    pub acm: Arc<acm::Acm>,
    /// ACM of us-east-1, from where `CloudFront` takes its certificates.
    pub acm_of_cloudfront: Arc<acm::Acm>,
    /// Application Auto Scaling.
    pub applicationautoscaling: applicationautoscaling::ApplicationAutoScaling,
    /// `CloudFront`.
    pub cloudfront: cloudfront::CloudFront,
    /// `CloudWatch`.
    pub cloudwatch: cloudwatch::CloudWatch,
    /// `CloudWatch` Logs.
    pub cloudwatchlogs: cloudwatchlogs::CloudWatchLogs,
    /// `CodeBuild`.
    pub codebuild: codebuild::CodeBuild,
    /// `CodePipeline`.
    pub codepipeline: codepipeline::CodePipeline,
    /// Cognito user pools.
    pub cognitoidentityprovider: cognitoidentityprovider::CognitoIdentityProvider,
    /// EC2, of which the network is used.
    pub ec2: ec2::Ec2,
    /// ECR.
    pub ecr: ecr::Ecr,
    /// ECS.
    pub ecs: ecs::Ecs,
    /// `ElastiCache`.
    pub elasticache: elasticache::ElastiCache,
    /// Elastic Load Balancing.
    pub elasticloadbalancingv2: elasticloadbalancingv2::ElasticLoadBalancing,
    /// IAM.
    pub iam: iam::Iam,
    /// RDS.
    pub rds: rds::Rds,
    /// Route 53.
    pub route53: route53::Route53,
    /// S3.
    pub s3: s3::S3,
    /// Secrets Manager.
    pub secretsmanager: secretsmanager::SecretsManager,
    /// Service Quotas.
    pub servicequotas: servicequotas::ServiceQuotas,
    /// SNS.
    pub sns: sns::Sns,
    /// SQS.
    pub sqs: sqs::Sqs,
    /// WAF.
    pub wafv2: wafv2::Wafv2,
    /// X-Ray.
    pub xray: xray::XRay,
}

impl std::ops::Deref for Aws {
    type Target = Services;
    fn deref(&self) -> &Services {
        &self.0
    }
}

/// Loads region, endpoint, HTTP client and credentials. The SDK's own retries are off: it re-sends
/// a create whose answer was lost, which makes a second VPC; the engine looks before it calls again.
pub async fn config(
    region: &str,
    endpoint_url: Option<&str>,
    credentials: Option<aws_sdk_sts::config::SharedCredentialsProvider>,
) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(5))
                .operation_timeout(Duration::from_secs(30))
                .build(),
        );
    if let Some(credentials) = credentials {
        loader = loader.credentials_provider(credentials);
    }
    // The standard variable wins over the file.
    let from_variable = std::env::var("AWS_ENDPOINT_URL").ok().filter(|url| !url.is_empty());
    if let Some(url) = from_variable.as_deref().or(endpoint_url) {
        loader = loader.endpoint_url(url);
    }
    loader.load().await
}

impl Aws {
    /// All clients over one configuration, hence one HTTP client. Asks STS who is calling.
    ///
    /// # Errors
    /// No credentials, an endpoint that can't be reached, or an account outside `accounts`.
    pub async fn connect(config: &SdkConfig, accounts: &[String]) -> Result<Self, Error> {
        let calls = Arc::new(Calls::default());
        let caller = introduce(config, &calls).await.caller.map_err(|error| match error.class {
            // That a call may have been carried out is of no weight for this one.
            Class::Unknown => error.with_hint(NO_CALLER),
            Class::Unreachable | Class::Fatal if error.hint.is_none() => error.with_hint(NO_CALLER),
            _ => error,
        })?;
        caller.allowed(accounts)?;
        Ok(Self::new(config, caller.account, calls))
    }

    /// Clients that nobody may call, which never asked who they are: for what is only described.
    pub fn unconnected(account: &str, region: &str) -> Self {
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .build();
        Self::new(&config, account.to_owned(), Arc::default())
    }

    pub(crate) fn new(config: &SdkConfig, account: String, calls: Arc<Calls>) -> Self {
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        let acm = Arc::new(acm::Acm::new(config, &calls));
        // In that region both are one, so that its certificates are listed once.
        let acm_of_cloudfront = if region == acm::REGION_OF_CLOUDFRONT {
            Arc::clone(&acm)
        } else {
            Arc::new(acm::Acm::of_cloudfront(config, &calls))
        };
        Self(Arc::new(Services {
            region,
            account,
            acm,
            acm_of_cloudfront,
            applicationautoscaling: applicationautoscaling::ApplicationAutoScaling::new(
                config, &calls,
            ),
            cloudfront: cloudfront::CloudFront::new(config, &calls),
            cloudwatch: cloudwatch::CloudWatch::new(config, &calls),
            cloudwatchlogs: cloudwatchlogs::CloudWatchLogs::new(config, &calls),
            codebuild: codebuild::CodeBuild::new(config, &calls),
            codepipeline: codepipeline::CodePipeline::new(config, &calls),
            cognitoidentityprovider: cognitoidentityprovider::CognitoIdentityProvider::new(
                config, &calls,
            ),
            ec2: ec2::Ec2::new(config, &calls),
            ecr: ecr::Ecr::new(config, &calls),
            ecs: ecs::Ecs::new(config, &calls),
            elasticache: elasticache::ElastiCache::new(config, &calls),
            elasticloadbalancingv2: elasticloadbalancingv2::ElasticLoadBalancing::new(
                config, &calls,
            ),
            iam: iam::Iam::new(config, &calls),
            rds: rds::Rds::new(config, &calls),
            route53: route53::Route53::new(config, &calls),
            s3: s3::S3::new(config, &calls),
            secretsmanager: secretsmanager::SecretsManager::new(config, &calls),
            servicequotas: servicequotas::ServiceQuotas::new(config, &calls),
            sns: sns::Sns::new(config, &calls),
            sqs: sqs::Sqs::new(config, &calls),
            wafv2: wafv2::Wafv2::new(config, &calls),
            xray: xray::XRay::new(config, &calls),
            calls,
        }))
    }
}
