//! The configuration of the distribution as it is wanted.

use aws_sdk_cloudfront::types::{
    Aliases, AllowedMethods, CacheBehavior, CacheBehaviors, CachedMethods, CustomErrorResponses,
    CustomHeaders, CustomOriginConfig, DefaultCacheBehavior, DistributionConfig, EventType,
    FunctionAssociation, FunctionAssociations, HttpVersion, Method, MinimumProtocolVersion, Origin,
    OriginCustomHeader, OriginProtocolPolicy, OriginSslProtocols, Origins, PriceClass,
    S3OriginConfig, SslProtocol, SslSupportMethod, ViewerCertificate, ViewerProtocolPolicy,
};

use super::distribution_members::{count, hold};
use crate::{aws::built, engine::Error};

/// The header by which the load balancer knows what came through the distribution.
pub const ORIGIN_HEADER: &str = "X-Bme-Origin";

/// What goes to the service; everything else is the web application.
pub const SERVICE_PATHS: [&str; 9] = [
    "/api",
    "/api/*",
    "/mcp",
    "/mcp/*",
    "/health",
    "/ready",
    "/openapi.json",
    // Where a client of /mcp learns who signs its user in (RFC 9728, section 3.1).
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/*",
];

pub(super) const BUCKET: &str = "bucket";
pub(super) const LOAD_BALANCER: &str = "load-balancer";

// AWS's managed policies, by their ids (CloudFront developer guide, "Use managed policies").
const CACHING_OPTIMIZED: &str = "658327ea-f89d-4fab-a63d-7e88639e58f6";
const CACHING_DISABLED: &str = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad";
const ALL_VIEWER_EXCEPT_HOST_HEADER: &str = "b689b0a8-53d0-40ab-baf2-68738e2966ac";

const OPERATION: &str = "cloudfront:CreateDistribution";

/// What the environment decides about the distribution.
pub struct Settings {
    /// Where it is served from.
    pub price_class: PriceClass,
    /// Own domain.
    pub domain: Option<String>,
    /// The load balancer's host name, where it has another than AWS gives it.
    pub origin_domain: Option<String>,
    /// The load balancer speaks HTTPS.
    pub load_balancer_tls: bool,
}

/// Everything that the configuration is made of.
pub struct Wanted<'a> {
    /// What the environment decides.
    pub settings: &'a Settings,
    /// Shown in the console.
    pub comment: &'a str,
    /// Idempotency token of the creation.
    pub caller_reference: String,
    /// Host name of the bucket.
    pub bucket_domain: String,
    /// Id of the origin access control.
    pub origin_access_control: String,
    /// Id of the response headers policy.
    pub response_headers_policy: String,
    /// ARN of the function on viewer requests.
    pub function: String,
    /// ARN of the domain's certificate in us-east-1.
    pub certificate: Option<String>,
    /// Host name that AWS gives the load balancer.
    pub load_balancer_domain: String,
    /// Value of [`ORIGIN_HEADER`].
    pub origin_secret: String,
}

impl Wanted<'_> {
    /// The configuration: a new one, or `now` with our members set.
    pub fn config(&self, now: Option<DistributionConfig>) -> Result<DistributionConfig, Error> {
        // Trap 3: they are per distribution, so that one for the web application's routes would turn
        // the service's 403 and 404 into a page with status 200. The function rewrites instead.
        let no_error_responses = CustomErrorResponses::builder().quantity(0).build();
        let wanted = DistributionConfig::builder()
            .caller_reference(&self.caller_reference)
            .comment(self.comment)
            .enabled(true)
            .default_root_object("index.html")
            .price_class(self.settings.price_class.clone())
            .http_version(HttpVersion::Http2and3)
            .is_ipv6_enabled(true)
            .aliases(self.aliases()?)
            .viewer_certificate(self.viewer_certificate())
            .origins(self.origins()?)
            .default_cache_behavior(self.default_cache_behavior()?)
            .cache_behaviors(self.cache_behaviors()?)
            .custom_error_responses(no_error_responses.map_err(built(OPERATION))?)
            .build()
            .map_err(built(OPERATION))?;
        Ok(match now {
            Some(now) => hold(now, wanted),
            None => wanted,
        })
    }

    fn aliases(&self) -> Result<Aliases, Error> {
        let names: Vec<_> = self.settings.domain.iter().cloned().collect();
        Aliases::builder()
            .quantity(count(&names))
            .set_items((!names.is_empty()).then_some(names))
            .build()
            .map_err(built(OPERATION))
    }

    fn viewer_certificate(&self) -> ViewerCertificate {
        match &self.certificate {
            Some(certificate) => ViewerCertificate::builder()
                .acm_certificate_arn(certificate)
                .ssl_support_method(SslSupportMethod::SniOnly)
                .minimum_protocol_version(MinimumProtocolVersion::TlSv122021)
                .build(),
            None => ViewerCertificate::builder().cloud_front_default_certificate(true).build(),
        }
    }

    fn origins(&self) -> Result<Origins, Error> {
        let bucket = Origin::builder()
            .id(BUCKET)
            .domain_name(&self.bucket_domain)
            .origin_path("")
            .origin_access_control_id(&self.origin_access_control)
            // Empty, as CloudFront asks where an origin access control signs.
            .s3_origin_config(S3OriginConfig::builder().origin_access_identity("").build())
            .build()
            .map_err(built(OPERATION))?;
        let header = OriginCustomHeader::builder()
            .header_name(ORIGIN_HEADER)
            .header_value(&self.origin_secret)
            .build()
            .map_err(built(OPERATION))?;
        let headers = CustomHeaders::builder().quantity(1).items(header).build();
        let protocols =
            OriginSslProtocols::builder().quantity(1).items(SslProtocol::TlSv12).build();
        let policy = if self.settings.load_balancer_tls {
            OriginProtocolPolicy::HttpsOnly
        } else {
            OriginProtocolPolicy::HttpOnly
        };
        let service = CustomOriginConfig::builder()
            .http_port(80)
            .https_port(443)
            .origin_protocol_policy(policy)
            .origin_ssl_protocols(protocols.map_err(built(OPERATION))?)
            .origin_read_timeout(30)
            // Below the load balancer's idle timeout of 60 s, so that it is never the one who closes
            // a connection that a request is just being sent on.
            .origin_keepalive_timeout(50)
            .build()
            .map_err(built(OPERATION))?;
        let load_balancer = Origin::builder()
            .id(LOAD_BALANCER)
            .domain_name(self.settings.origin_domain.as_ref().unwrap_or(&self.load_balancer_domain))
            .origin_path("")
            .custom_headers(headers.map_err(built(OPERATION))?)
            .custom_origin_config(service)
            .build()
            .map_err(built(OPERATION))?;
        Origins::builder()
            .quantity(2)
            .items(bucket)
            .items(load_balancer)
            .build()
            .map_err(built(OPERATION))
    }

    fn default_cache_behavior(&self) -> Result<DefaultCacheBehavior, Error> {
        DefaultCacheBehavior::builder()
            .target_origin_id(BUCKET)
            .viewer_protocol_policy(ViewerProtocolPolicy::RedirectToHttps)
            .allowed_methods(methods(&[Method::Get, Method::Head])?)
            .compress(true)
            .cache_policy_id(CACHING_OPTIMIZED)
            .response_headers_policy_id(&self.response_headers_policy)
            .function_associations(self.function_associations()?)
            .build()
            .map_err(built(OPERATION))
    }

    fn cache_behaviors(&self) -> Result<CacheBehaviors, Error> {
        let all = [
            Method::Get,
            Method::Head,
            Method::Options,
            Method::Put,
            Method::Patch,
            Method::Post,
            Method::Delete,
        ];
        let behaviors = SERVICE_PATHS
            .iter()
            .map(|path| {
                CacheBehavior::builder()
                    .path_pattern(*path)
                    .target_origin_id(LOAD_BALANCER)
                    .viewer_protocol_policy(ViewerProtocolPolicy::HttpsOnly)
                    .allowed_methods(methods(&all)?)
                    .compress(true)
                    .cache_policy_id(CACHING_DISABLED)
                    .origin_request_policy_id(ALL_VIEWER_EXCEPT_HOST_HEADER)
                    .function_associations(self.function_associations()?)
                    .build()
                    .map_err(built(OPERATION))
            })
            .collect::<Result<Vec<_>, _>>()?;
        CacheBehaviors::builder()
            .quantity(count(&behaviors))
            .set_items(Some(behaviors))
            .build()
            .map_err(built(OPERATION))
    }

    fn function_associations(&self) -> Result<FunctionAssociations, Error> {
        let association = FunctionAssociation::builder()
            .function_arn(&self.function)
            .event_type(EventType::ViewerRequest)
            .build()
            .map_err(built(OPERATION))?;
        FunctionAssociations::builder()
            .quantity(1)
            .items(association)
            .build()
            .map_err(built(OPERATION))
    }
}

fn methods(methods: &[Method]) -> Result<AllowedMethods, Error> {
    let cached = CachedMethods::builder()
        .quantity(2)
        .items(Method::Get)
        .items(Method::Head)
        .build()
        .map_err(built(OPERATION))?;
    AllowedMethods::builder()
        .quantity(count(methods))
        .set_items(Some(methods.to_vec()))
        .cached_methods(cached)
        .build()
        .map_err(built(OPERATION))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::steps::edge::distribution_members::{origin_header, shown};

    pub(crate) fn wanted(settings: &Settings) -> Wanted<'_> {
        Wanted {
            settings,
            comment: "bme-local-distribution",
            caller_reference: "0123".into(),
            bucket_domain: "b.s3.us-east-1.amazonaws.com".into(),
            origin_access_control: "E1".into(),
            response_headers_policy: "p".into(),
            function: "arn:f".into(),
            certificate: None,
            load_balancer_domain: "lb.example".into(),
            origin_secret: "very-secret".into(),
        }
    }

    fn settings() -> Settings {
        Settings {
            price_class: PriceClass::PriceClass100,
            domain: None,
            origin_domain: None,
            load_balancer_tls: false,
        }
    }

    #[test]
    fn no_error_response_may_hide_the_status_of_the_service() {
        let shown = shown(&wanted(&settings()).config(None).unwrap());
        assert_eq!(shown["customErrorResponses"], json!([]));
    }

    #[test]
    fn the_origin_secret_is_sent_and_never_shown() {
        let config = wanted(&settings()).config(None).unwrap();
        assert_eq!(origin_header(&config), Some("very-secret"));
        assert!(!shown(&config).to_string().contains("very-secret"));
    }

    #[test]
    fn a_setting_of_somebody_else_survives_an_update() {
        let mut now = wanted(&settings()).config(None).unwrap();
        now.web_acl_id = Some("their-acl".into());
        now.enabled = false;
        let updated = wanted(&settings()).config(Some(now)).unwrap();
        assert_eq!(updated.web_acl_id(), Some("their-acl"));
        assert!(updated.enabled());
    }

    #[test]
    fn the_service_is_never_cached_and_the_application_is() {
        let shown = shown(&wanted(&settings()).config(None).unwrap());
        for path in SERVICE_PATHS {
            assert_eq!(shown["cacheBehaviors"][path]["cachePolicyId"], CACHING_DISABLED, "{path}");
        }
        assert_eq!(shown["defaultCacheBehavior"]["cachePolicyId"], CACHING_OPTIMIZED);
    }

    #[test]
    fn the_function_rewrites_no_path_of_the_service() {
        let code = crate::steps::edge::function::VIEWER_REQUEST;
        let (_, list) = code.split_once("var SERVICE = [").unwrap();
        let (list, _) = list.split_once("];").unwrap();
        let known: Vec<_> = list.split('\'').skip(1).step_by(2).collect();
        let mut wanted: Vec<_> =
            SERVICE_PATHS.iter().map(|path| path.trim_end_matches("/*")).collect();
        wanted.dedup();
        assert_eq!(known, wanted);
    }
}
