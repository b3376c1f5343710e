//! The problems of one file: positions to lines, the syntax errors, and what they make doubtful.
//!
//! Deliberately absent: what a key may hold, which raw.rs and validate.rs know.

use std::ops::Range;
use std::path::Path;

use super::Problem;

/// Characters of a value that a message repeats; longer ones are cut.
const QUOTED_CHARS_MAX: usize = 40;

/// Collects the problems of one text.
pub(super) struct Report<'t> {
    file: &'t Path,
    text: &'t str,
    /// Byte offsets at which lines begin, ascending; the first is 0.
    line_starts: Vec<usize>,
    /// The first line that is not TOML: what it and the rest say is not known.
    broken_at: Option<usize>,
    problems: Vec<Problem>,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t Path, text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(offset, _)| offset + 1);
        // The newline that ends the text begins no line.
        let line_starts = std::iter::once(0).chain(after_newlines.filter(|start| *start < text.len())).collect();
        Self { file, text, line_starts, broken_at: None, problems: Vec::new() }
    }

    /// The 1-based line of a byte offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// Reports the parser's errors, one a line: the ones behind it are its echoes.
    pub(super) fn syntax(&mut self, errors: &[toml::de::Error]) {
        let mut errors: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
        errors.sort_by_key(|(span, _)| span.start);
        let mut line_before = 0;
        for (span, message) in errors {
            let line = self.line(span.start);
            // The parser keeps the first value and carries on: nothing becomes doubtful.
            if message == "duplicate key" {
                let key = self.quoted(&span);
                self.at(span.start, format!("{key} is given twice: once is allowed"));
                continue;
            }
            if line != line_before {
                self.push(line, format!("not valid TOML: {message}"));
            }
            line_before = line;
            self.broken_at.get_or_insert(line);
        }
    }

    /// Reports `message` at a byte offset, unless a syntax error before it makes that doubtful.
    pub(super) fn at(&mut self, offset: usize, message: String) {
        let line = self.line(offset);
        if self.broken_at.is_none_or(|broken| line < broken) {
            self.push(line, message);
        }
    }

    /// Whether a syntax error makes the value at `span` doubtful, in it or before it.
    ///
    /// The parser's stand-in for a value that is not there begins where no value can: at 0.
    pub(super) fn doubts(&self, span: &Range<usize>) -> bool {
        let stand_in = *span == (0..0);
        self.broken_at.is_some_and(|broken| stand_in || self.line(span.end) >= broken)
    }

    /// Reports that something is missing, unless a syntax error may have hidden it.
    pub(super) fn missing(&mut self, offset: usize, message: String) {
        if self.broken_at.is_none() {
            self.at(offset, message);
        }
    }

    /// Reports what concerns no line.
    pub(super) fn whole_file(&mut self, message: &str) {
        self.push(0, message.to_owned());
    }

    /// The text at `span` as a message repeats it: on one line, and not too long.
    pub(super) fn quoted(&self, span: &Range<usize>) -> String {
        let written = self.text.get(span.clone()).unwrap_or_default();
        let mut quoted = String::new();
        for c in written.chars().take(QUOTED_CHARS_MAX) {
            if c.is_control() {
                quoted.extend(c.escape_default());
            } else {
                quoted.push(c);
            }
        }
        if written.chars().nth(QUOTED_CHARS_MAX).is_some() {
            quoted.push('…');
        }
        quoted
    }

    /// Everything that was reported, by line.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }

    fn push(&mut self, line: usize, message: String) {
        self.problems.push(Problem { file: self.file.to_owned(), line, message });
    }
}
