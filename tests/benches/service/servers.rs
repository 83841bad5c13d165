//! PostgreSQL and Redis of the bench, on core 1, on ports of their own.

use std::{
    net::{TcpListener, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// The core of everything but the service.
const CORE: &str = "1";

/// Longest time for a server to listen.
const START: Duration = Duration::from_secs(30);

/// Both servers; they end with this.
pub(crate) struct Servers {
    directory: TempDir,
    postgres_port: u16,
    redis_port: u16,
    processes: Vec<Child>,
}

impl Servers {
    pub(crate) fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bme-bench-").tempdir()?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let mut servers = Self {
            postgres_port: free_port()?,
            redis_port: free_port()?,
            directory,
            processes: Vec::new(),
        };
        servers.start_postgres()?;
        servers.start_redis()?;
        servers.psql("CREATE EXTENSION pg_stat_statements")?;
        Ok(servers)
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the service needs to know.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let plenty = || "100000000".to_owned();
        vec![
            ("APP_ENV", "production".into()),
            (
                "DATABASE_URL",
                format!("postgres://bench:bench@127.0.0.1:{}/postgres", self.postgres_port),
            ),
            ("DATABASE_SSL_VERIFY", "false".into()),
            ("REDIS_URL", format!("redis://127.0.0.1:{}", self.redis_port)),
            ("JWT_SECRET", "the secret of a bench has thirty-two bytes".into()),
            ("METRICS_ADDRESS", "off".into()),
            ("RATE_LIMIT_PER_MINUTE", plenty()),
            ("RATE_LIMIT_LOGIN_PER_MINUTE", plenty()),
            ("RATE_LIMIT_VOICE_PER_MINUTE", plenty()),
        ]
    }

    /// Runs one statement; what it answers, columns between bars.
    pub(crate) fn psql(&self, statement: &str) -> Result<String> {
        let mut psql = Command::new(program("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]);
        said(self.connect(&mut psql))
    }

    /// Transactions a second of `script`, from ten clients, as many as the service has connections.
    pub(crate) fn pgbench(&self, script: &Path) -> Result<f64> {
        let mut pgbench = on_core(CORE, program("pgbench"));
        pgbench.args(["-n", "-M", "prepared", "-c", "10", "-j", "1", "-T", "3", "-f"]).arg(script);
        figure_after(&said(self.connect(&mut pgbench))?, "tps = ")
    }

    /// Commands a second, from 32 connections.
    pub(crate) fn redis_benchmark(&self, command: &[&str]) -> Result<f64> {
        let mut benchmark = on_core(CORE, "redis-benchmark".into());
        benchmark.args(["-p", &self.redis_port.to_string(), "-c", "32", "-n", "60000"]);
        benchmark.args(["-r", "1000000000", "--csv"]).args(command);
        let said = said(&mut benchmark)?;
        // "test","rps",… and below it "SET …","42000.00",…
        let row = said.lines().last().and_then(|row| row.split("\",\"").nth(1));
        row.context("no figure of redis-benchmark")?.parse().context("a figure of redis-benchmark")
    }

    /// What Redis answers to one command.
    pub(crate) fn redis_cli(&self, command: &[&str]) -> Result<String> {
        let mut cli = Command::new("redis-cli");
        said(cli.args(["-p", &self.redis_port.to_string()]).args(command))
    }

    fn connect<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .args(["-h", "127.0.0.1", "-U", "bench", "-p", &self.postgres_port.to_string()])
            .env("PGPASSWORD", "bench")
            .env("PGDATABASE", "postgres")
    }

    fn start_postgres(&mut self) -> Result<()> {
        let (data, password) =
            (self.directory().join("postgres"), self.directory().join("password"));
        std::fs::write(&password, "bench")?;
        let mut initdb = self.as_postgres("initdb")?;
        initdb.arg("-D").arg(&data).args(["-U", "bench", "-A", "scram-sha-256", "-E", "UTF8"]);
        said(initdb.args(["--no-locale", "-N"]).arg("--pwfile").arg(password))?;
        let mut postgres = self.as_postgres("postgres")?;
        postgres.arg("-D").arg(data).args(["-p", &self.postgres_port.to_string()]);
        postgres.args(["-h", "127.0.0.1", "-k", "", "-c", "shared_buffers=256MB"]);
        postgres.args(["-c", "shared_preload_libraries=pg_stat_statements"]);
        // Otherwise the disk is measured, in both the service and pgbench.
        postgres.args(["-c", "synchronous_commit=off"]);
        self.processes.push(postgres.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        await_port(self.postgres_port)
    }

    fn start_redis(&mut self) -> Result<()> {
        let mut redis = on_core(CORE, "redis-server".into());
        redis.args(["--bind", "127.0.0.1", "--port", &self.redis_port.to_string(), "--save", ""]);
        redis.args(["--appendonly", "no", "--dir"]).arg(self.directory());
        self.processes.push(redis.stdout(Stdio::null()).spawn().context("redis-server")?);
        await_port(self.redis_port)
    }

    /// PostgreSQL refuses to run as root.
    fn as_postgres(&self, name: &str) -> Result<Command> {
        if std::fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(on_core(CORE, program(name)));
        }
        said(Command::new("chown").arg("postgres").arg(self.directory()))?;
        let mut command = on_core(CORE, "setpriv".into());
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program(name));
        Ok(command)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A command bound to one core.
pub(crate) fn on_core(core: &str, program: PathBuf) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

/// Its standard output, if it ends well.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command
        .output()
        .with_context(|| format!("{} can't be run", command.get_program().display()))?;
    ensure!(
        status.success(),
        "{command:?}: {status}: {}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    Ok(String::from_utf8(stdout)?)
}

/// The number that follows `words`.
pub(crate) fn figure_after(text: &str, words: &str) -> Result<f64> {
    let (_, rest) = text.split_once(words).with_context(|| format!("no `{words}` in {text}"))?;
    let figure = rest.split_whitespace().next().unwrap_or_default();
    figure.parse().with_context(|| format!("`{figure}` after `{words}`"))
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Debian keeps PostgreSQL's programs off the path, by version.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let installed = versions.map(|version| version.path().join("bin").join(name));
    installed.filter(|path| path.exists()).max().unwrap_or_else(|| name.into())
}

fn await_port(port: u16) -> Result<()> {
    let deadline = Instant::now() + START;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(Instant::now() < deadline, "nothing listens on port {port} after {START:?}");
        std::thread::yield_now();
    }
    Ok(())
}
