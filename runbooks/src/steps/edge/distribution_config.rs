//! The configuration of the distribution: how it is written, and which of its members are held.

use aws_sdk_cloudfront::types::{
    Aliases, AllowedMethods, CacheBehavior, CacheBehaviors, CachedMethods, CustomErrorResponses,
    CustomHeaders, CustomOriginConfig, DefaultCacheBehavior, DistributionConfig, EventType,
    FunctionAssociation, FunctionAssociations, HttpVersion, Method, MinimumProtocolVersion, Origin,
    OriginCustomHeader, OriginProtocolPolicy, OriginSslProtocols, Origins, PriceClass,
    S3OriginConfig, SslProtocol, SslSupportMethod, ViewerCertificate, ViewerProtocolPolicy,
};
use serde_json::{Map, Value, json};

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

const BUCKET: &str = "bucket";
const LOAD_BALANCER: &str = "load-balancer";

// AWS's managed policies, by their ids (CloudFront developer guide, "Use managed policies").
const CACHING_OPTIMIZED: &str = "658327ea-f89d-4fab-a63d-7e88639e58f6";
const CACHING_DISABLED: &str = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad";
const ALL_VIEWER_EXCEPT_HOST_HEADER: &str = "b689b0a8-53d0-40ab-baf2-68738e2966ac";

const OPERATION: &str = "cloudfront:CreateDistribution";

/// What the environment decides about the distribution.
pub struct Settings {
    /// Where it is served from.
    pub price_class: PriceClass,
    /// Own domain and the ARN of its certificate in us-east-1.
    pub domain: Option<(String, String)>,
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
    /// Host name of the load balancer.
    pub load_balancer_domain: String,
    /// Value of [`ORIGIN_HEADER`].
    pub origin_secret: String,
}

impl Wanted<'_> {
    /// The configuration: `now`, or a new one, with our members set.
    pub fn config(&self, now: Option<DistributionConfig>) -> Result<DistributionConfig, Error> {
        let mut config = match now {
            Some(now) => now,
            None => DistributionConfig::builder()
                .caller_reference(&self.caller_reference)
                .comment(self.comment)
                .enabled(true)
                .build()
                .map_err(built(OPERATION))?,
        };
        self.comment.clone_into(&mut config.comment);
        config.enabled = true;
        config.default_root_object = Some("index.html".into());
        config.price_class = Some(self.settings.price_class.clone());
        config.http_version = Some(HttpVersion::Http2and3);
        config.is_ipv6_enabled = Some(true);
        config.aliases = Some(self.aliases()?);
        config.viewer_certificate = Some(self.viewer_certificate());
        config.origins = Some(self.origins()?);
        config.default_cache_behavior = Some(self.default_cache_behavior()?);
        config.cache_behaviors = Some(self.cache_behaviors()?);
        // Trap 3: they are per distribution, so that one for the web application's routes would turn
        // the service's 403 and 404 into a page with status 200. The function rewrites instead.
        config.custom_error_responses =
            Some(CustomErrorResponses::builder().quantity(0).build().map_err(built(OPERATION))?);
        Ok(config)
    }

    fn aliases(&self) -> Result<Aliases, Error> {
        let names = self.settings.domain.iter().map(|(domain, _)| domain.clone());
        let names: Vec<_> = names.collect();
        Aliases::builder()
            .quantity(count(&names))
            .set_items((!names.is_empty()).then_some(names))
            .build()
            .map_err(built(OPERATION))
    }

    fn viewer_certificate(&self) -> ViewerCertificate {
        match &self.settings.domain {
            Some((_, certificate)) => ViewerCertificate::builder()
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
            .domain_name(&self.load_balancer_domain)
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

/// The members that are held, in AWS's words; origins and behaviours by their names.
pub fn shown(config: &DistributionConfig) -> Value {
    let default = config.default_cache_behavior().map(|behavior| {
        json!({
            "targetOriginId": behavior.target_origin_id(),
            "viewerProtocolPolicy": behavior.viewer_protocol_policy().as_str(),
            "allowedMethods": method_names(behavior.allowed_methods()),
            "compress": behavior.compress(),
            "cachePolicyId": behavior.cache_policy_id(),
            "originRequestPolicyId": behavior.origin_request_policy_id(),
            "responseHeadersPolicyId": behavior.response_headers_policy_id(),
            "functions": functions(behavior.function_associations()),
        })
    });
    let behaviors = config.cache_behaviors().map(CacheBehaviors::items).unwrap_or_default();
    let behaviors = behaviors.iter().zip(0..).map(|(behavior, position)| {
        let shown = json!({
            // The first behaviour that matches wins.
            "position": position,
            "targetOriginId": behavior.target_origin_id(),
            "viewerProtocolPolicy": behavior.viewer_protocol_policy().as_str(),
            "allowedMethods": method_names(behavior.allowed_methods()),
            "compress": behavior.compress(),
            "cachePolicyId": behavior.cache_policy_id(),
            "originRequestPolicyId": behavior.origin_request_policy_id(),
            "responseHeadersPolicyId": behavior.response_headers_policy_id(),
            "functions": functions(behavior.function_associations()),
        });
        (behavior.path_pattern().to_owned(), shown)
    });
    let origins = config.origins().map(Origins::items).unwrap_or_default();
    let origins = origins.iter().map(|origin| (origin.id().to_owned(), shown_origin(origin)));
    let mut aliases = config.aliases().map(|aliases| aliases.items().to_vec()).unwrap_or_default();
    aliases.sort_unstable();
    let errors =
        config.custom_error_responses().map(CustomErrorResponses::items).unwrap_or_default();
    let certificate = config.viewer_certificate();
    json!({
        "comment": config.comment(),
        "enabled": config.enabled(),
        "defaultRootObject": config.default_root_object(),
        "priceClass": config.price_class().map(PriceClass::as_str),
        "httpVersion": config.http_version().map(|version| version.as_str().to_lowercase()),
        "isIpv6Enabled": config.is_ipv6_enabled(),
        "aliases": aliases,
        "viewerCertificate": certificate
            .and_then(ViewerCertificate::acm_certificate_arn)
            .unwrap_or("CloudFront's own"),
        "origins": origins.collect::<Map<_, _>>(),
        "defaultCacheBehavior": default,
        "cacheBehaviors": behaviors.collect::<Map<_, _>>(),
        "customErrorResponses":
            errors.iter().map(aws_sdk_cloudfront::types::CustomErrorResponse::error_code).collect::<Vec<_>>(),
    })
}

/// The live value of [`ORIGIN_HEADER`].
pub fn origin_header(config: &DistributionConfig) -> Option<&str> {
    let origins = config.origins()?.items().iter();
    origins
        .filter_map(Origin::custom_headers)
        .flat_map(CustomHeaders::items)
        .find(|header| header.header_name().eq_ignore_ascii_case(ORIGIN_HEADER))
        .map(OriginCustomHeader::header_value)
}

fn shown_origin(origin: &Origin) -> Value {
    let custom = origin.custom_origin_config().map(|custom| {
        json!({
            "httpPort": custom.http_port(),
            "httpsPort": custom.https_port(),
            "originProtocolPolicy": custom.origin_protocol_policy().as_str(),
            "originReadTimeout": custom.origin_read_timeout(),
            "originKeepaliveTimeout": custom.origin_keepalive_timeout(),
        })
    });
    let headers = origin.custom_headers().map(CustomHeaders::items).unwrap_or_default();
    let control = origin.origin_access_control_id().filter(|id| !id.is_empty());
    json!({
        "domainName": origin.domain_name(),
        "originAccessControlId": control,
        "customOriginConfig": custom,
        // Names only: the value is compared apart, by its fingerprint.
        "customHeaders": headers.iter().map(OriginCustomHeader::header_name).collect::<Vec<_>>(),
    })
}

fn functions(associations: Option<&FunctionAssociations>) -> Map<String, Value> {
    let items = associations.map(FunctionAssociations::items).unwrap_or_default().iter();
    items.map(|item| (item.event_type().as_str().to_owned(), item.function_arn().into())).collect()
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

fn method_names(methods: Option<&AllowedMethods>) -> Vec<&str> {
    let items = methods.map(AllowedMethods::items).unwrap_or_default();
    let mut names: Vec<_> = items.iter().map(Method::as_str).collect();
    names.sort_unstable();
    names
}

fn count<T>(items: &[T]) -> i32 {
    i32::try_from(items.len()).expect("a list that is written out here has few items")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(settings: &Settings) -> Wanted<'_> {
        Wanted {
            settings,
            comment: "bme-local-distribution",
            caller_reference: "0123".into(),
            bucket_domain: "b.s3.us-east-1.amazonaws.com".into(),
            origin_access_control: "E1".into(),
            response_headers_policy: "p".into(),
            function: "arn:f".into(),
            load_balancer_domain: "lb.example".into(),
            origin_secret: "very-secret".into(),
        }
    }

    fn settings() -> Settings {
        Settings { price_class: PriceClass::PriceClass100, domain: None, load_balancer_tls: false }
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
