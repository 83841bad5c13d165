//! Accounts of this service: passwords, access tokens, refresh-token families and the lockout.

mod account;
mod cognito;
mod id_token;
mod identity;
mod key_set;
mod lockout;
mod mailer;
mod password;
mod password_reset;
mod principal;
mod provider_client;
mod random_token;
mod session;
mod sign_in;
mod signed_token;
mod token;
mod twitter;

pub use account::{Account, EmailTaken, find_by_email, find_by_id, insert, revoke_sessions};
pub use cognito::Cognito;
pub use id_token::{IdClaims, IdProvider};
pub use identity::{EmailUnproven, Identity, find_by_identity, resolve, take_possession};
pub use key_set::{KeySet, KeysUnavailable};
pub use lockout::{LockedOut, Lockout};
pub use mailer::{MailError, Mailer};
pub use password::Passwords;
pub use password_reset::{is_reset_token, new_reset_token, reset_password};
pub use principal::{Holder, Principal, Scopes, bearer_token};
pub use provider_client::{ProviderError, provider_client};
pub use session::{
    REFRESH_COOKIE, Refreshed, Session, clear_cookie, cookie, open, refresh, revoke, token_in,
};
pub use sign_in::{Granted, Opened, Pending, SignIns};
pub use token::{ACCESS_TOKEN_LIFETIME, Authority};
pub use twitter::{Twitter, TwitterUser};
