//! The name of a release.

use std::{fmt, str::FromStr};

/// A git tag that can name an image as well, for instance `v1.2.3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

/// The text can't be the tag of an image.
#[derive(Debug, thiserror::Error)]
#[error(
    "the tag of an image has letters, digits, `.`, `_` and `-`, at most 128, and does not start with `.` or `-`: for instance `v1.2.3`"
)]
pub struct BadTag;

impl FromStr for Tag {
    type Err = BadTag;

    /// OCI Distribution Specification: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
    fn from_str(text: &str) -> Result<Self, BadTag> {
        let word = |one: char| one.is_ascii_alphanumeric() || one == '_';
        let valid = text.len() <= 128
            && text.starts_with(word)
            && text.chars().all(|one| word(one) || matches!(one, '.' | '-'));
        if valid { Ok(Self(text.to_owned())) } else { Err(BadTag) }
    }
}

impl AsRef<str> for Tag {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_must_name_an_image() {
        for tag in ["v1.2.3", "2026-11-23", "_x"] {
            assert!(tag.parse::<Tag>().is_ok(), "{tag}");
        }
        for tag in ["", ".x", "-x", "v1.2.3+build", "feature/x", &"x".repeat(129)] {
            assert!(tag.parse::<Tag>().is_err(), "{tag}");
        }
    }
}
