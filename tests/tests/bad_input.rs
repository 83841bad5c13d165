//! What a machine or a person may lack: one clear message with the mend, the right exit code, and
//! nothing half made. Bad environment files are tested beside the command line.

use anyhow::{Result, ensure};
use bme_tests::{Project, bme, said};

/// An environment on AWS, without a sandbox.
fn on_aws(endpoint: Option<&str>) -> Result<tempfile::TempDir> {
    let root = tempfile::tempdir()?;
    let endpoint = endpoint.map(|url| format!("endpoint_url = \"{url}\"\n")).unwrap_or_default();
    let text = format!(
        "name = \"staging\"\n[aws]\nregion = \"eu-west-1\"\naccounts = [\"123456789012\"]\n{endpoint}[engine]\nretry_seconds = 1\n"
    );
    std::fs::create_dir(root.path().join("environments"))?;
    std::fs::write(root.path().join("environments/staging.toml"), text)?;
    Ok(root)
}

#[test]
fn missing_credentials_name_the_ways_to_give_them() -> Result<()> {
    let root = on_aws(None)?;
    let output = bme()
        .current_dir(root.path())
        .env("HOME", root.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .args(["--env", "staging", "plan"])
        .output()?;
    let stderr = said(&output, &["plan"], 1)?;
    ensure!(stderr.contains("hint:") && stderr.contains("AWS_PROFILE"), "{stderr}");
    ensure!(output.stdout.is_empty());
    Ok(())
}

#[test]
fn an_endpoint_where_nothing_listens_is_told() -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    drop(listener);
    let root = on_aws(Some(&url))?;
    let output = bme()
        .current_dir(root.path())
        .env("AWS_ACCESS_KEY_ID", "123456789012")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .args(["--env", "staging", "plan"])
        .output()?;
    let stderr = said(&output, &["plan"], 1)?;
    ensure!(stderr.contains("hint:") && stderr.contains("endpoint"), "{stderr}");
    Ok(())
}

#[test]
fn a_missing_container_runtime_is_named() -> Result<()> {
    let project = Project::new()?;
    let bme = project.bme(&["sandbox", "up"]);
    // In a mount namespace of its own, neither podman nor what could install it is there.
    let hide = "mount --bind /dev/null /usr/bin/podman && mount --bind /dev/null /usr/bin/apt-get";
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", &format!("{hide} && exec \"$0\" \"$@\"")])
        .arg(bme.get_program())
        .args(bme.get_args())
        .current_dir(project.root.path())
        .output()?;
    let stderr = said(&output, &["sandbox", "up"], 1)?;
    ensure!(stderr.contains("podman") && stderr.contains("hint:"), "{stderr}");
    Ok(())
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_running() -> Result<()> {
    let project = Project::new()?;
    let directory = project.root.path().join(".bme");
    std::fs::create_dir(&directory)?;
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(&directory)
        .status()?;
    ensure!(mount.success(), "this test mounts a file system of 256 KiB and has to run as root");
    let output = project.bme(&["sandbox", "up"]).output();
    let down = project.bme(&["sandbox", "down"]).output();
    let unmount = std::process::Command::new("umount").arg("-l").arg(&directory).status()?;
    ensure!(unmount.success());
    let stderr = said(&output?, &["sandbox", "up"], 1)?;
    ensure!(stderr.to_lowercase().contains("no space left"), "{stderr}");
    ensure!(down?.status.success());
    Ok(())
}
