//! The dashboard: traffic, latency, tasks, database, cache and queue on one page.

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Chart, Watched};
use crate::{
    aws::{Aws, Label, cloudwatch::tags, failed, not_found_is_none},
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
    prices::{Item, Prices},
};

/// The dashboard.
pub struct Dashboard {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// What it shows.
    pub watched: Watched,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct DashboardOutput {
    /// Its name.
    pub name: String,
    /// `arn:aws:cloudwatch::…:dashboard/…`.
    pub arn: String,
}

#[async_trait]
impl Resource for Dashboard {
    type Output = DashboardOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    fn needs(&self) -> Vec<ResourceId> {
        self.watched.ids()
    }

    async fn find(
        &self,
        outputs: &Outputs,
        _: Instant,
    ) -> Result<Option<Live<DashboardOutput>>, Error> {
        let Some(body) = self.now().await? else { return Ok(None) };
        // Where no tags are kept for dashboards, as in an emulator, the name must do.
        let tags = not_found_is_none(self.aws.cloudwatch.tags_of(&self.arn()).await)?;
        let tags = tags.unwrap_or_else(|| self.label.tags.clone());
        self.label.adopt(&tags)?;
        Ok(Some(Live {
            properties: json!({
                "widgets": by_title(&body, &widgets(&self.body(outputs))),
                "tags": tags,
            }),
            condition: Condition::Ready,
            output: self.output(),
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        let body = self.body(outputs);
        json!({ "widgets": by_title(&body, &widgets(&body)), "tags": self.label.tags() })
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<DashboardOutput>, Error> {
        self.put(&self.body(outputs)).await?;
        Ok(Some(self.output()))
    }

    /// Reads, changes, writes: the put replaces the whole body (trap 5) and leaves the tags alone.
    async fn update(
        &self,
        live: &Live<DashboardOutput>,
        fields: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        if touches(fields, "widgets") {
            let now = self.now().await?.unwrap_or_default();
            self.put(&held(now, self.body(outputs))).await?;
        }
        if touches(fields, "tags") {
            self.aws.cloudwatch.tag(&live.output.arn, &self.label).await?;
        }
        Ok(())
    }

    async fn delete(&self, _: &Live<DashboardOutput>) -> Result<(), Error> {
        let delete = self.aws.cloudwatch.client.delete_dashboards();
        let delete = delete.dashboard_names(&self.label.name);
        delete.send().await.map_err(failed("cloudwatch:DeleteDashboards"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        let actions = [
            "cloudwatch:DeleteDashboards",
            "cloudwatch:GetDashboard",
            "cloudwatch:ListTagsForResource",
            "cloudwatch:PutDashboard",
            "cloudwatch:TagResource",
        ];
        vec![Permission::on(actions, [self.arn()])]
    }

    fn monthly_cost(&self, _: &Value) -> Option<f64> {
        Prices::of(&self.aws.region).monthly(Item::Dashboard)
    }
}

impl Dashboard {
    fn arn(&self) -> String {
        format!("arn:aws:cloudwatch::{}:dashboard/{}", self.aws.account, self.label.name)
    }

    fn output(&self) -> DashboardOutput {
        DashboardOutput { name: self.label.name.clone(), arn: self.arn() }
    }

    /// The live body. One that is no JSON counts as empty, hence is written anew.
    async fn now(&self) -> Result<Option<Value>, Error> {
        let get = self.aws.cloudwatch.client.get_dashboard().dashboard_name(&self.label.name);
        let answer = get.send().await.map_err(failed("cloudwatch:GetDashboard"));
        let body = not_found_is_none(answer)?.map(|answer| answer.dashboard_body);
        Ok(body.map(|body| serde_json::from_str(&body.unwrap_or_default()).unwrap_or_default()))
    }

    async fn put(&self, body: &Value) -> Result<(), Error> {
        self.aws
            .cloudwatch
            .client
            .put_dashboard()
            .dashboard_name(&self.label.name)
            .dashboard_body(body.to_string())
            .set_tags(Some(tags(&self.label)))
            .send()
            .await
            .map_err(failed("cloudwatch:PutDashboard"))?;
        Ok(())
    }

    /// Widgets two abreast on the grid of 24 columns.
    fn body(&self, outputs: &Outputs) -> Value {
        let widgets = self.watched.charts(outputs).into_iter().zip(0..).map(|(chart, at)| {
            let Chart { title, statistic, metrics } = chart;
            json!({
                "type": "metric",
                "x": 12 * (at % 2), "y": 6 * (at / 2), "width": 12, "height": 6,
                "properties": {
                    "title": title,
                    "region": self.aws.region,
                    "view": "timeSeries",
                    "stat": statistic,
                    "period": 60,
                    "metrics": metrics,
                },
            })
        });
        json!({ "widgets": widgets.collect::<Vec<_>>() })
    }
}

fn widgets(body: &Value) -> Vec<Value> {
    body["widgets"].as_array().cloned().unwrap_or_default()
}

fn title(widget: &Value) -> Option<&str> {
    widget["properties"]["title"].as_str()
}

fn is_among(widget: &Value, ours: &[Value]) -> bool {
    title(widget).is_some_and(|name| ours.iter().any(|ours| title(ours) == Some(name)))
}

/// The widgets of the titles in `ours` by title, so that a difference names the one that was changed.
fn by_title(body: &Value, ours: &[Value]) -> Map<String, Value> {
    let widgets = widgets(body).into_iter().filter(|widget| is_among(widget, ours));
    widgets.map(|widget| (title(&widget).unwrap_or_default().to_owned(), widget)).collect()
}

/// `now` with our widgets as they are in `wanted`, and behind them those that a team has added.
fn held(mut now: Value, wanted: Value) -> Value {
    if !now.is_object() {
        return wanted;
    }
    let mut all = widgets(&wanted);
    let theirs = widgets(&now).into_iter().filter(|widget| !is_among(widget, &all));
    let theirs: Vec<_> = theirs.collect();
    all.extend(theirs);
    now["widgets"] = all.into();
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widget(title: &str, period: u32) -> Value {
        json!({ "type": "metric", "properties": { "title": title, "period": period } })
    }

    #[test]
    fn widgets_of_a_team_are_no_difference_and_survive_an_update() {
        let wanted = json!({ "widgets": [widget("a", 60), widget("b", 60)] });
        let text = json!({ "type": "text", "properties": { "markdown": "ours" } });
        let now = json!({
            "periodOverride": "auto",
            "widgets": [text, widget("a", 300), widget("c", 60)],
        });
        let ours = widgets(&wanted);
        assert_eq!(by_title(&now, &ours).keys().collect::<Vec<_>>(), ["a"]);
        let held = held(now, wanted.clone());
        assert_eq!(by_title(&held, &ours), by_title(&wanted, &ours));
        assert_eq!(held["periodOverride"], "auto");
        assert_eq!(widgets(&held)[2..], [text, widget("c", 60)]);
    }
}
