//! ministack, an independent emulator of AWS: one for the test binary, on a random loopback port.
//!
//! Its virtual environment is the one that `bme sandbox` uses, and is made here in the same way where
//! it does not exist yet.

use std::{
    fs,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_config::{Region, SdkConfig};
use aws_sdk_sqs::config::Credentials;
use bme_service::aws;

use super::{
    python::python,
    servers::{await_port, directory, free_port, reap},
};

/// The version that everything here was checked against.
const EMULATOR: &str = "ministack==1.5.33";

/// What it needs beyond its own requirements.
const EXTRAS: [&str; 3] = ["cbor2==6.3.0", "cryptography==50.0.2", "docker==7.2.0"];

/// The running emulator.
pub(crate) struct Emulator {
    port: u16,
    _reaper: ChildStdin,
}

/// Starts it at first use.
pub(crate) fn emulator() -> &'static Emulator {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    EMULATOR.get_or_init(Emulator::start)
}

impl Emulator {
    fn start() -> Self {
        let packages: Vec<_> = [EMULATOR].into_iter().chain(EXTRAS).collect();
        let python = python(&EMULATOR.replace("==", "-"), &packages);
        let directory = directory();
        for _ in 0..10 {
            let port = free_port();
            if let Some(process) = on_port(&python, directory.path(), port) {
                let reaper = reap(directory.keep(), &[process.id()]);
                return Self { port, _reaper: reaper };
            }
        }
        panic!("the emulator does not start");
    }

    /// As an account of its own: an access key id of twelve digits is the account's number.
    pub(crate) async fn account(&self) -> SdkConfig {
        static NEXT: AtomicU64 = AtomicU64::new(200_000_000_001);
        let account = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        aws::loader()
            .endpoint_url(format!("http://127.0.0.1:{}", self.port))
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new(account, "secret", None, None, "test"))
            .load()
            .await
    }
}

fn on_port(python: &Path, directory: &Path, port: u16) -> Option<Child> {
    let process = Command::new(python)
        .args(["-m", "ministack"])
        .env("BIND_HOST", "127.0.0.1")
        .env("GATEWAY_PORT", port.to_string())
        // No further listeners, and no containers.
        .env("IOT_MTLS_ENABLED", "0")
        .env("SFTP_ENABLED", "0")
        .env("DOCKER_HOST", "unix:///nonexistent")
        .env("TMPDIR", directory)
        .env("S3_DATA_DIR", directory.join("s3"))
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(fs::File::create(directory.join("emulator.log")).unwrap())
        .spawn()
        .unwrap();
    await_port(process, port)
}
