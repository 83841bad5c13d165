//! From the source to what goes into the image: the static binary, the web assets, the schema level.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};
use walkdir::WalkDir;

use super::{Error, File, Progress, Tell};

/// The target of the image. Its C library can be linked statically, so that nothing else is needed.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const BINARY: &str = "bme-service";

/// What the source gives.
#[derive(Debug, Clone)]
pub struct Built {
    /// The static service binary.
    pub binary: Vec<u8>,
    /// The web assets, with paths relative to their directory, in order.
    pub web: Vec<File>,
    /// Highest migration.
    pub schema: i64,
}

/// Builds the project in `root`. The release's tag is not baked in, so that the same source gives
/// the same bytes under every tag.
///
/// # Errors
/// cargo is missing or failed, or a file can't be read.
pub async fn build(root: &Path, tell: Tell<'_>) -> Result<Built, Error> {
    let path = compile(root, tell).await?;
    Ok(Built {
        binary: fs::read(&path).map_err(|error| unreadable(&path, &error))?,
        web: web(root)?,
        schema: schema(root)?,
    })
}

/// What [`build`] would not find on this machine, each with the mend. Nothing is run for it: rustup
/// installs a toolchain when cargo is merely asked for its version.
pub(crate) fn missing_tools(root: &Path) -> Vec<(&'static str, &'static str)> {
    let there = |program: OsString| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // A path with a slash stands for itself.
        std::env::split_paths(&path).any(|directory| directory.join(&program).is_file())
    };
    let named = |variable: &str, program: &str| {
        std::env::var_os(variable).unwrap_or_else(|| program.into())
    };
    let mut missing = Vec::new();
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        missing.push(("a Linux x86-64 machine", "deploy from one, or from CI"));
    }
    if !there(named("CARGO", "cargo")) {
        missing.push(("cargo", "install Rust from https://rustup.rs"));
    }
    if !there(named("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", "cc")) {
        missing.push(("a linker (cc)", "on Debian and Ubuntu: `apt-get install build-essential`"));
    }
    if !root.join("service/Cargo.toml").is_file() {
        missing.push(("the service's source", "run `bme` in the project's directory"));
    }
    missing
}

/// The web assets: what the front end's build left in `dist`, otherwise the page that says that
/// there is none yet.
pub(super) fn web(root: &Path) -> Result<Vec<File>, Error> {
    let directory = root.join("service/web");
    let dist = directory.join("dist");
    if !dist.is_dir() {
        let page = directory.join("index.html");
        let content = fs::read(&page).map_err(|error| unreadable(&page, &error))?;
        return Ok(vec![File::new("index.html", content)]);
    }
    let mut files = Vec::new();
    for entry in WalkDir::new(&dist).sort_by_file_name() {
        let entry = entry
            .map_err(|error| Error::Source { path: dist.clone(), reason: error.to_string() })?;
        if !entry.file_type().is_file() {
            continue;
        }
        let path = entry.path();
        let relative = path.strip_prefix(&dist).unwrap_or(path).to_string_lossy().into_owned();
        files.push(File::new(relative, fs::read(path).map_err(|error| unreadable(path, &error))?));
    }
    // By the whole path, so that the order does not hang on how directories are walked.
    files.sort_by(|one, two| one.path.cmp(&two.path));
    Ok(files)
}

/// The highest number of the files `NNNN_name.sql`.
pub(super) fn schema(root: &Path) -> Result<i64, Error> {
    let directory = root.join("service/migrations");
    let entries = fs::read_dir(&directory).map_err(|error| unreadable(&directory, &error))?;
    let numbers = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_suffix(".sql")?.split_once('_')?.0.parse().ok()
    });
    Ok(numbers.max().unwrap_or(0))
}

fn failed(reason: String, hint: &str) -> Error {
    Error::Build { what: "cargo build", reason, hint: hint.to_owned() }
}

async fn compile(root: &Path, tell: Tell<'_>) -> Result<PathBuf, Error> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--release", "--locked", "--target", TARGET, "--package", BINARY])
        .args(["--message-format", "json-render-diagnostics"])
        .env("CARGO_ENCODED_RUSTFLAGS", flags())
        // Cargo's progress bar redraws its line; the plain lines are what is passed on.
        .env("CARGO_TERM_PROGRESS_WHEN", "never")
        .env("CARGO_TERM_COLOR", "never")
        .current_dir(root);
    let (artifact, last, succeeded) = watched(cargo, tell).await?;
    match artifact {
        Some(path) if succeeded => Ok(path),
        _ => Err(failed(
            last,
            &format!(
                "`rustup target add {TARGET}` if the target is missing, otherwise mend what cargo says"
            ),
        )),
    }
}

/// Runs cargo: the binary that it tells of, its last lines, and whether it succeeded. Ctrl-C is for `bme`
/// alone to act on, hence a process group of cargo's own; given up, all of that group ends.
async fn watched(
    mut cargo: Command,
    tell: Tell<'_>,
) -> Result<(Option<PathBuf>, String, bool), Error> {
    cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = cargo.spawn().map_err(|error| {
        failed(error.to_string(), "install Rust from https://rustup.rs, which brings cargo")
    })?;
    let mut group = Group(child.id());
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("cargo's output can't be read".into(), "run the command again"));
    };
    let (artifact, last) = tokio::try_join!(artifact(stdout), follow(stderr, tell))
        .map_err(|error| failed(error.to_string(), "run the command again"))?;
    let status =
        child.wait().await.map_err(|error| failed(error.to_string(), "run the command again"))?;
    group.0 = None;
    Ok((artifact, last, status.success()))
}

/// A process group that ends when this is dropped, but for one that has ended by itself.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let Some(leader) = self.0 else { return };
        // The shell's builtin is there even where procps is not. A group that is gone is no error.
        let _ = std::process::Command::new("sh")
            .args(["-c", "kill -s TERM -- \"-$0\"", &leader.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// Links the C library in, and keeps the directory of the registry out of the binary's panic
/// messages, which would make the digest differ from machine to machine.
fn flags() -> String {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    if let Some(home) = home {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    flags.join("\u{1f}")
}

/// The path of the binary, as cargo itself tells it: that honours `CARGO_TARGET_DIR` and every
/// configuration file.
async fn artifact(stdout: impl tokio::io::AsyncRead + Unpin) -> io::Result<Option<PathBuf>> {
    let mut lines = BufReader::new(stdout).lines();
    let mut path = None;
    while let Some(line) = lines.next_line().await? {
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == BINARY;
        if let Some(executable) = message["executable"].as_str().filter(|_| ours) {
            path = Some(PathBuf::from(executable));
        }
    }
    Ok(path)
}

/// Passes each line on; keeps the last ones for the error.
async fn follow(stderr: impl tokio::io::AsyncRead + Unpin, tell: Tell<'_>) -> io::Result<String> {
    let mut lines = BufReader::new(stderr).lines();
    let mut last = VecDeque::new();
    while let Some(line) = lines.next_line().await? {
        if last.len() == 20 {
            last.pop_front();
        }
        last.push_back(line.clone());
        tell(Progress::Building { line });
    }
    Ok(Vec::from(last).join("\n"))
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::Source { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_built_front_end_the_page_is_shipped() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("service/web")).unwrap();
        fs::write(root.path().join("service/web/index.html"), "page").unwrap();
        let files = web(root.path()).unwrap();
        assert_eq!(files.iter().map(|file| &*file.path).collect::<Vec<_>>(), ["index.html"]);
    }

    #[test]
    fn a_built_front_end_is_shipped_whole_and_in_order() {
        let root = tempfile::tempdir().unwrap();
        let dist = root.path().join("service/web/dist");
        fs::create_dir_all(dist.join("assets")).unwrap();
        for path in ["index.html", "assets/b.js", "assets/a.css", "assets-map.json"] {
            fs::write(dist.join(path), path).unwrap();
        }
        let files = web(root.path()).unwrap();
        let paths: Vec<_> = files.iter().map(|file| &*file.path).collect();
        assert_eq!(paths, ["assets-map.json", "assets/a.css", "assets/b.js", "index.html"]);
    }

    #[test]
    fn the_schema_is_the_highest_migration() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("service/migrations");
        fs::create_dir_all(&directory).unwrap();
        for name in ["0001_users.sql", "0012_more.sql", "0003_keys.sql", "README.md"] {
            fs::write(directory.join(name), "").unwrap();
        }
        assert_eq!(schema(root.path()).unwrap(), 12);
    }

    #[tokio::test]
    async fn a_build_that_is_given_up_leaves_no_process() {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let tell = move |progress: Progress| {
            let Progress::Building { line } = progress else { panic!("{progress}") };
            sender.send(line).unwrap();
        };
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $! >&2; wait"]);
        let compiler = tokio::select! {
            _ = watched(command, &tell) => panic!("it waits for its child"),
            line = receiver.recv() => line.unwrap(),
        };
        let stat = PathBuf::from(format!("/proc/{compiler}/stat"));
        // Who has ended may still wait for somebody to ask how.
        let runs = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while runs() {
            assert!(tokio::time::Instant::now() < deadline, "{compiler} still runs");
            crate::engine::pause(std::time::Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn the_last_lines_of_a_failed_build_are_its_reason() {
        let root = tempfile::tempdir().unwrap();
        let error = build(root.path(), &|_| ()).await.unwrap_err();
        let Error::Build { reason, .. } = error else { panic!("{error}") };
        assert!(reason.contains("Cargo.toml"), "{reason}");
    }
}
