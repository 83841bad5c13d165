//! Who is calling, whether the file allows the account, and whether the clock is right.

use std::time::{Duration, SystemTime};

use aws_sdk_sts::config::{ProvideCredentials, SharedCredentialsProvider};
use jiff::SignedDuration;

use super::Check;
use crate::{aws::Introduced, environment::Environment};

/// A first run takes up to a quarter of an hour; credentials should outlive it.
const OUTLIVE: Duration = Duration::from_mins(30);

/// Signatures that are older are refused (IAM User Guide, "Signature Version 4": a request must
/// reach AWS within five minutes of the time in its signature), seconds.
const REFUSED: u64 = 300;

/// A clock that is this far off is on its way there, seconds.
const DOUBTFUL: u64 = 60;

/// When the credentials expire; none for those that do not, or where there are none.
pub(super) async fn expiry(provider: Option<SharedCredentialsProvider>) -> Option<SystemTime> {
    provider?.provide_credentials().await.ok()?.expiry()
}

/// Identity, account and clock.
pub(super) fn checks(
    environment: &Environment,
    introduced: &Introduced,
    expiry: Option<SystemTime>,
) -> Vec<Check> {
    let clock = clock(introduced.ahead);
    let caller = match &introduced.caller {
        Ok(caller) => caller,
        Err(error) => {
            let hint = error.hint.clone();
            let hint = hint.unwrap_or_else(|| "check AWS_PROFILE, the endpoint and network".into());
            let account = Check::warn("account", "not checked: nobody is signed in");
            let identity = Check::fail("identity", error.to_string()).with_hint(hint);
            return vec![identity, account, clock];
        }
    };
    let left = expiry.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
    let identity = identity(&caller.arn, &source(environment), left);
    let account = match caller.allowed(&environment.aws.accounts) {
        Ok(()) => Check::ok("account", format!("the file allows {}", caller.account)),
        Err(error) => Check { hint: error.hint.clone(), ..Check::fail("account", error.message) },
    };
    vec![identity, account, clock]
}

fn identity(arn: &str, source: &str, left: Option<Duration>) -> Check {
    match left {
        Some(left) if left < OUTLIVE => Check::warn(
            "identity",
            format!("{arn}, by {source}, for {} more minutes only", left.as_secs() / 60),
        )
        .with_hint("sign in again before a long run: `aws sso login`, or a new session"),
        _ => Check::ok("identity", format!("{arn}, by {source}")),
    }
}

/// Where the standard chain finds credentials first.
fn source(environment: &Environment) -> String {
    let is_set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if is_set("AWS_ACCESS_KEY_ID").is_some() {
        "AWS_ACCESS_KEY_ID".into()
    } else if environment.sandbox.is_some() {
        "the sandbox's own key".into()
    } else if let Some(profile) = is_set("AWS_PROFILE") {
        format!("profile `{profile}`")
    } else {
        "the standard chain".into()
    }
}

fn clock(ahead: Option<SignedDuration>) -> Check {
    let Some(ahead) = ahead else {
        return Check::warn("clock", "not checked: no answer told the time");
    };
    let seconds = ahead.unsigned_abs().as_secs();
    let side = if ahead.is_negative() { "behind" } else { "ahead of" };
    let off = format!("this machine is {seconds} s {side} AWS");
    let mend = "set the clock: `timedatectl set-ntp true`";
    if seconds >= REFUSED {
        Check::fail("clock", format!("{off}, which refuses signatures from 5 minutes on"))
            .with_hint(mend)
    } else if seconds >= DOUBTFUL {
        Check::warn("clock", format!("{off}; from 5 minutes on it refuses signatures"))
            .with_hint(mend)
    } else {
        // The header has whole seconds, and the answer was on its way.
        Check::ok("clock", "as AWS's, within a minute")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_clock_is_right_doubtful_or_refused_on_both_sides() {
        let state = |seconds| clock(Some(SignedDuration::from_secs(seconds))).state;
        for (seconds, expected) in [
            (0, State::Ok),
            (-59, State::Ok),
            (60, State::Warn),
            (-299, State::Warn),
            (300, State::Fail),
            (-4000, State::Fail),
        ] {
            assert_eq!(state(seconds), expected, "{seconds} s");
        }
        assert_eq!(clock(None).state, State::Warn);
        let behind = clock(Some(SignedDuration::from_secs(-400)));
        assert!(behind.message.contains("400 s behind"), "{}", behind.message);
    }

    #[test]
    fn credentials_that_end_soon_are_told() {
        let of = |left| identity("arn", "the standard chain", left).state;
        assert_eq!(of(None), State::Ok);
        assert_eq!(of(Some(Duration::from_hours(1))), State::Ok);
        assert_eq!(of(Some(Duration::from_mins(5))), State::Warn);
    }
}
