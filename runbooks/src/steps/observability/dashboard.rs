//! The dashboard: traffic, latency, tasks, database, cache and queue on one page.

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Chart, Watched};
use crate::{
    aws::{Aws, Label, failed, not_found_is_none},
    engine::{Condition, Error, Live, Outputs, Resource, ResourceId, diff::Field},
};

/// The dashboard.
pub struct Dashboard {
    /// Id and name; dashboards are told by their name.
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

    async fn find(&self, _: &Outputs, _: Instant) -> Result<Option<Live<DashboardOutput>>, Error> {
        let answer = self
            .aws
            .cloudwatch
            .client
            .get_dashboard()
            .dashboard_name(&self.label.name)
            .send()
            .await
            .map_err(failed("cloudwatch:GetDashboard"));
        let Some(answer) = not_found_is_none(answer)? else { return Ok(None) };
        let body = answer.dashboard_body().unwrap_or_default();
        Ok(Some(Live {
            // A body that is no JSON counts as empty, hence is written anew.
            properties: by_title(&serde_json::from_str(body).unwrap_or_default()),
            condition: Condition::Ready,
            output: DashboardOutput { name: self.label.name.clone() },
        }))
    }

    fn desired(&self, outputs: &Outputs) -> Value {
        by_title(&self.body(outputs))
    }

    async fn create(&self, outputs: &Outputs) -> Result<Option<DashboardOutput>, Error> {
        self.put(outputs).await?;
        Ok(Some(DashboardOutput { name: self.label.name.clone() }))
    }

    async fn update(
        &self,
        _: &Live<DashboardOutput>,
        _: &[Field],
        outputs: &Outputs,
    ) -> Result<(), Error> {
        self.put(outputs).await
    }

    async fn delete(&self, _: &Live<DashboardOutput>) -> Result<(), Error> {
        let delete = self.aws.cloudwatch.client.delete_dashboards();
        let delete = delete.dashboard_names(&self.label.name);
        delete.send().await.map_err(failed("cloudwatch:DeleteDashboards"))?;
        Ok(())
    }

    /// 3 USD a dashboard, after three free ones (`CloudWatch` pricing, November 2026).
    fn monthly_cost(&self) -> f64 {
        3.0
    }
}

impl Dashboard {
    async fn put(&self, outputs: &Outputs) -> Result<(), Error> {
        self.aws
            .cloudwatch
            .client
            .put_dashboard()
            .dashboard_name(&self.label.name)
            .dashboard_body(self.body(outputs).to_string())
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

/// Widgets by title, so that a difference names the one that was changed.
fn by_title(body: &Value) -> Value {
    let widgets = body["widgets"].as_array().into_iter().flatten();
    let named = widgets.map(|widget| {
        let title = widget["properties"]["title"].as_str().unwrap_or("untitled").to_owned();
        (title, widget.clone())
    });
    json!({ "widgets": named.collect::<serde_json::Map<_, _>>() })
}
