//! Detached child processes: started in a session of their own, with a log and a pid file in the
//! sandbox directory, and recognised by pid *and* start time before they are signalled.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;

/// A long-running part of the sandbox.
pub(super) struct Daemon {
    /// Short name: the pid file and the log are called after it.
    pub name: &'static str,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment added to the inherited one.
    pub environment: Vec<(String, String)>,
}

/// The process of a part, as its pid file tells.
#[derive(Clone, Copy)]
pub(super) struct Identity {
    pub pid: u32,
    /// Clock ticks after boot (field 22 of `/proc/PID/stat`): tells a reused pid apart.
    start: u64,
}

/// Variables of the caller that must not reach the parts: they would send the emulator's own
/// SDK calls elsewhere, or change how programs log.
const NOT_INHERITED: [&str; 12] = [
    "AWS_ENDPOINT_URL",
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "PGDATA",
    "HOSTNAME",
];

/// Leaves the caller's session and closes what else the caller had open: a lock or a pipe of its
/// own would otherwise stay held for as long as the sandbox runs.
const DETACH: &str = "\
import os, sys
os.setsid()
os.closerange(3, os.sysconf('SC_OPEN_MAX'))
os.execvp(sys.argv[1], sys.argv[1:])
";

impl Daemon {
    /// Starts the part and writes its pid file; does not wait until it is ready.
    pub(super) fn start(&self, directory: &Path) -> Result<Identity, Error> {
        let log_path = log_file(directory, self.name);
        let log = std::fs::File::create(&log_path).map_err(|e| Error::io("write", &log_path, e))?;
        let second = log.try_clone().map_err(|e| Error::io("write", &log_path, e))?;
        let mut command = tokio::process::Command::new("python3");
        command
            .args(["-I", "-S", "-c", DETACH])
            .args(&self.command)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(second)
            .current_dir(directory)
            .kill_on_drop(false);
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        let child =
            command.spawn().map_err(|e| Error::io("start", Path::new(&self.command[0]), e))?;
        let pid = child.id().unwrap_or_default();
        let identity = Identity { pid, start: start_time(pid).unwrap_or_default() };
        let pid_path = pid_file(directory, self.name);
        std::fs::write(&pid_path, format!("{} {}\n", identity.pid, identity.start))
            .map_err(|e| Error::io("write", &pid_path, e))?;
        Ok(identity)
    }
}

/// The running process of part `name`, if its pid file names one that still lives.
pub(super) fn running(directory: &Path, name: &str) -> Option<Identity> {
    let text = std::fs::read_to_string(pid_file(directory, name)).ok()?;
    let mut words = text.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    let start = words.next()?.parse().ok()?;
    (start_time(pid) == Some(start)).then_some(Identity { pid, start })
}

/// Sends `signal` to part `name`, waits up to `patience`, then kills it; removes the pid file.
pub(super) async fn stop(
    directory: &Path,
    name: &str,
    signal: &str,
    patience: Duration,
) -> Result<(), Error> {
    if let Some(identity) = running(directory, name) {
        let alive = || start_time(identity.pid) == Some(identity.start);
        for (signal, patience) in [(signal, patience), ("KILL", Duration::from_secs(5))] {
            send(signal, identity.pid).await;
            let deadline = Instant::now() + patience;
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while alive() && Instant::now() < deadline {
                tick.tick().await;
            }
            if !alive() {
                break;
            }
        }
    }
    match std::fs::remove_file(pid_file(directory, name)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", &pid_file(directory, name), e))
        }
        _ => Ok(()),
    }
}

/// Waits until `ready` holds; fails with the log's last lines when the process dies or the
/// deadline passes.
pub(super) async fn wait_until<F>(
    directory: &Path,
    name: &'static str,
    seconds: u64,
    mut ready: impl FnMut() -> F,
) -> Result<(), Error>
where
    F: Future<Output = bool>,
{
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut tick = tokio::time::interval(Duration::from_millis(25));
    loop {
        tick.tick().await;
        if ready().await {
            return Ok(());
        }
        if Instant::now() > deadline || running(directory, name).is_none() {
            let log = last_lines(&log_file(directory, name), 15);
            return Err(Error::NotReady { part: name, seconds, log });
        }
    }
}

/// Runs a short command to its end and returns its standard output.
pub(super) async fn run(command: &[&str]) -> Result<String, Error> {
    run_with(command, &[], None).await
}

/// As [`run`], with environment variables and text for its standard input.
pub(super) async fn run_with(
    command: &[&str],
    environment: &[(&str, &str)],
    input: Option<&str>,
) -> Result<String, Error> {
    use tokio::io::AsyncWriteExt;

    let mut child = tokio::process::Command::new(command[0])
        .args(&command[1..])
        .envs(environment.iter().copied())
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Error::io("start", Path::new(command[0]), e))?;
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        // A program that ends before it has read everything reports why by its exit status.
        let _ = pipe.write_all(text.as_bytes()).await;
    }
    let output =
        child.wait_with_output().await.map_err(|e| Error::io("run", Path::new(command[0]), e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("No space left on device") {
        // The last path among the arguments is what the program was to fill.
        let path = command.iter().rev().find(|word| word.starts_with('/')).unwrap_or(&"/");
        return Err(Error::NoSpace { path: PathBuf::from(path) });
    }
    let lines: Vec<&str> = stderr.trim().lines().collect();
    let shown: Vec<&str> = command.iter().take(6).copied().collect();
    Err(Error::Command {
        program: shown.join(" "),
        reason: format!("{}: {}", output.status, lines[lines.len().saturating_sub(5)..].join("\n")),
    })
}

/// Fails when something listens on `address` already.
pub(super) fn check_port_free(address: &str, port: u16) -> Result<(), Error> {
    match std::net::TcpListener::bind((address, port)) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Err(Error::PortInUse {
            address: format!("{address}:{port}"),
            holder: listener(port).unwrap_or_else(|| "another process".into()),
        }),
        Err(e) => Err(Error::io("listen on", Path::new(&format!("{address}:{port}")), e)),
    }
}

/// A port of loopback that is free now.
pub(super) fn free_port() -> Result<u16, Error> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| Error::io("find a free port on", Path::new("127.0.0.1"), e))
}

pub(super) fn log_file(directory: &Path, name: &str) -> PathBuf {
    directory.join("log").join(format!("{name}.log"))
}

/// The process that listens on `port`: `name (pid N)`.
fn listener(port: u16) -> Option<String> {
    let wanted = format!(":{port:04X}");
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|table| {
            table
                .lines()
                .skip(1)
                .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                // Column 1 is the local address, 3 the state (0A = LISTEN), 9 the socket's inode.
                .filter(|columns| {
                    columns.len() > 9 && columns[1].ends_with(&wanted) && columns[3] == "0A"
                })
                .map(|columns| format!("socket:[{}]", columns[9]))
                .collect::<Vec<_>>()
        })
        .collect();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = files
            .flatten()
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()));
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!(
                "{} (pid {})",
                name.trim(),
                process.file_name().to_string_lossy()
            ));
        }
    }
    None
}

/// Start time of a live process; `None` when it is gone or only waits to be reaped.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name, may contain spaces and parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

async fn send(signal: &str, pid: u32) {
    // The shell's builtin is there even where procps is not. A process that is gone is no error.
    let _ = run(&["sh", "-c", "kill -s \"$0\" \"$1\"", signal, &pid.to_string()]).await;
}

fn last_lines(path: &Path, count: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn pid_file(directory: &Path, name: &str) -> PathBuf {
    directory.join("run").join(format!("{name}.pid"))
}
