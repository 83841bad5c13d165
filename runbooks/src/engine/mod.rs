//! The engine: a graph of resources is observed, compared with what is wanted, and made so.
//!
//! It knows no AWS service and no terminal. Resources are added by `steps`, told apart by their
//! [`ResourceId`], and talked to through one trait, [`Resource`]. What happens is told through
//! [`events`]; who else may work at the same time is decided by [`lock`].

pub mod apply;
pub mod destroy;
pub mod diff;
mod error;
pub mod events;
mod gate;
pub mod graph;
pub mod lock;
mod outputs;
mod permission;
pub mod plan;
mod resource;
pub mod retired;
mod retry;
mod work;

pub use error::{Class, Error};
pub use graph::{Graph, Node};
pub use outputs::Outputs;
pub use permission::Permission;
pub use resource::{Condition, Handle, Live, Resource, ResourceId};
pub use retry::{Interrupt, Timings, pause};

#[cfg(test)]
mod tests;
