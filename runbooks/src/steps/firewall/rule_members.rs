//! The members of the web ACL's rules that are held: how they are shown, and how they are set over
//! rules that are there. Rules of other names, overrides of other rules in a managed group, and
//! members that are not shown (labels, a custom response) are the team's: they stay and are not
//! compared.

use aws_sdk_wafv2::types::{
    FieldToMatch, RateBasedStatementCustomKey, RateLimitHeader, Rule, SingleHeader, Statement,
};
use serde_json::{Map, Value, json};

use super::rules::SIZE_OF_BODY;

/// The rules of the names in `ours`, each with what decides.
pub fn shown(rules: &[Rule], ours: &[Rule]) -> Value {
    let named = rules
        .iter()
        .filter(|rule| is_among(rule, ours))
        .map(|rule| (rule.name().to_owned(), shown_rule(rule)));
    Value::Object(named.collect::<Map<_, _>>())
}

/// What an update writes: ours, each set over the one of its name in `now`, and all others of `now`.
/// The priorities of ours are taken; who else has one of them comes behind all rules.
pub fn held(ours: Vec<Rule>, now: &[Rule]) -> Vec<Rule> {
    let theirs = now.iter().filter(|rule| !is_among(rule, &ours));
    let mut theirs: Vec<_> = theirs.cloned().collect();
    theirs.sort_by_key(Rule::priority);
    let mut last = now.iter().chain(&ours).map(Rule::priority).max().unwrap_or_default();
    for rule in &mut theirs {
        if ours.iter().any(|ours| ours.priority() == rule.priority()) {
            last += 1;
            rule.priority = last;
        }
    }
    let mut held: Vec<_> = ours
        .into_iter()
        .map(|wanted| match now.iter().find(|rule| rule.name() == wanted.name()) {
            Some(now) => hold(now.clone(), wanted),
            None => wanted,
        })
        .collect();
    held.append(&mut theirs);
    held
}

fn is_among(rule: &Rule, rules: &[Rule]) -> bool {
    rules.iter().any(|other| other.name() == rule.name())
}

/// `now` with the members that are shown as they are in `wanted`.
fn hold(mut now: Rule, wanted: Rule) -> Rule {
    let (before, after) = (shown_rule(&now), shown_rule(&wanted));
    now.priority = wanted.priority;
    if before["blocks"] != after["blocks"] || before["countsOnly"] != after["countsOnly"] {
        now.action = wanted.action;
        now.override_action = wanted.override_action;
    }
    if before["statement"] != after["statement"] {
        now.statement = match (now.statement, wanted.statement) {
            (Some(now), Some(wanted)) => Some(hold_statement(now, wanted)),
            (_, wanted) => wanted,
        };
    }
    now
}

/// A managed group keeps its version, its narrowing and the team's overrides; any other statement is
/// ours as a whole.
fn hold_statement(mut now: Statement, wanted: Statement) -> Statement {
    if let (Some(live), Some(group)) =
        (&mut now.managed_rule_group_statement, &wanted.managed_rule_group_statement)
        && (&live.vendor_name, &live.name) == (&group.vendor_name, &group.name)
    {
        let theirs = live.rule_action_overrides().iter();
        let theirs = theirs.filter(|rule| rule.name() != SIZE_OF_BODY);
        let overrides: Vec<_> =
            group.rule_action_overrides().iter().chain(theirs).cloned().collect();
        live.rule_action_overrides = (!overrides.is_empty()).then_some(overrides);
        return now;
    }
    wanted
}

fn shown_rule(rule: &Rule) -> Value {
    let action = rule.action();
    json!({
        "priority": rule.priority(),
        "blocks": action.is_some_and(|action| action.block().is_some()),
        "countsOnly": action.is_some_and(|action| action.count().is_some())
            || rule.override_action().is_some_and(|action| action.count().is_some()),
        "statement": rule.statement().map(shown_statement),
    })
}

fn shown_statement(statement: &Statement) -> Value {
    if let Some(all) = statement.and_statement() {
        return json!({ "and": all.statements().iter().map(shown_statement).collect::<Vec<_>>() });
    }
    if let Some(not) = statement.not_statement() {
        return json!({ "not": not.statement().map(shown_statement) });
    }
    if let Some(path) = statement.byte_match_statement() {
        return json!({
            path.positional_constraint().as_str():
                String::from_utf8_lossy(path.search_string().as_ref()),
        });
    }
    if let Some(regex) = statement.regex_match_statement() {
        let header = regex.field_to_match().and_then(FieldToMatch::single_header);
        return json!({ header.map_or("?", SingleHeader::name): regex.regex_string() });
    }
    if let Some(label) = statement.label_match_statement() {
        return json!({ "label": label.key() });
    }
    if let Some(rate) = statement.rate_based_statement() {
        let headers = rate.custom_keys().iter().filter_map(RateBasedStatementCustomKey::header);
        return json!({
            "limit": rate.limit(),
            "evaluationWindowSec": rate.evaluation_window_sec(),
            "aggregateKeyType": rate.aggregate_key_type().as_str(),
            "headers": headers.map(RateLimitHeader::name).collect::<Vec<_>>(),
        });
    }
    if let Some(group) = statement.managed_rule_group_statement() {
        let ours = group.rule_action_overrides().iter();
        let overrides = ours.filter(|rule| rule.name() == SIZE_OF_BODY).map(|rule| {
            let counts = rule.action_to_use().is_some_and(|action| action.count().is_some());
            (rule.name().to_owned(), if counts { "count" } else { "other" }.into())
        });
        return json!({
            "ruleGroup": format!("{}/{}", group.vendor_name(), group.name()),
            "overrides": overrides.collect::<Map<_, _>>(),
        });
    }
    // A kind of statement that we never write: told as the SDK tells it.
    json!(format!("{statement:?}"))
}

#[cfg(test)]
mod tests {
    use aws_sdk_wafv2::types::{CountAction, Label, RuleAction, RuleActionOverride};

    use super::*;
    use crate::steps::firewall::rules::rules;

    fn wanted() -> Vec<Rule> {
        rules(2000, 2_097_152).unwrap()
    }

    fn counts(name: &str) -> RuleActionOverride {
        let count = RuleAction::builder().count(CountAction::builder().build()).build();
        RuleActionOverride::builder().name(name).action_to_use(count).build().unwrap()
    }

    fn overrides(rule: &mut Rule) -> &mut Vec<RuleActionOverride> {
        let statement = rule.statement.as_mut().unwrap();
        let group = statement.managed_rule_group_statement.as_mut().unwrap();
        group.rule_action_overrides.get_or_insert_default()
    }

    /// A rule of a team's own behind ours, overrides in our groups, and a label on one of our rules.
    fn set_by_a_team() -> Vec<Rule> {
        let mut theirs = wanted();
        let mut own = theirs[0].clone();
        own.name = "theirs".into();
        own.priority = 40;
        overrides(&mut theirs[3]).push(counts("AWSManagedIPDDoSList"));
        overrides(&mut theirs[5]).push(counts("GenericRFI_BODY"));
        theirs[0].rule_labels = Some(vec![Label::builder().name("their:label").build().unwrap()]);
        theirs.push(own);
        theirs
    }

    #[test]
    fn what_a_team_set_is_no_difference_and_survives_an_update() {
        let theirs = set_by_a_team();
        assert_eq!(shown(&theirs, &wanted()), shown(&wanted(), &wanted()));
        assert_eq!(held(wanted(), &theirs), theirs);
    }

    #[test]
    fn what_is_ours_is_put_back_among_what_is_theirs() {
        let theirs = set_by_a_team();
        let mut drifted = theirs.clone();
        overrides(&mut drifted[5]).remove(0);
        drifted[1].action =
            Some(RuleAction::builder().count(CountAction::builder().build()).build());
        drifted.remove(2);
        assert_ne!(shown(&drifted, &wanted()), shown(&wanted(), &wanted()));
        assert_eq!(held(wanted(), &drifted), theirs);
    }

    #[test]
    fn a_rule_of_a_team_gives_way_when_it_has_our_priority() {
        let mut theirs = set_by_a_team();
        theirs[7].priority = 0;
        theirs[0].priority = 41;
        let held = held(wanted(), &theirs);
        assert_eq!(held[0].priority(), 0);
        assert_eq!((held[7].name(), held[7].priority()), ("theirs", 42));
    }
}
