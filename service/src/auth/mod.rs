//! Accounts of this service: passwords, access tokens, refresh-token families and the lockout.

mod account;
mod lockout;
mod password;
mod principal;
mod session;
mod token;

pub use account::{Account, EmailTaken, find_by_email, find_by_id, insert};
pub use lockout::{LockedOut, Lockout};
pub use password::Passwords;
pub use principal::Principal;
pub use session::{
    REFRESH_COOKIE, Refreshed, Session, clear_cookie, cookie, open, refresh, revoke, token_in,
};
pub use token::{ACCESS_TOKEN_LIFETIME, Authority};
