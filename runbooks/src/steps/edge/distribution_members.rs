//! The members of the distribution that are held: how they are shown, and how they are set over a
//! configuration that is there. Everything else is the team's and stays: members that are not shown
//! (an origin's attempts, a behaviour's Lambda associations), and whole origins, behaviours, headers
//! and associations of other names, which come behind ours and are not compared.

use aws_sdk_cloudfront::types::{
    AllowedMethods, CacheBehavior, CacheBehaviors, CustomErrorResponse, CustomErrorResponses,
    CustomHeaders, CustomOriginConfig, DistributionConfig, EventType, FunctionAssociation,
    FunctionAssociations, Method, Origin, OriginCustomHeader, Origins, PriceClass, S3OriginConfig,
    ViewerCertificate,
};
use serde_json::{Map, Value, json};

use super::distribution_config::{BUCKET, LOAD_BALANCER, ORIGIN_HEADER, SERVICE_PATHS};

/// The members that both kinds of behaviour have.
macro_rules! shown_behavior {
    ($behavior:expr) => {
        json!({
            "targetOriginId": $behavior.target_origin_id(),
            "viewerProtocolPolicy": $behavior.viewer_protocol_policy().as_str(),
            "allowedMethods": method_names($behavior.allowed_methods()),
            "compress": $behavior.compress(),
            "cachePolicyId": $behavior.cache_policy_id(),
            "originRequestPolicyId": $behavior.origin_request_policy_id(),
            "responseHeadersPolicyId": $behavior.response_headers_policy_id(),
            "function": $behavior
                .function_associations()
                .and_then(|associations| associations.items().iter().find(|item| is_ours(item)))
                .map(FunctionAssociation::function_arn),
        })
    };
}

/// Sets the same members of `$wanted` over `$now`.
macro_rules! hold_behavior {
    ($now:ident, $wanted:ident) => {{
        if method_names($now.allowed_methods()) != method_names($wanted.allowed_methods()) {
            $now.allowed_methods = $wanted.allowed_methods;
        }
        $now.target_origin_id = $wanted.target_origin_id;
        $now.viewer_protocol_policy = $wanted.viewer_protocol_policy;
        $now.compress = $wanted.compress;
        $now.cache_policy_id = $wanted.cache_policy_id;
        $now.origin_request_policy_id = $wanted.origin_request_policy_id;
        $now.response_headers_policy_id = $wanted.response_headers_policy_id;
        $now.function_associations =
            hold_functions($now.function_associations, $wanted.function_associations);
        // What came before cache policies; both together are refused.
        $now.forwarded_values = None;
        ($now.min_ttl, $now.default_ttl, $now.max_ttl) = (None, None, None);
    }};
}

/// The members that are held, in AWS's words; origins and behaviours by their names.
pub fn shown(config: &DistributionConfig) -> Value {
    let behaviors = config.cache_behaviors().map(CacheBehaviors::items).unwrap_or_default();
    let behaviors = behaviors
        .iter()
        .zip(0..)
        .filter(|(behavior, _)| SERVICE_PATHS.contains(&behavior.path_pattern()))
        .map(|(behavior, position)| {
            let mut shown = shown_behavior!(behavior);
            // The first behaviour that matches wins.
            shown["position"] = position.into();
            (behavior.path_pattern().to_owned(), shown)
        });
    let origins = config.origins().map(Origins::items).unwrap_or_default();
    let origins = origins
        .iter()
        .filter(|origin| [BUCKET, LOAD_BALANCER].contains(&origin.id()))
        .map(|origin| (origin.id().to_owned(), shown_origin(origin)));
    let mut aliases = config.aliases().map(|aliases| aliases.items().to_vec()).unwrap_or_default();
    aliases.sort_unstable();
    let errors =
        config.custom_error_responses().map(CustomErrorResponses::items).unwrap_or_default();
    json!({
        "comment": config.comment(),
        "enabled": config.enabled(),
        "defaultRootObject": config.default_root_object(),
        "priceClass": config.price_class().map(PriceClass::as_str),
        "httpVersion": config.http_version().map(|version| version.as_str().to_lowercase()),
        "isIpv6Enabled": config.is_ipv6_enabled(),
        "aliases": aliases,
        "viewerCertificate": certificate(config),
        "origins": origins.collect::<Map<_, _>>(),
        "defaultCacheBehavior":
            config.default_cache_behavior().map(|behavior| shown_behavior!(behavior)),
        "cacheBehaviors": behaviors.collect::<Map<_, _>>(),
        "customErrorResponses":
            errors.iter().map(CustomErrorResponse::error_code).collect::<Vec<_>>(),
    })
}

/// `now` with the members that are held as they are in `wanted`.
#[expect(deprecated, reason = "what came before cache policies may still be set")]
pub fn hold(mut now: DistributionConfig, wanted: DistributionConfig) -> DistributionConfig {
    if certificate(&now) != certificate(&wanted) {
        now.viewer_certificate = wanted.viewer_certificate;
    }
    now.comment = wanted.comment;
    now.enabled = wanted.enabled;
    now.default_root_object = wanted.default_root_object;
    now.price_class = wanted.price_class;
    now.http_version = wanted.http_version;
    now.is_ipv6_enabled = wanted.is_ipv6_enabled;
    now.aliases = wanted.aliases;
    now.custom_error_responses = wanted.custom_error_responses;
    now.origins = wanted.origins.map(|mut wanted| {
        let theirs = now.origins.map(|now| now.items).unwrap_or_default();
        wanted.items = merged(wanted.items, theirs, |origin| origin.id.clone(), hold_origin);
        wanted.quantity = count(&wanted.items);
        wanted
    });
    now.default_cache_behavior = match (now.default_cache_behavior, wanted.default_cache_behavior) {
        (Some(mut now), Some(wanted)) => {
            hold_behavior!(now, wanted);
            Some(now)
        }
        (_, wanted) => wanted,
    };
    now.cache_behaviors = wanted.cache_behaviors.map(|mut wanted| {
        let hold = |mut now: CacheBehavior, wanted: CacheBehavior| {
            hold_behavior!(now, wanted);
            now
        };
        let theirs = now.cache_behaviors.and_then(|now| now.items).unwrap_or_default();
        let ours = wanted.items.unwrap_or_default();
        let items = merged(ours, theirs, |behavior| behavior.path_pattern.clone(), hold);
        wanted.quantity = count(&items);
        wanted.items = Some(items);
        wanted
    });
    now
}

/// The live value of [`ORIGIN_HEADER`].
pub fn origin_header(config: &DistributionConfig) -> Option<&str> {
    let origins = config.origins()?.items().iter();
    origins
        .filter(|origin| origin.id() == LOAD_BALANCER)
        .filter_map(Origin::custom_headers)
        .flat_map(CustomHeaders::items)
        .find(|header| is_origin_header(header))
        .map(OriginCustomHeader::header_value)
}

/// How many: lists carry their length besides.
pub(super) fn count<T>(items: &[T]) -> i32 {
    i32::try_from(items.len()).expect("a distribution has at most a few hundred of anything")
}

/// Ours in their order, each set over the one of its name, then all others in theirs.
fn merged<T>(
    ours: Vec<T>,
    mut theirs: Vec<T>,
    name: impl Fn(&T) -> String,
    hold: impl Fn(T, T) -> T,
) -> Vec<T> {
    let mut merged = Vec::with_capacity(ours.len() + theirs.len());
    for wanted in ours {
        let now = theirs.iter().position(|now| name(now) == name(&wanted));
        merged.push(match now {
            Some(now) => hold(theirs.remove(now), wanted),
            None => wanted,
        });
    }
    merged.append(&mut theirs);
    merged
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
    let set = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    json!({
        "domainName": origin.domain_name(),
        "originPath": set(origin.origin_path()),
        "originAccessControlId": set(origin.origin_access_control_id()),
        "customOriginConfig": custom,
        // Whether it is there: the value is compared apart, by its fingerprint.
        "originHeader": headers.iter().any(is_origin_header),
    })
}

fn hold_origin(mut now: Origin, wanted: Origin) -> Origin {
    now.domain_name = wanted.domain_name;
    now.origin_path = wanted.origin_path;
    now.origin_access_control_id = wanted.origin_access_control_id;
    now.s3_origin_config = match (now.s3_origin_config, wanted.s3_origin_config) {
        (Some(now), Some(wanted)) => Some(hold_s3(now, wanted)),
        (_, wanted) => wanted,
    };
    now.custom_origin_config = match (now.custom_origin_config, wanted.custom_origin_config) {
        (Some(now), Some(wanted)) => Some(hold_custom(now, wanted)),
        (_, wanted) => wanted,
    };
    now.custom_headers = hold_headers(now.custom_headers, wanted.custom_headers);
    now
}

fn hold_headers(
    now: Option<CustomHeaders>,
    wanted: Option<CustomHeaders>,
) -> Option<CustomHeaders> {
    let ours = wanted.as_ref().map(CustomHeaders::items).unwrap_or_default().iter();
    let theirs = now.as_ref().map(CustomHeaders::items).unwrap_or_default().iter();
    let theirs = theirs.filter(|header| !is_origin_header(header));
    let items: Vec<_> = ours.chain(theirs).cloned().collect();
    let mut headers = wanted.or(now)?;
    headers.quantity = count(&items);
    headers.items = (!items.is_empty()).then_some(items);
    Some(headers)
}

fn hold_s3(mut now: S3OriginConfig, wanted: S3OriginConfig) -> S3OriginConfig {
    now.origin_access_identity = wanted.origin_access_identity;
    now
}

fn hold_custom(mut now: CustomOriginConfig, wanted: CustomOriginConfig) -> CustomOriginConfig {
    now.http_port = wanted.http_port;
    now.https_port = wanted.https_port;
    now.origin_protocol_policy = wanted.origin_protocol_policy;
    now.origin_read_timeout = wanted.origin_read_timeout;
    now.origin_keepalive_timeout = wanted.origin_keepalive_timeout;
    now
}

fn hold_functions(
    now: Option<FunctionAssociations>,
    wanted: Option<FunctionAssociations>,
) -> Option<FunctionAssociations> {
    let mut wanted = wanted?;
    let theirs = now.and_then(|now| now.items).unwrap_or_default();
    let mut items = wanted.items.unwrap_or_default();
    items.extend(theirs.into_iter().filter(|item| !is_ours(item)));
    wanted.quantity = count(&items);
    wanted.items = Some(items);
    Some(wanted)
}

/// We have one function, on viewer requests; those on other events are the team's.
fn is_ours(association: &FunctionAssociation) -> bool {
    association.event_type() == &EventType::ViewerRequest
}

fn is_origin_header(header: &OriginCustomHeader) -> bool {
    header.header_name().eq_ignore_ascii_case(ORIGIN_HEADER)
}

fn certificate(config: &DistributionConfig) -> &str {
    config
        .viewer_certificate()
        .and_then(ViewerCertificate::acm_certificate_arn)
        .filter(|arn| !arn.is_empty())
        .unwrap_or("CloudFront's own")
}

fn method_names(methods: Option<&AllowedMethods>) -> Vec<&str> {
    let items = methods.map(AllowedMethods::items).unwrap_or_default();
    let mut names: Vec<_> = items.iter().map(Method::as_str).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use aws_sdk_cloudfront::types::{
        LambdaFunctionAssociation, LambdaFunctionAssociations, OriginShield, ViewerProtocolPolicy,
    };

    use super::*;
    use crate::steps::edge::distribution_config::{Settings, tests::wanted};

    fn config() -> DistributionConfig {
        let settings = Settings {
            price_class: PriceClass::PriceClass100,
            domain: None,
            origin_domain: None,
            load_balancer_tls: false,
        };
        wanted(&settings).config(None).unwrap()
    }

    fn header(name: &str, value: &str) -> OriginCustomHeader {
        OriginCustomHeader::builder().header_name(name).header_value(value).build().unwrap()
    }

    /// What a team may have set, each at the place where it is kept.
    fn set_by_a_team(config: &mut DistributionConfig) {
        config.web_acl_id = Some("their-acl".into());
        let origins = config.origins.as_mut().unwrap();
        let mut own = origins.items[0].clone();
        own.id = "theirs".into();
        let load_balancer = &mut origins.items[1];
        load_balancer.connection_attempts = Some(1);
        let shield = OriginShield::builder().enabled(true).origin_shield_region("us-east-1");
        load_balancer.origin_shield = Some(shield.build().unwrap());
        let headers = load_balancer.custom_headers.as_mut().unwrap();
        headers.items.as_mut().unwrap().push(header("X-Theirs", "1"));
        headers.quantity = 2;
        origins.items.insert(0, own);
        origins.quantity = 3;
        let behaviors = config.cache_behaviors.as_mut().unwrap();
        let items = behaviors.items.as_mut().unwrap();
        let mut own = items[0].clone();
        own.path_pattern = "/theirs/*".into();
        let lambda = LambdaFunctionAssociation::builder()
            .lambda_function_arn("arn:l")
            .event_type(EventType::OriginResponse)
            .build()
            .unwrap();
        items[0].lambda_function_associations =
            LambdaFunctionAssociations::builder().quantity(1).items(lambda).build().ok();
        items[0].field_level_encryption_id = Some("their-encryption".into());
        items.push(own);
        behaviors.quantity += 1;
        let response = FunctionAssociation::builder()
            .function_arn("arn:theirs")
            .event_type(EventType::ViewerResponse)
            .build()
            .unwrap();
        let default = config.default_cache_behavior.as_mut().unwrap();
        let functions = default.function_associations.as_mut().unwrap();
        functions.items.as_mut().unwrap().push(response);
        functions.quantity = 2;
    }

    #[test]
    fn what_a_team_set_is_no_difference_and_survives_an_update() {
        let mut theirs = config();
        set_by_a_team(&mut theirs);
        assert_eq!(shown(&theirs), shown(&config()));
        let mut updated = hold(theirs.clone(), config());
        // Ours come first; all else is as it was, to the last member.
        let origins = &mut updated.origins.as_mut().unwrap().items;
        assert_eq!(
            origins.iter().map(Origin::id).collect::<Vec<_>>(),
            ["bucket", "load-balancer", "theirs"]
        );
        origins.rotate_right(1);
        assert_eq!(updated, theirs);
    }

    #[test]
    fn what_is_ours_is_put_back_among_what_is_theirs() {
        let mut theirs = config();
        set_by_a_team(&mut theirs);
        let mut drifted = theirs.clone();
        let load_balancer = &mut drifted.origins.as_mut().unwrap().items[2];
        load_balancer.domain_name = "elsewhere.example".into();
        load_balancer.custom_headers.as_mut().unwrap().items =
            Some(vec![header("X-Theirs", "1"), header("x-bme-origin", "forged")]);
        let items = drifted.cache_behaviors.as_mut().unwrap().items.as_mut().unwrap();
        items[1].viewer_protocol_policy = ViewerProtocolPolicy::AllowAll;
        items.rotate_right(1);
        assert_eq!(shown(&drifted)["cacheBehaviors"]["/api"]["position"], 1);
        assert_ne!(shown(&drifted), shown(&config()));
        assert_eq!(hold(drifted, config()), hold(theirs, config()));
    }
}
