//! Step 7: `CloudFront` in front of the web application's bucket and of the service.

pub mod bucket;
pub mod bucket_policy;
pub mod distribution;
pub mod distribution_config;
pub mod distribution_members;
pub mod function;
pub mod origin_access_control;
pub mod response_headers_policy;

use aws_sdk_cloudfront::types::PriceClass;

use bucket::Bucket;
use bucket_policy::BucketPolicy;
use distribution::Distribution;
use distribution_config::Settings;
use function::{Function, VIEWER_REQUEST};
use origin_access_control::OriginAccessControl;
use response_headers_policy::ResponseHeadersPolicy;

pub use distribution_config::{ORIGIN_HEADER, SERVICE_PATHS};

use super::{
    About, Stack,
    compute::Platform,
    database::secret::{FirstValue, Secret},
    domain,
};
use crate::{
    aws::Label,
    engine::{Graph, Handle, ResourceId},
    environment,
};

/// The secret whose member [`ORIGIN_KEY`] is the value of [`ORIGIN_HEADER`].
pub type OriginSecret = Handle<Secret>;

/// The member of the origin secret's value.
pub const ORIGIN_KEY: &str = "originHeader";

/// What other steps need of this one.
pub struct Edge {
    /// The distribution.
    pub distribution: Handle<Distribution>,
    /// The web application's bucket.
    pub bucket: Handle<Bucket>,
}

/// What the step is, for `bme explain`.
pub const ABOUT: About = About {
    makes: "A private bucket for the web application, a CloudFront distribution in front of it \
            and of the service, with access control, security headers and a function for paths, \
            and the secret by which the load balancer knows the distribution. With \
            `edge.hosted_zone_id` also the domain's certificate, in us-east-1, and its records.",
    why: "Users come in at one host name, near them and with HTTPS; nothing but CloudFront \
          reaches bucket and load balancer.",
    order: "The secret comes first, since the load balancer's rules need it. The distribution \
            waits for bucket, function, policies and load balancer, and for its certificate to be \
            issued; the bucket's policy and the domain's records wait for the distribution.",
    trouble: &[
        ("it takes minutes to be deployed everywhere", "the others go on once it is accepted"),
        (
            "a certificate of another region is refused",
            "`edge.certificate_arn` has to be one of us-east-1",
        ),
        (
            "502 from CloudFront: the load balancer does not take the connection",
            "with `compute.certificate_arn` the certificate has to be for the host that \
             CloudFront calls: give that as `compute.domain`, with a record to the load balancer",
        ),
        (
            "`edge/certificate-record` waits: ACM does not see the validation record",
            "the zone of `edge.hosted_zone_id` has to be public, and the domain's registrar has to \
             name its name servers",
        ),
        ("DistributionNotDisabled on destroy", "bme disables it and waits; that takes minutes"),
    ],
};

/// Adds the secret by which the load balancer knows the distribution.
pub fn add_origin_secret(graph: &mut Graph, stack: &Stack) -> OriginSecret {
    graph.add(Secret {
        label: stack.label("edge", "origin-secret", 512),
        aws: stack.aws.clone(),
        description: "Header by which the load balancer knows the distribution",
        value: FirstValue::Generated { key: ORIGIN_KEY, with: Vec::new() },
    })
}

/// Adds the step's resources.
pub fn add(graph: &mut Graph, stack: &Stack, platform: &Platform, secret: &OriginSecret) -> Edge {
    let settings = &stack.environment.edge;
    // 64 is the limit of the names of functions and origin access controls (CloudFront API).
    let label = |name: &str| stack.label("edge", name, 64);
    let bucket = graph.add(Bucket {
        label: bucket_label(stack),
        aws: stack.aws.clone(),
        expire_after_days: None,
    });
    let origin_access_control = graph
        .add(OriginAccessControl { label: label("origin-access-control"), aws: stack.aws.clone() });
    let response_headers_policy = graph.add(ResponseHeadersPolicy {
        label: label("response-headers-policy"),
        aws: stack.aws.clone(),
        hsts_seconds: settings.hsts_seconds,
        content_security_policy: content_security_policy(stack),
    });
    let function = graph.add(Function {
        label: label("viewer-request"),
        aws: stack.aws.clone(),
        code: VIEWER_REQUEST,
    });
    let certificate = domain::add_distribution_certificate(graph, stack);
    let distribution = graph.add(Distribution {
        label: label("distribution"),
        aws: stack.aws.clone(),
        lag: stack.lag(),
        settings: Settings {
            price_class: match settings.price_class {
                environment::PriceClass::Class100 => PriceClass::PriceClass100,
                environment::PriceClass::Class200 => PriceClass::PriceClass200,
                environment::PriceClass::All => PriceClass::PriceClassAll,
            },
            domain: settings.domain.clone(),
            origin_domain: stack.environment.origin_domain(),
            load_balancer_tls: stack.environment.load_balancer_tls(),
        },
        certificate,
        bucket: bucket.clone(),
        origin_access_control,
        response_headers_policy,
        function,
        load_balancer: platform.load_balancer.clone(),
        origin_secret: secret.clone(),
    });
    domain::add_distribution_record(graph, stack, &distribution);
    graph.add(BucketPolicy {
        label: label("bucket-policy"),
        aws: stack.aws.clone(),
        bucket: bucket.clone(),
        bucket_name: bucket_label(stack).name,
        distribution: distribution.clone(),
    });
    Edge { distribution, bucket }
}

/// Account and region in the name, which is unique over all accounts.
pub(crate) fn bucket_label(stack: &Stack) -> Label {
    bucket::label(stack, ResourceId::new("edge", "bucket"), "web")
}

/// Scripts only from the application itself; calls to itself and to Cognito.
fn content_security_policy(stack: &Stack) -> String {
    let region = &stack.aws.region;
    let (environment, account) = (&stack.environment.name, &stack.aws.account);
    let sign_in = format!("https://bme-{environment}-{account}.auth.{region}.amazoncognito.com");
    [
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "media-src 'self' blob:",
        &format!("connect-src 'self' {sign_in} https://cognito-idp.{region}.amazonaws.com"),
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
    .join("; ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{aws::Aws, environment::Target, steps};

    #[test]
    fn the_application_runs_its_own_scripts_and_calls_itself_and_cognito() {
        let text =
            "name = \"staging\"\n[aws]\nregion = \"eu-west-1\"\naccounts = [\"123456789012\"]\n";
        let stack = Stack {
            environment: environment::parse(Path::new("staging.toml"), text, Target::Aws).unwrap(),
            aws: Aws::unconnected("123456789012", "eu-west-1"),
            release: None,
            sandbox_ca: None,
            every_way_out: false,
        };
        let policy = ResourceId::new("edge", "response-headers-policy");
        let policy = steps::graph(&stack).desired(&policy);
        let headers = &policy["securityHeaders"];
        let content = headers["contentSecurityPolicy"].as_str().unwrap();
        let directive = |name: &str| {
            let mut directives = content.split("; ").filter_map(|one| one.split_once(' '));
            directives.find(|(own, _)| *own == name).map(|(_, sources)| sources)
        };
        assert_eq!(directive("default-src"), Some("'self'"));
        assert_eq!(directive("script-src"), Some("'self'"));
        assert_eq!(directive("object-src"), Some("'none'"));
        assert_eq!(directive("frame-ancestors"), Some("'none'"));
        // What the microphone recorded is played from memory.
        assert_eq!(directive("media-src"), Some("'self' blob:"));
        let hosts = "'self' https://bme-staging-123456789012.auth.eu-west-1.amazoncognito.com \
                     https://cognito-idp.eu-west-1.amazonaws.com";
        assert_eq!(directive("connect-src"), Some(hosts));
        assert!(!content.contains("unsafe-"), "{content}");
        assert_eq!(headers["frameOption"], "DENY");
        assert_eq!(headers["contentTypeOptions"], true);
        let transport = &headers["strictTransportSecurity"];
        assert!(transport["accessControlMaxAgeSec"].as_i64().unwrap() >= 31_536_000, "{transport}");
    }
}
