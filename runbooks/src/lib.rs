//! Everything that knows AWS: environments, the engine, the ten steps, releases, the sandbox.
//!
//! `engine` knows no AWS service; `aws` holds the clients and what they have in common; `steps`
//! lists the resources of the runbook; `release` builds, ships and restores; `sandbox` is the cloud
//! on this machine.

pub mod aws;
pub mod doctor;
pub mod engine;
pub mod environment;
pub mod explain;
pub mod outline;
pub mod policy;
pub mod prices;
pub mod release;
pub mod sandbox;
pub mod session;
pub mod state;
pub mod status;
pub mod steps;
