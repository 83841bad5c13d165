//! A change that would lose data is not made because somebody typed `--yes`.

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, ended_as_it_began, said};
use serde_json::Value;

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
    // Without its sandbox's table the file is one of a real account, which has the same endpoint.
    let text = std::fs::read_to_string(project.file())?;
    let (start, end) = (text.find("\n[sandbox]"), text.find("\n[engine]"));
    let (start, end) = (start.context("a sandbox")?, end.context("an engine")?);
    let comment = text[..end].rfind("\n\n").context("a paragraph")?;
    std::fs::write(project.file(), format!("{}{}", &text[..start], &text[comment..]))?;
    let destroy = |flags: &[&str], code| -> Result<(Value, String)> {
        let arguments = [&["--output", "json", "--yes", "destroy"], flags].concat();
        let mut command = project.bme(&arguments);
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        let output = command.output()?;
        let stderr = said(&output, &arguments, code)?;
        let events = String::from_utf8(output.stdout)?;
        let end = events.lines().last().context("no event")?;
        Ok((serde_json::from_str(end)?, stderr))
    };
    let (_, stderr) = destroy(&[], 2)?;
    for word in ["database/instance", "nothing was changed", "--allow-data-loss"] {
        ensure!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    let (kept, _) = destroy(&["--keep-data"], 0)?;
    ensure!(kept["unchanged"].as_u64() >= Some(1), "{kept:#}");
    let (gone, _) = destroy(&["--allow-data-loss"], 0)?;
    ensure!(gone["deleted"].as_u64() >= Some(1) && gone["unchanged"] == 0, "{gone:#}");
    // Where nothing holds data there is nothing to agree to.
    destroy(&[], 0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_protected_is_not_destroyed_because_the_file_says_otherwise_by_now() -> Result<()> {
    let project = Project::new()?;
    let file = project.file();
    let text = std::fs::read_to_string(&file)?;
    let protected = text.replace("[database]\n", "[database]\ndeletion_protection = true\n");
    ensure!(protected != text);
    std::fs::write(&file, &protected)?;
    project.run(&["--yes", "provision"])?;
    // Nor is it made anew, whatever loss is allowed.
    let renamed = protected.replace("[database]\n", "[database]\nname = \"another\"\n");
    std::fs::write(&file, renamed)?;
    let arguments = ["--yes", "provision", "--allow-data-loss"];
    let stderr = said(&project.bme(&arguments).output()?, &arguments, 2)?;
    for word in ["database/instance", "nothing was changed", "deletion_protection = false"] {
        ensure!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    std::fs::write(&file, text)?;

    project.forget_calls().await?;
    let arguments = ["--yes", "destroy"];
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
