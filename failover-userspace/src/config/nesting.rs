//! A bound on how deep a configuration nests, checked on tokens before the TOML parser sees them.
//!
//! The parser bounds dotted keys and inline tables one by one, at 80 each, but not their product:
//! a file of a few kilobytes makes a tree thousands of levels deep, and dropping it overflows the
//! stack. Deliberately absent: any judgement of the grammar, which is the parser's.

use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// Levels that a file may nest. The schema needs 4; the rest leaves a mistake to a better message.
const LEVELS_MAX: usize = 32;

/// One open bracket, or the line outside of all.
struct Level {
    closed_by: TokenKind,
    /// Of the dotted key that is being read in it.
    dots: usize,
}

/// Where `text` first nests deeper than [`LEVELS_MAX`], as a byte offset.
///
/// On broken text this errs towards too deep: a bracket counts until its own kind closes it.
pub(super) fn too_deep(text: &str) -> Option<usize> {
    let outside = Level { closed_by: TokenKind::Eof, dots: 0 };
    let mut levels = vec![outside];
    // A bracket that begins a line outside of all others is a table header: it holds no value.
    let mut header = true;
    for token in Source::new(text).lex() {
        let nested = levels.len() > 1;
        let innermost = levels.last_mut()?;
        match token.kind() {
            TokenKind::Whitespace | TokenKind::Comment => continue,
            TokenKind::Newline if nested => continue,
            TokenKind::Newline => {
                innermost.dots = 0;
                header = true;
                continue;
            }
            TokenKind::LeftSquareBracket if header => continue,
            TokenKind::Comma if nested => innermost.dots = 0,
            TokenKind::Dot => innermost.dots += 1,
            TokenKind::LeftSquareBracket => levels.push(Level { closed_by: TokenKind::RightSquareBracket, dots: 0 }),
            TokenKind::LeftCurlyBracket => levels.push(Level { closed_by: TokenKind::RightCurlyBracket, dots: 0 }),
            kind if nested && kind == innermost.closed_by => drop(levels.pop()),
            _ => {}
        }
        header = false;
        let depth = levels.len() + levels.iter().map(|level| level.dots).sum::<usize>();
        if depth > LEVELS_MAX {
            return Some(token.span().start());
        }
    }
    None
}

/// What is wrong with such a file.
pub(super) fn message() -> String {
    format!("nested more than {LEVELS_MAX} levels deep: no key needs more than 4")
}
