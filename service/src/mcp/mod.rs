//! The Model Context Protocol endpoint `/mcp`: what an assistant may read of a user, and the little
//! it may add when that is switched on.
//!
//! [`endpoint`] surrounds each request (who, the size, the record of it), [`server`] answers it in
//! the protocol, [`tools`] and [`resources`] are what it is answered.

mod auth;
mod endpoint;
mod metadata;
mod record;
mod resources;
mod server;
mod tools;

pub use auth::{Caller, ScopedTokens, Scopes, auth, holder_of_secret};
pub use endpoint::{record_refusal, routes};
pub use record::{Outcome, Record};
pub use tools::{TOOLS, Tool};

/// Where it is.
pub const PATH: &str = "/mcp";

/// Most bytes of JSON that a tool or a resource answers: a page ends earlier and names the next one.
pub const MAX_OUTPUT: usize = 64 * 1024;
