//! A table of the file, read by key and type.
//!
//! Deliberately absent: which tables and keys there are, which raw.rs lists.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::Report;
use super::setting::{Key, Setting};

/// A table with the place it begins at: its header, or the brace of an inline one.
pub(super) struct Section<'a> {
    at: usize,
    entries: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    /// The file itself.
    pub(super) fn root(entries: &'a DeTable<'a>) -> Self {
        Self { at: 0, entries }
    }

    /// Byte offset of its header.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Reports every key that is not among `keys`; `place` says where that would be, as in "in [node]".
    pub(super) fn refuse_unknown(&self, place: &str, keys: &[Key], report: &mut Report) {
        let names: Vec<_> = keys.iter().map(Key::name).collect();
        for (key, _) in self.entries {
            if !names.contains(&key.get_ref().as_ref()) {
                let unknown = report.quoted(&key.span());
                report.at(key.span().start, format!("unknown key {unknown} {place}: allowed are {}", names.join(", ")));
            }
        }
    }

    /// A string.
    pub(super) fn text(&self, key: &Key, report: &mut Report) -> Setting<&'a str> {
        self.read(key, report, DeValue::as_str)
    }

    /// An integer; one past 64 bits is past every bound too.
    pub(super) fn number(&self, key: &Key, report: &mut Report) -> Setting<i64> {
        self.read(key, report, |value| {
            let integer = value.as_integer()?;
            i64::from_str_radix(integer.as_str(), integer.radix()).ok()
        })
    }

    /// A boolean.
    pub(super) fn truth(&self, key: &Key, report: &mut Report) -> Setting<bool> {
        self.read(key, report, DeValue::as_bool)
    }

    /// An array, its elements as they come.
    pub(super) fn list(&self, key: &Key, report: &mut Report) -> Setting<&'a [Spanned<DeValue<'a>>]> {
        self.read(key, report, |value| value.as_array().map(|array| &**array))
    }

    /// An inner table.
    pub(super) fn section(&self, key: &Key, report: &mut Report) -> Option<Section<'a>> {
        match self.read(key, report, DeValue::as_table) {
            Setting::Given(entries, span) => Some(Section { at: span.start, entries }),
            Setting::Absent | Setting::Refused => None,
        }
    }

    /// An array of tables; elements that are none are reported and left out.
    pub(super) fn sections(&self, key: &Key, report: &mut Report) -> Setting<Vec<Section<'a>>> {
        let list = self.list(key, report);
        list.and_then(report, |elements, report, _| {
            let mut sections = Vec::new();
            for element in elements {
                match element.get_ref().as_table() {
                    Some(entries) => sections.push(Section { at: element.span().start, entries }),
                    None => report.at(element.span().start, key.must_be(&found(element, report))),
                }
            }
            Ok(sections)
        })
    }

    /// The value of `key` in the type that `convert` finds in it.
    fn read<T>(
        &self,
        key: &Key,
        report: &mut Report,
        convert: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Setting<T> {
        let Some(value) = self.entries.get(key.name()) else {
            return Setting::Absent;
        };
        if report.doubts(&value.span()) {
            return Setting::Refused;
        }
        match convert(value.get_ref()) {
            Some(converted) => Setting::Given(converted, value.span()),
            None => {
                report.at(value.span().start, key.must_be(&found(value, report)));
                Setting::Refused
            }
        }
    }
}

/// A value as a message repeats it: what it is when that says more than its text.
pub(super) fn found(value: &Spanned<DeValue>, report: &Report) -> String {
    let span: Range<usize> = value.span();
    match value.get_ref() {
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::Array(array) if array.is_empty() => "an empty list".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        _ => report.quoted(&span),
    }
}
