//! The rules applied to requests on paper, by what the WAF developer guide says of each statement.

use std::collections::HashSet;

use aws_sdk_wafv2::types::{FieldToMatch, PositionalConstraint, Rule, Statement};
use regex_lite::Regex;

use super::rules::{SIZE_OF_BODY, VOICE_PATH, rules};

/// What a web ACL on a load balancer sees of a body, bytes.
const SEEN: usize = 8 * 1024;

/// The service's own limit, bytes.
const LIMIT: u32 = 2 * 1024 * 1024;

struct Request {
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: usize,
}

impl Request {
    fn post(path: &'static str, body: usize) -> Self {
        Self { path, headers: vec![("content-length", body.to_string())], body }
    }

    fn chunked(path: &'static str, body: usize) -> Self {
        Self { path, headers: vec![("transfer-encoding", "Chunked".into())], body }
    }

    /// The header that is looked at, in lower case; one that is missing matches nothing.
    fn field(&self, field: Option<&FieldToMatch>) -> Option<String> {
        let field = field.unwrap();
        if field.uri_path().is_some() {
            return Some(self.path.to_owned());
        }
        let name = field.single_header().expect("a path or a header").name();
        let header = self.headers.iter().find(|(header, _)| *header == name);
        header.map(|(_, value)| value.to_lowercase())
    }

    /// The rule that blocks it.
    fn blocked_by(&self, rules: &[Rule]) -> Option<String> {
        let mut labels = HashSet::new();
        let mut rules: Vec<_> = rules.iter().collect();
        rules.sort_by_key(|rule| rule.priority());
        for rule in rules {
            let matches = self.matches(rule.statement().unwrap(), &mut labels);
            let blocks = rule.action().is_none_or(|action| action.block().is_some());
            if matches && blocks {
                return Some(rule.name().to_owned());
            }
        }
        None
    }

    fn matches(&self, statement: &Statement, labels: &mut HashSet<String>) -> bool {
        if let Some(all) = statement.and_statement() {
            return all.statements().iter().all(|statement| self.matches(statement, labels));
        }
        if let Some(not) = statement.not_statement() {
            return !self.matches(not.statement().unwrap(), labels);
        }
        if let Some(bytes) = statement.byte_match_statement() {
            assert_eq!(*bytes.positional_constraint(), PositionalConstraint::Exactly);
            let wanted = std::str::from_utf8(bytes.search_string().as_ref()).unwrap();
            return self.field(bytes.field_to_match()).as_deref() == Some(wanted);
        }
        if let Some(regex) = statement.regex_match_statement() {
            let expression = Regex::new(regex.regex_string()).unwrap();
            return self
                .field(regex.field_to_match())
                .is_some_and(|text| expression.is_match(&text));
        }
        if let Some(label) = statement.label_match_statement() {
            return labels.contains(label.key());
        }
        if let Some(group) = statement.managed_rule_group_statement() {
            if group.name() != "AWSManagedRulesCommonRuleSet" || self.body <= SEEN {
                return false;
            }
            labels.insert("awswaf:managed:aws:core-rule-set:SizeRestrictions_Body".into());
            let counted = group.rule_action_overrides().iter().any(|rule| {
                rule.name() == SIZE_OF_BODY
                    && rule.action_to_use().is_some_and(|action| action.count().is_some())
            });
            return !counted;
        }
        assert!(statement.rate_based_statement().is_some(), "{statement:?}");
        false
    }
}

#[test]
fn a_voice_upload_passes_up_to_two_mebibytes() {
    let rules = rules(2000, LIMIT).unwrap();
    for body in [0, 8_192, 8_193, 1_900_000, 1_992_294, 2_097_152] {
        assert_eq!(Request::post(VOICE_PATH, body).blocked_by(&rules), None, "{body} bytes");
    }
    for body in [2_097_153, 2_100_000, 2_202_009, 90_000_000] {
        let blocked = Request::post(VOICE_PATH, body).blocked_by(&rules);
        assert_eq!(blocked.as_deref(), Some("voice-body-too-large"), "{body} bytes");
    }
}

#[test]
fn a_voice_upload_tells_its_length() {
    let rules = rules(2000, LIMIT).unwrap();
    let chunked = Request::chunked(VOICE_PATH, 1_900_000);
    assert_eq!(chunked.blocked_by(&rules).as_deref(), Some("voice-body-without-length"));
    let mut both = Request::chunked(VOICE_PATH, 9_000_000);
    both.headers.push(("content-length", "garbage".into()));
    assert_eq!(both.blocked_by(&rules).as_deref(), Some("voice-body-without-length"));
}

#[test]
fn elsewhere_a_body_passes_up_to_what_the_firewall_sees() {
    let rules = rules(2000, LIMIT).unwrap();
    assert_eq!(Request::post("/api/transactions", 8_192).blocked_by(&rules), None);
    for path in ["/api/transactions", "/api/voice/understand/", "/api/voice/understand/x"] {
        let blocked = Request::post(path, 8_193).blocked_by(&rules);
        assert_eq!(blocked.as_deref(), Some("large-body-elsewhere"), "{path}");
    }
}
