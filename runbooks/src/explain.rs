//! What `bme explain` tells of a word, without asking AWS: of a step and a resource what the graph of
//! the environment knows, of a code what its error says.
//!
//! The texts stand next to what they are about: of a step in its module, of an error where it is raised.

use serde::Serialize;

use crate::{
    aws,
    engine::{self, Class, Fault, Graph, Node, ResourceId},
    environment::Environment,
    outline,
    prices::{Group, Prices},
    release,
    session::LOCKED,
    state,
    steps::{self, STEPS},
};

/// One of the ten steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// 1 to 10.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// What it makes.
    pub makes: &'static str,
    /// Why a stack needs that.
    pub why: &'static str,
    /// What comes first in it, and for what reason.
    pub order: &'static str,
    /// Steps that have something it waits for.
    pub needs: Vec<&'static str>,
    /// Steps that wait for something it has.
    pub needed_by: Vec<&'static str>,
    /// When its first resource begins in a first run, seconds, by typical times.
    pub begins_after_seconds: f64,
    /// When its last resource is ready in a first run, seconds, by typical times.
    pub ready_after_seconds: f64,
    /// US dollars a month as far as prices are known; what depends on use is not in it.
    pub monthly_cost: f64,
    /// The region whose list prices these are.
    pub price_region: &'static str,
    /// Its resources, each after what it waits for.
    pub resources: Vec<Part>,
    /// What can go wrong, and what helps.
    pub trouble: Vec<Trouble>,
}

/// A resource in its step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Which.
    pub id: ResourceId,
    /// Median time from create to ready, seconds.
    pub typical_seconds: f64,
    /// US dollars a month; null when no price is known.
    pub monthly_cost: Option<f64>,
}

/// Something that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// How it shows.
    pub sign: &'static str,
    /// What helps.
    pub mend: &'static str,
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Which.
    pub id: ResourceId,
    /// The title of its step.
    pub step: &'static str,
    /// What has to be usable before it is made.
    pub needs: Vec<ResourceId>,
    /// What is made after it.
    pub needed_by: Vec<ResourceId>,
    /// Median time from create to ready, seconds.
    pub typical_seconds: f64,
    /// US dollars a month; what depends on use is not in it. Null when no price is known.
    pub monthly_cost: Option<f64>,
    /// The region whose list prices these are.
    pub price_region: &'static str,
    /// Why it is not made by a first run.
    pub deferred: Option<String>,
    /// Deleting it loses data that nobody can bring back.
    pub holds_data: bool,
    /// Members whose change replaces it.
    pub fixed: Vec<Fixed>,
}

/// A member that can't be changed in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Fixed {
    /// Its path.
    pub member: &'static str,
    /// The reason.
    pub why: &'static str,
}

/// A code that an error or a process ends with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Code {
    /// As it is written.
    pub code: String,
    /// The class of errors that it belongs to, when it is a service's.
    pub class: Option<&'static str>,
    /// What that class means and what is done about it.
    pub means: Option<&'static str>,
    /// What leads to it.
    pub cause: Option<&'static str>,
    /// What to do.
    pub mend: Option<&'static str>,
}

/// The price table of one region.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PriceList {
    /// The region.
    pub region: &'static str,
    /// Its groups.
    pub groups: Vec<&'static Group>,
}

/// The errors of resources, whose hints carry what only the resource knows.
const OF_STEPS: [Fault; 7] = [
    Fault {
        code: "rollout-failed",
        cause: "the tasks of a service don't run: the message carries the words of the task that \
                stopped last",
        mend: "read its log group in CloudWatch, mend the cause, deploy again",
    },
    Fault {
        code: "database-broken",
        cause: "RDS says that the database can't run as it is, and no waiting ends that. It is left \
                alone, since it may hold data",
        mend: "its events in the RDS console say why; mend that or restore a snapshot",
    },
    Fault {
        code: "too-few-zones",
        cause: "the region has fewer zones for this account than the environment file asks for",
        mend: "set `network.zones` to fewer, or choose another region",
    },
    Fault {
        code: "no-prefix-list",
        cause: "the region does not tell CloudFront's addresses, by which the load balancer lets it in",
        mend: "give `compute.certificate_arn`, with which the load balancer needs none",
    },
    Fault {
        code: "no-reference",
        cause: "the distribution was deleted by hand so often that all its references are used up",
        mend: "delete the origin access control of the same environment, then run again",
    },
    Fault {
        code: "malformed-secret",
        cause: "the secret of an identity provider has no `clientId` or no `clientSecret`",
        mend: "put the secret that `identity.google_secret` or `identity.facebook_secret` names right",
    },
    Fault {
        code: "no-member",
        cause: "the secret between CloudFront and the load balancer was given another form",
        mend: "put it back in the form that the hint of the error names",
    },
];

/// Every error that is known beforehand: ours, then those of AWS's services.
fn faults() -> impl Iterator<Item = &'static Fault> {
    let ours = [engine::FAULTS, aws::FAULTS, release::FAULTS];
    let ours = ours.into_iter().flatten().chain(&OF_STEPS).chain([&LOCKED, &state::TAKEN]);
    ours.chain(aws::CODES)
}

/// The error code or the class of errors of this name.
pub fn code(word: &str) -> Option<Code> {
    if let Some(class) = Class::ALL.into_iter().find(|class| class.name() == word) {
        let means = Some(class.means());
        let code = word.to_owned();
        return Some(Code { code, class: Some(class.name()), means, cause: None, mend: None });
    }
    let known = faults().find(|fault| fault.code.eq_ignore_ascii_case(word));
    let code = known.map_or(word, |fault| fault.code);
    let class = class(code);
    if known.is_none() && class.is_none_or(|class| class == Class::Fatal) {
        return None;
    }
    Some(Code {
        code: code.to_owned(),
        class: class.map(Class::name),
        means: class.map(Class::means),
        cause: known.map(|fault| fault.cause),
        mend: known.map(|fault| fault.mend),
    })
}

/// The class of a service's code; ours are in lower case, and each is mended by a person.
fn class(code: &str) -> Option<Class> {
    let is_code = code.chars().all(|one| one.is_ascii_alphanumeric() || one == '.' || one == '_')
        && code.starts_with(|first: char| first.is_ascii_uppercase());
    (is_code || code.starts_with("http-")).then(|| aws::class(code))
}

/// The step of this name.
pub fn step(environment: &Environment, word: &str) -> Option<Step> {
    let (number, name, title) = STEPS.into_iter().find(|(_, name, _)| *name == word)?;
    let about = steps::about(name)?;
    let graph = outline::graph(environment);
    let nodes = graph.nodes();
    let times = times(&graph);
    let own = || nodes.iter().zip(&times).filter(move |(node, _)| node.id.step() == name);
    let resources = parts(&graph, own().map(|(node, _)| node));
    Some(Step {
        number,
        name,
        title,
        makes: about.makes,
        why: about.why,
        order: about.order,
        needs: others(nodes, name, own().flat_map(|(node, _)| &node.needs)),
        needed_by: others(nodes, name, own().flat_map(|(node, _)| &node.dependents)),
        begins_after_seconds: own().map(|(_, (start, _))| *start).reduce(f64::min)?,
        ready_after_seconds: own().map(|(_, (_, end))| *end).reduce(f64::max)?,
        monthly_cost: resources.iter().filter_map(|part| part.monthly_cost).sum(),
        price_region: Prices::of(&environment.aws.region).region(),
        resources,
        trouble: about.trouble.iter().map(|&(sign, mend)| Trouble { sign, mend }).collect(),
    })
}

fn parts<'a>(graph: &Graph, nodes: impl Iterator<Item = &'a Node>) -> Vec<Part> {
    let outputs = graph.outputs();
    nodes
        .map(|node| Part {
            id: node.id.clone(),
            typical_seconds: node.typical().as_secs_f64(),
            monthly_cost: node.monthly_cost(&node.desired(&outputs)),
        })
        .collect()
}

/// The steps of the nodes at these positions, in the order of the runbook and without `own`.
fn others<'a>(
    nodes: &[Node],
    own: &str,
    positions: impl Iterator<Item = &'a usize>,
) -> Vec<&'static str> {
    let found: Vec<_> = positions.map(|position| nodes[*position].id.step()).collect();
    let names = STEPS.into_iter().map(|(_, name, _)| name);
    names.filter(|name| *name != own && found.contains(name)).collect()
}

/// When each resource begins and when it is ready in a first run, seconds, by typical times.
fn times(graph: &Graph) -> Vec<(f64, f64)> {
    let mut times: Vec<(f64, f64)> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let start = node.needs.iter().map(|need| times[*need].1).fold(0.0, f64::max);
        times.push((start, start + node.typical().as_secs_f64()));
    }
    times
}

/// The resource of this id; by its name alone when only one is called so.
pub fn resource(environment: &Environment, word: &str) -> Option<Resource> {
    let graph = outline::graph(environment);
    let nodes = graph.nodes();
    let named = || nodes.iter().filter(move |node| node.id.name() == word);
    let node = match nodes.iter().find(|node| node.id.as_str() == word) {
        Some(node) => node,
        None if named().count() == 1 => named().next()?,
        None => return None,
    };
    let ids =
        |positions: &[usize]| positions.iter().map(|at| nodes[*at].id.clone()).collect::<Vec<_>>();
    let (_, _, title) = STEPS.into_iter().find(|(_, name, _)| *name == node.id.step())?;
    let fixed = node.immutable().iter().map(|&(member, why)| Fixed { member, why });
    Some(Resource {
        id: node.id.clone(),
        step: title,
        needs: ids(&node.needs),
        needed_by: ids(&node.dependents),
        typical_seconds: node.typical().as_secs_f64(),
        monthly_cost: node.monthly_cost(&node.desired(&graph.outputs())),
        price_region: Prices::of(&environment.aws.region).region(),
        deferred: node.deferred(),
        holds_data: node.holds_data(),
        fixed: fixed.collect(),
    })
}

/// The prices that hold in the environment's region.
pub fn prices(environment: &Environment) -> PriceList {
    let prices = Prices::of(&environment.aws.region);
    PriceList { region: prices.region(), groups: prices.groups().collect() }
}

/// What an unknown word was most likely meant to be, likeliest first; with the resources of an
/// environment when there is one.
pub fn nearest(word: &str, environment: Option<&Environment>) -> Vec<String> {
    const MOST: usize = 3;
    const LIKENESS: f64 = 0.8;
    let word = word.to_lowercase();
    let steps = STEPS.into_iter().map(|(_, name, _)| name.to_owned());
    let codes = faults().map(|fault| fault.code.to_owned());
    let classes = Class::ALL.into_iter().map(|class| class.name().to_owned());
    let resources = environment.map(outline::outline).unwrap_or_default();
    let resources = resources.into_iter().map(|planned| planned.id);
    let likeness = |candidate: &str| strsim::jaro_winkler(&word, &candidate.to_lowercase());
    let mut likely: Vec<(f64, String)> = steps
        .chain(codes)
        .chain(classes)
        .map(|candidate| (likeness(&candidate), candidate))
        .chain(resources.map(|id| {
            // Who leaves out the step is understood too.
            let best = likeness(id.as_str()).max(likeness(id.name()));
            (best, id.to_string())
        }))
        .filter(|(likeness, _)| *likeness > LIKENESS)
        .collect();
    likely.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    likely.dedup_by(|(_, one), (_, other)| one == other);
    likely.into_iter().take(MOST).map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use crate::environment::{self, Target};

    fn environment() -> Environment {
        let text =
            "name = \"demo\"\n[aws]\nregion = \"eu-west-1\"\naccounts = [\"123456789012\"]\n";
        environment::parse(Path::new("demo.toml"), text, Target::Aws).unwrap()
    }

    #[test]
    fn every_step_has_its_text_its_times_and_its_resources() {
        let environment = environment();
        for (number, name, title) in STEPS {
            let step = step(&environment, name).unwrap();
            assert_eq!((step.number, step.title), (number, title));
            assert!(!step.resources.is_empty() && !step.trouble.is_empty(), "{name}");
            assert!(step.begins_after_seconds < step.ready_after_seconds, "{name}");
            assert!(!step.needs.contains(&name) && !step.needed_by.contains(&name), "{name}");
            for text in [step.makes, step.why, step.order] {
                assert!(text.ends_with('.') && !text.contains("  "), "{name}: {text}");
            }
        }
        assert!(step(&environment, "cache").unwrap().needed_by.contains(&"compute"));
    }

    #[test]
    fn a_resource_is_found_by_its_id_or_by_a_name_that_is_the_only_one() {
        let environment = environment();
        let group = resource(&environment, "cache/replication-group").unwrap();
        assert!(group.holds_data && group.monthly_cost.is_some_and(|cost| cost > 0.0));
        assert!(group.needs.iter().any(|need| need.as_str() == "cache/auth-token"));
        assert!(group.fixed.iter().any(|fixed| fixed.member == "engine"));
        assert_eq!(resource(&environment, "replication-group"), Some(group));
        assert_eq!(resource(&environment, "cache/nothing"), None);
    }

    #[test]
    fn codes_have_cause_and_mend_and_each_is_told_once() {
        let codes: Vec<_> = faults().map(|fault| fault.code).collect();
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len(), "{codes:?}");
        for word in ["not-ours", "locked", "not-visible", "timeout", "DependencyViolation"] {
            let code = code(word).unwrap();
            assert!(code.cause.is_some() && code.mend.is_some(), "{word}");
        }
        assert_eq!(code("dependencyviolation").unwrap().class, Some("in-use"));
        assert_eq!(code("not-ours").unwrap().class, None);
        let throttled = code("TooManyRequestsException").unwrap();
        assert_eq!((throttled.class, throttled.cause), (Some("throttled"), None));
        assert!(code("throttled").is_some() && code("http-503").is_some());
        assert_eq!(code("Nonsense"), None);
        assert_eq!(code("network"), None);
    }

    #[test]
    fn an_unknown_word_has_its_nearest() {
        let environment = environment();
        assert_eq!(nearest("netwrok", None)[0], "network");
        assert_eq!(nearest("DependencyViolatoin", None)[0], "DependencyViolation");
        let near = nearest("cache/replication-grup", Some(&environment));
        assert_eq!(near[0], "cache/replication-group");
        assert!(nearest("xyzzy", Some(&environment)).is_empty());
    }
}
