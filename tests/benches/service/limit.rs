//! What PostgreSQL and Redis do by themselves with the statements that the service sends.
//!
//! The statements are not written here: one request of each kind is sent, and what
//! `pg_stat_statements` then holds is what `pgbench` runs, with values of this file as parameters.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::{
    load::{Kind, Load},
    servers::Servers,
};

pub(crate) struct Limits<'a> {
    servers: &'a Servers,
    scripts: Vec<(Kind, PathBuf)>,
}

impl<'a> Limits<'a> {
    /// Writes a script of `pgbench` for each kind that asks PostgreSQL.
    pub(crate) fn prepare(servers: &'a Servers, load: &Load) -> Result<Self> {
        let mut scripts = Vec::new();
        for kind in [Kind::Row, Kind::List, Kind::Create, Kind::Voice] {
            // The first request of a connection prepares its statements.
            load.once(kind)?;
            servers.psql("SELECT pg_stat_statements_reset()")?;
            load.once(kind)?;
            let recorded = servers.psql(
                "SELECT replace(replace(query, chr(10), ' '), ';', '') FROM pg_stat_statements
                 WHERE toplevel AND query !~* 'pg_stat_statements|^(BEGIN|COMMIT)|^SELECT [$]1$'
                 ORDER BY query ~ 'idempotency_keys'",
            )?;
            let statements: Vec<_> = recorded
                .lines()
                .map(|statement| with_values(statement, load))
                .collect::<Result<_>>()?;
            ensure!(!statements.is_empty(), "no statement of `{}` was recorded", kind.title());
            let mut script = statements.join(";\n") + ";\n";
            if matches!(kind, Kind::Create | Kind::Voice) {
                script = format!("BEGIN;\n{script}COMMIT;\n");
            }
            let path = servers.directory().join(format!("{}.sql", kind.title().replace(' ', "-")));
            std::fs::write(&path, script)?;
            scripts.push((kind, path));
        }
        Ok(Self { servers, scripts })
    }

    /// Transactions a second of this kind's statements, if it has any.
    pub(crate) fn run(&self, kind: Kind) -> Result<Option<f64>> {
        let script = self.scripts.iter().find(|(other, _)| *other == kind);
        script.map(|(_, script)| self.servers.pgbench(script)).transpose()
    }

    /// The commands that one request makes Redis carry out, those inside of scripts included.
    pub(crate) fn redis_commands(&self, kind: Kind, load: &Load) -> Result<String> {
        self.servers.redis_cli(&["CONFIG", "RESETSTAT"])?;
        load.once(kind)?;
        let stats = self.servers.redis_cli(&["INFO", "commandstats"])?;
        let commands = stats.lines().filter_map(|line| {
            let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls = rest.split_once(',')?.0;
            (!command.starts_with("config")).then(|| format!("{command} x {calls}"))
        });
        let commands: Vec<_> = commands.collect();
        Ok(if commands.is_empty() { "nothing".to_owned() } else { commands.join(", ") })
    }
}

/// Commands a second of what the service uses most.
pub(crate) fn redis(servers: &Servers) -> Result<Vec<(&'static str, f64)>> {
    const LOCK: &[&str] = &["SET", "key:__rand_int__", "lock", "NX", "GET", "PX", "30000"];
    const SCRIPT: &str = "local v = redis.call('GET', KEYS[1]) redis.call('SET', KEYS[1], ARGV[1], 'PX', 1000) return v";
    let script: &[&str] = &["EVAL", SCRIPT, "1", "key:__rand_int__", "value"];
    [
        ("GET", &["GET", "key:__rand_int__"][..]),
        ("SET NX GET PX", LOCK),
        ("script: GET, SET", script),
    ]
    .into_iter()
    .map(|(name, command)| Ok((name, servers.redis_benchmark(command)?)))
    .collect()
}

/// The statement with an expression in the place of each parameter.
fn with_values(statement: &str, load: &Load) -> Result<String> {
    let (user, id) = (format!("'{}'::uuid", load.user), format!("'{}'::uuid", load.transaction));
    let new_id = || "gen_random_uuid()".to_owned();
    let quoted = |text: &str| format!("'{text}'");
    let hash = || "sha256(random()::text::bytea)".to_owned();
    let values: Vec<String> = if statement.contains("INSERT INTO transactions") {
        let fields = ["expense", "12.50", "EUR", "Food", "2026-11-23", "Lunch", "false"];
        [new_id(), user].into_iter().chain(fields.map(quoted)).collect()
    } else if statement.contains("INSERT INTO idempotency_keys") {
        // An answer of the service has about this length.
        let body = format!("'\\x{}'", "7b".repeat(270));
        let headers = quoted(r#"[["content-type","application/json"]]"#);
        // After the parameters, the length of a row's life, which is recorded as one.
        vec![user, hash(), hash(), "201".into(), headers, body, quoted("7 days")]
    } else if statement.contains("INSERT INTO voice_jobs") {
        let said = ["spent 12.50 on lunch"].map(quoted).into_iter();
        let null = || "NULL".to_owned();
        let rest = ["2026-11-23", "Europe/Vienna", "true", "request"].map(quoted);
        [new_id(), user]
            .into_iter()
            .chain(said)
            .chain([null(), null(), null()])
            .chain(rest)
            .collect()
    } else if statement.contains("FROM transactions") && statement.contains("LIMIT") {
        let end = "'9999-12-31'".to_owned();
        let last = "'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid".to_owned();
        vec![user, quoted("0001-01-01"), end.clone(), end, last, "101".into()]
    } else if statement.contains("FROM transactions") {
        vec![id, user]
    } else {
        Vec::new()
    };
    let mut statement = statement.to_owned();
    for (at, value) in values.iter().enumerate().rev() {
        statement = statement.replace(&format!("${}", at + 1), value);
    }
    ensure!(!statement.contains('$'), "a parameter has no value: {statement}");
    Some(statement).context("a statement")
}
