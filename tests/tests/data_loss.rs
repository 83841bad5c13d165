//! A change that would lose data is not made because somebody typed `--yes`.

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, ended_as_it_began, said};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_replaced_only_when_its_loss_is_allowed() -> Result<()> {
    let project = Project::new()?;
    project.run(&["--yes", "provision"])?;
    let file = project.root.path().join("environments/local.toml");
    let text = std::fs::read_to_string(&file)?;
    let renamed = text.replace("[database]\n", "[database]\nname = \"another\"\n");
    ensure!(renamed != text);
    std::fs::write(&file, renamed)?;

    let plan = project.json(&["plan"])?;
    let changes = plan["changes"].as_array().context("a plan has changes")?;
    let change = changes.iter().find(|change| change["id"] == "database/instance");
    let change = change.context("the database is in the plan")?;
    ensure!(change["action"] == "replace" && change["risk"] == "data_loss", "{change:#}");
    ensure!(change["fields"][0]["path"] == "dbName", "{change:#}");

    project.forget_calls().await?;
    let output = project.bme(&["--output", "json", "--yes", "provision"]).output()?;
    let stderr = said(&output, &["provision"], 2)?;
    ended_as_it_began(&output)?;
    for word in ["database/instance", "nothing was changed", "--allow-data-loss"] {
        ensure!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    let calls = project.calls().await?;
    ensure!(!calls.is_empty() && calls.iter().all(|call| call["mutating"] == false), "{calls:#?}");

    let end = project.last_event(&["provision", "--allow-data-loss"])?;
    ensure!(end["replaced"].as_u64() >= Some(1), "{end:#}");
    project.run(&["plan", "--check"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_data_is_destroyed_only_when_its_loss_is_allowed() -> Result<()> {
    let project = Project::new()?;
    project.run(&["--yes", "provision"])?;
    let arguments = ["--yes", "destroy"];
    let stderr = said(&project.bme(&arguments).output()?, &arguments, 2)?;
    for word in ["database/instance", "nothing was changed", "--allow-data-loss"] {
        ensure!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    let kept = project.last_event(&["destroy", "--keep-data"])?;
    ensure!(kept["unchanged"].as_u64() >= Some(1), "{kept:#}");
    let gone = project.last_event(&["destroy", "--allow-data-loss"])?;
    ensure!(gone["deleted"].as_u64() >= Some(1) && gone["unchanged"] == 0, "{gone:#}");
    // Where nothing holds data there is nothing to agree to.
    project.run(&["--yes", "destroy"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_protected_is_not_destroyed_because_the_file_says_otherwise_by_now() -> Result<()> {
    let project = Project::new()?;
    let file = project.file();
    let text = std::fs::read_to_string(&file)?;
    let protected = text.replace("[database]\n", "[database]\ndeletion_protection = true\n");
    ensure!(protected != text);
    std::fs::write(&file, protected)?;
    project.run(&["--yes", "provision"])?;
    std::fs::write(&file, text)?;

    project.forget_calls().await?;
    let arguments = ["--yes", "destroy", "--allow-data-loss"];
    let stderr = said(&project.bme(&arguments).output()?, &arguments, 2)?;
    for word in ["database/instance", "nothing was changed", "`bme provision`"] {
        ensure!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    let calls = project.calls().await?;
    let mut changed =
        calls.iter().filter(|call| call["mutating"] == true && call["service"] != "s3");
    ensure!(changed.next().is_none(), "{calls:#?}");

    project.run(&["--yes", "provision"])?;
    project.run(&arguments)?;
    Ok(())
}
