//! The share of the service's answers that are errors of ours, by metric math.

use std::collections::BTreeMap;

use aws_sdk_cloudwatch::types::{Metric, MetricDataQuery, MetricStat};
use serde_json::{Map, Value, json};

use super::alarm::dimension_list;
use crate::{
    engine::{Handle, Outputs},
    steps::compute::{load_balancer::LoadBalancer, target_group::TargetGroup},
};

/// Share above which errors are no accident any more, percent.
pub(super) const PERCENT: f64 = 5.0;
/// Answers in a data point below which a share says nothing: one error of three is no trend.
const LEAST_ANSWERS: u32 = 20;
/// Length of one data point, seconds: long enough that a quiet service comes to [`LEAST_ANSWERS`].
const PERIOD: i32 = 300;

/// Of one target group behind one load balancer.
#[derive(Clone)]
pub struct ErrorRate {
    /// Answers 502, 503 and 504 itself, when no task does.
    pub load_balancer: Handle<LoadBalancer>,
    /// Passes on what the tasks answer.
    pub target_group: Handle<TargetGroup>,
}

impl ErrorRate {
    /// The queries of the alarm; the one that returns data is what the threshold is held against.
    pub fn queries(&self, outputs: &Outputs) -> Vec<MetricDataQuery> {
        queries(
            outputs.show(&self.load_balancer, |it| it.full_name.clone()),
            outputs.show(&self.target_group, |it| it.full_name.clone()),
        )
    }

    /// The members that are held, once somebody has looked for what the metrics are of.
    pub(super) async fn shown_when_observed(&self, outputs: &Outputs) -> Value {
        outputs.when_observed(&self.load_balancer).await;
        outputs.when_observed(&self.target_group).await;
        shown(&self.queries(outputs))
    }
}

/// A metric has no data point for a minute without an error or a request, which counts as zero. A
/// request for which there is no task at all is no request to the load balancer ("`CloudWatch` metrics
/// for your Application Load Balancer"), so that in an outage there may be more errors than requests:
/// the answers are whichever are more.
fn queries(load_balancer: Value, target_group: Value) -> Vec<MetricDataQuery> {
    let of_balancer = BTreeMap::from([("LoadBalancer".to_owned(), load_balancer)]);
    let mut of_group = of_balancer.clone();
    of_group.insert("TargetGroup".into(), target_group);
    vec![
        sum("ofTasks", "HTTPCode_Target_5XX_Count", &of_group),
        sum("ofBalancer", "HTTPCode_ELB_5XX_Count", &of_balancer),
        sum("requests", "RequestCount", &of_group),
        expression("errors", "FILL(ofTasks, 0) + FILL(ofBalancer, 0)", false),
        expression("answers", "IF(FILL(requests, 0) > errors, FILL(requests, 0), errors)", false),
        expression(
            "rate",
            &format!("IF(answers >= {LEAST_ANSWERS}, 100 * errors / answers, 0)"),
            true,
        ),
    ]
}

/// The queries by their ids, each with what decides.
pub(super) fn shown(queries: &[MetricDataQuery]) -> Value {
    let named = queries.iter().map(|query| {
        let stat = query.metric_stat();
        let metric = stat.and_then(MetricStat::metric);
        let dimensions = metric.map(Metric::dimensions).unwrap_or_default().iter();
        let dimensions = dimensions
            .filter_map(|dimension| Some((dimension.name()?.to_owned(), dimension.value()?.into())))
            .collect::<Map<_, _>>();
        let shown = match stat {
            Some(stat) => json!({
                "namespace": metric.and_then(Metric::namespace),
                "metricName": metric.and_then(Metric::metric_name),
                "dimensions": dimensions,
                "period": stat.period(),
                "stat": stat.stat(),
            }),
            None => json!({ "expression": query.expression() }),
        };
        let id = query.id().unwrap_or_default();
        // Which one is held against the threshold; left out, it returns data.
        let id =
            if query.return_data() == Some(false) { id.into() } else { format!("{id} (watched)") };
        (id, shown)
    });
    Value::Object(named.collect())
}

fn sum(id: &str, name: &str, dimensions: &BTreeMap<String, Value>) -> MetricDataQuery {
    let metric = Metric::builder()
        .namespace("AWS/ApplicationELB")
        .metric_name(name)
        .set_dimensions(Some(dimension_list(dimensions)))
        .build();
    let stat = MetricStat::builder().metric(metric).period(PERIOD).stat("Sum").build();
    MetricDataQuery::builder().id(id).metric_stat(stat).return_data(false).build()
}

fn expression(id: &str, expression: &str, watched: bool) -> MetricDataQuery {
    MetricDataQuery::builder().id(id).expression(expression).label(id).return_data(watched).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(load_balancer: &str) -> Vec<MetricDataQuery> {
        queries(load_balancer.into(), "targetgroup/g/1".into())
    }

    #[test]
    fn one_query_is_watched_and_every_name_in_it_is_one_of_the_others() {
        let queries = of("app/b/1");
        let watched = queries.iter().filter(|query| query.return_data() != Some(false));
        assert_eq!(watched.filter_map(MetricDataQuery::id).collect::<Vec<_>>(), ["rate"]);
        let ids: Vec<_> = queries.iter().filter_map(MetricDataQuery::id).collect();
        for expression in queries.iter().filter_map(MetricDataQuery::expression) {
            let names = expression.split(|c: char| !c.is_alphanumeric());
            for name in names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())) {
                assert!(ids.contains(&name), "{name} in {expression}");
            }
        }
    }

    #[test]
    fn no_tasks_is_an_error_rate_too_and_a_handful_of_errors_is_none() {
        let shown = shown(&of("app/b/1"));
        let balancer = &shown["ofBalancer"];
        assert_eq!(balancer["metricName"], "HTTPCode_ELB_5XX_Count");
        // This metric has no dimension TargetGroup.
        assert_eq!(balancer["dimensions"], json!({"LoadBalancer": "app/b/1"}));
        assert_eq!(
            shown["rate (watched)"]["expression"],
            "IF(answers >= 20, 100 * errors / answers, 0)"
        );
    }

    #[test]
    fn a_change_to_any_query_is_seen() {
        let ours = shown(&of("app/b/1"));
        assert_ne!(shown(&of("app/b/2")), ours);
        let mut changed = of("app/b/1");
        changed[5].expression = Some("errors".into());
        assert_ne!(shown(&changed), ours);
        let mut changed = of("app/b/1");
        (changed[3].return_data, changed[5].return_data) = (Some(true), Some(false));
        assert_ne!(shown(&changed), ours);
    }
}
