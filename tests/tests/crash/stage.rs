//! A sandbox in which a stack comes and goes, and what it must look like after each phase.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, difference, eventually, inventory, requests, said};
use serde_json::{Value, json};

use crate::points::{Phase, Point, points};

/// What the environment file asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Settings {
    /// The shipped local.toml.
    Local,
    /// The shipped staging.toml, in a sandbox.
    Staging,
}

/// What changes from the first file to the second one.
const LOCAL: [(&str, &str); 4] = [
    ("backup_retention_days = 0", "backup_retention_days = 0\ninstance_class = \"db.t4g.small\""),
    ("job_timeout_seconds = 15", "job_timeout_seconds = 20"),
    ("trace_sampling = 1.0", "trace_sampling = 0.5\nlog_retention_days = 90"),
    ("[database]", "[network]\nzones = 3\nnat = \"per-zone\"\n\n[cache]\nnodes = 2\n\n[database]"),
];
const STAGING: [(&str, &str); 6] = [
    ("zones = 2", "zones = 3"),
    ("nat = \"single\"", "nat = \"per-zone\""),
    ("team = \"platform\"", "team = \"crew\""),
    ("instance_class = \"db.t4g.micro\"", "instance_class = \"db.t4g.small\""),
    ("nodes = 1", "nodes = 2"),
    ("log_retention_days = 30", "log_retention_days = 90"),
];

/// A sandbox with two environment files.
pub(crate) struct Stage {
    project: Project,
    client: reqwest::Client,
    files: [String; 2],
}

/// What runs without a fault call, and what is there afterwards.
pub(crate) struct Undisturbed(BTreeMap<Phase, (Vec<Value>, Inventory)>);

type Inventory = BTreeMap<String, usize>;

impl Undisturbed {
    /// Every point of every phase.
    pub(crate) fn points(&self) -> Vec<Point> {
        self.0.iter().flat_map(|(phase, (calls, _))| points(*phase, calls)).collect()
    }
}

impl Stage {
    /// Writes the project; nothing runs yet.
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let project = Project::new()?;
        let local = std::fs::read_to_string(file(&project, "local"))?;
        let (first, changes) = match settings {
            Settings::Local => (local, &LOCAL[..]),
            Settings::Staging => (in_sandbox(&project, &local)?, &STAGING[..]),
        };
        let second = changes.iter().try_fold(first.clone(), |text, (from, to)| {
            ensure!(text.contains(from), "`{from}` is not in the file:\n{text}");
            Ok(text.replacen(from, to, 1))
        })?;
        Ok(Self { project, client: reqwest::Client::new(), files: [first, second] })
    }

    /// Brings the sandbox up.
    pub(crate) fn start(&self) -> Result<()> {
        self.write(0)?;
        self.project.run(&["sandbox", "up"])?;
        Ok(())
    }

    /// One life of a stack without a fault.
    pub(crate) async fn undisturbed(&self) -> Result<Undisturbed> {
        self.start()?;
        requests::record(&self.project).await?;
        let mut seen = BTreeMap::new();
        for phase in Phase::ALL {
            self.project.forget_calls().await?;
            let command = self.prepare(phase)?;
            self.project.run(command)?;
            let calls = self.project.calls().await?;
            ensure!(calls.len() > 20, "{phase:?} made only {} calls", calls.len());
            seen.insert(phase, (calls, inventory(&self.project).await?));
        }
        requests::all_valid(&self.project).await?;
        let there = &seen[&Phase::Provision].1;
        let different = |phase: Phase| difference(there, &seen[&phase].1);
        ensure!(different(Phase::Destroy).len() > 30, "{there:#?}");
        ensure!(different(Phase::Update).len() > 5, "{:#?}", different(Phase::Update));
        ensure!(different(Phase::Shrink).is_empty(), "{:#?}", different(Phase::Shrink));
        Ok(Undisturbed(seen))
    }

    /// Runs a phase, killed at `point` and run again when there is one, and compares what is there
    /// with what an undisturbed run leaves. Whether the point was reached.
    pub(crate) async fn go(
        &self,
        phase: Phase,
        point: Option<&Point>,
        expected: &Undisturbed,
    ) -> Result<bool> {
        let command = self.prepare(phase)?;
        // Thousands of runs make a record that takes seconds to read.
        self.project.forget_calls().await?;
        let reached = match point {
            Some(point) => self.kill_at(command, point).await?,
            None => false,
        };
        self.project.run(command).context("run again")?;
        if phase != Phase::Destroy {
            self.project.run(&["plan", "--check"]).context("the plan afterwards")?;
        }
        let other = difference(&expected.0[&phase].1, &inventory(&self.project).await?);
        ensure!(other.is_empty(), "not as undisturbed: {other:#?}");
        Ok(reached)
    }

    /// Writes the file of a phase; the command that runs it.
    fn prepare(&self, phase: Phase) -> Result<&'static [&'static str]> {
        self.write(usize::from(phase == Phase::Update))?;
        let command: &[&str] = match phase {
            Phase::Destroy => &["--yes", "destroy", "--allow-data-loss"],
            _ => &["--yes", "provision"],
        };
        Ok(command)
    }

    fn write(&self, which: usize) -> Result<()> {
        Ok(std::fs::write(file(&self.project, "local"), &self.files[which])?)
    }

    /// Starts a run, waits until the gateway holds the call of `point`, and kills it. Without the call
    /// the run ends by itself, and has to end well.
    async fn kill_at(&self, command: &[&str], point: &Point) -> Result<bool> {
        let faults = format!("{}/_bme/faults", self.project.endpoint);
        let rule = json!({ "operation": point.operation, "call": point.call, "kind": point.kind });
        self.client.post(&faults).json(&rule).send().await?.error_for_status()?;
        let mut run =
            self.project.bme(command).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let held = format!("{}/_bme/held", self.project.endpoint);
        let mut ended = false;
        eventually("the call is held", 120, async || {
            ended = run.try_wait()?.is_some();
            let held: Value = self.client.get(&held).send().await?.json().await?;
            Ok(ended || held.as_array().is_some_and(|held| !held.is_empty()))
        })
        .await?;
        run.kill()?;
        let output = run.wait_with_output()?;
        if ended {
            said(&output, command, 0)?;
        }
        self.client.delete(&faults).send().await?.error_for_status()?;
        Ok(!ended)
    }
}

fn file(project: &Project, name: &str) -> PathBuf {
    project.root.path().join(format!("environments/{name}.toml"))
}

/// The shipped staging.toml with the sandbox, the timings and the account of the local one.
fn in_sandbox(project: &Project, local: &str) -> Result<String> {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../environments/staging.toml");
    let staging = std::fs::read_to_string(shipped)?;
    let start = local.find("\n[sandbox]").context("a sandbox in local.toml")?;
    let end = local.find("\n[database]").context("a database in local.toml")?;
    let account = "accounts = [\"111122223333\"]";
    ensure!(staging.contains(account), "another account in:\n{staging}");
    let endpoint =
        format!("accounts = [\"000000000000\"]\nendpoint_url = \"{}\"", project.endpoint);
    let staging = staging
        .replace("name = \"staging\"", "name = \"local\"")
        .replace("region = \"eu-west-1\"", "region = \"us-east-1\"")
        .replace(account, &endpoint);
    Ok(format!("{staging}\n{}", &local[start..end]))
}
