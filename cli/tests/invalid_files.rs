//! Files and command lines that are wrong end with exit code 2 and say why on stderr, through the
//! built binary. None of them reaches AWS or starts a sandbox.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

const HEAD: &str =
    "name = \"demo\"\n[aws]\nregion = \"eu-west-1\"\naccounts = [\"123456789012\"]\n";

fn bme(directory: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bme"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn project(text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("environments")).unwrap();
    fs::write(directory.path().join("environments/demo.toml"), text).unwrap();
    directory
}

/// Standard error of a command that must end with exit code 2 and print nothing to stdout.
fn refused(directory: &TempDir, arguments: &[&str]) -> String {
    let output = bme(directory, arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(output.stdout.is_empty(), "stdout carries data only");
    error
}

#[test]
fn each_bad_file_exits_with_2_and_names_line_and_cause() {
    let cases = [
        ("name = \"demo\"\n[aws\n", "this is not TOML", "demo.toml:2:5"),
        (&format!("{HEAD}[network]\nzone = 2\n"), "did you mean `zones`?", "demo.toml:6:1"),
        (&format!("{HEAD}[network]\nzones = \"2\"\n"), "must be a whole number", "demo.toml:6:9"),
        (&format!("{HEAD}[network]\nzones = 7\n"), "must be at most 3", "demo.toml:6:9"),
        (&format!("{HEAD}[network]\ncidr = \"10.0.0.0/8\"\n"), "/16 to /24", "demo.toml:6:8"),
        (
            &format!("{HEAD}[edge]\ndomain = \"a.example\"\n"),
            "has no certificate",
            "demo.toml:6:10",
        ),
        (
            &HEAD.replace("demo", &"a".repeat(60)),
            "at most 40 characters, this one has 60",
            "demo.toml:1:8",
        ),
        (&HEAD.replace("123456789012", "111122223333"), "placeholder", "demo.toml:4:13"),
        ("name = \"demo\"\n", "lacks the field `aws`", "demo.toml:1:1"),
    ];
    for (text, cause, place) in cases {
        let error = refused(&project(text), &["--env", "demo", "plan"]);
        assert!(error.contains(cause), "{cause:?} is not in:\n{error}");
        assert!(error.contains(place), "{place:?} is not in:\n{error}");
    }
}

#[test]
fn an_unknown_environment_lists_what_there_is() {
    let error = refused(&project(HEAD), &["--env", "other", "plan"]);
    assert!(error.contains("there is no environment `other`"), "{error}");
    assert!(error.contains("`demo`"), "{error}");
}

#[test]
fn the_environment_comes_from_the_variable() {
    let directory = project(HEAD);
    let output = Command::new(env!("CARGO_BIN_EXE_bme"))
        .arg("plan")
        .current_dir(&directory)
        .env_clear()
        .env("BME_ENV", "from-variable")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`from-variable`"));
}

#[test]
fn bad_usage_exits_with_2() {
    let directory = project(HEAD);
    for (arguments, cause) in [
        (&["--env", "demo", "plan", "--step", "netwrok"][..], "network"),
        (&["--env", "demo", "provision", "--lock-wait", "10"], "write it as 90s, 10m or 1h"),
        (&["--env", "demo", "deploy"], "--tag"),
        (&["--env", "demo", "deploy", "--tag", "feature/x"], "for instance `v1.2.3`"),
        (&["--env", "demo", "deploy", "--tag", "v1", "--image", "latest"], "64 hex digits"),
        (&["--env", "demo", "sandbox", "status"], "has no sandbox"),
        (&["--env", "demo", "destroy"], "`--yes --allow-data-loss`"),
        (&["--env", "demo", "destroy", "--keep-data"], "pass `--yes` to go on"),
        (&["--env", "demo", "destroy", "--keep-data", "--allow-data-loss"], "cannot be used with"),
        (&["--config", "nowhere", "plan"], "nowhere"),
        (&["unheard-of"], "unheard-of"),
    ] {
        let error = refused(&directory, arguments);
        assert!(error.contains(cause), "{cause:?} is not in:\n{error}");
    }
}

#[test]
fn init_writes_a_file_that_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    let first = bme(&directory, &["init", "qa", "--account", "123456789012"]);
    assert_eq!(first.status.code(), Some(0), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(directory.path().join("environments/schema.json").is_file());
    let text = fs::read_to_string(directory.path().join("environments/qa.toml")).unwrap();
    assert!(text.starts_with("#:schema ./schema.json"));
    assert!(text.contains("name = \"qa\"") && text.contains("[\"123456789012\"]"));
    // It is valid: the command gets as far as the question that nobody can answer.
    assert!(refused(&directory, &["--env", "qa", "destroy"]).contains("--yes"));
    assert!(refused(&directory, &["init", "Bad_Name"]).contains("lower-case letters"));
}

#[test]
fn help_completions_and_manual_go_to_stdout() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, text) in
        [(&["--help"][..], "Exit codes"), (&["completions", "bash"], "_bme"), (&["man"], ".TH bme")]
    {
        let output = bme(&directory, arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains(text));
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn init_writes_the_file_and_the_workflow_and_keeps_what_was_edited() {
    let directory = tempfile::tempdir().unwrap();
    let written = bme(&directory, &["init", "preview", "--account", "123456789012"]);
    assert_eq!(written.status.code(), Some(0), "{}", String::from_utf8_lossy(&written.stderr));
    let file = directory.path().join("environments/preview.toml");
    let workflow = directory.path().join(".github/workflows/deploy-preview.yml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("name = \"preview\"") && text.contains("123456789012"), "{text}");
    let before = fs::read_to_string(&workflow).unwrap();
    assert!(before.contains("role/bme-preview-deploy"), "{before}");

    let edited = text.replace("refs/heads/main", "refs/tags/v*");
    assert_ne!(edited, text);
    fs::write(&file, &edited).unwrap();
    assert_eq!(bme(&directory, &["init", "preview"]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(&file).unwrap(), edited, "the file is the team's");
    let after = fs::read_to_string(&workflow).unwrap();
    assert!(after.contains("tags: ['v*']"), "{after}");

    let error = refused(&directory, &["init", "preview", "--region", "us-east-1"]);
    assert!(error.contains("is there already"), "{error}");
}

#[test]
fn a_protected_environment_is_not_destroyed() {
    let directory = project(&format!("{HEAD}[database]\ndeletion_protection = true\n"));
    let error = refused(&directory, &["--env", "demo", "--yes", "destroy"]);
    assert!(error.contains("[database]") && error.contains("hint:"), "{error}");
}
