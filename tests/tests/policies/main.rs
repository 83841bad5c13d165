//! The printed IAM policies before an independent linter, which knows every action and what it takes.

#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "../../../service/tests/service/harness/python.rs"]
mod python;

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use bme_tests::{bme, workspace};

const LINTER: [&str; 2] = ["parliament==1.6.4", "setuptools==80.9.0"];

/// What the linter says that is right as it is: words of the finding, and why.
const AS_IT_IS: [(&[&str], &str); 4] = [
    (
        &["RESOURCE_STAR"],
        "asked for everything there is, or before it has an ARN: policy/tests.rs has each with its reason",
    ),
    (
        &["RESOURCE_MISMATCH", "ec2:Create"],
        "what is made and what it is made in are two statements, with different conditions on tags",
    ),
    (
        &["RESOURCE_MISMATCH", "elasticloadbalancing:", "/net/"],
        "of the two kinds of load balancer that the action takes, ours is an application load balancer",
    ),
    (
        &["RESOURCE_POLICY_PRIVILEGE_ESCALATION", "bme-"],
        "whoever makes a bucket of the environment sets its policy and its lifecycle",
    ),
];

#[test]
fn an_independent_linter_finds_nothing_that_is_not_explained() -> Result<()> {
    let root = tempfile::tempdir()?;
    let environments = root.path().join("environments");
    std::fs::create_dir(&environments)?;
    let shipped = workspace().join("environments");
    let mut documents = Vec::new();
    for name in ["local", "staging", "production"] {
        let text = std::fs::read_to_string(shipped.join(format!("{name}.toml")))?;
        let text = text.replace("111122223333", "123456789012");
        std::fs::write(environments.join(format!("{name}.toml")), text)?;
        for who in ["operator", "ci"] {
            let arguments = ["--env", name, "policy", "--for", who];
            let output = bme().current_dir(root.path()).args(arguments).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{name}: {said}");
            let document = root.path().join(format!("{name}-{who}.json"));
            std::fs::write(&document, output.stdout)?;
            documents.push(document);
        }
    }
    let interpreter = python::python(&LINTER.join("-").replace("==", "-"), &LINTER);
    let script = workspace().join("tests/tests/policies/lint.py");
    let output = Command::new(interpreter).arg(script).args(&documents).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = String::from_utf8(output.stdout).context("a report")?;
    ensure!(found.contains("RESOURCE_STAR"), "the linter has found nothing at all: {found}");
    let unexplained: Vec<_> = found
        .lines()
        .filter(|line| {
            !AS_IT_IS.iter().any(|(words, _)| words.iter().all(|word| line.contains(word)))
        })
        .collect();
    ensure!(unexplained.is_empty(), "{unexplained:#?}");
    Ok(())
}
