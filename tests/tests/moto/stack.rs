//! moto's server, and a directory whose environment file leads to it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use bme_tests::{bme, difference, eventually, free_port, inventory_at, said, workspace};
use serde_json::Value;
use tempfile::TempDir;

use crate::python::python;

/// moto, and what it takes to speak the protocol that CloudWatch's SDK speaks.
const PACKAGES: [&str; 2] = ["moto[server]==5.2.5", "cbor2==6.3.0"];

pub(crate) type Inventory = BTreeMap<String, usize>;

/// A running moto.
pub(crate) struct Stack {
    /// Its address.
    pub(crate) endpoint: String,
    root: TempDir,
    server: Child,
}

impl Stack {
    /// Starts moto, with nothing in it.
    pub(crate) async fn start() -> Result<Self> {
        let python = python("moto-5.2.5-cbor2-6.3.0", &PACKAGES);
        let port = free_port()?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let root = tempfile::Builder::new().prefix("bme-test-").tempdir()?;
        let environment = include_str!("local.toml").replace("ENDPOINT", &endpoint);
        fs::create_dir(root.path().join("environments"))?;
        fs::write(root.path().join("environments/local.toml"), environment)?;
        let log = File::create(root.path().join("moto.log"))?;
        let server = Command::new(python)
            .arg(workspace().join("tests/tests/moto/server.py"))
            .arg(port.to_string())
            // Without these the policies of AWS are not there, and a certificate takes a minute.
            .env("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
            .env("MOTO_ACM_VALIDATION_WAIT", "1")
            // Nothing is written next to the source.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let stack = Self { endpoint, root, server };
        eventually("moto answers", 60, async || {
            Ok(reqwest::get(format!("{}/moto-api/", stack.endpoint)).await.is_ok())
        })
        .await?;
        Ok(stack)
    }

    /// `bme --output json --yes` with arguments.
    pub(crate) fn bme(&self, arguments: &[&str]) -> Command {
        let mut command = bme();
        command
            .current_dir(self.root.path())
            .envs([("AWS_ACCESS_KEY_ID", "moto"), ("AWS_SECRET_ACCESS_KEY", "moto")])
            .args(["--output", "json", "--yes"])
            .args(arguments);
        command
    }

    /// Runs `bme`; its standard output. Fails with everything it said unless it exits 0.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.bme(arguments).output()?;
        said(&output, arguments, 0)?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The environment file.
    pub(crate) fn file(&self) -> PathBuf {
        self.root.path().join("environments/local.toml")
    }

    /// What `bme plan` shows.
    pub(crate) fn plan(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&["plan"])?)?)
    }

    /// Runs `bme`; the last of the events on its standard output.
    pub(crate) fn last_event(&self, arguments: &[&str]) -> Result<Value> {
        let events = self.run(arguments)?;
        Ok(serde_json::from_str(events.lines().last().context("no event")?)?)
    }

    /// Starts a command, and kills it when so much time has passed.
    pub(crate) async fn kill(&self, arguments: &[&str], after: Duration) -> Result<()> {
        let mut run = tokio::process::Command::from(self.bme(arguments))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if tokio::time::timeout(after, run.wait()).await.is_err() {
            run.kill().await?;
        }
        Ok(())
    }

    /// What is in moto, asked of each service.
    pub(crate) async fn inventory(&self) -> Result<Inventory> {
        inventory_at(&self.endpoint).await
    }

    /// What is not in moto as it was `before`.
    pub(crate) async fn difference(&self, before: &Inventory) -> Result<Vec<String>> {
        Ok(difference(before, &self.inventory().await?))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
