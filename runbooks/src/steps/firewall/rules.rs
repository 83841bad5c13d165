//! The rules of the web ACL as they are wanted.

use aws_sdk_wafv2::{
    primitives::Blob,
    types::{
        AndStatement, BlockAction, ByteMatchStatement, CountAction, FieldToMatch, LabelMatchScope,
        LabelMatchStatement, ManagedRuleGroupStatement, NoneAction, NotStatement, OverrideAction,
        PositionalConstraint, RateBasedStatement, RateBasedStatementAggregateKeyType,
        RateBasedStatementCustomKey, RateLimitHeader, RegexMatchStatement, Rule, RuleAction,
        RuleActionOverride, SingleHeader, Statement, TextTransformation, TextTransformationType,
        UriPath, VisibilityConfig,
    },
};
use aws_smithy_types::error::operation::BuildError;

/// The one path that takes bodies above the 8 KB that a web ACL on a load balancer can see.
pub const VOICE_PATH: &str = "/api/voice/understand";

/// Set by the distribution's function to the viewer's address; see `edge/viewer_request.js`.
const VIEWER_HEADER: &str = "x-bme-viewer";

/// The rule of the core rule set that blocks a body above 8 KB.
pub(super) const SIZE_OF_BODY: &str = "SizeRestrictions_BODY";

/// What [`SIZE_OF_BODY`] puts on a body above 8 KB (WAF developer guide, core rule set).
const BODY_LABEL: &str = "awswaf:managed:aws:core-rule-set:SizeRestrictions_Body";

/// Length of the window in which requests are counted, seconds.
const WINDOW: i64 = 300;

/// The rules, in the order in which they are evaluated.
pub fn rules(rate_limit: i64, voice_body_bytes: u32) -> Result<Vec<Rule>, BuildError> {
    let statements = vec![
        ("rate-per-address", Does::Block, rate_per_address(rate_limit)?),
        ("voice-body-too-large", Does::Block, voice_body_too_large(voice_body_bytes)?),
        ("voice-body-without-length", Does::Block, voice_body_without_length()?),
        ("ip-reputation", Does::AsItsGroup, managed("AWSManagedRulesAmazonIpReputationList", &[])?),
        (
            "known-bad-inputs",
            Does::AsItsGroup,
            managed("AWSManagedRulesKnownBadInputsRuleSet", &[])?,
        ),
        // Trap 2: its limit of 8 KB only marks, so that the next rule can except the voice path.
        (
            "common-rules",
            Does::AsItsGroup,
            managed("AWSManagedRulesCommonRuleSet", &[SIZE_OF_BODY])?,
        ),
        ("large-body-elsewhere", Does::Block, large_body_elsewhere()?),
    ];
    statements
        .into_iter()
        .zip(0..)
        .map(|((name, does, statement), priority)| {
            let rule = Rule::builder().name(name).priority(priority).statement(statement);
            let rule = match does {
                Does::Block => rule.action(block()),
                Does::AsItsGroup => rule.override_action(
                    OverrideAction::builder().none(NoneAction::builder().build()).build(),
                ),
            };
            rule.visibility_config(visibility(name)?).build()
        })
        .collect()
}

/// Metrics and samples under the given name.
pub fn visibility(metric: &str) -> Result<VisibilityConfig, BuildError> {
    VisibilityConfig::builder()
        .sampled_requests_enabled(true)
        .cloud_watch_metrics_enabled(true)
        .metric_name(metric)
        .build()
}

enum Does {
    Block,
    AsItsGroup,
}

/// The source address is always one of `CloudFront`'s, and the first address of `X-Forwarded-For` is
/// whatever the viewer wrote there: requests are counted by the header that our function overwrites.
fn rate_per_address(limit: i64) -> Result<Statement, BuildError> {
    let header = RateLimitHeader::builder()
        .name(VIEWER_HEADER)
        .text_transformations(transformation(TextTransformationType::None)?)
        .build()?;
    let rate = RateBasedStatement::builder()
        .limit(limit)
        .evaluation_window_sec(WINDOW)
        .aggregate_key_type(RateBasedStatementAggregateKeyType::CustomKeys)
        .custom_keys(RateBasedStatementCustomKey::builder().header(header).build())
        .build()?;
    Ok(Statement::builder().rate_based_statement(rate).build())
}

/// Trap 1: a web ACL on a load balancer sees 8 KB of a body, so a size constraint on the body would
/// block everything above that. The digits of `Content-Length` tell the size.
fn voice_body_too_large(limit: u32) -> Result<Statement, BuildError> {
    all([voice_path()?, header_matches("content-length", &above(limit))?])
}

/// The way around the rule before it: no `Content-Length`, the body in chunks (RFC 9112, 7.1).
fn voice_body_without_length() -> Result<Statement, BuildError> {
    all([
        voice_path()?,
        not(header_matches("content-length", "^[0-9]+$")?),
        header_matches("transfer-encoding", "chunked")?,
    ])
}

fn large_body_elsewhere() -> Result<Statement, BuildError> {
    let marked =
        LabelMatchStatement::builder().scope(LabelMatchScope::Label).key(BODY_LABEL).build()?;
    all([Statement::builder().label_match_statement(marked).build(), not(voice_path()?)])
}

fn managed(name: &str, counted: &[&str]) -> Result<Statement, BuildError> {
    let overrides = counted
        .iter()
        .map(|rule| {
            let count = RuleAction::builder().count(CountAction::builder().build()).build();
            RuleActionOverride::builder().name(*rule).action_to_use(count).build()
        })
        .collect::<Result<Vec<_>, _>>()?;
    let group = ManagedRuleGroupStatement::builder()
        .vendor_name("AWS")
        .name(name)
        .set_rule_action_overrides((!overrides.is_empty()).then_some(overrides))
        .build()?;
    Ok(Statement::builder().managed_rule_group_statement(group).build())
}

fn voice_path() -> Result<Statement, BuildError> {
    let path = ByteMatchStatement::builder()
        .search_string(Blob::new(VOICE_PATH))
        .field_to_match(FieldToMatch::builder().uri_path(UriPath::builder().build()).build())
        .text_transformations(transformation(TextTransformationType::None)?)
        .positional_constraint(PositionalConstraint::Exactly)
        .build()?;
    Ok(Statement::builder().byte_match_statement(path).build())
}

fn header_matches(header: &str, regex: &str) -> Result<Statement, BuildError> {
    let header = SingleHeader::builder().name(header).build()?;
    let matches = RegexMatchStatement::builder()
        .regex_string(regex)
        .field_to_match(FieldToMatch::builder().single_header(header).build())
        .text_transformations(transformation(TextTransformationType::Lowercase)?)
        .build()?;
    Ok(Statement::builder().regex_match_statement(matches).build())
}

fn transformation(kind: TextTransformationType) -> Result<TextTransformation, BuildError> {
    TextTransformation::builder().priority(0).r#type(kind).build()
}

fn all<const N: usize>(statements: [Statement; N]) -> Result<Statement, BuildError> {
    let all = AndStatement::builder().set_statements(Some(statements.into())).build()?;
    Ok(Statement::builder().and_statement(all).build())
}

fn not(statement: Statement) -> Statement {
    Statement::builder().not_statement(NotStatement::builder().statement(statement).build()).build()
}

fn block() -> RuleAction {
    RuleAction::builder().block(BlockAction::builder().build()).build()
}

/// A regular expression for the decimal numbers above `limit`: those with more digits, and, digit by
/// digit from the left, those that begin alike and then have a greater one.
fn above(limit: u32) -> String {
    let digits = limit.to_string();
    let mut branches = vec![format!("[1-9][0-9]{{{},}}", digits.len())];
    for (at, digit) in digits.char_indices().filter(|(_, digit)| *digit != '9') {
        let greater = char::from(u8::try_from(digit).expect("a decimal digit is ASCII") + 1);
        let rest = digits.len() - at - 1;
        branches.push(format!("{}[{greater}-9][0-9]{{{rest}}}", &digits[..at]));
    }
    format!("^0*({})$", branches.join("|"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::steps::firewall::rule_members::shown;

    fn is_above(limit: u32, text: &str) -> bool {
        regex_lite::Regex::new(&above(limit)).unwrap().is_match(text)
    }

    #[test]
    fn the_digits_of_content_length_decide_exactly_at_the_limit() {
        for limit in [8192, 65_536, 2_097_152, 9_999_999, 10_485_760] {
            for step in [1, 2, 10, 999, 100_000] {
                assert!(is_above(limit, &(limit + step).to_string()), "{limit}+{step}");
                assert!(
                    !is_above(limit, &(limit.saturating_sub(step)).to_string()),
                    "{limit}-{step}"
                );
            }
            assert!(!is_above(limit, &limit.to_string()), "{limit}");
            assert!(is_above(limit, &format!("000{}", limit + 1)), "leading zeros");
            assert!(is_above(limit, "99999999999999999999"));
        }
    }

    #[test]
    fn a_regular_expression_fits_into_what_waf_takes() {
        // 512 characters (WAF developer guide, quotas).
        assert!(above(10_485_760).len() <= 512);
    }

    #[test]
    fn no_rule_looks_at_the_size_of_a_body() {
        for rule in rules(2000, 2_097_152).unwrap() {
            let text = format!("{rule:?}");
            assert!(!text.contains("size_constraint_statement: Some"), "{}", rule.name());
        }
    }

    #[test]
    fn large_bodies_are_blocked_everywhere_but_on_the_voice_path() {
        let rules = rules(2000, 2_097_152).unwrap();
        let shown = shown(&rules, &rules);
        let rule = &shown["large-body-elsewhere"];
        assert_eq!(rule["blocks"], true);
        assert_eq!(
            rule["statement"],
            json!({"and": [{"label": BODY_LABEL}, {"not": {"EXACTLY": VOICE_PATH}}]})
        );
        let common = &shown["common-rules"];
        assert_eq!(common["statement"]["overrides"], json!({"SizeRestrictions_BODY": "count"}));
        assert!(common["priority"].as_i64() < rule["priority"].as_i64());
    }
}
