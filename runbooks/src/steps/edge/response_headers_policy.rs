//! The response headers of the web application.

use async_trait::async_trait;
use aws_sdk_cloudfront::types::{
    FrameOptionsList, ReferrerPolicyList, ResponseHeadersPolicyConfig,
    ResponseHeadersPolicyContentSecurityPolicy, ResponseHeadersPolicyContentTypeOptions,
    ResponseHeadersPolicyCustomHeader, ResponseHeadersPolicyCustomHeadersConfig,
    ResponseHeadersPolicyFrameOptions, ResponseHeadersPolicyReferrerPolicy,
    ResponseHeadersPolicySecurityHeadersConfig, ResponseHeadersPolicyStrictTransportSecurity,
};
use aws_smithy_types::error::operation::BuildError;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, built, failed},
    engine::{Condition, Error, Live, Outputs, Permission, Resource, ResourceId, diff::Field},
};

/// Headers for which CloudFront has no member of its own. The service sends the same with its answers, but
/// that the application may listen: its assistant is spoken to.
const CUSTOM: [(&str, &str); 3] = [
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(self)"),
];

/// The policy. It takes no tags; its name is unique in the account.
pub struct ResponseHeadersPolicy {
    /// Id and name.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// HSTS max-age, seconds (RFC 6797).
    pub hsts_seconds: i32,
    /// `Content-Security-Policy`.
    pub content_security_policy: String,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct ResponseHeadersPolicyOutput {
    /// Its id.
    pub id: String,
}

#[async_trait]
impl Resource for ResponseHeadersPolicy {
    type Output = ResponseHeadersPolicyOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<ResponseHeadersPolicyOutput>>, Error> {
        let policies = self.aws.cloudfront.response_headers_policies(since).await?;
        let named = |config: &ResponseHeadersPolicyConfig| config.name() == self.label.name;
        let config_of = |policy: &'_ aws_sdk_cloudfront::types::ResponseHeadersPolicy| {
            policy.response_headers_policy_config().cloned()
        };
        Ok(policies
            .iter()
            .filter_map(|policy| Some((policy.id(), config_of(policy)?)))
            .find(|(_, config)| named(config))
            .map(|(id, config)| Live {
                properties: properties(&config),
                condition: Condition::Ready,
                output: ResponseHeadersPolicyOutput { id: id.to_owned() },
            }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        let custom = CUSTOM.iter().map(|(header, value)| {
            ((*header).to_owned(), json!({"value": value, "override": true}))
        });
        let custom: Map<String, Value> = custom.collect();
        json!({ "customHeaders": custom, "securityHeaders": {
            "strictTransportSecurity":
                {"accessControlMaxAgeSec": self.hsts_seconds, "includeSubdomains": true},
            "contentSecurityPolicy": self.content_security_policy,
            "contentTypeOptions": true,
            "frameOption": "DENY",
            "referrerPolicy": "strict-origin-when-cross-origin",
        }})
    }

    async fn create(&self, _: &Outputs) -> Result<Option<ResponseHeadersPolicyOutput>, Error> {
        let created = self
            .aws
            .cloudfront
            .client
            .create_response_headers_policy()
            .response_headers_policy_config(self.config()?)
            .send()
            .await
            .map_err(failed("cloudfront:CreateResponseHeadersPolicy"))?;
        let id = created.response_headers_policy().map(|policy| policy.id().to_owned());
        Ok(Some(ResponseHeadersPolicyOutput { id: id.unwrap_or_default() }))
    }

    /// Reads, changes, writes: the update replaces the whole policy (trap 5).
    async fn update(
        &self,
        live: &Live<ResponseHeadersPolicyOutput>,
        _: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        let client = &self.aws.cloudfront.client;
        let get = client.get_response_headers_policy().id(&live.output.id);
        let answer = get.send().await.map_err(failed("cloudfront:GetResponseHeadersPolicy"))?;
        let now = answer.response_headers_policy.and_then(|now| now.response_headers_policy_config);
        let config = match now {
            Some(now) => hold(now, self.config()?),
            None => self.config()?,
        };
        client
            .update_response_headers_policy()
            .id(&live.output.id)
            .set_if_match(answer.e_tag)
            .response_headers_policy_config(config)
            .send()
            .await
            .map_err(failed("cloudfront:UpdateResponseHeadersPolicy"))?;
        Ok(())
    }

    async fn delete(&self, live: &Live<ResponseHeadersPolicyOutput>) -> Result<(), Error> {
        let client = &self.aws.cloudfront.client;
        let get = client.get_response_headers_policy().id(&live.output.id);
        let answer = get.send().await.map_err(failed("cloudfront:GetResponseHeadersPolicy"))?;
        client
            .delete_response_headers_policy()
            .id(&live.output.id)
            .set_if_match(answer.e_tag)
            .send()
            .await
            .map_err(failed("cloudfront:DeleteResponseHeadersPolicy"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "cloudfront:DeleteResponseHeadersPolicy",
            "cloudfront:GetResponseHeadersPolicy",
            "cloudfront:UpdateResponseHeadersPolicy",
        ];
        // Their ids are generated.
        let policies = self.aws.global_arn("cloudfront", "response-headers-policy/*");
        vec![
            Permission::anywhere([
                "cloudfront:CreateResponseHeadersPolicy",
                "cloudfront:ListResponseHeadersPolicies",
            ]),
            Permission::on(actions, [policies]),
        ]
    }
}

impl ResponseHeadersPolicy {
    fn config(&self) -> Result<ResponseHeadersPolicyConfig, Error> {
        let built = built("cloudfront:CreateResponseHeadersPolicy");
        let headers = ResponseHeadersPolicySecurityHeadersConfig::builder()
            .strict_transport_security(
                ResponseHeadersPolicyStrictTransportSecurity::builder()
                    .r#override(true)
                    .include_subdomains(true)
                    .preload(false)
                    .access_control_max_age_sec(self.hsts_seconds)
                    .build()
                    .map_err(&built)?,
            )
            .content_security_policy(
                ResponseHeadersPolicyContentSecurityPolicy::builder()
                    .r#override(true)
                    .content_security_policy(&self.content_security_policy)
                    .build()
                    .map_err(&built)?,
            )
            .content_type_options(
                ResponseHeadersPolicyContentTypeOptions::builder()
                    .r#override(true)
                    .build()
                    .map_err(&built)?,
            )
            .frame_options(
                ResponseHeadersPolicyFrameOptions::builder()
                    .r#override(true)
                    .frame_option(FrameOptionsList::Deny)
                    .build()
                    .map_err(&built)?,
            )
            .referrer_policy(
                ResponseHeadersPolicyReferrerPolicy::builder()
                    .r#override(true)
                    .referrer_policy(ReferrerPolicyList::StrictOriginWhenCrossOrigin)
                    .build()
                    .map_err(&built)?,
            )
            .build();
        ResponseHeadersPolicyConfig::builder()
            .name(&self.label.name)
            .security_headers_config(headers)
            .custom_headers_config(custom_headers().map_err(&built)?)
            .build()
            .map_err(&built)
    }
}

fn custom_headers() -> Result<ResponseHeadersPolicyCustomHeadersConfig, BuildError> {
    let headers = CUSTOM.into_iter().map(|(header, value)| {
        let custom = ResponseHeadersPolicyCustomHeader::builder().header(header).value(value);
        // Whatever the bucket says.
        custom.r#override(true).build()
    });
    ResponseHeadersPolicyCustomHeadersConfig::builder()
        .set_items(Some(headers.collect::<Result<Vec<_>, _>>()?))
        .quantity(i32::try_from(CUSTOM.len()).unwrap_or(i32::MAX))
        .build()
}

/// `now` with the members that are shown as they are in `wanted`.
fn hold(
    mut now: ResponseHeadersPolicyConfig,
    wanted: ResponseHeadersPolicyConfig,
) -> ResponseHeadersPolicyConfig {
    now.security_headers_config =
        match (now.security_headers_config, wanted.security_headers_config) {
            (Some(now), Some(mut wanted)) => {
                wanted.xss_protection = now.xss_protection;
                if let (Some(now), Some(wanted)) =
                    (now.strict_transport_security, &mut wanted.strict_transport_security)
                {
                    wanted.preload = now.preload;
                }
                Some(wanted)
            }
            (_, wanted) => wanted,
        };
    let mut custom = wanted.custom_headers_config;
    if let (Some(now), Some(wanted)) = (now.custom_headers_config, &mut custom) {
        let others = now.items.into_iter().flatten().filter(|one| {
            !CUSTOM.iter().any(|(header, _)| header.eq_ignore_ascii_case(one.header()))
        });
        let items = wanted.items.get_or_insert_default();
        items.extend(others);
        wanted.quantity = i32::try_from(items.len()).unwrap_or(i32::MAX);
    }
    now.custom_headers_config = custom;
    now
}

/// The members that are ours.
fn properties(config: &ResponseHeadersPolicyConfig) -> Value {
    let live = config.custom_headers_config().map(ResponseHeadersPolicyCustomHeadersConfig::items);
    let custom = CUSTOM.iter().filter_map(|(header, _)| {
        let mut live = live.unwrap_or_default().iter();
        let live = live.find(|one| header.eq_ignore_ascii_case(one.header()))?;
        let shown = json!({"value": live.value(), "override": live.r#override()});
        Some(((*header).to_owned(), shown))
    });
    let custom: Map<String, Value> = custom.collect();
    json!({
        "customHeaders": custom,
        "securityHeaders": shown(config.security_headers_config()),
    })
}

fn shown(headers: Option<&ResponseHeadersPolicySecurityHeadersConfig>) -> Value {
    let Some(headers) = headers else { return Value::Null };
    json!({
        "strictTransportSecurity": headers.strict_transport_security().map(|hsts| json!({
            "accessControlMaxAgeSec": hsts.access_control_max_age_sec(),
            "includeSubdomains": hsts.include_subdomains(),
        })),
        "contentSecurityPolicy":
            headers.content_security_policy().map(ResponseHeadersPolicyContentSecurityPolicy::content_security_policy),
        "contentTypeOptions": headers.content_type_options().is_some(),
        "frameOption": headers.frame_options().map(|frame| frame.frame_option().as_str()),
        "referrerPolicy": headers.referrer_policy().map(|policy| policy.referrer_policy().as_str()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Graph;

    fn policy() -> ResponseHeadersPolicy {
        ResponseHeadersPolicy {
            label: Label {
                id: ResourceId::new("edge", "response-headers-policy"),
                name: "bme-staging-response-headers-policy".into(),
                tags: [].into(),
            },
            aws: Aws::unconnected("123456789012", "eu-west-1"),
            hsts_seconds: 31_536_000,
            content_security_policy: "default-src 'self'".into(),
        }
    }

    #[test]
    fn the_application_may_listen_and_shares_no_window_with_others() {
        let policy = policy();
        let desired = policy.desired(&Graph::default().outputs());
        let custom = &desired["customHeaders"];
        for (header, value) in [
            ("Permissions-Policy", "camera=(), geolocation=(), microphone=(self)"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ] {
            assert_eq!(custom[header], json!({"value": value, "override": true}));
        }
        assert_eq!(properties(&policy.config().unwrap()), desired, "what is made is as wanted");
    }

    #[test]
    fn a_header_of_a_team_stays_beside_ours() {
        let policy = policy();
        let header = |header: &str, value: &str| {
            let custom = ResponseHeadersPolicyCustomHeader::builder().header(header).value(value);
            custom.r#override(false).build().unwrap()
        };
        let mut now = policy.config().unwrap();
        now.custom_headers_config = Some(
            ResponseHeadersPolicyCustomHeadersConfig::builder()
                .items(header("X-Team", "a"))
                .items(header("permissions-policy", "microphone=()"))
                .quantity(2)
                .build()
                .unwrap(),
        );
        assert_ne!(properties(&now), policy.desired(&Graph::default().outputs()));
        let held = hold(now, policy.config().unwrap());
        assert_eq!(properties(&held), policy.desired(&Graph::default().outputs()));
        let custom = held.custom_headers_config().unwrap();
        assert_eq!((custom.quantity(), custom.items().len()), (4, 4));
        assert!(custom.items().contains(&header("X-Team", "a")));
    }
}
