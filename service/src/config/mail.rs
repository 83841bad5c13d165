//! How mail leaves.

use lettre::message::Mailbox;
use reqwest::Url;

use super::{Environment, Secret, reader::Reader};

/// How mail leaves. Without it passwords cannot be reset.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// `SMTP_URL`: `smtps://user:password@host`, or `smtp://user:password@host?tls=required` for
    /// STARTTLS. `smtp://host:port` without TLS is for `APP_ENV=local` only: mails carry links that
    /// open accounts.
    pub smtp_url: Secret,
    /// `MAIL_FROM`: the sender, `address` or `Name <address>`.
    pub from: Mailbox,
    /// `PUBLIC_URL`: what links in mails begin with, without a slash at the end.
    pub public_url: String,
}

impl Reader<'_> {
    pub(super) fn mail(&mut self, environment: Environment) -> Option<MailConfig> {
        let smtp_url = self.get("SMTP_URL")?;
        match Url::parse(&smtp_url).ok().filter(|url| ["smtp", "smtps"].contains(&url.scheme())) {
            None => self.problem("SMTP_URL is not an smtp:// or smtps:// URL"),
            Some(url) if environment != Environment::Local && !requires_tls(&url) => {
                self.problem("SMTP_URL does not require TLS: use smtps://, or add ?tls=required");
            }
            Some(_) => {}
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

/// Whether the mailer, which counts the first `tls`, sends nothing in clear.
fn requires_tls(url: &Url) -> bool {
    let tls = url.query_pairs().find(|(name, _)| name == "tls");
    url.scheme() == "smtps" || tls.is_some_and(|(_, value)| value == "required")
}
