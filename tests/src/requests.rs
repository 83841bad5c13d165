//! The AWS requests of a sandbox, its own and its containers', held against AWS's service models by
//! `requests/check.py`.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

use anyhow::{Result, ensure};

use crate::{Project, python::python, workspace};

/// AWS's service models, and what reads the protocol of `CloudWatch`'s SDK.
const MODELS: [&str; 2] = ["botocore==1.43.106", "cbor2==6.3.0"];

/// Tens of thousands of requests, which are checked in seconds.
const MANY_BYTES: u64 = 32 << 20;

/// Where the gateway writes them down, one a line.
pub fn file(project: &Project) -> PathBuf {
    project.root.path().join(".bme/sandbox/requests.jsonl")
}

/// Checks those of a test whose requests would become gigabytes, once there are many, and forgets them.
pub fn check_many(project: &Project) -> Result<()> {
    if written(project) < MANY_BYTES {
        return Ok(());
    }
    let checked = all_valid(project);
    File::create(file(project))?;
    checked
}

/// Fails with every member that AWS's models refuse.
pub(crate) fn all_valid(project: &Project) -> Result<()> {
    if written(project) == 0 {
        return Ok(());
    }
    run("check.py", &[&file(project).to_string_lossy()])
}

/// Bytes; none of a sandbox that was never up.
fn written(project: &Project) -> u64 {
    fs::metadata(file(project)).map_or(0, |file| file.len())
}

fn run(script: &str, arguments: &[&str]) -> Result<()> {
    let interpreter = python(&MODELS.join("-").replace("==", "-"), &MODELS);
    let scripts = workspace().join("tests/src/requests");
    // -B: nothing is written beside the sources.
    let output =
        Command::new(interpreter).arg("-B").arg(scripts.join(script)).args(arguments).output()?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checker_reads_every_protocol_and_tells_every_rule() -> Result<()> {
        run("self_test.py", &[])
    }
}
