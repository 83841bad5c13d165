//! One idempotency key over the containers of the running release: a burst of requests, and a
//! container killed between the commit and its answer.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::eventually;

/// Requests of the burst.
const BURST: usize = 500;

/// Parallel requests with one key over the load balancer make one row, and one that was committed
/// by a container that died before it could answer is replayed by the other.
///
/// `url` is the load balancer's, `processes` are the command lines of the sandbox's processes.
pub async fn one_key_over_two_containers(url: &str, processes: &[String]) -> Result<()> {
    let containers = Containers::of(processes)?;
    ensure!(containers.addresses()?.len() >= 2, "fewer than two containers");
    a_burst_makes_one_row(url).await?;
    a_killed_container_loses_nothing(url, &containers).await
}

/// The containers must allow one person more requests than this in a minute: what is tested with the
/// burst is not the rate limit.
async fn a_burst_makes_one_row(url: &str) -> Result<()> {
    let person = Person::register(url, "burst@example.com").await?;
    let requests = (0..BURST).map(|_| person.post("0198c5a4-0000-7000-8000-000000000500"));
    let sent: Vec<_> = requests.map(|request| tokio::spawn(carried_through(request))).collect();
    let mut bodies = HashSet::new();
    let mut statuses = BTreeMap::<u16, usize>::new();
    for answered in sent {
        let (on_the_way, body) = answered.await??;
        for status in on_the_way {
            *statuses.entry(status).or_default() += 1;
        }
        bodies.insert(body);
    }
    ensure!(statuses.get(&201) == Some(&BURST), "{statuses:?}");
    ensure!(bodies.len() == 1, "{} different answers: {statuses:?}", bodies.len());
    ensure!(person.rows().await? == 1, "{statuses:?}");
    Ok(())
}

/// Repeats a request of the burst for as long as it is told to come again. Every status on its way, and
/// the body of the 201 at its end.
async fn carried_through(request: RequestBuilder) -> Result<(Vec<u16>, Vec<u8>)> {
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let mut statuses = Vec::new();
    loop {
        ticks.tick().await;
        let answer = request.try_clone().context("a body that is a stream")?.send().await?;
        let status = answer.status().as_u16();
        statuses.push(status);
        if status == 201 {
            return Ok((statuses, answer.bytes().await?.to_vec()));
        }
        // Still running, or the database's connections are in use.
        ensure!(matches!(status, 409 | 503), "{status}: {}", answer.text().await?);
        ensure!(Instant::now() < deadline, "not within a minute: {statuses:?}");
    }
}

/// A synchronous standby that never comes holds a commit back after it is durable and before anybody
/// is told: that is when the container dies.
async fn a_killed_container_loses_nothing(url: &str, containers: &Containers) -> Result<()> {
    let person = Person::register(url, "killed@example.com").await?;
    let post = |attempt| person.post(&format!("0198c5a4-0000-7000-8000-0000000009{attempt:02}"));
    containers.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")?;
    containers.sql("SELECT pg_reload_conf()")?;
    let (mut attempt, mut early) = (0, 0);
    let mut held = tokio::spawn(post(attempt).send());
    let mut address = String::new();
    eventually("a commit is held back", 60, async || {
        if held.is_finished() {
            // Faster than the reload, which nobody waits for, or told to come again.
            early += usize::from((&mut held).await??.status() == 201);
            attempt += 1;
            held = tokio::spawn(post(attempt).send());
        }
        address = containers.sql(
            "SELECT host(client_addr) FROM pg_stat_activity WHERE wait_event = 'SyncRep' LIMIT 1",
        )?;
        Ok(!address.is_empty())
    })
    .await?;
    containers.kill(&address)?;
    let answer = held.await?;
    let answered = answer.as_ref().is_ok_and(|answer| !answer.status().is_server_error());
    ensure!(!answered, "{answer:?}");
    containers.sql("ALTER SYSTEM RESET synchronous_standby_names")?;
    containers.sql("SELECT pg_reload_conf()")?;

    let replay = settled(|| post(attempt)).await?;
    ensure!(replay.status() == 201, "{replay:?}");
    ensure!(replay.headers().contains_key("idempotent-replayed"), "{replay:?}");
    ensure!(person.rows().await? == early + 1, "the row of the killed container");
    Ok(())
}

/// Repeats a request for as long as it is told to come again, at most a minute.
async fn settled(request: impl Fn() -> RequestBuilder) -> Result<Response> {
    let mut last = None;
    eventually("a request settles", 60, async || {
        let answer = request().send().await?;
        let again = matches!(answer.status().as_u16(), 409 | 429 | 502 | 503 | 504);
        last = Some(answer);
        Ok(!again)
    })
    .await
    .with_context(|| format!("{last:?}"))?;
    last.context("no answer")
}

/// Somebody with an account.
struct Person {
    client: Client,
    transactions: String,
    token: String,
}

impl Person {
    async fn register(url: &str, email: &str) -> Result<Self> {
        let client = Client::new();
        let account =
            json!({"email": email, "password": "correct horse battery", "name": "Somebody"});
        let register = || client.post(format!("{url}/api/auth/register")).json(&account);
        let session: Value = settled(register).await?.error_for_status()?.json().await?;
        let token = session["token"].as_str().context("no token")?.to_owned();
        Ok(Self { transactions: format!("{url}/api/transactions"), client, token })
    }

    fn post(&self, key: &str) -> RequestBuilder {
        let body = json!({
            "type": "expense", "amount": 3.20, "currency": "EUR", "category": "Food",
            "date": "2026-11-23",
        });
        let request = self.client.post(&self.transactions).bearer_auth(&self.token);
        request.header("X-Idempotency-Key", key).json(&body)
    }

    async fn rows(&self) -> Result<usize> {
        let list = || self.client.get(&self.transactions).bearer_auth(&self.token);
        let list: Value = settled(list).await?.error_for_status()?.json().await?;
        Ok(list["items"].as_array().context("no items")?.len())
    }
}

/// The sandbox behind the load balancer: its container runtime and its PostgreSQL.
struct Containers {
    podman: String,
    postgres: PathBuf,
}

impl Containers {
    fn of(processes: &[String]) -> Result<Self> {
        let word = |prefix: &str| {
            let mut words = processes.iter().flat_map(|line| line.split(' '));
            let found = words.find_map(|word| word.strip_prefix(prefix)).map(ToOwned::to_owned);
            found.with_context(|| format!("no process of the sandbox has {prefix}"))
        };
        Ok(Self {
            podman: format!("unix://{}", word("unix://")?),
            postgres: word("unix_socket_directories=")?.into(),
        })
    }

    /// The API's containers: id and address.
    fn addresses(&self) -> Result<Vec<(String, String)>> {
        let all = self.podman(&["ps", "--quiet"])?;
        let format =
            "{{.ID}} {{.Config.Cmd}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let mut found = Vec::new();
        for id in all.lines() {
            let line = self.podman(&["inspect", "--format", format, id])?;
            if line.contains("[api]") {
                let address = line.split_whitespace().last().unwrap_or_default();
                found.push((id.to_owned(), address.to_owned()));
            }
        }
        Ok(found)
    }

    /// SIGKILL for the container with this address.
    fn kill(&self, address: &str) -> Result<()> {
        let all = self.addresses()?;
        let (id, _) = all
            .iter()
            .find(|(_, own)| own == address)
            .with_context(|| format!("no container has {address}: {all:?}"))?;
        self.podman(&["kill", "--signal", "KILL", id]).map(drop)
    }

    fn podman(&self, arguments: &[&str]) -> Result<String> {
        output(Command::new("podman").args(["--url", &self.podman]).args(arguments))
    }

    /// One statement as the superuser; what it answers, without a head.
    fn sql(&self, statement: &str) -> Result<String> {
        let installed = PathBuf::from("/usr/lib/postgresql/15/bin/psql");
        let program = if installed.exists() { installed } else { "psql".into() };
        let mut psql = Command::new(program);
        psql.arg("--host").arg(&self.postgres);
        psql.args(["--username=postgres", "--dbname=postgres", "--no-psqlrc", "-At"]);
        output(psql.args(["--command", statement]))
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {error}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
