//! Mail over SMTP.

use std::{sync::Arc, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp,
};
use tokio::time::timeout;

use crate::config::{MailConfig, Secret};

/// Longest wait for one answer of the mail server.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for one mail.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a mail did not leave. The texts of the mail server are left out: they quote addresses.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum MailError {
    /// The address is not one that mail can go to.
    #[error("the mail cannot be addressed")]
    Address,
    /// The mail server refused, or cannot be reached.
    #[error("the mail server did not take the mail")]
    Server,
    /// The mail server took too long.
    #[error("the mail server took too long")]
    Timeout,
}

/// Sends the mails of the service.
#[derive(Clone)]
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    public_url: Arc<str>,
}

impl Mailer {
    /// A mailer; connects to nothing yet. Fails on a malformed URL only.
    pub fn new(config: &MailConfig) -> Result<Self, smtp::Error> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(config.smtp_url.expose())?
            .timeout(Some(COMMAND_TIMEOUT))
            .build();
        Ok(Self {
            transport,
            from: config.from.clone(),
            public_url: config.public_url.as_str().into(),
        })
    }

    /// Sends the link for a new password. The token is in the fragment, which browsers send to
    /// nobody, so that it is in no log.
    pub async fn send_reset_link(&self, email: &str, token: &Secret) -> Result<(), MailError> {
        let body = format!(
            "Somebody, probably you, asked for a new password.\r\n\r\n\
             {}/reset-password#token={}\r\n\r\n\
             The link works once, for 30 minutes. If it was not you, do nothing.\r\n",
            self.public_url,
            token.expose()
        );
        let message = Message::builder()
            .from(self.from.clone())
            .to(email.parse().map_err(|_| MailError::Address)?)
            .subject("Your new password")
            .header(ContentType::TEXT_PLAIN)
            .body(body)
            .map_err(|_| MailError::Address)?;
        match timeout(SEND_TIMEOUT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MailError::Server),
            Err(_) => Err(MailError::Timeout),
        }
    }
}
