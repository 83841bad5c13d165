//! Postgres and Redis on random loopback ports, in temporary directories.
//!
//! A reaper process holds one end of a pipe from this one: when this process ends, however it ends,
//! the pipe closes, and the reaper stops the servers and removes their directories.

use std::{
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use bme_service::{
    config::{DatabaseConfig, Environment, MigrateConfig, Secret},
    database, migrate,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

/// Master role of the shared Postgres.
pub(crate) const SUPERUSER: &str = "master";

/// Its password.
pub(crate) const PASSWORD: &str = "master password";

/// Migrated once, copied for each test.
const TEMPLATE: &str = "migrated";

/// The pair that all tests of this binary share.
pub(crate) struct Servers {
    pub(crate) postgres_port: u16,
    redis_port: u16,
    template: OnceCell<()>,
    creating: tokio::sync::Mutex<()>,
    _reaper: ChildStdin,
}

/// Starts the pair at first use.
pub(crate) fn shared() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(Servers::start)
}

impl Servers {
    fn start() -> Self {
        let directory = directory();
        let (postgres_port, postgres) = start_postgres(directory.path(), &[]);
        let (redis_port, redis) = start_redis(directory.path(), &Listen::Plainly);
        let reaper = reap(directory.keep(), &[postgres.id(), redis.id()]);
        Self {
            postgres_port,
            redis_port,
            template: OnceCell::new(),
            creating: tokio::sync::Mutex::new(()),
            _reaper: reaper,
        }
    }

    pub(crate) fn redis_port(&self) -> u16 {
        self.redis_port
    }

    pub(crate) fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.redis_port)
    }

    pub(crate) fn database(&self, name: &str) -> DatabaseConfig {
        DatabaseConfig {
            host: "127.0.0.1".into(),
            port: self.postgres_port,
            name: name.into(),
            user: SUPERUSER.into(),
            password: Some(Secret::new(PASSWORD)),
            ssl_verify: false,
            ssl_ca: None,
        }
    }

    /// A new, empty database.
    pub(crate) async fn empty_database(&self) -> DatabaseConfig {
        self.create(None).await
    }

    /// A new database with the schema.
    pub(crate) async fn new_database(&self) -> DatabaseConfig {
        self.template
            .get_or_init(async || {
                let mut connection = self.maintenance().await;
                execute(&mut connection, format!("CREATE DATABASE {TEMPLATE}")).await;
                let config = MigrateConfig {
                    environment: Environment::Local,
                    database: self.database(TEMPLATE),
                    app_role: None,
                };
                migrate::run(&config).await.unwrap();
            })
            .await;
        self.create(Some(TEMPLATE)).await
    }

    async fn create(&self, template: Option<&str>) -> DatabaseConfig {
        let name = format!("t{}", Uuid::now_v7().simple());
        let from = template.map(|template| format!(" TEMPLATE {template}")).unwrap_or_default();
        // Two copies of one template at a time are refused.
        let _turn = self.creating.lock().await;
        execute(&mut self.maintenance().await, format!("CREATE DATABASE {name}{from}")).await;
        self.database(&name)
    }

    async fn maintenance(&self) -> PgConnection {
        PgConnection::connect_with(&database::options(&self.database("postgres"))).await.unwrap()
    }
}

async fn execute(connection: &mut PgConnection, statement: String) {
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
}

/// A Postgres and a Redis of one test that talk TLS; Redis nothing else, and with nobody who does not
/// know its token.
pub(crate) struct TlsServers {
    pub(crate) postgres_port: u16,
    pub(crate) redis_port: u16,
    _reaper: ChildStdin,
}

impl TlsServers {
    /// What Redis asks for.
    pub(crate) const REDIS_TOKEN: &str = "a-token-of-sixteen-or-more-characters";

    /// With this certificate and its key, PEM.
    pub(crate) fn start(certificate: &str, key: &str) -> Self {
        let directory = directory();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let (certificate_file, key_file) = (file("server.pem"), file("server.key"));
        fs::write(&certificate_file, certificate).unwrap();
        fs::write(&key_file, key).unwrap();
        // Postgres takes no key that others may read; it is the one who reads it, and so may root, as
        // whom Redis runs then.
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
        if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            let owned = Command::new("chown").arg("postgres").arg(&key_file).status();
            assert!(owned.unwrap().success(), "there is a user postgres");
        }
        let settings =
            [format!("ssl_cert_file={certificate_file}"), format!("ssl_key_file={key_file}")];
        let (postgres_port, postgres) =
            start_postgres(directory.path(), &["ssl=on", &settings[0], &settings[1]]);
        let (redis_port, redis) =
            start_redis(directory.path(), &Listen::Tls(certificate_file, key_file));
        let reaper = reap(directory.keep(), &[postgres.id(), redis.id()]);
        Self { postgres_port, redis_port, _reaper: reaper }
    }
}

/// How a Redis is spoken to.
enum Listen {
    Plainly,
    /// The files of the certificate and of its key.
    Tls(String, String),
}

/// A Redis of one test, to be stopped and started.
pub(crate) struct Redis {
    port: u16,
    directory: TempDir,
    process: Option<Child>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let directory = directory();
        let (port, process) = start_redis(directory.path(), &Listen::Plainly);
        Self { port, directory, process: Some(process) }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn start_again(&mut self) {
        let process = redis_on(self.directory.path(), self.port, &Listen::Plainly);
        self.process = Some(process.expect("the port is still free"));
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) fn directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("bme-service-test-").tempdir().unwrap();
    // The postgres user passes through.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn start_redis(directory: &Path, listen: &Listen) -> (u16, Child) {
    for _ in 0..10 {
        let port = free_port();
        if let Some(process) = redis_on(directory, port, listen) {
            return (port, process);
        }
    }
    panic!("redis-server does not start");
}

fn redis_on(directory: &Path, port: u16, listen: &Listen) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(directory).stdout(Stdio::null());
    match listen {
        Listen::Plainly => command.args(["--port", &port.to_string()]),
        Listen::Tls(certificate, key) => command
            .args(["--port", "0", "--tls-port", &port.to_string()])
            .args(["--tls-cert-file", certificate, "--tls-key-file", key])
            // Who signs clients' certificates, of which it asks for none.
            .args(["--tls-auth-clients", "no", "--tls-ca-cert-file", certificate])
            .args(["--requirepass", TlsServers::REDIS_TOKEN]),
    };
    await_port(command.spawn().expect("redis-server is installed"), port)
}

fn start_postgres(directory: &Path, settings: &[&str]) -> (u16, Child) {
    let data = directory.join("postgres");
    let password_file = directory.join("password");
    fs::write(&password_file, PASSWORD).unwrap();
    let mut initdb = as_postgres("initdb", directory);
    initdb.arg("-D").arg(&data).args([
        "-U",
        SUPERUSER,
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
        "--no-locale",
        "-N",
    ]);
    initdb.arg("--pwfile").arg(&password_file);
    let output = initdb.output().unwrap();
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    for _ in 0..10 {
        let port = free_port();
        let log = fs::File::create(directory.join("postgres.log")).unwrap();
        let process = as_postgres("postgres", directory)
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""])
            .args(["-c", "fsync=off", "-c", "max_connections=300", "-c", "shared_buffers=64MB"])
            .args(settings.iter().flat_map(|setting| ["-c", *setting]))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        if let Some(process) = await_port(process, port) {
            return (port, process);
        }
    }
    panic!("postgres does not start");
}

/// Postgres refuses to run as root.
fn as_postgres(program: &str, directory: &Path) -> Command {
    let installed = Path::new("/usr/lib/postgresql/15/bin").join(program);
    let program = if installed.exists() { installed } else { PathBuf::from(program) };
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let mut command = if root {
        let owned = Command::new("chown").arg("postgres").arg(directory).status().unwrap();
        assert!(owned.success(), "there is a user postgres");
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(directory).env("LC_ALL", "C");
    command
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The process once it listens; None if it ended, because somebody else took the port.
#[expect(clippy::disallowed_methods, reason = "a condition with a deadline is waited for")]
pub(super) fn await_port(mut process: Child, port: u16) -> Option<Child> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if process.try_wait().unwrap().is_some() {
            return None;
        }
        assert!(Instant::now() < deadline, "a server does not listen after 30 s");
        thread::sleep(Duration::from_millis(20));
    }
    Some(process)
}

#[expect(clippy::zombie_processes, reason = "the reaper outlives this process")]
pub(super) fn reap(directory: PathBuf, processes: &[u32]) -> ChildStdin {
    let script = "read -r _ || :
        directory=$1; shift
        kill -INT \"$@\" 2>/dev/null
        for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 \"$@\" 2>/dev/null || break; sleep 0.2; done
        kill -KILL \"$@\" 2>/dev/null
        rm -rf \"$directory\"";
    let mut reaper = Command::new("sh")
        .args(["-c", script, "reaper"])
        .arg(directory)
        .args(processes.iter().map(u32::to_string))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = reaper.stdin.take().unwrap();
    pipe.flush().unwrap();
    pipe
}
