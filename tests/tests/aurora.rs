//! Aurora PostgreSQL in place of the instance: made, mended, widened to a second instance, exchanged
//! and gone.

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, difference, inventory, query, said};
use serde_json::Value;

/// The version of the RDS API.
const RDS: &str = "2014-10-31";

/// What the file asks for.
struct Files {
    /// An instance of RDS for PostgreSQL.
    plain: String,
    /// A cluster of Aurora with one instance.
    aurora: String,
    /// One with two.
    wide: String,
}

impl Files {
    fn of(project: &Project) -> Result<Self> {
        let plain = std::fs::read_to_string(project.file())?;
        let table = "[database]\nbackup_retention_days = 0\n";
        ensure!(plain.contains(table), "{plain}");
        let with = |more: &str| {
            let aurora = "[database]\nengine = \"aurora-postgresql\"\n\
                          instance_class = \"db.t4g.medium\"\nbackup_retention_days = 1\n";
            plain.replace(table, &format!("{aurora}{more}"))
        };
        Ok(Self { aurora: with(""), wide: with("multi_az = true\n"), plain })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_made_mended_widened_and_leaves_nothing() -> Result<()> {
    let project = Project::new()?;
    let files = Files::of(&project)?;
    project.run(&["sandbox", "up"])?;
    let empty = inventory(&project).await?;
    std::fs::write(project.file(), &files.aurora)?;
    project.run(&["--yes", "provision"])?;
    project.run(&["plan", "--check"])?;
    provision_calls_for_nothing(&project).await?;
    one_cluster_serves(&project).await?;
    what_somebody_changed_is_mended(&project).await?;
    a_second_instance_comes_and_goes(&project, &files).await?;
    project.run(&["--yes", "destroy"])?;
    let left = difference(&empty, &inventory(&project).await?);
    ensure!(left.is_empty(), "destroy left something: {left:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_engine_is_another_database_and_its_loss_has_to_be_allowed() -> Result<()> {
    let project = Project::new()?;
    let files = Files::of(&project)?;
    project.run(&["sandbox", "up"])?;
    project.run(&["--yes", "provision"])?;
    for (file, comes, goes, gone) in [
        (&files.aurora, "database/cluster", "database/instance", "bme-local-instance<"),
        (&files.plain, "database/instance", "database/cluster", "bme-local-cluster"),
    ] {
        std::fs::write(project.file(), file)?;
        let plan = project.json(&["plan"])?;
        ensure!(change(&plan, comes)?["action"] == "create", "{plan:#}");
        let lost = change(&plan, goes)?;
        ensure!(lost["action"] == "delete" && lost["risk"] == "data_loss", "{lost:#}");
        let target = change(&plan, "database/proxy-target")?;
        ensure!(target["action"] == "replace" && target["risk"] == "downtime", "{target:#}");

        project.forget_calls().await?;
        let output = project.bme(&["--yes", "provision"]).output()?;
        let stderr = said(&output, &["provision"], 2)?;
        for word in [goes, "nothing was changed", "--allow-data-loss"] {
            ensure!(stderr.contains(word), "no `{word}` in {stderr}");
        }
        let calls = project.calls().await?;
        ensure!(calls.iter().all(|call| call["mutating"] == false), "{calls:#?}");

        project.last_event(&["provision", "--allow-data-loss"])?;
        project.run(&["plan", "--check"])?;
        for operation in ["DescribeDBInstances", "DescribeDBClusters"] {
            let text = query(&project.endpoint, "rds", RDS, operation).await?;
            ensure!(!text.contains(gone), "{goes} is still there: {text}");
        }
    }
    Ok(())
}

async fn provision_calls_for_nothing(project: &Project) -> Result<()> {
    project.forget_calls().await?;
    project.run(&["--yes", "provision"])?;
    let calls = project.calls().await?;
    ensure!(!calls.is_empty() && calls.iter().all(|call| call["mutating"] == false), "{calls:#?}");
    Ok(())
}

/// Its names are the sandbox's, its password is in a secret, and the pool leads to it.
async fn one_cluster_serves(project: &Project) -> Result<()> {
    let clusters = query(&project.endpoint, "rds", RDS, "DescribeDBClusters").await?;
    let host = "<Endpoint>bme-local-cluster.sandbox.us-east-1.rds.amazonaws.com</Endpoint>";
    for part in [
        host,
        "<StorageEncrypted>true</StorageEncrypted>",
        "<SecretArn>arn:aws:secretsmanager:us-east-1:000000000000:secret:rds!cluster-",
        "<DBInstanceIdentifier>bme-local-cluster-instance-1</DBInstanceIdentifier>",
    ] {
        ensure!(clusters.contains(part), "no {part} in {clusters}");
    }
    let targets = "DescribeDBProxyTargets&DBProxyName=bme-local-proxy";
    let targets = query(&project.endpoint, "rds", RDS, targets).await?;
    ensure!(targets.contains("<Type>TRACKED_CLUSTER</Type>"), "{targets}");
    ensure!(!targets.contains("<Type>RDS_INSTANCE</Type>"), "{targets}");
    Ok(())
}

async fn what_somebody_changed_is_mended(project: &Project) -> Result<()> {
    let changed = "ModifyDBCluster&DBClusterIdentifier=bme-local-cluster&CopyTagsToSnapshot=false";
    query(&project.endpoint, "rds", RDS, changed).await?;
    let plan = project.json(&["plan"])?;
    let cluster = change(&plan, "database/cluster")?;
    ensure!(cluster["action"] == "update" && cluster["risk"] == "change", "{cluster:#}");
    ensure!(cluster["fields"][0]["path"] == "copyTagsToSnapshot", "{cluster:#}");
    ensure!(plan["summary"]["update"] == 1, "{plan:#}");
    let end = project.last_event(&["provision"])?;
    ensure!(end["updated"] == 1, "{end:#}");
    project.run(&["plan", "--check"])?;
    Ok(())
}

async fn a_second_instance_comes_and_goes(project: &Project, files: &Files) -> Result<()> {
    std::fs::write(project.file(), &files.wide)?;
    let plan = project.json(&["plan"])?;
    let second = change(&plan, "database/cluster-instance-2")?;
    ensure!(second["action"] == "create", "{second:#}");
    ensure!(change(&plan, "database/cluster")?["action"] == "none", "{plan:#}");
    project.run(&["--yes", "provision"])?;
    project.run(&["plan", "--check"])?;
    let instances = query(&project.endpoint, "rds", RDS, "DescribeDBInstances").await?;
    for zone in ["us-east-1a", "us-east-1b"] {
        let zone = format!("<AvailabilityZone>{zone}</AvailabilityZone>");
        ensure!(instances.matches(&zone).count() == 1, "not once {zone} in {instances}");
    }

    std::fs::write(project.file(), &files.aurora)?;
    let plan = project.json(&["plan"])?;
    let second = change(&plan, "database/cluster-instance-2")?;
    // The data stays with the cluster.
    ensure!(second["action"] == "delete" && second["risk"] == "change", "{second:#}");
    project.run(&["--yes", "provision"])?;
    project.run(&["plan", "--check"])?;
    Ok(())
}

/// What a plan does with the resource.
fn change<'a>(plan: &'a Value, id: &str) -> Result<&'a Value> {
    let changes = plan["changes"].as_array().context("a plan has changes")?;
    changes.iter().find(|change| change["id"] == id).with_context(|| format!("no {id} in {plan:#}"))
}
