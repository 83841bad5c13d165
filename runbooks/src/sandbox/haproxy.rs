//! HAProxy: load balancer and edge of the sandbox on one port.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::Error;
use super::process::{self, Daemon};
use super::{Paths, State, write};
use crate::steps::edge::SERVICE_PATHS;

pub(super) const NAME: &str = "haproxy";
/// Targets that can be served at once: twice the largest service, for a rollout.
pub(crate) const SLOTS: usize = 24;

/// Writes the configuration and starts the proxy.
pub(super) async fn start(paths: &Paths, state: &State) -> Result<(), Error> {
    process::check_port_free("127.0.0.1", state.settings.port)?;
    let directory = paths.directory.join("haproxy");
    std::fs::create_dir_all(&directory).map_err(|e| Error::io("create", &directory, e))?;
    let unavailable = directory.join("503.http");
    let problem = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"no healthy target: nothing is deployed yet, or no task answers /health"}"#;
    write(
        &unavailable,
        &format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\nRetry-After: 2\r\nContent-Length: {}\r\n\r\n{problem}",
            problem.len()
        ),
    )?;
    let path = directory.join("haproxy.cfg");
    write(&path, &configuration(paths, state, &unavailable))?;
    let path = path.to_string_lossy().into_owned();
    let command = ["haproxy", "-db", "-f", &path].map(str::to_owned).to_vec();
    Daemon { name: NAME, command, environment: vec![] }.start(&paths.directory)?;
    let port = state.settings.port;
    process::wait_until(&paths.directory, NAME, 20, || async move {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await
}

/// Ends the proxy.
pub(super) async fn stop(paths: &Paths) -> Result<(), Error> {
    process::stop(&paths.directory, NAME, "TERM", Duration::from_secs(3)).await
}

/// Sends commands to the runtime API; returns its answer.
pub(crate) async fn command(paths: &Paths, commands: &[String]) -> std::io::Result<String> {
    let mut answer = String::new();
    // One line per connection: the non-interactive mode of the socket.
    let mut stream = tokio::net::UnixStream::connect(socket(paths)).await?;
    stream.write_all(format!("{}\n", commands.join(";")).as_bytes()).await?;
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn socket(paths: &Paths) -> String {
    paths.runtime.join("haproxy.sock").to_string_lossy().into_owned()
}

fn configuration(paths: &Paths, state: &State, unavailable: &Path) -> String {
    let mut text = String::new();
    let (below, exact): (Vec<&str>, Vec<&str>) =
        SERVICE_PATHS.iter().partition(|path| path.ends_with('*'));
    let below: Vec<&str> = below.iter().map(|path| path.trim_end_matches('*')).collect();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "global
    stats socket {socket} mode 600 level admin
    maxconn 8192
defaults
    mode http
    timeout connect 2s
    # Server-sent events and slow answers: the load balancer's idle timeout of AWS is 60 s.
    timeout client 75s
    timeout server 75s
    timeout tunnel 1h
    timeout http-request 10s
    option forwardfor
    # A stopping task refuses connections before it is deregistered: try another one. Nothing but
    # a refused connection is repeated for a request that may have changed something.
    retries 4
    option redispatch 1
    retry-on conn-failure empty-response
    errorfile 503 {unavailable}
frontend edge
    bind 127.0.0.1:{port}
    acl api path {exact}
    acl api path_beg {below}
    http-request disable-l7-retry unless METH_GET || {{ method HEAD OPTIONS }}
    use_backend api if api
    default_backend web
backend api
    balance leastconn
    option httpchk GET /health
    http-check expect status 200
    default-server check inter 1s fastinter 250ms rise 1 fall 2 observe layer4 error-limit 3 on-error fastinter
    server-template target 1-{SLOTS} 127.0.0.1:1 disabled
backend web
    http-request set-path /_bme/web%[path]
    server gateway 127.0.0.1:{gateway_port}
",
        exact = exact.join(" "),
        below = below.join(" "),
        socket = socket(paths),
        unavailable = unavailable.display(),
        port = state.settings.port,
        gateway_port = state.settings.gateway_port,
    );
    text
}
