//! One variable after the other, with every problem kept.

use std::{fs, str::FromStr};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{ConfigError, Lookup};

/// Reads variables and collects what is wrong with them.
pub(super) struct Reader<'a> {
    lookup: Lookup<'a>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: Lookup<'a>) -> Self {
        Self { lookup, problems: Vec::new() }
    }

    pub(super) fn check(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError(self.problems)) }
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    pub(super) fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    pub(super) fn required(&mut self, name: &str, why: &str) -> Option<String> {
        let value = self.get(name);
        if value.is_none() {
            self.problem(format!("{name} is not set: {why}"));
        }
        value
    }

    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, default: T, expected: &str) -> T {
        match self.get(name).map(|value| value.parse()) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(_)) => {
                self.problem(format!("{name} is not {expected}"));
                default
            }
        }
    }

    /// PEM certificates given in place, or in a file named by the variable.
    pub(super) fn pem(&mut self, name: &str) -> Option<Vec<u8>> {
        let value = self.get(name)?;
        let pem = if value.contains("-----BEGIN") {
            value.into_bytes()
        } else {
            match fs::read(&value) {
                Ok(pem) => pem,
                Err(error) => {
                    self.problem(format!(
                        "{name} names a file that cannot be read: {}",
                        error.kind()
                    ));
                    return None;
                }
            }
        };
        let readable = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        if readable.is_ok_and(|certificates| !certificates.is_empty()) {
            Some(pem)
        } else {
            self.problem(format!("{name} holds no PEM certificate"));
            None
        }
    }
}

/// Whether this is an absolute http or https URL with a host.
pub(super) fn is_http_url(value: &str) -> bool {
    value
        .strip_prefix("https://")
        .or_else(|| value.strip_prefix("http://"))
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}
