use std::{collections::BTreeSet, path::Path};

use crate::{
    engine::{Graph, Node},
    environment::{self, Target},
    outline::on_paper,
    steps::{Stack, graph},
};

const STAGING: &str =
    "name = \"staging\"\n[aws]\nregion = \"us-east-1\"\naccounts = [\"123456789012\"]\n";
const AURORA: &str =
    "[database]\nengine = \"aurora-postgresql\"\ninstance_class = \"db.r7g.large\"\n";

fn stack(more: &str) -> Stack {
    let text = format!("{STAGING}{more}");
    let environment = environment::parse(Path::new("staging.toml"), &text, Target::Aws).unwrap();
    on_paper(&environment)
}

fn ids(graph: &Graph) -> BTreeSet<&str> {
    graph.nodes().iter().map(|node| node.id.as_str()).collect()
}

fn node<'a>(graph: &'a Graph, id: &str) -> &'a Node {
    graph.nodes().iter().find(|node| node.id.as_str() == id).unwrap()
}

fn needs<'a>(graph: &'a Graph, id: &str) -> BTreeSet<&'a str> {
    node(graph, id).needs.iter().map(|need| graph.nodes()[*need].id.as_str()).collect()
}

const OF_POSTGRES: [&str; 4] = [
    "database/instance",
    "database/parameter-group",
    "observability/database-connections-alarm",
    "observability/database-storage-alarm",
];
const OF_AURORA: [&str; 5] = [
    "database/cluster",
    "database/cluster-instance-1",
    "database/cluster-parameter-group",
    "observability/database-connections-1-alarm",
    "observability/database-storage-1-alarm",
];
const OF_TWO_INSTANCES: [&str; 3] = [
    "database/cluster-instance-2",
    "observability/database-connections-2-alarm",
    "observability/database-storage-2-alarm",
];

#[test]
fn each_engine_has_what_the_other_has_not() {
    let has = |more: &str, wanted: &[&str], others: &[&str]| {
        let graph = graph(&stack(more));
        let ids = ids(&graph);
        assert!(wanted.iter().all(|id| ids.contains(id)), "{more}: {ids:#?}");
        assert!(!others.iter().any(|id| ids.contains(id)), "{more}: {ids:#?}");
    };
    has("", &OF_POSTGRES, &OF_AURORA);
    has(AURORA, &OF_AURORA, &OF_POSTGRES);
    has(AURORA, &OF_AURORA, &OF_TWO_INSTANCES);
    has(&format!("{AURORA}multi_az = true\n"), &OF_TWO_INSTANCES, &OF_POSTGRES);
}

#[test]
fn what_a_file_with_the_other_engine_had_is_found() {
    for more in ["", AURORA] {
        let graph = graph(&stack(more).widest());
        let ids = ids(&graph);
        for id in OF_POSTGRES.iter().chain(&OF_AURORA).chain(&OF_TWO_INSTANCES) {
            assert!(ids.contains(id), "{more}: no {id}");
        }
        let target = needs(&graph, "database/proxy-target");
        for id in ["database/instance", "database/cluster", "database/cluster-instance-2"] {
            assert!(target.contains(id), "{more}: {id} may go before the pool lets it go");
        }
    }
}

#[test]
fn a_cluster_goes_after_its_instances_and_they_after_the_pool_and_the_alarms() {
    let graph = graph(&stack(&format!("{AURORA}multi_az = true\n")));
    for number in 1..=2 {
        let instance = format!("database/cluster-instance-{number}");
        assert!(needs(&graph, &instance).contains("database/cluster"));
        assert!(needs(&graph, "database/proxy-target").contains(instance.as_str()));
        let alarm = format!("observability/database-storage-{number}-alarm");
        assert!(needs(&graph, &alarm).contains(instance.as_str()));
    }
}

#[test]
fn the_data_is_the_clusters_and_the_price_its_instances() {
    let graph = graph(&stack(AURORA));
    let outputs = graph.outputs();
    let (cluster, instance) =
        (node(&graph, "database/cluster"), node(&graph, "database/cluster-instance-1"));
    assert!(cluster.holds_data() && !instance.holds_data());
    let cost = |node: &Node| node.monthly_cost(&node.desired(&outputs)).unwrap();
    assert!((cost(cluster) - 0.4).abs() < 0.001, "the secret: {}", cost(cluster));
    assert!((cost(instance) - 0.276 * 730.0).abs() < 0.001, "{}", cost(instance));
    // Two vCPUs.
    let proxy = node(&graph, "database/proxy");
    assert!((cost(proxy) - 2.0 * 0.015 * 730.0).abs() < 0.001, "{}", cost(proxy));
}

#[test]
fn an_instance_asks_for_nothing_that_is_the_clusters() {
    let graph = graph(&stack(AURORA));
    let desired = node(&graph, "database/cluster-instance-1").desired(&graph.outputs());
    let members = desired.as_object().unwrap();
    assert_eq!(members["engine"], "aurora-postgresql");
    for of_the_cluster in
        ["allocatedStorage", "backupRetentionPeriod", "deletionProtection", "masterUsername"]
    {
        assert!(!members.contains_key(of_the_cluster), "{of_the_cluster}");
    }
}
