//! A receiver of telemetry that shares no line with the sender: OpenTelemetry's and Sentry's own
//! Python packages, in a virtual environment that is made once per user and version.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    task::spawn_blocking,
};

use super::{Call, python};

/// What parses OTLP, and what parses envelopes.
const PACKAGES: [&str; 2] = ["opentelemetry-proto==1.45.2", "sentry-sdk==2.75.0"];

/// The running receiver. It ends with the test.
pub(crate) struct IndependentReceiver {
    pub(crate) url: String,
    /// Ends when its standard input closes, also when this process is killed.
    _process: Child,
}

impl IndependentReceiver {
    pub(crate) async fn start() -> Self {
        let name = PACKAGES.join("-").replace("==", "-");
        let interpreter = spawn_blocking(move || python(&name, &PACKAGES)).await.unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/telemetry_receiver.py");
        let mut process = Command::new(interpreter)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().expect("a port");
        Self { url: format!("http://127.0.0.1:{port}"), _process: process }
    }

    /// As Sentry shows it for a project.
    pub(crate) fn dsn(&self) -> String {
        self.url.replace("http://", "http://key@") + "/42"
    }

    /// Everything so far: `spans`, `metrics`, `events`, what was `refused`, and all of it `raw`.
    pub(crate) async fn received(&self) -> Value {
        Call::get("/received").try_send(&self.url).await.unwrap().json()
    }
}
