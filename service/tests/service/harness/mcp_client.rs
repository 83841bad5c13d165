//! The official Python SDK of the Model Context Protocol, in a virtual environment of its own that is
//! made once per machine: a client that shares no line with the server.

use std::{env, path::PathBuf, process::Stdio};

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command, sync::OnceCell};

/// The version of the SDK: the server must work with what clients have, not with what it tests with.
const SDK: &str = "mcp==2.3.0";

/// Lists and calls as `mcp_client.py` does; its answer.
pub(crate) async fn talk(address: &str, token: &str, calls: &Value) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../service/tests/service/mcp_client.py");
    let mut client = Command::new(interpreter().await)
        .args([script, address, token])
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(calls.to_string().as_bytes()).await.unwrap();
    let output = client.wait_with_output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

/// The environment's Python, with the SDK.
async fn interpreter() -> PathBuf {
    static PYTHON: OnceCell<PathBuf> = OnceCell::const_new();
    let python = PYTHON.get_or_init(async || {
        let directory = cache().join(SDK.replace("==", "-client-"));
        let (python, complete) = (directory.join("bin/python"), directory.join("complete"));
        if !complete.exists() {
            std::fs::create_dir_all(cache()).unwrap();
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory)).await;
            let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", SDK];
            run(Command::new(&python).args(install)).await;
            std::fs::write(&complete, SDK).unwrap();
        }
        python
    });
    python.await.clone()
}

async fn run(command: &mut Command) {
    let output = command.output().await.unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {} (python3-venv and a way to PyPI are needed once)",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `$XDG_CACHE_HOME/bme`, else `~/.cache/bme`.
fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = env::var_os("HOME").map(PathBuf::from).unwrap();
    base.unwrap_or_else(|| home.join(".cache")).join("bme")
}
