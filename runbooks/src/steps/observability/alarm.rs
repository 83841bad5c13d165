//! A CloudWatch alarm on one metric, or on the error rate that several of them make.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_cloudwatch::types::{ComparisonOperator, Dimension, MetricAlarm, Statistic};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::error_rate::{self, ErrorRate};
use crate::{
    aws::{
        Aws, Label,
        cloudwatch::{TaggedAlarm, tags},
        failed,
    },
    engine::{
        Condition, Error, Handle, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    prices::Prices,
    steps::queue::topic::Topic,
};

/// The dimensions of a metric, as far as the outputs of needs are known.
pub type Dimensions = Box<dyn Fn(&Outputs) -> BTreeMap<String, Value> + Send + Sync>;

/// One metric and how it is condensed.
pub struct Metric {
    /// For instance `AWS/SQS`.
    pub namespace: &'static str,
    /// For instance `ApproximateAgeOfOldestMessage`.
    pub name: &'static str,
    /// `Average`, `Sum`, `Minimum`, `Maximum`, `SampleCount`, or a percentile such as `p99`.
    pub statistic: &'static str,
    /// Length of one data point, seconds: a multiple of 60.
    pub period_seconds: i32,
    /// What the metric is of.
    pub dimensions: Dimensions,
}

/// What an alarm watches.
pub enum Signal {
    /// A metric as it is.
    Metric(Metric),
    /// The share of errors.
    ErrorRate(ErrorRate),
}

/// Which side of the threshold is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Above it.
    Above,
    /// Below it.
    Below,
}

/// The alarm; it tells the topic when it starts and when it ends.
pub struct Alarm {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// What is wrong when it rings, for a person, and what to look at.
    pub description: String,
    /// Who is told.
    pub topic: Handle<Topic>,
    /// What it watches.
    pub signal: Signal,
    /// Where good ends.
    pub threshold: f64,
    /// On which side of it bad begins.
    pub bad: Bad,
    /// Data points looked at.
    pub evaluation_periods: i32,
    /// Of those, how many must be bad.
    pub datapoints_to_alarm: i32,
    /// The ids of what the dimensions are read from.
    pub extra_needs: Vec<ResourceId>,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct AlarmOutput {
    /// `arn:aws:cloudwatch:…:alarm:…`.
    pub arn: String,
    /// Its name.
    pub name: String,
}

/// A missing data point of these metrics means that nothing happened, which is not bad.
const MISSING: &str = "notBreaching";

#[async_trait]
impl Resource for Alarm {
    type Output = AlarmOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        let mut needs = self.extra_needs.clone();
        needs.push(self.topic.id());
        needs
    }

    async fn find(
        &self,
        outputs: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<AlarmOutput>>, Error> {
        let alarms = self.aws.cloudwatch.alarms(self.label.environment(), since).await?;
        let named = |name: Option<&str>| name == Some(self.label.name.as_str());
        let Some(found) = alarms.iter().find(|found| named(found.alarm.alarm_name())) else {
            return Ok(None);
        };
        self.label.adopt(&found.tags)?;
        let alarm = &found.alarm;
        let metrics = match &self.signal {
            // An alarm on nothing at all can't be: an emulator does not keep metric math, and what is
            // not told is taken to be right.
            Signal::ErrorRate(rate)
                if alarm.metrics().is_empty() && alarm.namespace().is_none() =>
            {
                rate.shown_when_observed(outputs).await
            }
            _ => error_rate::shown(alarm.metrics()),
        };
        Ok(Some(Live {
            properties: json!({
                "alarmDescription": alarm.alarm_description(),
                "namespace": alarm.namespace(),
                "metricName": alarm.metric_name(),
                "statistic": statistic(alarm),
                "period": alarm.period(),
                "dimensions": dimensions(alarm),
                "metrics": metrics,
                "threshold": alarm.threshold(),
                "comparisonOperator": alarm.comparison_operator().map(ComparisonOperator::as_str),
                "evaluationPeriods": alarm.evaluation_periods(),
                "datapointsToAlarm": alarm.datapoints_to_alarm(),
                "treatMissingData": alarm.treat_missing_data(),
                "actionsEnabled": alarm.actions_enabled(),
                "alarmActions": alarm.alarm_actions(),
                "okActions": alarm.ok_actions(),
                "tags": found.tags,
            }),
            condition: Condition::Ready,
            output: AlarmOutput {
                arn: alarm.alarm_arn().unwrap_or_default().to_owned(),
                name: self.label.name.clone(),
            },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let topic = outputs.show(&self.topic, |topic| topic.arn.clone());
        let mut desired = json!({
            "alarmDescription": self.description,
            "threshold": self.threshold,
            "comparisonOperator": self.comparison().as_str(),
            "evaluationPeriods": self.evaluation_periods,
            "datapointsToAlarm": self.datapoints_to_alarm,
            "treatMissingData": MISSING,
            "actionsEnabled": true,
            "alarmActions": [topic],
            "okActions": [topic],
            "tags": self.label.tags(),
        });
        match &self.signal {
            Signal::Metric(metric) => {
                desired["namespace"] = metric.namespace.into();
                desired["metricName"] = metric.name.into();
                desired["statistic"] = metric.statistic.into();
                desired["period"] = metric.period_seconds.into();
                desired["dimensions"] = json!((metric.dimensions)(outputs));
            }
            Signal::ErrorRate(rate) => {
                desired["metrics"] = error_rate::shown(&rate.queries(outputs));
            }
        }
        desired
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<AlarmOutput>, Error> {
        self.put(None, outputs).await?;
        Ok(Some(AlarmOutput {
            arn: format!(
                "arn:aws:cloudwatch:{}:{}:alarm:{}",
                self.aws.region, self.aws.account, self.label.name
            ),
            name: self.label.name.clone(),
        }))
    }

    async fn update(
        &self,
        live: &Live<AlarmOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if fields.iter().any(|field| !field.path.starts_with("tags")) {
            let environment = self.label.environment();
            let alarms = self.aws.cloudwatch.alarms(environment, Instant::now()).await?;
            let named = |found: &&TaggedAlarm| found.alarm.alarm_name() == Some(&self.label.name);
            self.put(alarms.iter().find(named).map(|found| &found.alarm), outputs).await?;
        }
        // PutMetricAlarm leaves the tags of an existing alarm alone.
        if touches(fields, "tags") {
            self.aws.cloudwatch.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, _: &Live<AlarmOutput>) -> Result<(), Error> {
        let delete = self.aws.cloudwatch.client.delete_alarms().alarm_names(&self.label.name);
        delete.send().await.map_err(failed("cloudwatch:DeleteAlarms"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let alarms = format!("alarm:bme-{}-*", self.label.environment());
        let actions = [
            "cloudwatch:DeleteAlarms",
            "cloudwatch:ListTagsForResource",
            "cloudwatch:PutMetricAlarm",
            "cloudwatch:TagResource",
        ];
        vec![
            Permission::anywhere(["cloudwatch:DescribeAlarms"]),
            // By the start of their names: one by one, two dozen of them fill a policy.
            Permission::on(actions, [self.aws.arn("cloudwatch", &alarms)]),
        ]
    }

    fn monthly_cost(&self, properties: &Value) -> Option<f64> {
        Prices::of(&self.aws.region).of_alarm(&properties["metrics"])
    }
}

impl Alarm {
    fn comparison(&self) -> ComparisonOperator {
        match self.bad {
            Bad::Above => ComparisonOperator::GreaterThanThreshold,
            Bad::Below => ComparisonOperator::LessThanThreshold,
        }
    }

    /// The put replaces the whole alarm (trap 5): whom a team tells when there is no data stays.
    async fn put(&self, now: Option<&MetricAlarm>, outputs: &Outputs) -> Result<(), Error> {
        let topic = outputs.get(&self.topic)?.arn;
        let put = self
            .aws
            .cloudwatch
            .client
            .put_metric_alarm()
            .alarm_name(&self.label.name)
            .alarm_description(&self.description)
            .threshold(self.threshold)
            .comparison_operator(self.comparison())
            .evaluation_periods(self.evaluation_periods)
            .datapoints_to_alarm(self.datapoints_to_alarm)
            .treat_missing_data(MISSING)
            .actions_enabled(true)
            .alarm_actions(&topic)
            .ok_actions(&topic)
            .set_insufficient_data_actions(
                now.and_then(|now| now.insufficient_data_actions.clone()),
            )
            .set_tags(Some(tags(&self.label)));
        let put = match &self.signal {
            Signal::ErrorRate(rate) => put.set_metrics(Some(rate.queries(outputs))),
            Signal::Metric(metric) => {
                let put = put
                    .namespace(metric.namespace)
                    .metric_name(metric.name)
                    .period(metric.period_seconds)
                    .set_dimensions(Some(dimension_list(&(metric.dimensions)(outputs))));
                if metric.statistic.starts_with('p') {
                    put.extended_statistic(metric.statistic)
                } else {
                    put.statistic(Statistic::from(metric.statistic))
                }
            }
        };
        put.send().await.map_err(failed("cloudwatch:PutMetricAlarm"))?;
        Ok(())
    }
}

/// Dimensions as a call takes them.
pub(super) fn dimension_list(dimensions: &BTreeMap<String, Value>) -> Vec<Dimension> {
    dimensions
        .iter()
        .map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            Dimension::builder().name(name).value(value).build()
        })
        .collect()
}

fn statistic(alarm: &MetricAlarm) -> Option<&str> {
    alarm.extended_statistic().or_else(|| alarm.statistic().map(Statistic::as_str))
}

fn dimensions(alarm: &MetricAlarm) -> BTreeMap<&str, &str> {
    alarm
        .dimensions()
        .iter()
        .filter_map(|dimension| Some((dimension.name()?, dimension.value()?)))
        .collect()
}
