//! The table `mcp_audit`: one row for each request to `/mcp`, also for those that were refused. Of what
//! the rate limit refuses there is one row a minute and caller, without a method, since nobody read the
//! message: a flood must not become one of writes.

use std::{sync::OnceLock, time::Instant};

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::request_id::RequestId;

/// Longest name that is written, in characters.
const NAME_MAX: usize = 64;

/// Most names of arguments that are written.
const ARGUMENTS_MAX: usize = 32;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Ok,
    /// The caller may not do this.
    Refused,
    /// It was not understood.
    Invalid,
    /// It was understood, and something on our side went wrong.
    Failed,
}

impl Outcome {
    /// The outcome that an HTTP status tells.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            ..400 => Self::Ok,
            401 | 403 | 429 => Self::Refused,
            400..500 => Self::Invalid,
            500.. => Self::Failed,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        }
    }
}

/// What a message of the protocol asks for: no more of it than is recorded.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Message {
    #[serde(default)]
    pub(super) method: String,
    #[serde(default)]
    pub(super) params: Params,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Params {
    /// Of a tool.
    pub(super) name: Option<String>,
    /// Of a resource.
    uri: Option<String>,
    /// The text as it was sent: decimals never pass through a binary float.
    pub(super) arguments: Option<Box<RawValue>>,
}

/// What a request asks for.
#[derive(Debug, Default)]
struct Asked {
    method: String,
    /// The tool, or the address of the resource.
    target: Option<String>,
    /// Names, never values.
    arguments: Vec<String>,
}

/// The record of one request; its parts become known one after the other.
#[derive(Debug)]
pub struct Record {
    id: Uuid,
    started: Instant,
    request_id: RequestId,
    user: OnceLock<Uuid>,
    asked: OnceLock<Asked>,
    outcome: OnceLock<Outcome>,
    written: OnceLock<()>,
}

impl Record {
    /// Of a request that begins now.
    pub(super) fn new(request_id: RequestId) -> Self {
        Self {
            id: Uuid::now_v7(),
            started: Instant::now(),
            request_id,
            user: OnceLock::new(),
            asked: OnceLock::new(),
            outcome: OnceLock::new(),
            written: OnceLock::new(),
        }
    }

    /// Adds who asks.
    pub(super) fn set_user(&self, user: Uuid) {
        let _ = self.user.set(user);
    }

    /// Adds what is asked for.
    pub(super) fn set_message(&self, message: &Message) {
        let Params { name, uri, arguments } = &message.params;
        let names: Option<Names> =
            arguments.as_ref().and_then(|text| serde_json::from_str(text.get()).ok());
        let _ = self.asked.set(Asked {
            method: cut(&message.method),
            target: name.as_deref().or(uri.as_deref()).map(cut),
            arguments: names.unwrap_or_default().0,
        });
    }

    /// Tells the outcome, where the protocol's answer does not.
    pub fn note(&self, outcome: Outcome) {
        // What was told first holds.
        let _ = self.outcome.set(outcome);
    }

    /// What was told of the outcome.
    pub(super) fn noted(&self) -> Option<Outcome> {
        self.outcome.get().copied()
    }

    /// Whether the row is there for good.
    pub(super) fn is_written(&self) -> bool {
        self.written.get().is_some()
    }

    /// Writes the row; in the transaction of an effect, the one is never without the other. Nothing
    /// happens where it is there already: after a commit that got no answer, that row tells the truth.
    pub async fn write(
        &self,
        database: impl PgExecutor<'_>,
        outcome: Outcome,
    ) -> Result<(), sqlx::Error> {
        let ms = i32::try_from(self.started.elapsed().as_millis()).unwrap_or(i32::MAX);
        let none = Asked::default();
        let asked = self.asked.get().unwrap_or(&none);
        // A row of an account that is gone belongs to nobody.
        sqlx::query(
            "INSERT INTO mcp_audit (id, user_id, method, target, arguments, outcome, request_id, ms)
             VALUES ($1, (SELECT id FROM users WHERE id = $2), $3, $4, $5, $6, $7, $8)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(self.id)
        .bind(self.user.get())
        .bind(&asked.method)
        .bind(&asked.target)
        .bind(&asked.arguments)
        .bind(outcome.as_str())
        .bind(self.request_id.as_str())
        .bind(ms)
        .execute(database)
        .await?;
        Ok(())
    }

    /// Tells that the row is there for good, after the commit.
    pub(super) fn set_written(&self) {
        let _ = self.written.set(());
    }
}

/// A name as it is written: bounded, and without NUL, which Postgres cannot store.
fn cut(name: &str) -> String {
    name.chars().filter(|char| *char != '\0').take(NAME_MAX).collect()
}

/// The names of an object's members, without their values.
#[derive(Debug, Default)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = std::collections::BTreeMap::<String, IgnoredAny>::deserialize(deserializer)?;
        Ok(Self(members.into_keys().take(ARGUMENTS_MAX).map(|name| cut(&name)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_names_and_no_values() {
        let record = Record::new(RequestId::of(&axum::http::HeaderMap::new()));
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add\u0000_goal",
                       "arguments":{"target":77.31,"type":"canary","a":{"b":"canary"}}}}"#;
        record.set_message(&serde_json::from_str(body).unwrap());
        let asked = record.asked.get().unwrap();
        assert_eq!(asked.method, "tools/call");
        assert_eq!(asked.target.as_deref(), Some("add_goal"));
        assert_eq!(asked.arguments, ["a", "target", "type"]);
        assert!(!format!("{record:?}").contains("canary"));
    }
}
