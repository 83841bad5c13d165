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

impl Class {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Throttled,
        Self::Propagating,
        Self::InUse,
        Self::Conflict,
        Self::AlreadyExists,
        Self::NotFound,
        Self::Unknown,
        Self::Unreachable,
        Self::Fatal,
    ];

    /// Its name in words that can be typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Propagating => "propagating",
            Self::InUse => "in-use",
            Self::Conflict => "conflict",
            Self::AlreadyExists => "already-exists",
            Self::NotFound => "not-found",
            Self::Unknown => "unknown",
            Self::Unreachable => "unreachable",
            Self::Fatal => "fatal",
        }
    }

    /// What such an error means and what is done about it, for a person.
    pub fn means(self) -> &'static str {
        match self {
            Self::Throttled => {
                "too many calls at once: bme waits and calls again, each time a little later"
            }
            Self::Propagating => {
                "something just made is not seen everywhere yet: bme calls again for up to a minute"
            }
            Self::InUse => {
                "something that still exists is in the way: bme calls again until that is gone, \
                 within a bound"
            }
            Self::Conflict => {
                "another change of the same thing is in progress: bme calls again, within a bound"
            }
            Self::AlreadyExists => {
                "the name is taken: bme looks at what has it, and goes on with it if its tags say \
                 that it is ours"
            }
            Self::NotFound => {
                "it is not there: right when it is to be deleted; when it has just been made, bme \
                 calls again for up to a minute"
            }
            Self::Unknown => {
                "no usable answer, so the call may or may not have been carried out: bme looks \
                 before it calls again, and so makes nothing twice"
            }
            Self::Unreachable => "the endpoint can't be reached, so nothing was carried out",
            Self::Fatal => {
                "not allowed, invalid, or over a quota: calling again would not help, a person has \
                 to mend it. What does not need the resource goes on"
            }
        }
    }
}

/// An error whose cause can be told before it happens: what raises it and `bme explain` have the same
/// words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The code: one of ours in lower case, or a service's.
    pub code: &'static str,
    /// What leads to it, for a person.
    pub cause: &'static str,
    /// The next command or setting to try.
    pub mend: &'static str,
}

impl Fault {
    /// The error, which a person has to mend, with its hint.
    pub fn error(&self, operation: impl Into<String>, message: impl Into<String>) -> Error {
        Error::fatal(operation, self.code, message).with_hint(self.mend)
    }
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
