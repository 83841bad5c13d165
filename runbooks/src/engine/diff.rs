//! The comparison of what is wanted with what is: pure, member by member.

use serde::Serialize;
use serde_json::{Map, Value};

use super::outputs::is_unknown;

/// One member that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// Dotted path of the member.
    pub path: String,
    /// The live value; null when absent.
    pub before: Value,
    /// The wanted value; null when it should be absent.
    pub after: Value,
}

/// What has to be done with a resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// Nothing.
    Unchanged,
    /// These members change in place.
    Update(Vec<Field>),
    /// These members differ and at least one can't be changed in place: the reason.
    Replace(Vec<Field>, &'static str),
}

/// Compares. At the top level only the members of `desired` count, since the cloud knows many more;
/// inside a member both sides must be equal, except in `tags`, where foreign tags are left alone. A
/// value that is not known before a need exists is no reason to replace: the need of something that
/// is there is most likely there as well, and only not seen yet.
pub fn diff(
    desired: &Value,
    live: &Value,
    immutable: &[(&'static str, &'static str)],
) -> Difference {
    let mut fields = Vec::new();
    let empty = Map::new();
    let desired = desired.as_object().unwrap_or(&empty);
    for (name, wanted) in desired {
        compare(name, wanted, live.get(name).unwrap_or(&Value::Null), name == "tags", &mut fields);
    }
    if fields.is_empty() {
        return Difference::Unchanged;
    }
    let why = immutable.iter().find(|(path, _)| {
        let mut at = fields.iter().filter(|field| is_at_or_below(&field.path, path));
        at.any(|field| !is_unknown(&field.after))
    });
    match why {
        Some((_, why)) => Difference::Replace(fields, why),
        None => Difference::Update(fields),
    }
}

/// Whether any of `fields` lies at or below `path`.
pub fn touches(fields: &[Field], path: &str) -> bool {
    fields.iter().any(|field| is_at_or_below(&field.path, path))
}

fn is_at_or_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn compare(path: &str, wanted: &Value, live: &Value, subset: bool, fields: &mut Vec<Field>) {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            for (name, value) in wanted {
                let below = live.get(name).unwrap_or(&Value::Null);
                compare(&format!("{path}.{name}"), value, below, false, fields);
            }
            if !subset {
                for (name, value) in live.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
                    compare(&format!("{path}.{name}"), &Value::Null, value, false, fields);
                }
            }
        }
        (Value::Number(wanted), Value::Number(live)) if wanted.as_f64() == live.as_f64() => {}
        _ if wanted == live => {}
        _ => fields.push(Field {
            path: path.to_owned(),
            before: live.clone(),
            after: wanted.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(difference: &Difference) -> Vec<&str> {
        match difference {
            Difference::Unchanged => Vec::new(),
            Difference::Update(fields) | Difference::Replace(fields, _) => {
                fields.iter().map(|field| field.path.as_str()).collect()
            }
        }
    }

    #[test]
    fn only_members_of_desired_count_at_the_top() {
        let live = json!({"cidr": "10.0.0.0/16", "state": "available"});
        assert_eq!(diff(&json!({"cidr": "10.0.0.0/16"}), &live, &[]), Difference::Unchanged);
    }

    #[test]
    fn foreign_tags_are_left_alone_and_own_tags_are_mended() {
        let live = json!({"tags": {"owner": "them", "bme:env": "local"}});
        let desired = json!({"tags": {"bme:env": "local", "bme:resource": "network/vpc"}});
        assert_eq!(paths(&diff(&desired, &live, &[])), ["tags.bme:resource"]);
    }

    #[test]
    fn inside_a_member_an_extra_entry_is_a_difference() {
        let live = json!({"rules": {"tcp 443": "anywhere", "tcp 22": "anywhere"}});
        let desired = json!({"rules": {"tcp 443": "anywhere"}});
        let difference = diff(&desired, &live, &[]);
        assert_eq!(paths(&difference), ["rules.tcp 22"]);
    }

    #[test]
    fn an_immutable_member_replaces_and_says_why() {
        let difference = diff(&json!({"cidr": "a"}), &json!({"cidr": "b"}), &[("cidr", "fixed")]);
        assert!(matches!(difference, Difference::Replace(_, "fixed")));
    }

    #[test]
    fn what_is_not_known_yet_replaces_nothing() {
        let fixed = [("group", "fixed")];
        for group in [json!("(known after a/b)"), json!(["x", "(known after a/b)"])] {
            let difference = diff(&json!({"group": group}), &json!({"group": "x"}), &fixed);
            assert!(matches!(difference, Difference::Update(_)), "{difference:?}");
        }
    }

    #[test]
    fn one_and_one_point_zero_are_equal() {
        assert_eq!(diff(&json!({"n": 1}), &json!({"n": 1.0}), &[]), Difference::Unchanged);
    }

    #[test]
    fn null_and_absent_are_equal() {
        assert_eq!(diff(&json!({"n": null}), &json!({}), &[]), Difference::Unchanged);
    }
}
