//! What a call to the cloud can answer, sorted by what the engine does about it.

use std::fmt;

/// What the engine does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Too many calls: wait and call again.
    Throttled,
    /// Something just made is not usable yet (an IAM role, a web ACL): call again for a minute.
    Propagating,
    /// Something that still exists is in the way: call again, bounded.
    InUse,
    /// Another change is in progress: call again, bounded.
    Conflict,
    /// The name is taken: look, then adopt or refuse.
    AlreadyExists,
    /// It is not there.
    NotFound,
    /// No answer, or a 5xx: the call may or may not have been carried out. Look before calling again.
    Unknown,
    /// The endpoint can't be reached at all: nothing was carried out.
    Unreachable,
    /// Not allowed, invalid, over a quota: a person has to mend it.
    Fatal,
}

/// A failed call: which, why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The operation as IAM writes it, for instance `ec2:CreateVpc`.
    pub operation: String,
    /// The service's error code, or one of ours in lower case.
    pub code: String,
    /// The service's own words.
    pub message: String,
    /// The service's request id, for its support.
    pub request_id: Option<String>,
    /// What the engine does about it.
    pub class: Class,
    /// The next command or setting to try.
    pub hint: Option<String>,
}

impl Error {
    /// An error of ours that a person has to mend.
    pub fn fatal(
        operation: impl Into<String>,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            operation: operation.into(),
            code: code.into(),
            message: message.into(),
            request_id: None,
            class: Class::Fatal,
            hint: None,
        }
    }

    /// The same error with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.operation, self.code, self.message)?;
        if let Some(id) = &self.request_id {
            write!(f, " (request id {id})")?;
        }
        Ok(())
    }
}
