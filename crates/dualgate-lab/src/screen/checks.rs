//! The table of checks: both families in columns, what failed in full.

use super::text::{Line, Tone, shortened, wrapped};
use crate::report::{Check, Status, Verdict};

/// `not built` and a gap.
const VERDICT: usize = 11;
/// Details get a column of their own from this many characters on.
const MIN_DETAIL: usize = 20;
/// More are cut: a name is not longer.
const MAX_TITLE: usize = 48;

/// The table, and a line that counts. If it may not have more than `height` lines, what fails comes in first.
pub fn checks(status: &Status, width: usize, height: usize) -> Vec<Line> {
    if status.checks.is_empty() {
        return Vec::new();
    }
    let columns = Columns::of(status, width);
    let rows: Vec<Vec<Line>> = status.checks.iter().map(|check| columns.row(check)).collect();
    // The head, the line that counts and the line that says what is hidden.
    let mut room = height.saturating_sub(3);
    let mut shown = vec![rows.iter().map(Vec::len).sum::<usize>() + 2 <= height; rows.len()];
    if shown.contains(&false) {
        let wanted = |fails: bool| move |(_, check): &(usize, &Check)| is_failed(check) == fails;
        let checks = || status.checks.iter().enumerate();
        for (at, _) in checks().filter(wanted(true)).chain(checks().filter(wanted(false))) {
            shown[at] = rows[at].len() <= room;
            room -= if shown[at] { rows[at].len() } else { 0 };
        }
    }
    let hidden = shown.iter().filter(|shown| !**shown).count();
    let mut lines = vec![columns.head()];
    lines.extend(rows.into_iter().zip(shown).filter(|(_, shown)| *shown).flat_map(|(row, _)| row));
    if hidden > 0 {
        lines.push(Line::new(Tone::Plain, &format!("… and {hidden} more: dualgate lab status")));
    }
    lines.push(summary(status));
    lines
}

/// Where the columns of the table begin.
struct Columns {
    v4: usize,
    v6: usize,
    detail: usize,
    width: usize,
}

impl Columns {
    fn of(status: &Status, width: usize) -> Self {
        let longest = status.checks.iter().map(|check| check.title.chars().count()).max().unwrap_or(0);
        let title = longest.min(MAX_TITLE).min(width.saturating_sub(2 * VERDICT + 1)).max(6) + 2;
        Self { v4: title, v6: title + VERDICT, detail: title + 2 * VERDICT, width }
    }

    fn head(&self) -> Line {
        let line = Line::new(Tone::Strong, "Checks").to_column(self.v4).then(Tone::Strong, "IPv4");
        line.to_column(self.v6).then(Tone::Strong, "IPv6")
    }

    fn row(&self, check: &Check) -> Vec<Line> {
        let line = Line::new(Tone::Plain, &shortened(&check.title, self.v4 - 2)).to_column(self.v4);
        let line = verdict(verdict(line, &check.v4).to_column(self.v6), &check.v6);
        let room = self.width.saturating_sub(self.detail);
        let details = quiet_details(check).filter(|_| room >= MIN_DETAIL);
        let mut lines = vec![match details {
            Some(details) => line.to_column(self.detail).then(Tone::Plain, &shortened(&details, room)),
            None => line,
        }];
        for (family, verdict) in [("IPv4", &check.v4), ("IPv6", &check.v6)] {
            if let Verdict::Fail(why) = verdict {
                let text = wrapped(&format!("{family}: {why}"), self.width.saturating_sub(4).max(10));
                lines.extend(text.iter().map(|text| Line::new(Tone::Bad, &format!("    {text}"))));
            }
        }
        lines
    }
}

fn is_failed(check: &Check) -> bool {
    [&check.v4, &check.v6].iter().any(|verdict| matches!(verdict, Verdict::Fail(_)))
}

/// `18 passed, 1 FAILED, 6 not built`
fn summary(status: &Status) -> Line {
    let verdicts = || status.checks.iter().flat_map(|check| [&check.v4, &check.v6]);
    let count = |of: fn(&Verdict) -> bool| verdicts().filter(|verdict| of(verdict)).count();
    let parts = [
        (Tone::Good, count(|verdict| matches!(verdict, Verdict::Pass(_))), "passed"),
        (Tone::Bad, count(|verdict| matches!(verdict, Verdict::Fail(_))), "FAILED"),
        (Tone::Doubtful, count(|verdict| matches!(verdict, Verdict::NotBuilt(_))), "not built"),
        (Tone::Plain, count(|verdict| matches!(verdict, Verdict::Waiting)), "not looked at yet"),
    ];
    let mut line = Line::default();
    for (tone, number, what) in parts.into_iter().filter(|(_, number, _)| *number > 0) {
        let comma = if line.width() > 0 { ", " } else { "" };
        line = line.then(Tone::Plain, comma).then(tone, &format!("{number} {what}"));
    }
    line
}

/// A verdict in a word.
pub fn word(verdict: &Verdict) -> (Tone, &'static str) {
    match verdict {
        Verdict::Pass(_) => (Tone::Good, "pass"),
        Verdict::Fail(_) => (Tone::Bad, "FAIL"),
        Verdict::NotBuilt(_) => (Tone::Doubtful, "not built"),
        Verdict::Absent => (Tone::Plain, "–"),
        Verdict::Waiting => (Tone::Plain, "…"),
    }
}

fn verdict(line: Line, verdict: &Verdict) -> Line {
    let (tone, text) = word(verdict);
    line.then(tone, text)
}

/// What was seen where nothing failed: said once if both families saw the same.
fn quiet_details(check: &Check) -> Option<String> {
    let detail = |verdict: &Verdict| match verdict {
        Verdict::Pass(seen) | Verdict::NotBuilt(seen) => Some(seen.clone()).filter(|seen| !seen.is_empty()),
        Verdict::Fail(_) | Verdict::Absent | Verdict::Waiting => None,
    };
    match (detail(&check.v4), detail(&check.v6)) {
        (Some(v4), Some(v6)) if v4 != v6 => Some(format!("{v4}; {v6}")),
        (v4, v6) => v4.or(v6),
    }
}
