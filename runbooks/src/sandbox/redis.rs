//! A real Redis with TLS and AUTH behind the names of the replication groups.

use std::time::Duration;

use super::error::Error;
use super::process::{self, Daemon};
use super::{Paths, State, certificates, write_private};

pub(super) const NAME: &str = "redis";
/// The port of ElastiCache for Redis.
pub(super) const PORT: u16 = 6379;

/// Starts the server with a password nobody knows, until a replication group brings its token.
pub(super) async fn start(paths: &Paths, state: &State) -> Result<(), Error> {
    let gateway = state.network().gateway();
    process::check_port_free(&gateway.to_string(), PORT)?;
    let data = paths.directory.join("redis");
    std::fs::create_dir_all(&data).map_err(|e| Error::io("create", &data, e))?;
    certificates::issue(&paths.certificates(), NAME, &[], gateway)?;
    let administrator = uuid::Uuid::new_v4().to_string();
    write_private(&data.join("administrator"), &administrator)?;
    let configuration = format!(
        "port 0\ntls-port {PORT}\nbind {gateway}\nprotected-mode no\ntls-auth-clients no\n\
         tls-cert-file {certificates}/{NAME}.pem\ntls-key-file {certificates}/{NAME}.key\n\
         tls-ca-cert-file {certificates}/{authority}\n\
         unixsocket {socket}\nunixsocketperm 700\ndir {data}\nsave \"\"\nappendonly no\n\
         user default on #{password} ~* &* +@all\n\
         user administrator on #{administrator} ~* &* +@all\n",
        certificates = paths.certificates().display(),
        authority = certificates::AUTHORITY,
        socket = socket(paths),
        data = data.display(),
        password = unknown_password(),
        administrator = hash(&administrator),
    );
    let path = data.join("redis.conf");
    write_private(&path, &configuration)?;
    // Without privileges over the machine: root's files, but none of root's capabilities.
    let command =
        ["unshare", "--user", "redis-server", &path.to_string_lossy()].map(str::to_owned).to_vec();
    Daemon { name: NAME, command, environment: vec![] }.start(&paths.directory)?;
    process::wait_until(&paths.directory, NAME, 20, || async {
        tokio::net::UnixStream::connect(socket(paths)).await.is_ok()
    })
    .await
}

/// Ends the server.
pub(super) async fn stop(paths: &Paths) -> Result<(), Error> {
    process::stop(&paths.directory, NAME, "TERM", Duration::from_secs(5)).await
}

/// Makes exactly these AUTH tokens valid, and the certificate cover these host names.
pub(crate) async fn configure(
    paths: &Paths,
    state: &State,
    tokens: &[String],
    host_names: &[String],
) -> Result<(), Error> {
    certificates::issue(&paths.certificates(), NAME, host_names, state.network().gateway())?;
    let hashes: Vec<String> = match tokens {
        [] => vec![unknown_password()],
        tokens => tokens.iter().map(|token| hash(token)).collect(),
    };
    let rule = format!("ACL SETUSER default on resetpass #{}", hashes.join(" #"));
    let certificate = paths.certificates().join(format!("{NAME}.pem"));
    let key = paths.certificates().join(format!("{NAME}.key"));
    // Both in one command: a certificate without its key is refused.
    let reload = format!(
        "CONFIG SET tls-cert-file {} tls-key-file {}",
        certificate.display(),
        key.display()
    );
    command(paths, &format!("{rule}\n{reload}\n")).await
}

/// Removes all data.
pub(crate) async fn wipe(paths: &Paths) -> Result<(), Error> {
    command(paths, "FLUSHALL\n").await
}

/// Runs commands, one a line, over the private socket as a user of its own.
async fn command(paths: &Paths, commands: &str) -> Result<(), Error> {
    let path = paths.directory.join("redis/administrator");
    let password = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let answer = process::run_with(
        &["redis-cli", "-s", &socket(paths), "--user", "administrator", "--no-auth-warning"],
        &[("REDISCLI_AUTH", password.trim())],
        Some(commands),
    )
    .await?;
    match answer.lines().find(|line| !matches!(line.trim(), "OK" | "")) {
        None => Ok(()),
        Some(line) => Err(Error::Command { program: "redis-cli".into(), reason: line.to_owned() }),
    }
}

fn socket(paths: &Paths) -> String {
    paths.runtime.join("redis.sock").to_string_lossy().into_owned()
}

/// The hash of a random password: the account exists, but nobody can use it.
fn unknown_password() -> String {
    hash(&uuid::Uuid::new_v4().to_string())
}

fn hash(token: &str) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(token.as_bytes()))
}
