//! A real PostgreSQL with TLS behind the names of the RDS instances, clusters and proxies.

use std::time::Duration;

use super::error::Error;
use super::process::{self, Daemon};
use super::{Paths, State, certificates, write};

pub(super) const NAME: &str = "postgres";
/// The port of RDS for PostgreSQL.
pub(super) const PORT: u16 = 5432;

/// Makes the cluster at the first start, then starts the server.
pub(super) async fn start(
    paths: &Paths,
    state: &State,
    programs: &std::path::Path,
) -> Result<(), Error> {
    let data = paths.directory.join("postgres");
    let gateway = state.network().gateway();
    process::check_port_free(&gateway.to_string(), PORT)?;
    let region = &state.settings.region;
    let names = [
        format!("*.sandbox.{region}.rds.amazonaws.com"),
        format!("*.proxy-sandbox.{region}.rds.amazonaws.com"),
    ];
    certificates::issue(&paths.certificates(), NAME, &names, gateway)?;

    let user = unprivileged()?;
    if !data.join("PG_VERSION").exists() {
        let _ = std::fs::remove_dir_all(&data);
        let initdb = programs.join("initdb").to_string_lossy().into_owned();
        let target = data.to_string_lossy().into_owned();
        let mut command: Vec<&str> = user.iter().map(String::as_str).collect();
        command.extend([
            initdb.as_str(),
            "--pgdata",
            &target,
            "--username",
            "postgres",
            "--auth-local",
            "trust",
            "--auth-host",
            "scram-sha-256",
            "--encoding",
            "UTF8",
            "--locale",
            "C.UTF-8",
        ]);
        process::run(&command).await?;
        // The socket lies in a directory of root's. TCP is TLS only, as with rds.force_ssl = 1,
        // the default of RDS since PostgreSQL 15.
        write(
            &data.join("pg_hba.conf"),
            "local all all trust\nhostssl all all all scram-sha-256\n",
        )?;
    }
    // Our own pid file says that it does not run. PostgreSQL would go by the number alone, which
    // may belong to another process after a reboot.
    let _ = std::fs::remove_file(data.join("postmaster.pid"));
    let _ = std::fs::remove_file(paths.runtime.join(format!(".s.PGSQL.{PORT}.lock")));

    let mut command = user;
    command.push(programs.join("postgres").to_string_lossy().into_owned());
    command.extend(["-D".to_owned(), data.to_string_lossy().into_owned()]);
    let certificate =
        |suffix: &str| paths.certificates().join(format!("{NAME}.{suffix}")).display().to_string();
    for (name, value) in [
        ("listen_addresses", gateway.to_string()),
        ("port", PORT.to_string()),
        ("unix_socket_directories", paths.runtime.display().to_string()),
        ("ssl", "on".into()),
        ("ssl_cert_file", certificate("pem")),
        ("ssl_key_file", certificate("key")),
        ("max_connections", "200".into()),
    ] {
        command.extend(["-c".to_owned(), format!("{name}={value}")]);
    }
    Daemon { name: NAME, command, environment: vec![] }.start(&paths.directory)?;
    process::wait_until(&paths.directory, NAME, 60, || async {
        execute(paths, "postgres", "SELECT 1").await.is_ok()
    })
    .await
}

/// Ends the server by a fast shutdown.
pub(super) async fn stop(paths: &Paths) -> Result<(), Error> {
    process::stop(&paths.directory, NAME, "INT", Duration::from_secs(15)).await
}

/// Makes or updates the master user of an RDS instance and its first database.
pub(crate) async fn create_database(
    paths: &Paths,
    user: &str,
    password: &str,
    database: Option<&str>,
) -> Result<(), Error> {
    let (role, password) = (identifier(user), literal(password));
    let name = literal(user);
    // What RDS gives its master user: everything short of superuser.
    execute(
        paths,
        "postgres",
        &format!(
            "DO $$ BEGIN
               IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_superuser') THEN
                 CREATE ROLE rds_superuser NOLOGIN;
                 GRANT pg_monitor, pg_signal_backend, pg_read_all_data, pg_write_all_data TO rds_superuser;
               END IF;
               IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {name}) THEN CREATE ROLE {role}; END IF;
             END $$;
             ALTER ROLE {role} LOGIN CREATEROLE CREATEDB PASSWORD {password};
             GRANT rds_superuser TO {role} WITH ADMIN OPTION;
             GRANT ALL ON DATABASE postgres TO {role};"
        ),
    )
    .await?;
    let Some(database) = database else {
        return Ok(());
    };
    let found = execute(
        paths,
        "postgres",
        &format!("SELECT 1 FROM pg_database WHERE datname = {}", literal(database)),
    )
    .await?;
    if found.trim().is_empty() {
        execute(
            paths,
            "postgres",
            &format!("CREATE DATABASE {} OWNER {role}", identifier(database)),
        )
        .await?;
        // As in RDS the master user, not the cluster's owner, rules the public schema.
        execute(paths, database, &format!("ALTER SCHEMA public OWNER TO {role}")).await?;
    }
    Ok(())
}

/// Sets a new password for the master user.
pub(crate) async fn set_password(paths: &Paths, user: &str, password: &str) -> Result<(), Error> {
    execute(
        paths,
        "postgres",
        &format!("ALTER ROLE {} PASSWORD {}", identifier(user), literal(password)),
    )
    .await
    .map(drop)
}

/// Removes a database with all connections to it.
pub(crate) async fn drop_database(paths: &Paths, database: &str) -> Result<(), Error> {
    execute(
        paths,
        "postgres",
        &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(database)),
    )
    .await
    .map(drop)
}

/// Removes every database and role that was made in this sandbox.
pub(crate) async fn wipe(paths: &Paths) -> Result<(), Error> {
    let databases = execute(
        paths,
        "postgres",
        "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'",
    )
    .await?;
    for database in databases.lines().filter(|line| !line.is_empty()) {
        drop_database(paths, database).await?;
    }
    let roles = execute(
        paths,
        "postgres",
        "SELECT rolname FROM pg_roles WHERE rolname <> 'postgres' AND rolname NOT LIKE 'pg\\_%'",
    )
    .await?;
    for role in roles.lines().filter(|line| !line.is_empty()) {
        let role = identifier(role);
        execute(paths, "postgres", &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
            .await?;
    }
    Ok(())
}

/// Runs SQL as superuser over the private socket; returns the rows, unaligned.
async fn execute(paths: &Paths, database: &str, sql: &str) -> Result<String, Error> {
    let socket = paths.runtime.display().to_string();
    let command = [
        "psql",
        "--no-psqlrc",
        "--quiet",
        "--tuples-only",
        "--no-align",
        "--set",
        "ON_ERROR_STOP=1",
        "--host",
        &socket,
        "--username",
        "postgres",
        "--dbname",
        database,
    ];
    process::run_with(&command, &[("PGOPTIONS", "-c client_min_messages=warning")], Some(sql)).await
}

/// PostgreSQL refuses to run as root. In a user namespace of its own it is another user, yet may
/// use files of root's, wherever the sandbox directory lies.
fn unprivileged() -> Result<Vec<String>, Error> {
    let accounts = std::path::Path::new("/etc/passwd");
    let text = std::fs::read_to_string(accounts).map_err(|e| Error::io("read", accounts, e))?;
    let user = ["postgres", "nobody"].iter().find_map(|name| {
        let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    });
    let (user, group) = user.unwrap_or_else(|| ("65534".into(), "65534".into()));
    Ok(vec![
        "unshare".into(),
        "--user".into(),
        format!("--map-user={user}"),
        format!("--map-group={group}"),
    ])
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
