//! Buckets, whose names are unique over all accounts of AWS.

use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::{Check, Patient, permissions};
use crate::{
    aws::failed,
    engine::{Class, Error},
    state::State,
    steps::{Stack, edge, queue},
};

/// Buckets asked for at once.
const ABREAST: usize = 3;

/// Each of our buckets that this account has not is free, or somebody else's.
pub(super) async fn checks(patient: &Patient<'_>, stack: &Stack, since: Instant) -> Vec<Check> {
    let own = match patient.aws.s3.buckets(since).await {
        Ok(own) => own,
        Err(error) => return vec![Check::not_made("names", &error)],
    };
    let names = [
        State::new(&patient.aws, &patient.environment.name).bucket().to_owned(),
        edge::bucket_label(stack).name,
        queue::audio_label(stack).name,
    ];
    let asked = names.into_iter().filter(|name| !own.contains(name)).map(|name| async move {
        let head = patient.aws.s3.client.head_bucket().bucket(&name).send().await;
        let head = head.map(drop).map_err(failed("s3:ListBucket"));
        match head {
            // Whoever may not ask is refused at a free name as at somebody else's.
            Err(error) if is_refused(&error) && !may_ask(patient, &name).await => {
                Some(Check::not_made(format!("name/bucket-{name}"), &error))
            }
            head => judge(&name, head),
        }
    });
    let answers: Vec<_> = stream::iter(asked).buffered(ABREAST).collect().await;
    answers.into_iter().flatten().collect()
}

async fn may_ask(patient: &Patient<'_>, name: &str) -> bool {
    let arn = format!("arn:aws:s3:::{name}");
    permissions::may(patient, "s3:ListBucket", arn).await != Some(false)
}

/// S3 answers HEAD without a body, hence often without a code: 403 for a bucket of another account, 301
/// for one in another region (Amazon S3 API reference, `HeadBucket`).
fn is_refused(error: &Error) -> bool {
    ["http-403", "http-301", "AccessDenied", "Forbidden", "PermanentRedirect"]
        .contains(&error.code.as_str())
}

fn judge(name: &str, head: Result<(), Error>) -> Option<Check> {
    let taken = match &head {
        Ok(()) => true,
        Err(error) if error.class == Class::NotFound => return None,
        Err(error) => is_refused(error),
    };
    Some(match head {
        Err(error) if !taken => Check::not_made(format!("name/bucket-{name}"), &error),
        _ => Check::fail(
            format!("name/bucket-{name}"),
            format!("the bucket `{name}` belongs to another account"),
        )
        .with_hint("give this environment another name, or use another account or region"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_bucket_is_free_or_taken_or_unknown() {
        let refused = |code: &str, class| {
            let error = Error { class, ..Error::fatal("s3:ListBucket", code, "") };
            judge("bme-state-1-eu-west-1", Err(error)).map(|check| check.state)
        };
        assert_eq!(refused("NotFound", Class::NotFound), None);
        assert_eq!(refused("http-403", Class::Fatal), Some(State::Fail));
        assert_eq!(refused("http-503", Class::Unknown), Some(State::Warn));
        assert!(judge("bme-state-1-eu-west-1", Ok(())).is_some());
    }
}
