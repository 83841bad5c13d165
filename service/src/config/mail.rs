//! How mail leaves.

use lettre::message::Mailbox;

use super::{Secret, reader::Reader};

/// How mail leaves. Without it passwords cannot be reset.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// `SMTP_URL`: `smtps://user:password@host`, or `smtp://host:port` for a local relay.
    pub smtp_url: Secret,
    /// `MAIL_FROM`: the sender, `address` or `Name <address>`.
    pub from: Mailbox,
    /// `PUBLIC_URL`: what links in mails begin with, without a slash at the end.
    pub public_url: String,
}

impl Reader<'_> {
    pub(super) fn mail(&mut self) -> Option<MailConfig> {
        let smtp_url = self.get("SMTP_URL")?;
        if !smtp_url.starts_with("smtp://") && !smtp_url.starts_with("smtps://") {
            self.problem("SMTP_URL is not an smtp:// or smtps:// URL");
        }
        let from = self.required("MAIL_FROM", "SMTP_URL is set");
        let public_url = self.required("PUBLIC_URL", "SMTP_URL is set, and mails have links");
        let from: Option<Mailbox> = from.and_then(|from| from.parse().ok());
        if from.is_none() && self.get("MAIL_FROM").is_some() {
            self.problem("MAIL_FROM is not an e-mail address");
        }
        Some(MailConfig {
            smtp_url: Secret::new(smtp_url),
            from: from?,
            public_url: public_url?.trim_end_matches('/').to_owned(),
        })
    }
}
