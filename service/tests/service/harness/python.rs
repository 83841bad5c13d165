//! Virtual environments of Python, made once per user and version in the user's cache directory.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The interpreter of the environment with this name, in which these packages are installed.
pub(crate) fn python(name: &str, packages: &[&str]) -> PathBuf {
    let cache = cache();
    let environment = cache.join(name);
    let (python, complete) = (environment.join("bin/python"), environment.join("complete"));
    fs::create_dir_all(&cache).unwrap();
    // Who starts at the same time installs it once.
    let lock = fs::File::create(cache.join("install.lock")).unwrap();
    lock.lock().unwrap();
    if !complete.exists() || !python.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment));
        run(pip(&python).args(packages));
        fs::write(&complete, packages.join("\n")).unwrap();
    }
    python
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {} (python3-venv and a way to PyPI are needed once)",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `$XDG_CACHE_HOME/bme`, else `~/.cache/bme`, else `/var/cache/bme`.
fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    base.or_else(home).unwrap_or_else(|| PathBuf::from("/var/cache")).join("bme")
}
