//! Query strings: percent-decoded, each parameter at most once, unknown ones refused.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::problem::{FieldError, Problem};

/// The parameters of a query string, to be taken one by one; [`Query::finish`] reports everything
/// that is wrong at once.
#[derive(Debug)]
pub struct Query {
    parameters: BTreeMap<String, String>,
    errors: Vec<FieldError>,
}

impl Query {
    /// Splits and decodes.
    pub fn parse(query: Option<&str>) -> Self {
        let mut this = Self { parameters: BTreeMap::new(), errors: Vec::new() };
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some((name, value)) = decode(name).zip(decode(value)) else {
                this.error("query", "must be percent-encoded UTF-8");
                continue;
            };
            if this.parameters.contains_key(&name) {
                this.error(&name, "must be given once");
            }
            this.parameters.insert(name, value);
        }
        this
    }

    /// Takes a parameter; `read` gives None when the value is not as `expected`.
    pub fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.parameters.remove(name)?;
        let read = read(&value);
        if read.is_none() {
            self.error(name, expected);
        }
        read
    }

    /// Whether there is such a parameter, not yet taken.
    pub fn has(&self, name: &str) -> bool {
        self.parameters.contains_key(name)
    }

    /// Whether all parameters were taken and understood.
    pub fn finish(mut self) -> Result<(), Problem> {
        let unknown: Vec<_> = self
            .parameters
            .keys()
            .take(10)
            .map(|name| name.chars().take(64).collect::<String>())
            .collect();
        for name in unknown {
            self.error(&name, "is not a parameter of this address");
        }
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(Problem::bad_request("invalid-query", "The query has invalid parameters.")
                .with_errors(self.errors))
        }
    }

    /// Reports an error that concerns a parameter.
    pub fn error(&mut self, field: &str, message: &str) {
        self.errors.push(FieldError { field: field.to_owned(), message: message.to_owned() });
    }
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_unknown_repeated_and_unreadable_parameters() {
        let mut query = Query::parse(Some("month=2026-01&month=2026-02&limit=x&a%62c=1&bad=%ff"));
        assert_eq!(query.take("limit", "must be a number", |text| text.parse::<u8>().ok()), None);
        assert!(query.take("month", "must be a month", |text| Some(text.to_owned())).is_some());
        let errors = query.finish().unwrap_err();
        let text = String::from_utf8(errors.render("r").to_vec()).unwrap();
        for part in ["must be given once", "must be a number", "\"abc\"", "percent-encoded"] {
            assert!(text.contains(part), "{part} missing in {text}");
        }
    }

    #[test]
    fn takes_what_is_there() {
        let mut query = Query::parse(Some("cursor=a%2Bb+c"));
        assert_eq!(
            query.take("cursor", "", |text| Some(text.to_owned())).as_deref(),
            Some("a+b c")
        );
        assert!(query.finish().is_ok());
        assert!(Query::parse(None).finish().is_ok());
    }
}
