//! Numbers and durations as people read them.

use bme_runbooks::engine::plan::{Action, Risk};

/// `350 ms`, `12s`, `8m03s`, `1h02m`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
pub(super) fn elapsed(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 1e9);
    if seconds < 1.0 {
        return format!("{} ms", (seconds * 1000.0).round() as u64);
    }
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

/// `$1,234.50`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
pub(super) fn dollars(amount: f64) -> String {
    let cents = (amount.clamp(0.0, 1e12) * 100.0).round() as u64;
    let digits = (cents / 100).to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("${grouped}.{:02}", cents % 100)
}

/// `$210.00 -> $245.00`; one amount when both are the same to the cent.
pub(super) fn from_to(before: f64, after: f64) -> String {
    if same(before, after) {
        return dollars(after);
    }
    format!("{} -> {}", dollars(before), dollars(after))
}

/// `+$35.00`, `-$3.00`.
pub(super) fn difference(before: f64, after: f64) -> String {
    let sign = if after < before { '-' } else { '+' };
    format!("{sign}{}", dollars((after - before).abs()))
}

/// Whether two amounts are the same to the cent.
pub(super) fn same(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.005
}

/// `1 resource`, `2 resources`.
pub(super) fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// What is done, as in "cannot … it".
pub(super) fn verb(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Replace => "replace",
        Action::Delete => "delete",
        Action::None => "check",
        Action::Deferred => "defer",
    }
}

/// What is being done.
pub(super) fn doing(action: Action) -> &'static str {
    match action {
        Action::Create => "creating",
        Action::Update => "updating",
        Action::Replace => "replacing",
        Action::Delete => "deleting",
        Action::None => "waiting for",
        Action::Deferred => "deferring",
    }
}

/// What was done.
pub(super) fn did(action: Action) -> &'static str {
    match action {
        Action::Create => "created",
        Action::Update => "updated",
        Action::Replace => "replaced",
        Action::Delete => "deleted",
        Action::None => "ready",
        Action::Deferred => "deferred",
    }
}

/// The risk; nothing is said about a safe one.
pub(super) fn risk(risk: Risk) -> &'static str {
    match risk {
        Risk::Safe => "",
        Risk::Change => "changes behaviour",
        Risk::Downtime => "interrupts service",
        Risk::DataLoss => "LOSES DATA",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(elapsed(0.3504), "350 ms");
        assert_eq!(elapsed(12.2), "12s");
        assert_eq!(elapsed(483.0), "8m03s");
        assert_eq!(elapsed(3725.0), "1h02m");
    }

    #[test]
    fn amounts() {
        assert_eq!(dollars(0.0), "$0.00");
        assert_eq!(dollars(1234.5), "$1,234.50");
        assert_eq!(dollars(1_000_000.0), "$1,000,000.00");
        assert_eq!(from_to(210.0, 245.0), "$210.00 -> $245.00");
        assert_eq!(from_to(210.0, 210.001), "$210.00");
        assert_eq!(difference(210.0, 245.0), "+$35.00");
        assert_eq!(difference(3.0, 0.0), "-$3.00");
    }
}
