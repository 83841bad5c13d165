//! The sandbox's own bridge: its containers' network, and the address at which they reach the
//! gateway, PostgreSQL and Redis. One bridge per sandbox, so that each has the default ports.

use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use super::error::Error;
use super::process;

/// Where the SDKs expect the credentials endpoint of ECS; they accept no other plain-HTTP host
/// that is not loopback (AWS SDKs reference guide, "Container credential provider").
pub(super) const CREDENTIALS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 2);

/// Bridge `bmeN` with subnet `10.89.N.0/24`.
#[derive(Clone, Copy)]
pub(crate) struct Network(pub(super) u8);

impl Network {
    pub(super) fn bridge(self) -> String {
        format!("bme{}", self.0)
    }

    /// The host's address on the bridge.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 89, self.0, 1)
    }

    pub(super) fn subnet(self) -> String {
        format!("10.89.{}.0/24", self.0)
    }

    /// True when the bridge exists and has its address.
    pub(super) fn exists(self) -> bool {
        // Binding to the address works exactly when some interface has it.
        std::net::UdpSocket::bind((self.gateway(), 0)).is_ok()
    }

    /// The network's definition in the format of podman's netavark back end. `podman network
    /// create` cannot choose the bridge's name in the versions that distributions ship.
    pub(super) fn definition(self) -> serde_json::Value {
        let name = self.bridge();
        serde_json::json!({
            "name": name,
            "id": hex::encode(Sha256::digest(name.as_bytes())),
            "driver": "bridge",
            "network_interface": name,
            "created": "2026-01-01T00:00:00Z",
            "subnets": [{ "subnet": self.subnet(), "gateway": self.gateway() }],
            "ipv6_enabled": false,
            "internal": false,
            // Names come from the hosts file; podman's name server would take port 53.
            "dns_enabled": false,
            "ipam_options": { "driver": "host-local" },
        })
    }

    /// Makes the bridge again if it is gone (after a reboot).
    pub(super) async fn ensure(self) -> Result<(), Error> {
        if self.exists() {
            return Ok(());
        }
        self.remove().await;
        process::run(&["ip", "link", "add", &self.bridge(), "type", "bridge"]).await?;
        self.configure().await
    }

    /// Takes the first free network, starting at one that depends on `seed` so that sandboxes
    /// keep theirs over restarts.
    pub(super) async fn allocate(seed: &str) -> Result<Self, Error> {
        let used = process::run(&["ip", "-o", "-4", "route", "show", "table", "all"]).await?;
        let first = Sha256::digest(seed.as_bytes())[0];
        for step in 0..=u8::MAX {
            let network = Self(first.wrapping_add(step));
            if used.contains(&format!("10.89.{}.", network.0)) {
                continue;
            }
            // Adding a link is atomic: of two sandboxes only one gets it.
            let added =
                process::run(&["ip", "link", "add", &network.bridge(), "type", "bridge"]).await;
            match added {
                Ok(_) => {
                    network.configure().await?;
                    return Ok(network);
                }
                Err(Error::Command { reason, .. }) if reason.contains("File exists") => {}
                Err(other) => return Err(other),
            }
        }
        Err(Error::Podman { reason: "all subnets of 10.89.0.0/16 are in use".into() })
    }

    async fn configure(self) -> Result<(), Error> {
        let (bridge, anchor) = (self.bridge(), format!("bme{}a", self.0));
        let (gateway, credentials) =
            (format!("{}/24", self.gateway()), format!("{CREDENTIALS_ADDRESS}/32"));
        for arguments in [
            vec!["addr", "add", &gateway, "dev", &bridge],
            vec!["addr", "add", &credentials, "dev", &bridge],
            vec!["link", "set", &bridge, "up"],
            // netavark removes a bridge with its last container; this pair keeps it.
            vec![
                "link",
                "add",
                &anchor,
                "type",
                "veth",
                "peer",
                "name",
                &format!("bme{}b", self.0),
            ],
            vec!["link", "set", &anchor, "master", &bridge, "up"],
            vec!["link", "set", &format!("bme{}b", self.0), "up"],
        ] {
            let mut command = vec!["ip"];
            command.extend(arguments);
            process::run(&command).await?;
        }
        Ok(())
    }

    /// Removes the bridge and its anchor; what is gone already is no error.
    pub(super) async fn remove(self) {
        for link in [format!("bme{}a", self.0), self.bridge()] {
            let _ = process::run(&["ip", "link", "del", &link]).await;
        }
    }
}
