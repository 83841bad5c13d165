//! The names that resolve inside the tasks' containers: a hosts file that podman puts below each
//! container's own. Names are added when the resource is created, before any task can start.

use std::fmt::Write as _;

use super::Gateway;
use super::state::Regional;
use crate::sandbox::error::Error;
use crate::sandbox::{Paths, State, network, write};

/// The gateway as the containers call it. `.internal` is nobody's on the internet (ICANN, 2024).
pub(in crate::sandbox) const GATEWAY: &str = "gateway.sandbox.internal";

/// Endpoint of an RDS instance, or of the writer of a cluster.
pub(super) fn server(id: &str, region: &str) -> String {
    format!("{id}.sandbox.{region}.rds.amazonaws.com")
}

/// Endpoint of an RDS Proxy.
pub(super) fn proxy(name: &str, region: &str) -> String {
    format!("{name}.proxy-sandbox.{region}.rds.amazonaws.com")
}

/// An endpoint of a replication group; `role` is `master`, `replica` or a node's name.
pub(super) fn cache(role: &str, id: &str, region: &str) -> String {
    format!("{role}.{id}.sandbox.{region}.cache.amazonaws.com")
}

/// Writes the file that podman needs before anything exists.
pub(in crate::sandbox) fn write_if_missing(paths: &Paths, state: &State) -> Result<(), Error> {
    if paths.hosts().exists() { Ok(()) } else { write_file(paths, state, &[]) }
}

/// Writes all names of all resources.
pub(super) fn update(gateway: &Gateway) -> Result<(), Error> {
    let mut names = Vec::new();
    for (region, regional) in gateway.additions.all() {
        let servers = regional.databases.keys().chain(regional.clusters.keys());
        let servers = servers.chain(&regional.cluster_instances);
        names.extend(servers.map(|id| server(id, &region)));
        names.extend(regional.proxies.iter().map(|name| proxy(name, &region)));
        names.extend(cache_names(&regional, &region));
    }
    write_file(&gateway.paths, &gateway.state, &names)
}

/// Host names that Redis's certificate must cover.
pub(super) fn cache_certificate_names(gateway: &Gateway) -> Vec<String> {
    gateway
        .additions
        .all()
        .iter()
        .flat_map(|(region, regional)| {
            regional.caches.keys().map(|id| cache("*", id, region)).collect::<Vec<_>>()
        })
        .collect()
}

fn cache_names(regional: &Regional, region: &str) -> Vec<String> {
    regional
        .caches
        .keys()
        .flat_map(|id| ["master", "replica"].map(|role| cache(role, id, region)))
        .collect()
}

fn write_file(paths: &Paths, state: &State, names: &[String]) -> Result<(), Error> {
    let mut text = format!(
        "127.0.0.1 localhost\n::1 localhost\n{} host.docker.internal\n{} {GATEWAY}\n",
        // The emulator tells tasks to fetch credentials from this name.
        network::CREDENTIALS_ADDRESS,
        state.network().gateway()
    );
    for name in names {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {name}", state.network().gateway());
    }
    write(&paths.hosts(), &text)
}
