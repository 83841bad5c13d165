//! A project in a temporary directory with a sandbox of its own, driven through the built `bme`.

mod containers;
mod inventory;
mod operator;
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "../../service/tests/service/harness/python.rs"]
mod python;
pub mod requests;

pub use containers::one_key_over_two_containers;
pub use inventory::{ask, difference, element, inventory, inventory_at, query, rest};
pub use operator::{named_actions, without};

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// A copy of the source and of the environment file, on ports of its own. At its end the sandbox is
/// taken down, and the test fails when AWS's models refuse one of its requests.
pub struct Project {
    /// The directory above `environments`.
    pub root: TempDir,
    /// The load balancer.
    pub url: String,
    /// The AWS endpoint.
    pub endpoint: String,
    /// Where the environment lives.
    pub region: String,
    /// The environment's name, and its file's.
    name: String,
    /// What its file said at first.
    environment: String,
    ports: [u16; 2],
    /// Who runs `bme`; without, the sandbox's root.
    operator: Option<operator::Key>,
}

impl Project {
    /// Writes the project with the environment `local`; nothing runs yet.
    pub fn new() -> Result<Self> {
        Self::named("local", "us-east-1")
    }

    /// As [`Self::new`], with an environment of this name in this region.
    pub fn named(name: &str, region: &str) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("bme-test-").tempdir()?;
        let ports = [free_port()?, free_port()?];
        let source = workspace();
        for directory in ["cli", "runbooks", "service", "tests"] {
            copy(&source.join(directory), &root.path().join(directory))?;
        }
        for file in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
            std::fs::copy(source.join(file), root.path().join(file))?;
        }
        let environment = std::fs::read_to_string(source.join("environments/local.toml"))?;
        let environment = environment
            .replace("name = \"local\"", &format!("name = \"{name}\""))
            .replace("region = \"us-east-1\"", &format!("region = \"{region}\""))
            .replace("4566", &ports[1].to_string())
            .replace("port = 8080", &format!("port = {}", ports[0]))
            .replace("lease_milliseconds = 6000", "lease_milliseconds = 3000")
            .replace("beat_milliseconds = 1500", "beat_milliseconds = 400");
        std::fs::create_dir(root.path().join("environments"))?;
        let project = Self {
            root,
            url: format!("http://127.0.0.1:{}", ports[0]),
            endpoint: format!("http://127.0.0.1:{}", ports[1]),
            region: region.to_owned(),
            name: name.to_owned(),
            environment,
            ports,
            operator: None,
        };
        std::fs::write(project.file(), &project.environment)?;
        Ok(project)
    }

    /// The environment's file.
    pub fn file(&self) -> PathBuf {
        self.root.path().join(format!("environments/{}.toml", self.name))
    }

    /// `bme` with arguments, in this project.
    pub fn bme(&self, arguments: &[&str]) -> Command {
        let mut command = bme();
        command.current_dir(self.root.path()).env("BME_ENV", &self.name).args(arguments);
        if let Some(key) = &self.operator {
            command.env("AWS_ACCESS_KEY_ID", &key.id).env("AWS_SECRET_ACCESS_KEY", &key.secret);
        }
        command
    }

    /// Runs `bme`; its standard output. Fails with everything it said unless it exits 0.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.bme(arguments).output()?;
        said(&output, arguments, 0)?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs `bme --output json`; the one document on its standard output.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [&["--output", "json"], arguments].concat();
        Ok(serde_json::from_str(&self.run(&arguments)?)?)
    }

    /// Runs `bme --output json --yes`; the last of the events on its standard output.
    pub fn last_event(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [&["--output", "json", "--yes"], arguments].concat();
        let events = self.run(&arguments)?;
        Ok(serde_json::from_str(events.lines().last().context("no event")?)?)
    }

    /// The environment file with `more` at its end.
    pub fn configure(&self, more: &str) -> Result<()> {
        let path = self.file();
        let marker = "\n# of the test\n";
        let text = std::fs::read_to_string(&path)?;
        let own = text.split(marker).next().unwrap_or_default();
        Ok(std::fs::write(&path, format!("{own}{marker}{more}"))?)
    }

    /// The calls that the gateway has recorded.
    pub async fn calls(&self) -> Result<Vec<Value>> {
        Ok(reqwest::get(format!("{}/_bme/calls", self.endpoint)).await?.json().await?)
    }

    /// Forgets the recorded calls.
    pub async fn forget_calls(&self) -> Result<()> {
        let client = reqwest::Client::new();
        client.delete(format!("{}/_bme/calls", self.endpoint)).send().await?.error_for_status()?;
        Ok(())
    }

    /// The ports that the sandbox listens on.
    pub fn ports(&self) -> [u16; 2] {
        self.ports
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // Also after a failed test nothing may be left running, and what a test has made of its file
        // may lead nowhere.
        let _ = std::fs::write(self.file(), &self.environment);
        let _ = self.bme(&["sandbox", "down"]).output();
        if !std::thread::panicking()
            && let Err(error) = requests::all_valid(self)
        {
            panic!("{error:#}");
        }
    }
}

/// The built `bme`, next to this test, without anybody's AWS configuration. A sandbox that it starts
/// writes all AWS requests down.
pub fn bme() -> Command {
    let target = target();
    let program = target.join("debug/bme");
    assert!(program.exists(), "{} is missing: run `make test`", program.display());
    let mut command = Command::new(program);
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("AWS_") || name.starts_with("BME_"))
    {
        command.env_remove(name);
    }
    command.env("CARGO_TARGET_DIR", target).env("BME_RECORD_REQUESTS", "1").stdin(Stdio::null());
    command
}

/// Fails with everything that was said unless the exit code is `code`.
pub fn said(output: &Output, what: &[&str], code: i32) -> Result<String> {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() != Some(code) {
        bail!(
            "bme {} ended with {}, not {code}:\n{}{stderr}",
            what.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(stderr)
}

/// Fails unless the events on standard output begin with a run's start and end with its end, as one that
/// failed.
pub fn ended_as_it_began(output: &Output) -> Result<()> {
    let events = String::from_utf8_lossy(&output.stdout);
    let events: Vec<Value> = events.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (Some(first), Some(last)) = (events.first(), events.last()) else { bail!("no events") };
    ensure!(first["type"] == "run_started", "{first}");
    ensure!(last["type"] == "run_finished" && last["outcome"] == "failed", "{last}");
    Ok(())
}

/// Waits until `holds`, at most `seconds`.
pub async fn eventually<F>(what: &str, seconds: u64, mut holds: F) -> Result<()>
where
    F: AsyncFnMut() -> Result<bool>,
{
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        if holds().await? {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not within {seconds} s: {what}");
    }
}

/// The root of the source. Clones may share a target directory, and with it the binary of a test:
/// cargo tells for which of them it runs.
pub fn workspace() -> PathBuf {
    let tests = std::env::var_os("CARGO_MANIFEST_DIR");
    let tests = tests.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&tests).parent().map(Path::to_owned).unwrap_or_default()
}

fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    test.ancestors().nth(3).map(Path::to_owned).unwrap_or_default()
}

/// A port of this machine that nobody listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
