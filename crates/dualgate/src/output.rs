//! How results look: colours only on a terminal, JSON when asked, exit codes as diff has them.

pub mod finding;

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// As it should be.
pub const AS_DESIRED: u8 = 0;
/// Something differs, or was found.
pub const DIFFERS: u8 = 1;
/// It could not be told.
pub const COULD_NOT_TELL: u8 = 2;

/// Prints why a command could not do its work.
pub fn error(error: &anyhow::Error) {
    let style = Style::of(&io::stderr());
    let _ = writeln!(io::stderr(), "{} {}", style.paint(Colour::Red, "error:"), visible(&format!("{error:#}")));
}

/// Prints text. Whoever reads it may have seen enough before its end.
pub fn text(text: &str) -> anyhow::Result<()> {
    heard(io::stdout().lock().write_all(text.as_bytes()))
}

/// Prints a JSON document.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    text(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// A reader that has gone away, such as `head`, is no mistake.
fn heard(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// `text` without control characters other than line ends and tabs: what was read from a file must not move the
/// cursor or colour the screen.
pub fn visible(text: &str) -> Cow<'_, str> {
    escape(text, |c| c.is_control() && c != '\n' && c != '\t')
}

/// The same for what has to stay on one line.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escape(text, char::is_control)
}

fn escape(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_hidden) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| if is_hidden(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
}

/// `1 error`, `2 errors`, `no errors`.
pub fn count(number: usize, noun: &str) -> String {
    match number {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// 0 or 1.
pub fn verdict(as_desired: bool) -> ExitCode {
    ExitCode::from(if as_desired { AS_DESIRED } else { DIFFERS })
}

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// They are.
    Coloured,
    /// They are not.
    Plain,
}

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// For what is wrong.
    Red,
    /// For what may be wrong.
    Yellow,
    /// For what is as it should be.
    Green,
    /// For places.
    Blue,
    /// For what stands out.
    Bold,
}

impl Style {
    /// For a stream: colours on a terminal, unless `NO_COLOR` is set.
    pub fn of(stream: &impl io::IsTerminal) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted && stream.is_terminal() { Self::Coloured } else { Self::Plain }
    }

    /// For standard output.
    pub fn stdout() -> Self {
        Self::of(&io::stdout())
    }

    /// `text` in a colour.
    pub fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Red => "1;31",
            Colour::Yellow => "1;33",
            Colour::Green => "32",
            Colour::Blue => "34",
            Colour::Bold => "1",
        };
        match self {
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(visible("a\tb\n"), "a\tb\n");
        assert_eq!(visible("\u{1b}[31mred\r\u{9b}2J"), "\\u{1b}[31mred\\u{d}\\u{9b}2J");
        assert_eq!(one_line("a\tb\n"), "a\\u{9}b\\u{a}");
    }

    #[test]
    fn numbers_are_counted_in_words() {
        assert_eq!([0, 1, 2].map(|number| count(number, "note")), ["no notes", "1 note", "2 notes"]);
    }

    #[test]
    fn plain_text_has_no_colour_in_it() {
        assert_eq!(Style::Plain.paint(Colour::Red, "x"), "x");
        assert_eq!(Style::Coloured.paint(Colour::Red, "x"), "\u{1b}[1;31mx\u{1b}[0m");
    }
}
