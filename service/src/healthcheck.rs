//! `healthcheck`: asks this container's own `/health` over HTTP. The image has no shell and no curl.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Longest wait for the answer; ECS gives a check 5 s by default.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Why the container is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// Nothing answers.
    #[error("no answer from {0}: {1}")]
    Unreachable(SocketAddr, #[source] io::Error),
    /// Something else than 200.
    #[error("{0} answered: {1}")]
    Unhealthy(SocketAddr, String),
}

/// Asks `/health` of the process that listens on `bind`.
pub fn run(bind: SocketAddr) -> Result<(), HealthcheckError> {
    let address = SocketAddr::new(reachable(bind.ip()), bind.port());
    let status_line =
        ask(address).map_err(|error| HealthcheckError::Unreachable(address, error))?;
    if status_line.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(HealthcheckError::Unhealthy(address, status_line))
    }
}

/// A wildcard is an address to listen on, not one to connect to.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
