//! Names and tags: how a resource is told to be ours.

use std::collections::BTreeMap;

use aws_smithy_types::error::operation::BuildError;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::built;
use crate::engine::{Error, Fault, ResourceId};

pub(super) const NOT_OURS: Fault = Fault {
    code: "not-ours",
    cause: "something of the name that is wanted exists, but its tags, or the TXT record that tells \
            whose a DNS record is, do not say that it belongs to this resource of this environment: \
            it is left alone",
    mend: "delete or rename it, or hand it over by tagging it bme:env and bme:resource; a DNS record \
           by the TXT record that the error names",
};

/// Id, AWS name and tags of one resource.
#[derive(Debug, Clone)]
pub struct Label {
    /// The logical id.
    pub id: ResourceId,
    /// The AWS name, `bme-{env}-{resource}`, within the limit of its service.
    pub name: String,
    /// `bme:env`, `bme:resource`, `Name` and the environment's own tags.
    pub tags: BTreeMap<String, String>,
}

impl Label {
    /// The label of `step/name` in `environment`, its AWS name ending in `resource` and at most
    /// `limit` characters long.
    pub fn new(
        environment: &str,
        own_tags: &BTreeMap<String, String>,
        id: ResourceId,
        resource: &str,
        limit: usize,
    ) -> Self {
        let name = cut(&format!("bme-{environment}-{resource}"), limit);
        let mut tags = own_tags.clone();
        tags.insert("bme:env".into(), environment.into());
        tags.insert("bme:resource".into(), id.to_string());
        tags.insert("Name".into(), name.clone());
        Self { id, name, tags }
    }

    /// The environment that it belongs to.
    pub fn environment(&self) -> &str {
        self.tags.get("bme:env").map_or("", String::as_str)
    }

    /// The AWS name of another resource of this environment, within the limit of its service.
    pub fn sibling(&self, id: &ResourceId, limit: usize) -> String {
        cut(&format!("bme-{}-{}", self.environment(), id.name()), limit)
    }

    /// The tags as the member `tags` of a desired state.
    pub fn tags(&self) -> Value {
        json!(self.tags)
    }

    /// The tags as an SDK has them, which `build` makes of key and value, for `operation`.
    ///
    /// # Errors
    /// `build` lacks something, a mistake of ours.
    pub fn build_tags<T>(
        &self,
        operation: &'static str,
        build: impl Fn(&str, &str) -> Result<T, BuildError>,
    ) -> Result<Vec<T>, Error> {
        let tags = self.tags.iter().map(|(key, value)| build(key, value));
        tags.collect::<Result<_, _>>().map_err(built(operation))
    }

    /// Whether tags read from AWS name this resource: by our two tags, or, when somebody has
    /// dropped one of them, by the name that the other one confirms.
    pub fn matches(&self, live: &BTreeMap<String, String>) -> bool {
        let same = |key: &str| live.get(key).is_some() && live.get(key) == self.tags.get(key);
        let other =
            |key: &str| live.get(key).is_some_and(|value| self.tags.get(key) != Some(value));
        !other("bme:env")
            && !other("bme:resource")
            && (same("bme:resource") && same("bme:env")
                || same("Name") && (same("bme:resource") || same("bme:env")))
    }

    /// Whether something found by its unique name may be adopted: it carries this environment's tag
    /// and this resource's, or, where somebody has dropped the latter, exactly our name.
    ///
    /// # Errors
    /// It belongs to another environment or resource, or does not say whose it is.
    pub fn adopt(&self, live: &BTreeMap<String, String>) -> Result<(), Error> {
        let same = |key: &str| live.get(key).is_some() && live.get(key) == self.tags.get(key);
        let dropped = !live.contains_key("bme:resource");
        if same("bme:env") && (same("bme:resource") || (dropped && same("Name"))) {
            return Ok(());
        }
        Err(NOT_OURS
            .error(
                "bme",
                format!("`{}` exists but does not carry the tags of {}", self.name, self.id),
            )
            .with_hint(format!(
                "delete or rename it, or hand it over by tagging it bme:env={} and bme:resource={}",
                self.environment(),
                self.id
            )))
    }

    /// The refusal of something that has a name of ours and takes no tags; `hand_over` is how a
    /// person says that it is ours.
    pub fn not_ours(&self, what: &str, hand_over: &str) -> Error {
        NOT_OURS
            .error("bme", format!("{what} exists but does not belong to {}", self.id))
            .with_hint(format!("delete it, or hand it over {hand_over}"))
    }

    /// An idempotency token of `generation` for calls that take one: the same in every run, so that
    /// a repeated create answers with what the first one made. At most 32 characters.
    pub fn token(&self, generation: &str) -> String {
        let text = format!("{}|{}|{generation}", self.environment(), self.id);
        hex::encode(&Sha256::digest(text)[..16])
    }
}

/// `name` within `limit` characters: a name that is too long keeps its start and its end and
/// carries a short hash of the whole.
fn cut(name: &str, limit: usize) -> String {
    if name.len() <= limit {
        return name.to_owned();
    }
    let hash = hex::encode(&Sha256::digest(name)[..3]);
    let keep = limit.saturating_sub(hash.len() + 1);
    format!("{}-{hash}", name[..keep].trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label::new("local", &BTreeMap::new(), ResourceId::new("network", "vpc"), "vpc", 255)
    }

    #[test]
    fn a_long_name_is_cut_with_a_hash_and_stays_distinct() {
        let one = cut(&format!("bme-{}-api", "x".repeat(40)), 32);
        let two = cut(&format!("bme-{}-worker", "x".repeat(40)), 32);
        assert!(one.len() <= 32 && two.len() <= 32 && one != two, "{one} {two}");
    }

    #[test]
    fn a_dropped_tag_does_not_hide_a_resource() {
        for dropped in ["bme:env", "bme:resource", "Name"] {
            let mut live = label().tags;
            live.remove(dropped);
            assert!(label().matches(&live), "without {dropped}");
        }
        // Somebody else's, who has chosen our name.
        let mut live = label().tags;
        live.retain(|key, _| key == "Name");
        assert!(!label().matches(&live));
    }

    #[test]
    fn another_environment_is_refused() {
        let mut live = label().tags;
        live.insert("bme:env".into(), "production".into());
        assert!(!label().matches(&live));
        assert!(label().adopt(&live).is_err());
        assert!(label().adopt(&BTreeMap::new()).is_err());
    }

    #[test]
    fn what_is_adopted_names_environment_and_resource() {
        let without = |key: &str| {
            let mut live = label().tags;
            live.remove(key);
            live
        };
        assert!(label().adopt(&without("bme:resource")).is_ok());
        assert!(label().adopt(&without("bme:env")).is_err());
        let mut other = label().tags;
        other.insert("bme:resource".into(), "network/subnet".into());
        assert!(label().adopt(&other).is_err());
    }

    #[test]
    fn a_token_is_stable() {
        assert_eq!(label().token("1"), label().token("1"));
        assert_ne!(label().token("1"), label().token("2"));
    }
}
