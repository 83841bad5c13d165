//! Cursors: where the next page of a list begins. Opaque to clients.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use time::Date;
use uuid::Uuid;

use crate::{calendar, openapi::query};

/// Most items of one page.
pub const MAX_LIMIT: u8 = 100;

/// Items of one page when the client names no limit.
pub const DEFAULT_LIMIT: u8 = 50;

/// Position in a list that is ordered by date and id, both descending: the last item already seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Date of the last item seen.
    pub date: Date,
    /// Id of the last item seen.
    pub id: Uuid,
}

/// The parameter that says how many items a page has.
pub fn limit_parameter() -> Value {
    query(
        "limit",
        "Most items of the page.",
        json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT }),
    )
}

/// The parameter that says where a page begins.
pub fn cursor_parameter() -> Value {
    let schema = json!({ "type": "string", "format": "cursor" });
    query("cursor", "The `nextCursor` of the page before.", schema)
}

impl Cursor {
    /// Before the first item of every list.
    pub const START: Self = Self { date: Date::MAX, id: Uuid::max() };

    /// The opaque text.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(26);
        bytes.extend_from_slice(calendar::format_date(self.date).as_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position in an opaque text of [`Cursor::encode`].
    pub fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (date, id) = bytes.split_at_checked(10)?;
        Some(Self {
            date: calendar::parse_date(std::str::from_utf8(date).ok()?)?,
            id: Uuid::from_slice(id).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn comes_back_unchanged(day in 1_721_426_i32..5_373_484, id in any::<u128>()) {
            let cursor = Cursor { date: Date::from_julian_day(day).unwrap(), id: Uuid::from_u128(id) };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn never_panics(text in ".{0,50}") {
            let _ = Cursor::decode(&text);
        }
    }
}
