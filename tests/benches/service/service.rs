//! The service's process under measurement, on core 0.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::servers::{free_port, on_core, said};

const CORE: &str = "0";

/// Clock ticks a second in /proc (proc(5): `sysconf(_SC_CLK_TCK)`, 100 on Linux).
const TICKS: f64 = 100.0;

/// Longest time until it is ready.
const START: Duration = Duration::from_secs(10);

type Environment = [(&'static str, String)];

/// A running `api`; it ends with this.
pub(crate) struct Service {
    process: Child,
    port: u16,
    /// From the start of the process to the first 200 of `/ready`.
    pub(crate) milliseconds_to_ready: f64,
}

/// Brings the schema up.
pub(crate) fn migrate(binary: &Path, environment: &Environment) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(binary, std::fs::Permissions::from_mode(0o755))?;
    let mut migrate = on_core(CORE, binary.to_owned());
    said(migrate.arg("migrate").env_clear().envs(environment.iter().cloned()))?;
    Ok(())
}

impl Service {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(binary: &Path, environment: &Environment) -> Result<Self> {
        let port = free_port()?;
        let start = Instant::now();
        let process = on_core(CORE, binary.to_owned())
            .arg("api")
            .env_clear()
            .envs(environment.iter().cloned())
            .env("BIND_ADDRESS", format!("127.0.0.1:{port}"))
            // Every line is written, as in production; only nobody keeps it.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut service = Self { process, port, milliseconds_to_ready: 0.0 };
        while !service.is_ready() {
            ensure!(start.elapsed() < START, "the service is not ready after {START:?}");
            std::thread::yield_now();
        }
        service.milliseconds_to_ready = start.elapsed().as_secs_f64() * 1000.0;
        Ok(service)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// User and system time of the process so far.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // After the name in parentheses, which may hold anything: utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / TICKS)
    }

    pub(crate) fn resident_megabytes(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let kibibytes = crate::servers::figure_after(&status, "VmRSS:")?;
        Ok(kibibytes * 1024.0 / 1e6)
    }

    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        let mut answer = String::new();
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200 ")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
