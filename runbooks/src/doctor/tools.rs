//! What this machine has to have: for `bme deploy`, which builds here, and for a sandbox.

use std::path::Path;

use super::Check;
use crate::{environment::Environment, release, sandbox};

/// The tools for building, and those of the sandbox where the file has one.
pub(super) fn checks(environment: &Environment, project: &Path) -> Vec<Check> {
    let mut checks = vec![building(&release::missing_tools(project))];
    if environment.sandbox.is_some() {
        checks.push(match sandbox::missing_packages() {
            Ok((missing, installs)) => containers(&missing, installs),
            Err(error) => Check::fail("tools/sandbox", error.to_string()).with_hint(error.hint()),
        });
    }
    checks
}

/// A machine that can't build can still provision, and deploy an image that was pushed elsewhere.
fn building(missing: &[(&str, &str)]) -> Check {
    if missing.is_empty() {
        return Check::ok("tools/build", "cargo, a linker and the source are there");
    }
    let what: Vec<_> = missing.iter().map(|(what, _)| *what).collect();
    let mends: Vec<_> = missing.iter().map(|(_, mend)| *mend).collect();
    let message = format!("`bme deploy` cannot build here without {}", what.join(" and "));
    Check::warn("tools/build", message).with_hint(mends.join("; "))
}

fn containers(missing: &[&str], installs: bool) -> Check {
    let packages = missing.join(", ");
    if missing.is_empty() {
        Check::ok("tools/sandbox", "podman, PostgreSQL, Redis, HAProxy and Python are there")
    } else if installs {
        Check::warn("tools/sandbox", format!("{packages} not installed yet"))
            .with_hint("`bme sandbox up` installs them")
    } else {
        Check::fail("tools/sandbox", format!("{packages} not installed"))
            .with_hint("install what these packages of Debian hold; there is no apt-get here")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn what_is_missing_is_named_with_its_mend() {
        assert_eq!(building(&[]).state, State::Ok);
        let check = building(&[("cargo", "install Rust"), ("a linker (cc)", "install gcc")]);
        assert_eq!(check.message, "`bme deploy` cannot build here without cargo and a linker (cc)");
        assert_eq!(check.hint.as_deref(), Some("install Rust; install gcc"));
        assert_eq!(containers(&[], false).state, State::Ok);
        assert_eq!(containers(&["podman"], true).state, State::Warn);
        assert_eq!(containers(&["podman"], false).state, State::Fail);
    }
}
