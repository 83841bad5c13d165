//! The alarms of the step. Those of the queue are in its own step.

use super::{
    alarm::{Alarm, Bad, Metric, Signal},
    error_rate,
    watched::{Watched, of_instance},
};
use crate::{
    engine::{Graph, Handle, ResourceId},
    environment::Database,
    steps::{Stack, database::Serving, queue::topic::Topic},
};

/// Bytes of a GiB.
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// Share of the storage that should stay free.
const FREE_STORAGE: f64 = 0.15;
/// What should stay free of an Aurora instance's local storage, bytes.
const FREE_LOCAL_STORAGE: f64 = 2.0 * GIB;
/// Use of the cache's memory that leaves no room: it evicts nothing and refuses writes when full.
const CACHE_PERCENT: f64 = 80.0;

/// What an alarm says and when it does.
struct Rule {
    name: String,
    description: String,
    signal: Signal,
    bad: Bad,
    threshold: f64,
    /// Bad data points of those looked at.
    points: (i32, i32),
    needs: Vec<ResourceId>,
}

pub(super) fn add(graph: &mut Graph, stack: &Stack, watched: &Watched, topic: &Handle<Topic>) {
    for rule in rules(stack, watched) {
        graph.add(Alarm {
            label: stack.label("observability", &format!("{}-alarm", rule.name), 255),
            aws: stack.aws.clone(),
            description: rule.description,
            topic: topic.clone(),
            signal: rule.signal,
            threshold: rule.threshold,
            bad: rule.bad,
            evaluation_periods: rule.points.1,
            datapoints_to_alarm: rule.points.0,
            extra_needs: rule.needs,
        });
    }
}

fn rules(stack: &Stack, watched: &Watched) -> Vec<Rule> {
    let settings = &stack.environment.observability;
    let database = &stack.environment.database;
    let api_needs = vec![watched.load_balancer.id(), watched.target_group.id()];
    let mut rules = vec![
        Rule {
            name: "errors".into(),
            description:
                "One answer in twenty is a 5xx: look at the log group of the API, and whether \
                          its tasks run."
                    .into(),
            signal: Signal::ErrorRate(watched.error_rate()),
            bad: Bad::Above,
            threshold: error_rate::PERCENT,
            points: (1, 1),
            needs: api_needs.clone(),
        },
        Rule {
            name: "latency".into(),
            description: "One request in a hundred is slow: look at the traces and the database."
                .into(),
            signal: Signal::Metric(Metric {
                namespace: "AWS/ApplicationELB",
                name: "TargetResponseTime",
                statistic: "p99",
                period_seconds: 60,
                dimensions: watched.of_api(),
            }),
            bad: Bad::Above,
            threshold: f64::from(settings.p99_alarm_milliseconds) / 1000.0,
            points: (3, 5),
            needs: api_needs,
        },
    ];
    rules.extend(watched.instances.iter().flat_map(|instance| of_database(instance, database)));
    for (service, percent) in [("CPUUtilization", "cpu"), ("MemoryUtilization", "memory")] {
        rules.extend(watched.of_services().map(|(name, dimensions)| Rule {
            name: format!("{name}-{percent}"),
            description: format!(
                "The {name}'s tasks use nearly all of their {percent}: raise `compute.{name}`."
            ),
            signal: Signal::Metric(Metric {
                namespace: "AWS/ECS",
                name: service,
                statistic: "Average",
                period_seconds: 60,
                dimensions,
            }),
            bad: Bad::Above,
            threshold: f64::from(settings.utilization_alarm_percent),
            points: (5, 5),
            needs: Vec::new(),
        }));
    }
    let cache = [
        ("memory", "DatabaseMemoryUsagePercentage", CACHE_PERCENT, "is nearly full"),
        ("evictions", "Evictions", 0.0, "drops keys, among them those of the queue"),
    ];
    for (what, metric, threshold, happens) in cache {
        rules.extend(watched.of_cache().map(|(node, dimensions)| Rule {
            name: format!("cache-{what}-{node}"),
            description: format!(
                "Node {node} of the cache {happens}: take a larger `cache.node_type`."
            ),
            signal: Signal::Metric(Metric {
                namespace: "AWS/ElastiCache",
                name: metric,
                statistic: "Maximum",
                period_seconds: 60,
                dimensions,
            }),
            bad: Bad::Above,
            threshold,
            points: (3, 3),
            needs: vec![watched.cache.id()],
        }));
    }
    rules
}

/// The alarms of one instance of the database.
fn of_database(instance: &Serving, settings: &Database) -> [Rule; 2] {
    let number = instance.number.map(|number| format!("-{number}")).unwrap_or_default();
    let (description, free) = match instance.number {
        None => (
            "The database's storage runs out: raise `database.storage_gib`.".to_owned(),
            f64::from(settings.storage_gib) * GIB * FREE_STORAGE,
        ),
        Some(number) => (
            format!(
                "Instance {number} of the database has hardly room for temporary files: look for \
                 queries that sort on disk, or take a larger `database.instance_class`."
            ),
            FREE_LOCAL_STORAGE,
        ),
    };
    let signal = |name, statistic| {
        Signal::Metric(Metric {
            namespace: "AWS/RDS",
            name,
            statistic,
            period_seconds: 300,
            dimensions: of_instance(instance),
        })
    };
    [
        Rule {
            name: format!("database-storage{number}"),
            description,
            signal: signal(instance.free_storage(), "Minimum"),
            bad: Bad::Below,
            threshold: free,
            points: (3, 3),
            needs: vec![instance.id.clone()],
        },
        Rule {
            name: format!("database-connections{number}"),
            description: "The database is about to refuse connections: look for leaks, or take a \
                          larger `database.instance_class`."
                .into(),
            signal: signal("DatabaseConnections", "Maximum"),
            bad: Bad::Above,
            threshold: many_connections(&settings.instance_class),
            points: (3, 3),
            needs: vec![instance.id.clone()],
        },
    ]
}

/// Seven tenths of `max_connections`, which RDS sets to the instance's memory divided by 9531392
/// bytes, at most 5000 (RDS user guide, quotas). A size that is not known counts as the smallest.
fn many_connections(instance_class: &str) -> f64 {
    let size = instance_class.rsplit('.').next().unwrap_or_default();
    let gib = match size {
        "small" => 2.0,
        "medium" => 4.0,
        "large" => 8.0,
        "xlarge" => 16.0,
        _ => match size.strip_suffix("xlarge").and_then(|times| times.parse::<f64>().ok()) {
            Some(times) => 16.0 * times,
            None => 1.0,
        },
    };
    let connections: f64 = gib * GIB / 9_531_392.0;
    (connections.min(5000.0) * 0.7).floor()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_connections_follows_the_instance() {
        let limits = ["db.t4g.micro", "db.t4g.large", "db.r6g.2xlarge", "db.r6g.16xlarge"];
        for (class, wanted) in limits.into_iter().zip([78.0, 630.0, 2523.0, 3500.0]) {
            assert!((many_connections(class) - wanted).abs() < f64::EPSILON, "{class}");
        }
    }
}
