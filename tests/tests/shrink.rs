//! A file that asks for less: what it no longer names is told in the plan, and goes.

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, difference, inventory, requests};
use serde_json::Value;

/// What a third zone, a way out for each zone and a second cache node bring.
const WIDE: &str = "\n[network]\nzones = 3\nnat = \"per-zone\"\n\n[cache]\nnodes = 2\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_no_longer_asks_for_is_told_and_goes() -> Result<()> {
    let project = Project::new()?;
    project.run(&["sandbox", "up"])?;
    let empty = inventory(&project).await?;
    requests::record(&project).await?;
    project.run(&["--yes", "provision"])?;
    let narrow = inventory(&project).await?;

    let file = project.file();
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.clone() + WIDE)?;
    project.run(&["--yes", "provision"])?;
    let wide = inventory(&project).await?;
    ensure!(difference(&narrow, &wide).len() > 5, "{:#?}", difference(&narrow, &wide));

    std::fs::write(&file, &text)?;
    let deleted = deletions(&project.json(&["plan"])?)?;
    for id in ["network/subnet-public-3", "network/nat-gateway-2", "network/elastic-ip-3"] {
        ensure!(deleted.iter().any(|deleted| deleted == id), "{id} is not among {deleted:#?}");
    }
    let status = project.json(&["status"])?;
    ensure!(status["steps"][0]["state"] == "drifted", "{status:#}");
    let end = project.last_event(&["provision"])?;
    ensure!(end["deleted"] == deleted.len(), "{deleted:#?} and {end:#}");
    let other = difference(&narrow, &inventory(&project).await?);
    ensure!(other.is_empty(), "not as if it had never been wide: {other:#?}");
    ensure!(deletions(&project.json(&["plan"])?)?.is_empty(), "something is left to delete");

    // A destroy finds it too, without a provision in between.
    std::fs::write(&file, text.clone() + WIDE)?;
    project.run(&["--yes", "provision"])?;
    std::fs::write(&file, &text)?;
    project.run(&["--yes", "destroy", "--allow-data-loss"])?;
    let left = difference(&empty, &inventory(&project).await?);
    ensure!(left.is_empty(), "destroy left something: {left:#?}");

    // What comes back from its recovery window is as the file of today wants it.
    std::fs::write(&file, text + "\n[tags]\nteam = \"crew\"\n")?;
    project.run(&["--yes", "provision"])?;
    project.run(&["plan", "--check"])?;
    requests::all_valid(&project).await
}

/// The ids that a plan deletes.
fn deletions(plan: &Value) -> Result<Vec<String>> {
    let changes = plan["changes"].as_array().context("a plan has changes")?;
    let deleted = changes.iter().filter(|change| change["action"] == "delete");
    Ok(deleted.filter_map(|change| change["id"].as_str().map(ToOwned::to_owned)).collect())
}
