//! The official Python SDK of the Model Context Protocol, in a virtual environment of its own that is
//! made once per machine: a client that shares no line with the server.

use std::process::Stdio;

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command, task::spawn_blocking};

use super::python::python;

/// The version of the SDK: the server must work with what clients have, not with what it tests with.
const SDK: &str = "mcp==2.3.0";

/// Lists and calls as `mcp_client.py` does; its answer.
pub(crate) async fn talk(address: &str, token: &str, calls: &Value) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../service/tests/service/mcp_client.py");
    let interpreter =
        spawn_blocking(|| python(&SDK.replace("==", "-client-"), &[SDK])).await.unwrap();
    let mut client = Command::new(interpreter)
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
