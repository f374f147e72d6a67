//! A lab on a terminal, drawn again and again; as lines of a log; or as JSON.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dualgate_lab::report::Status;
use dualgate_lab::screen::{self, Glyphs, Line, Screen, Tone, news, progress};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cli::Format;
use crate::output::{Colour, Style};

/// Shows the terminal's cursor.
pub const CURSOR_ON: &str = "\x1b[?25h";
const CURSOR_OFF: &str = "\x1b[?25l";
/// To the upper left corner.
const HOME: &str = "\x1b[H";
/// Clears the rest of a line, and the rest of the screen.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR: &str = "\x1b[J";
/// Where nothing says how wide it is.
const WIDTH: usize = 80;

/// Shows a lab to whoever started it.
pub enum Show {
    /// A terminal: the page is drawn again, over the last one.
    Drawn {
        /// Whether there is a page already.
        begun: bool,
    },
    /// Not a terminal: the page once, then a line for each change.
    Told {
        /// What was told last; `None` before the page.
        last: Option<Box<Status>>,
        /// The last line of progress.
        progress: String,
    },
    /// A document a line, whenever something has changed.
    Json {
        /// The last one.
        last: Option<Box<Status>>,
    },
}

impl Show {
    /// As standard output asks for.
    pub fn new(format: Format) -> Self {
        match (format, io::stdout().is_terminal()) {
            (Format::Json, _) => Self::Json { last: None },
            (Format::Text, true) => Self::Drawn { begun: false },
            (Format::Text, false) => Self::Told { last: None, progress: String::new() },
        }
    }

    /// Whether messages of the log would stand in the picture.
    pub fn is_drawn(&self) -> bool {
        matches!(self, Self::Drawn { .. })
    }

    /// Shows how the lab is; fails with `BrokenPipe` when nobody reads any more.
    pub fn show(&mut self, status: &Status) -> io::Result<()> {
        if !self.is_drawn() && reader_is_gone() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match self {
            Self::Drawn { begun } => {
                let screen = this_screen();
                let mut text = String::new();
                if !*begun {
                    // What stood on the screen stays above, where one can scroll to.
                    text += &"\n".repeat(screen.height.unwrap_or(0));
                    *begun = true;
                }
                text += &format!("{CURSOR_OFF}{HOME}");
                let lines: Vec<String> = screen::page(status, &screen).iter().map(painted).collect();
                text += &lines.join(&format!("{CLEAR_LINE}\n"));
                text += &format!("{CLEAR_LINE}{CLEAR}");
                write(&text)
            }
            Self::Told { last, progress: told } => match last {
                Some(before) => {
                    let lines = news(before, status);
                    **before = status.clone();
                    let time = time_of_day();
                    write(&lines.iter().map(|line| format!("{time} {}\n", painted(line))).collect::<String>())
                }
                None if status.setup_ms.is_some() && !status.checks.is_empty() => {
                    *last = Some(Box::new(status.clone()));
                    write(&page(status))
                }
                None => {
                    let line = progress(status).plain();
                    let without_time = line.rsplit_once(" (").map_or(&*line, |(text, _)| text).to_owned();
                    if *told == without_time {
                        return Ok(());
                    }
                    *told = without_time;
                    write(&format!("{line}\n"))
                }
            },
            Self::Json { last } => {
                let same = |before: &Status| Status { uptime_ms: status.uptime_ms, ..before.clone() } == *status;
                if last.as_deref().is_some_and(same) {
                    return Ok(());
                }
                *last = Some(Box::new(status.clone()));
                write(&(serde_json::to_string(status)? + "\n"))
            }
        }
    }

    /// Leaves the terminal as it was, with the last page on it.
    pub fn end(&self) {
        if let Self::Drawn { begun: true } = self {
            // The terminal may be gone.
            let _ = write(&format!("{CURSOR_ON}\n"));
        }
    }
}

/// The whole page as text, as wide as standard output is.
pub fn page(status: &Status) -> String {
    let screen = Screen { height: None, ..this_screen() };
    screen::page(status, &screen).iter().map(|line| painted(line) + "\n").collect()
}

fn painted(line: &Line) -> String {
    let style = Style::stdout();
    line.painted(|tone, text| match tone {
        Tone::Plain => text.to_owned(),
        Tone::Good => style.paint(Colour::Green, text),
        Tone::Bad => style.paint(Colour::Red, text),
        Tone::Doubtful => style.paint(Colour::Yellow, text),
        Tone::Strong => style.paint(Colour::Bold, text),
    })
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whether standard output is a pipe without a reader. A log that has nothing to say would never find out.
fn reader_is_gone() -> bool {
    let out = io::stdout();
    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default())).is_ok() && polled[0].revents().contains(PollFlags::ERR)
}

fn this_screen() -> Screen {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let width = size.map(|size| usize::from(size.ws_col)).or(columns).unwrap_or(WIDTH);
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Screen { width, height: size.map(|size| usize::from(size.ws_row)), glyphs: glyphs(variable) }
}

/// What a terminal can show, as the locale says (locale(7)).
fn glyphs(variable: impl Fn(&str) -> Option<String>) -> Glyphs {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    if locale.contains("utf-8") || locale.contains("utf8") { Glyphs::Unicode } else { Glyphs::Ascii }
}

/// Hours, minutes and seconds, UTC.
fn time_of_day() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    format!("{:02}:{:02}:{:02}Z", now / 3600 % 24, now / 60 % 60, now % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_of_the_locale_decides() {
        let of = |pairs: &[(&str, &str)]| {
            glyphs(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(of(&[("LANG", "de_DE.UTF-8")]), Glyphs::Unicode);
        assert_eq!(of(&[("LANG", "C.utf8"), ("LC_CTYPE", "C.utf8")]), Glyphs::Unicode);
        assert_eq!(of(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]), Glyphs::Ascii);
        assert_eq!(of(&[]), Glyphs::Ascii);
    }
}
