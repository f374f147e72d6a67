//! Lines of toned text, and a sheet to draw on: widths are known before anything is coloured.

/// How a text is to be taken; a terminal may show it as a colour. Nothing is said by a tone alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As any other.
    Plain,
    /// As it should be.
    Good,
    /// Wrong.
    Bad,
    /// Not there, or not sure.
    Doubtful,
    /// What stands out.
    Strong,
}

/// Which characters a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    /// All of them.
    Unicode,
    /// ASCII alone.
    Ascii,
}

/// A line of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Tone, String)>);

impl Line {
    /// A line that begins with this.
    pub fn new(tone: Tone, text: &str) -> Self {
        Self::default().then(tone, text)
    }

    /// The same with this at its end. Control characters, which could move a terminal's cursor, become `?`.
    pub fn then(mut self, tone: Tone, text: &str) -> Self {
        let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        match self.0.last_mut() {
            Some((last, before)) if *last == tone => before.push_str(&text),
            _ if text.is_empty() => {}
            _ => self.0.push((tone, text)),
        }
        self
    }

    /// The same with spaces up to a column.
    pub fn to_column(self, column: usize) -> Self {
        let missing = column.saturating_sub(self.width());
        self.then(Tone::Plain, &" ".repeat(missing))
    }

    /// How many columns it takes.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// The same in no more columns, and in characters that can be shown. Spaces at the end fall away.
    pub fn fitted(self, width: usize, glyphs: Glyphs) -> Self {
        let cut = self.width() > width;
        let (mut left, mut line) = (if cut { width.saturating_sub(1) } else { width }, Self::default());
        for (tone, text) in self.0 {
            let text: String = text.chars().take(left).map(|c| glyphs.show(c)).collect();
            left -= text.chars().count();
            line = line.then(tone, &text);
        }
        if cut && width > 0 {
            line = line.then(Tone::Plain, &glyphs.show('…').to_string());
        }
        while let Some((_, text)) = line.0.last_mut() {
            text.truncate(text.trim_end().len());
            if !text.is_empty() {
                break;
            }
            line.0.pop();
        }
        line
    }

    /// As text, coloured by `paint`.
    pub fn painted(&self, paint: impl Fn(Tone, &str) -> String) -> String {
        self.0.iter().map(|(tone, text)| paint(*tone, text)).collect()
    }

    /// As text without colours.
    pub fn plain(&self) -> String {
        self.painted(|_, text| text.to_owned())
    }
}

impl Glyphs {
    /// A character, or what is most like it. The width stays.
    fn show(self, c: char) -> char {
        match (self, c) {
            (Self::Unicode, c) => c,
            (Self::Ascii, c) if c.is_ascii() => c,
            (Self::Ascii, '─' | '╌' | '–') => '-',
            (Self::Ascii, '│' | '┆') => '|',
            (Self::Ascii, '═') => '=',
            (Self::Ascii, '║') => 'I',
            (Self::Ascii, '┌' | '┐' | '└' | '┘' | '┴' | '┬' | '╤' | '╧' | '╩' | '╔' | '╠' | '╚' | '╪' | '╬') => {
                '+'
            }
            (Self::Ascii, '╳') => 'x',
            (Self::Ascii, '◆') => '*',
            (Self::Ascii, '…') => '.',
            (Self::Ascii, _) => '?',
        }
    }
}

/// `text` in lines of at most `width` columns, broken at spaces; a longer word is cut.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let word = shortened(word, width);
        let line = lines.last_mut().expect("there is always a line");
        let taken = line.chars().count();
        if taken == 0 {
            *line = word;
        } else if taken + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(&word);
        } else {
            lines.push(word);
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// `text` in at most `width` columns.
pub fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A sheet to draw on: it grows downwards.
#[derive(Debug, Default)]
pub struct Sheet(Vec<Vec<(Tone, char)>>);

impl Sheet {
    /// Writes from a place on; what was there is covered.
    pub fn put(&mut self, (x, y): (usize, usize), tone: Tone, text: &str) {
        if self.0.len() <= y {
            self.0.resize(y + 1, Vec::new());
        }
        let row = &mut self.0[y];
        let end = x + text.chars().count();
        if row.len() < end {
            row.resize(end, (Tone::Plain, ' '));
        }
        for (cell, c) in row[x..end].iter_mut().zip(text.chars()) {
            *cell = (tone, c);
        }
    }

    /// The character at a place.
    pub fn at(&self, (x, y): (usize, usize)) -> char {
        self.0.get(y).and_then(|row| row.get(x)).map_or(' ', |(_, c)| *c)
    }

    /// What was drawn.
    pub fn lines(self) -> Vec<Line> {
        let line = |row: Vec<(Tone, char)>| {
            row.into_iter().fold(Line::default(), |line, (tone, c)| line.then(tone, c.encode_utf8(&mut [0; 4])))
        };
        self.0.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_its_width_and_to_what_can_be_shown() {
        let line = Line::new(Tone::Good, "pass").to_column(8).then(Tone::Bad, "FAIL – no\u{1b}[2J  ");
        assert_eq!(line.clone().fitted(80, Glyphs::Unicode).plain(), "pass    FAIL – no?[2J");
        assert_eq!(line.clone().fitted(12, Glyphs::Ascii).plain(), "pass    FAI.");
        assert_eq!(line.clone().fitted(0, Glyphs::Ascii).plain(), "");
        let painted = line.fitted(80, Glyphs::Ascii).painted(|tone, text| format!("<{tone:?} {text}>"));
        assert_eq!(painted, "<Good pass><Plain     ><Bad FAIL - no?[2J>");
    }

    #[test]
    fn words_stay_whole_as_long_as_they_fit() {
        assert_eq!(wrapped("server internal-gate virtual-ips dns", 20), ["server internal-gate", "virtual-ips dns"]);
        assert_eq!(wrapped("a verylongword b", 6), ["a", "veryl…", "b"]);
        assert_eq!(wrapped("  ", 6), Vec::<String>::new());
    }

    #[test]
    fn what_is_drawn_later_covers() {
        let mut sheet = Sheet::default();
        sheet.put((2, 1), Tone::Plain, "════");
        sheet.put((3, 1), Tone::Bad, "╳");
        let lines: Vec<String> = sheet.lines().iter().map(Line::plain).collect();
        assert_eq!(lines, ["", "  ═╳══"]);
    }
}
