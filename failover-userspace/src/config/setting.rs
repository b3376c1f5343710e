//! One key of the file on its way from TOML to its checked value.
//!
//! A refused setting has been reported; what depends on it is skipped, so that one mistake is one
//! problem. Deliberately absent: the keys themselves and their bounds.

use std::ops::Range;

use super::report::Report;

/// A key and what it may hold, in the words of a message: "KEY must be ALLOWED, not ...".
pub(super) struct Key {
    /// As messages name it: with the table that it is in where that is an inner one.
    pub(super) path: &'static str,
    /// What it may hold.
    pub(super) allowed: &'static str,
    /// Not to be repeated in a message.
    pub(super) secret: bool,
}

impl Key {
    pub(super) const fn new(path: &'static str, allowed: &'static str) -> Self {
        Self { path, allowed, secret: false }
    }

    pub(super) const fn secret(path: &'static str, allowed: &'static str) -> Self {
        Self { path, allowed, secret: true }
    }

    /// As the file writes it.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// That it holds something else; `found` is that something.
    pub(super) fn must_be(&self, found: &str) -> String {
        match self.secret {
            true => format!("{} must be {}", self.path, self.allowed),
            false => format!("{} must be {}, not {found}", self.path, self.allowed),
        }
    }

    /// That it is required and not there.
    pub(super) fn is_missing(&self) -> String {
        format!("{} is missing: it must be {}", self.path, self.allowed)
    }
}

/// The value of one key, as far as it is known.
#[derive(Default)]
pub(super) enum Setting<T> {
    /// Not in the file: the default holds.
    #[default]
    Absent,
    /// In the file and wrong, which has been reported.
    Refused,
    /// In the file, at these bytes.
    Given(T, Range<usize>),
}

impl<T> Setting<T> {
    /// Converts the value, or reports that it is not what `key` allows.
    pub(super) fn convert<U>(self, key: &Key, report: &mut Report, convert: impl FnOnce(T) -> Option<U>) -> Setting<U> {
        self.and_then(report, |value, report, span| convert(value).ok_or_else(|| key.must_be(&report.quoted(span))))
    }

    /// Converts the value, or reports the message that `convert` gives instead.
    pub(super) fn and_then<U>(
        self,
        report: &mut Report,
        convert: impl FnOnce(T, &mut Report, &Range<usize>) -> Result<U, String>,
    ) -> Setting<U> {
        let Self::Given(value, span) = self else {
            return self.without_value();
        };
        match convert(value, report, &span) {
            Ok(value) => Setting::Given(value, span),
            Err(message) => {
                report.at(span.start, message);
                Setting::Refused
            }
        }
    }

    /// The value in force, or none when the one in the file was refused.
    pub(super) fn in_force(&self, default: T) -> Option<T>
    where
        T: Clone,
    {
        match self {
            Self::Absent => Some(default),
            Self::Refused => None,
            Self::Given(value, _) => Some(value.clone()),
        }
    }

    /// The value of a configuration that will be used, which has no refused one.
    pub(super) fn or(self, default: T) -> T {
        match self {
            Self::Absent | Self::Refused => default,
            Self::Given(value, _) => value,
        }
    }

    fn without_value<U>(self) -> Setting<U> {
        match self {
            Self::Absent => Setting::Absent,
            Self::Refused | Self::Given(..) => Setting::Refused,
        }
    }
}
