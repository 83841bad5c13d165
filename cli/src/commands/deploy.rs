use bme_runbooks::{release::Tag, session::Options};

use super::{Context, Running};
use crate::exit::{Exit, Stop};

/// Build a release from a git tag, ship it and watch it come up
///
/// When the new tasks do not come up, the release before is restored and the exit code is 5.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Tag of the release, for instance v1.2.3
    #[arg(long, value_name = "TAG")]
    tag: Tag,
    /// Ship this image, which the repository has already, instead of building one
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    image: Option<String>,
    #[command(flatten)]
    running: Running,
}

pub(crate) async fn run(args: Args, context: Context) -> Result<Exit, Stop> {
    let options = Options::from(&args.running);
    let session = context.open().await?;
    context
        .follow(async |events, interrupt| {
            session.deploy(&args.tag, args.image.as_deref(), &options, events, interrupt).await
        })
        .await
}

/// A digest as the OCI image specification writes it.
fn digest(text: &str) -> Result<String, String> {
    let valid = text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    if valid { Ok(text.to_owned()) } else { Err("a digest is sha256: and 64 hex digits".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_no_digest() {
        assert!(digest("v1.2.3").is_err());
        assert!(digest("sha256:abc").is_err());
        assert!(digest(&format!("sha256:{}", "0f".repeat(32))).is_ok());
    }
}
