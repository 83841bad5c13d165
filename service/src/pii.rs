//! What people say and who they are: values that cannot reach a log line, a span or an answer unless
//! the code at that very place takes them out.
//!
//! They have no `Display` and no `Serialize`, and their `Debug` tells nothing, also inside of a
//! structure that derives it. Tokens and passwords are [`Secret`](crate::config::Secret)s, which
//! behave in the same way.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use sqlx::{Database, Decode, Postgres, Type, error::BoxDynError, postgres::PgTypeInfo};

/// An e-mail address.
pub type Email = Pii<String>;

/// What was said, as text: by a user, or as a model understood it.
pub type Transcript = Pii<String>;

/// What was said, as sound.
pub type Audio = Pii<Bytes>;

/// A personal value.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Pii<T>(T);

impl<T> Pii<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the one call that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// The value itself, for its keeper.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[personal]")
    }
}

impl<T: Type<Postgres>> Type<Postgres> for Pii<T> {
    fn type_info() -> PgTypeInfo {
        T::type_info()
    }

    fn compatible(actual: &PgTypeInfo) -> bool {
        T::compatible(actual)
    }
}

impl<'r, T: Decode<'r, Postgres>> Decode<'r, Postgres> for Pii<T> {
    fn decode(value: <Postgres as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        T::decode(value).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::{
        auth::{Account, Identity, Session},
        config::Secret,
        voice::submit::Submission,
    };

    #[test]
    fn what_carries_a_personal_value_does_not_show_it() {
        let email: Email = serde_json::from_str(r#""canary@example.org""#).unwrap();
        assert_eq!(
            (email.expose().as_str(), format!("{email:?}")),
            ("canary@example.org", "[personal]".into())
        );
        let identity = Identity {
            provider: "google",
            subject: "1",
            email: Some(&email),
            email_verified: true,
            name: None,
        };
        let account = Account {
            id: Uuid::nil(),
            email: Some(email.clone()),
            name: "Ada".into(),
            role: "user".into(),
            password_hash: None,
            created_at: OffsetDateTime::UNIX_EPOCH,
        };
        let session = Session {
            id: Uuid::nil(),
            user: Uuid::nil(),
            token: Secret::new("canary"),
            expires_at: OffsetDateTime::UNIX_EPOCH,
        };
        let said = Submission::parse(br#"{"transcript":"canary"}"#).unwrap();
        // "OggS canary"
        let sound = br#"{"audio":"T2dnUyBjYW5hcnk=","mimeType":"audio/ogg"}"#;
        let sound = Submission::parse(sound).unwrap();
        let shown = format!("{identity:?} {account:?} {session:?} {said:?} {sound:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.matches("[personal]").count() == 4, "{shown}");
    }
}
