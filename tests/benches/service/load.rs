//! The five kinds of request, and `wrk`, which sends them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{
    servers::{figure_after, on_core, said},
    service::Service,
};

/// A kind of request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Row,
    List,
    Create,
    Voice,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Text, Self::Row, Self::List, Self::Create, Self::Voice];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Row => "one row",
            Self::List => "list of 100",
            Self::Create => "idempotent POST",
            Self::Voice => "voice submit",
        }
    }
}

/// What `wrk` did.
pub(crate) struct Done {
    pub(crate) requests: f64,
    /// A second.
    pub(crate) rate: f64,
}

/// A signed-in user with a hundred transactions, and the generator.
pub(crate) struct Load {
    base: String,
    token: String,
    script: PathBuf,
    /// The user.
    pub(crate) user: String,
    /// One of the transactions.
    pub(crate) transaction: String,
}

/// Sends a body with a new key each time; arguments are the token, the start of the keys, the body.
const SCRIPT: &str = r#"
function init(args)
  wrk.method = args[3] and "POST" or "GET"
  wrk.headers["Authorization"] = "Bearer " .. args[1]
  wrk.headers["Content-Type"] = "application/json"
  prefix, body, count = args[2], args[3], 0
end
function request()
  if not body then return wrk.format() end
  count = count + 1
  wrk.headers["X-Idempotency-Key"] = prefix .. count
  return wrk.format(nil, nil, nil, body)
end
"#;

impl Load {
    pub(crate) fn prepare(service: &Service, directory: &Path) -> Result<Self> {
        let script = directory.join("requests.lua");
        std::fs::write(&script, SCRIPT)?;
        let mut load = Self {
            base: service.url(),
            token: String::new(),
            script,
            user: String::new(),
            transaction: String::new(),
        };
        let account =
            json!({"email": "bench@example.org", "password": "correct horse", "name": "Bench"});
        let registered = load.post("/api/auth/register", &account)?;
        load.token = text(&registered["token"])?;
        load.user = text(&registered["user"]["id"])?;
        for _ in 0..100 {
            load.transaction = text(&load.post("/api/transactions", &transaction())?["id"])?;
        }
        Ok(load)
    }

    /// Three seconds over 32 connections.
    pub(crate) fn run(&self, kind: Kind) -> Result<Done> {
        let (path, body) = self.request(kind);
        let mut wrk = on_core("1", "wrk".into());
        wrk.args(["-t", "1", "-c", "32", "-d", "3s", "-s"]).arg(&self.script);
        wrk.arg(format!("{}{path}", self.base)).arg("--").arg(&self.token);
        wrk.arg(format!("{:016x}-", fastrand::u64(..))).args(body.map(|body| body.to_string()));
        let said = said(&mut wrk)?;
        ensure!(
            !said.contains("Non-2xx") && !said.contains("Socket errors"),
            "{}: not every answer was a success:\n{said}",
            kind.title()
        );
        let requests = said.split_once(" requests in").context("wrk's count")?.0;
        let requests =
            requests.rsplit_once(char::is_whitespace).map_or(requests, |(_, count)| count);
        Ok(Done { requests: requests.parse()?, rate: figure_after(&said, "Requests/sec:")? })
    }

    /// Sends one request of this kind.
    pub(crate) fn once(&self, kind: Kind) -> Result<()> {
        let (path, body) = self.request(kind);
        match body {
            Some(body) => self.post(&path, &body).map(drop),
            None => self.curl(&path, &[]).map(drop),
        }
    }

    fn request(&self, kind: Kind) -> (String, Option<Value>) {
        match kind {
            Kind::Text => ("/health".into(), None),
            Kind::Row => (format!("/api/transactions/{}", self.transaction), None),
            Kind::List => ("/api/transactions?limit=100".into(), None),
            Kind::Create => ("/api/transactions".into(), Some(transaction())),
            Kind::Voice => {
                let body =
                    json!({"transcript": "spent 12.50 on lunch", "timezone": "Europe/Vienna"});
                ("/api/voice/understand".into(), Some(body))
            }
        }
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let key = format!("X-Idempotency-Key: {:016x}", fastrand::u64(..));
        let body = body.to_string();
        let arguments = ["-H", "Content-Type: application/json", "-H", &key, "--data", &body];
        Ok(serde_json::from_str(&self.curl(path, &arguments)?)?)
    }

    fn curl(&self, path: &str, arguments: &[&str]) -> Result<String> {
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body"]).args(arguments);
        if !self.token.is_empty() {
            curl.args(["-H", &format!("Authorization: Bearer {}", self.token)]);
        }
        said(curl.arg(format!("{}{path}", self.base)))
    }
}

fn transaction() -> Value {
    json!({
        "type": "expense", "amount": 12.5, "currency": "EUR", "category": "Food",
        "date": "2026-11-23", "description": "Lunch", "isRecurring": false,
    })
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().context("the service's answer lacks a text")?.to_owned())
}
