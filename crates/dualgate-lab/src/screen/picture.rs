//! The site as a picture: the Internet at the top, home at the bottom, what joins them in between.
//!
//! ```text
//! ═ internet ═══╤══════════╤════════════╤═══
//!          client         edge       carrier
//!                          ║            │
//!                          ║          router
//! ═ lan ═══════╤═══════════╩════╤═══════╧═══
//!            node             node
//! ```
//!
//! Hosts that do not fit beside each other go into further rows along a rail on the left.

use super::card::{Card, is_chain};
use super::text::{Line, Sheet, Tone};
use crate::report::{HostKind, HostStatus, LinkState, Status};

/// Where the first box of a row begins; left of it is the rail.
const LEFT: usize = 2;
/// Between boxes.
const GAP: usize = 1;

/// Draws the site in no more than `width` columns, if each box fits by itself.
pub fn picture(status: &Status, width: usize) -> Vec<Line> {
    let site = Site::of(status);
    let mut sheet = Sheet::default();
    let mut outside = site.outside();
    let home = site.home();
    let mut rows = arrange(&outside, width);
    let mut stems = Vec::new();
    if !home.is_empty() {
        // A tunnel that finds no way past other boxes is told in words.
        for (at, column) in outside.iter_mut().enumerate() {
            let kind = column.last().host.kind;
            match stem_down(&rows, at).filter(|_| kind != HostKind::InternetClient) {
                Some(x) => stems.push(Stem { x, host: column.last().host.name.clone(), kind }),
                None if kind == HostKind::Edge => column.say(&site.tunnel_in_words()),
                None => {}
            }
        }
        rows = arrange(&outside, width);
    }
    let mut y = 0;
    if !outside.is_empty() {
        y = draw_band(&mut sheet, &site, &Band { name: site.internet, columns: &outside, rows: &rows }, y, width);
    }
    if !home.is_empty() {
        let rows = arrange(&home, width);
        let bar = y + usize::from(!stems.is_empty());
        draw_band(&mut sheet, &site, &Band { name: site.lan, columns: &home, rows: &rows }, bar, width);
        site.draw_stems(&mut sheet, &stems, bar, width);
    }
    let mut lines = sheet.lines();
    lines.extend(legend(status));
    lines
}

/// What is where.
struct Site<'s> {
    status: &'s Status,
    internet: &'s str,
    lan: &'s str,
    /// The switch that stands in for the tunnel, as long as there is one.
    tunnel: Option<&'s str>,
}

/// A column of a row: a host, or the carrier and the router below it.
struct Column<'s>(Vec<Card<'s>>);

/// A line from a host of the upper part to the LAN.
struct Stem {
    x: usize,
    host: String,
    kind: HostKind,
}

/// A column's place: which one, where it begins, how wide it is.
type Cell = (usize, usize, usize);

/// A network as a bar with hosts below it.
struct Band<'a, 's> {
    name: &'a str,
    columns: &'a [Column<'s>],
    rows: &'a [Vec<Cell>],
}

impl<'s> Site<'s> {
    fn of(status: &'s Status) -> Self {
        let of_kind = |kind| move |host: &&HostStatus| host.kind == kind;
        let joins_edge = |switch: &str| {
            let mut edges = status.hosts.iter().filter(of_kind(HostKind::Edge));
            edges.any(|edge| link(status, switch, &edge.name).is_some())
        };
        let switches: Vec<&str> =
            status.hosts.iter().filter(of_kind(HostKind::Switch)).map(|host| host.name.as_str()).collect();
        let internet = status.hosts.iter().find(of_kind(HostKind::Internet)).map(|host| host.name.as_str());
        Self {
            status,
            internet: internet.unwrap_or("internet"),
            lan: switches.iter().copied().find(|switch| !joins_edge(switch)).unwrap_or("home"),
            tunnel: switches.iter().copied().find(|switch| joins_edge(switch)),
        }
    }

    fn hosts(&self, kinds: &[HostKind]) -> impl Iterator<Item = &'s HostStatus> {
        self.status.hosts.iter().filter(move |host| kinds.contains(&host.kind))
    }

    fn outside(&self) -> Vec<Column<'s>> {
        let bars: Vec<&str> = [self.internet].into_iter().chain(self.tunnel).collect();
        let column = |host| Column(vec![Card::new(self.status, host, &bars)]);
        let mut columns: Vec<Column> = self.hosts(&[HostKind::InternetClient]).map(column).collect();
        columns.extend(self.hosts(&[HostKind::Edge]).map(column));
        let chain = self.hosts(&[HostKind::Carrier, HostKind::Router]);
        let chain: Vec<Card> = chain.map(|host| Card::new(self.status, host, &bars)).collect();
        if !chain.is_empty() {
            columns.push(Column(chain));
        }
        columns
    }

    fn home(&self) -> Vec<Column<'s>> {
        let hosts = self.hosts(&[HostKind::HomeNode, HostKind::LanClient]);
        hosts.map(|host| Column(vec![Card::new(self.status, host, &[self.lan])])).collect()
    }

    fn stands_in(&self) -> bool {
        self.status.stand_ins.iter().any(|stand_in| stand_in.part == "tunnel")
    }

    fn tunnel_in_words(&self) -> String {
        let stand_in = if self.stands_in() { " (stand-in)" } else { "" };
        format!("tunnel{stand_in} to {}", self.lan)
    }

    fn draw_stems(&self, sheet: &mut Sheet, stems: &[Stem], bar: usize, width: usize) {
        for stem in stems {
            let is_edge = stem.kind == HostKind::Edge;
            let (piece, end) = if is_edge { ("║", "╩") } else { ("│", "╧") };
            let from = (0..bar).rev().find(|y| matches!(sheet.at((stem.x, *y)), '─' | '╌')).map_or(bar, |y| y + 1);
            for y in from..bar {
                let crossed = matches!(sheet.at((stem.x, y)), '═');
                sheet.put((stem.x, y), Tone::Plain, if crossed { "╪" } else { piece });
            }
            let meets = matches!(sheet.at((stem.x, bar)), '╤');
            sheet.put((stem.x, bar), Tone::Plain, if meets { "╪" } else { end });
            let other = if is_edge { self.tunnel.unwrap_or_default() } else { self.lan };
            let state = link(self.status, &stem.host, other).unwrap_or(LinkState::Up);
            let (tone, text, short) = match (state, is_edge) {
                (LinkState::Cut, true) => (Tone::Bad, "tunnel CUT", "CUT"),
                (LinkState::Cut, false) => (Tone::Bad, "CUT", "CUT"),
                (LinkState::Off, true) => (Tone::Doubtful, "tunnel, off", "off"),
                (LinkState::Up, true) if self.stands_in() => (Tone::Doubtful, "tunnel (stand-in)", "tunnel"),
                (LinkState::Up, true) => (Tone::Plain, "tunnel", "tunnel"),
                (LinkState::Up | LinkState::Off, false) => continue,
            };
            if state == LinkState::Cut {
                sheet.put((stem.x, bar - 1), tone, "╳");
            }
            let next = stems.iter().map(|other| other.x).filter(|x| *x > stem.x).min().unwrap_or(width);
            let room = next.saturating_sub(stem.x + 3);
            let text = if text.chars().count() <= room { text } else { short };
            let text = super::text::shortened(text, room);
            sheet.put((stem.x + 2, bar - 1), tone, &text);
        }
    }
}

impl Column<'_> {
    fn widths(&self) -> (usize, usize) {
        let widths = self.0.iter().map(Card::widths);
        widths.fold((0, 0), |(w, n), (wanted, needed)| (w.max(wanted), n.max(needed)))
    }

    /// The card at the lower end.
    fn last(&self) -> &Card<'_> {
        self.0.last().expect("a column has a card")
    }

    fn say(&mut self, text: &str) {
        let card = self.0.pop().expect("a column has a card");
        self.0.push(card.saying(Tone::Doubtful, text.to_owned()));
    }

    fn height(&self, width: usize) -> usize {
        let cards: usize = self.0.iter().map(|card| card.height(width)).sum();
        cards + self.0.len() - 1
    }
}

/// Puts columns beside each other as far as they fit, and gives them what room is left.
fn arrange(columns: &[Column<'_>], width: usize) -> Vec<Vec<Cell>> {
    let room = width.saturating_sub(LEFT);
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let mut taken = 0;
    for (at, column) in columns.iter().enumerate() {
        let needed = column.widths().1.min(room);
        match rows.last_mut() {
            Some(row) if taken + GAP + needed <= room => {
                row.push((at, 0, needed));
                taken += GAP + needed;
            }
            _ => {
                rows.push(vec![(at, 0, needed)]);
                taken = needed;
            }
        }
    }
    for row in &mut rows {
        let used: usize = row.iter().map(|(_, _, width)| width + GAP).sum();
        let mut left = (room + GAP).saturating_sub(used);
        let (mut x, count) = (LEFT, row.len());
        for (place, (at, begin, width)) in row.iter_mut().enumerate() {
            let wish = columns[*at].widths().0.saturating_sub(*width);
            let more = wish.min(left / (count - place));
            *width += more;
            left -= more;
            *begin = x;
            x += *width + GAP;
        }
    }
    rows
}

/// Where a line can leave a column downwards without meeting a box of a later row: in its middle, or beside.
fn stem_down(rows: &[Vec<Cell>], column: usize) -> Option<usize> {
    let row = rows.iter().position(|row| row.iter().any(|(at, ..)| *at == column))?;
    let (_, x, width) = *rows[row].iter().find(|(at, ..)| *at == column)?;
    let later = || rows[row + 1..].iter().flatten();
    let is_free = |at: &usize| later().all(|(_, x, width)| *at < *x || *at >= x + width);
    let middle = x + width / 2;
    (middle..x + width - 1).chain((x + 1..middle).rev()).find(is_free)
}

/// Draws a network and its hosts from `y` on; the first line that is free is returned.
fn draw_band(sheet: &mut Sheet, site: &Site<'_>, band: &Band<'_, '_>, mut y: usize, width: usize) -> usize {
    let label = format!(" {} ", band.name);
    let label_end = LEFT + label.chars().count();
    for (number, row) in band.rows.iter().enumerate() {
        let first = number == 0;
        let middle = |x: usize, width: usize| match first {
            // The bar's name stays readable.
            true => (x + width / 2).max(label_end).min(x + width - 2),
            false => x + width / 2,
        };
        let last_stem = row.iter().map(|(_, x, width)| middle(*x, *width)).max().unwrap_or(0);
        let end = if first { width } else { last_stem + 2 };
        let corner = match (first, number + 1 == band.rows.len()) {
            (true, true) => "═",
            (true, false) => "╔",
            (false, true) => "╚",
            (false, false) => "╠",
        };
        sheet.put((0, y), Tone::Plain, corner);
        sheet.put((1, y), Tone::Plain, &"═".repeat(end.saturating_sub(1)));
        if first {
            sheet.put((LEFT, y), Tone::Strong, &label);
        }
        let state = |column: usize| link(site.status, &band.columns[column].0[0].host.name, band.name);
        let any_cut = row.iter().any(|(at, ..)| state(*at) == Some(LinkState::Cut));
        let top = y + 1 + usize::from(any_cut);
        for (at, x, width) in row {
            let stem = middle(*x, *width);
            draw_column(sheet, site.status, &band.columns[*at], (*x, top), *width);
            sheet.put((stem, y), Tone::Plain, "╤");
            sheet.put((stem, top), Tone::Plain, "┴");
            if any_cut {
                let is_cut = state(*at) == Some(LinkState::Cut);
                let (tone, text) = if is_cut { (Tone::Bad, "╳ CUT") } else { (Tone::Plain, "│") };
                sheet.put((stem, y + 1), tone, text);
            }
        }
        let bottom = top + row.iter().map(|(at, _, width)| band.columns[*at].height(*width)).max().unwrap_or(0);
        if number + 1 < band.rows.len() {
            (y + 1..bottom).for_each(|y| sheet.put((0, y), Tone::Plain, "║"));
        }
        y = bottom;
    }
    y
}

fn draw_column(sheet: &mut Sheet, status: &Status, column: &Column<'_>, (x, mut y): (usize, usize), width: usize) {
    for (above, card) in column.0.iter().enumerate() {
        if above > 0 {
            let stem = x + width / 2;
            let state = link(status, &column.0[above - 1].host.name, &card.host.name);
            let cut = state == Some(LinkState::Cut);
            let (tone, text) = if cut { (Tone::Bad, "╳ CUT") } else { (Tone::Plain, "│") };
            sheet.put((stem, y), tone, text);
            y += 1;
        }
        card.draw(sheet, (x, y), width);
        debug_assert!(above == 0 || is_chain(card.host.kind));
        y += card.height(width);
    }
}

/// The state of the link between two hosts.
fn link(status: &Status, one: &str, other: &str) -> Option<LinkState> {
    let joins = |ends: &[String; 2]| ends.iter().any(|end| end == one) && ends.iter().any(|end| end == other);
    status.links.iter().find(|link| joins(&link.ends)).map(|link| link.state)
}

/// What the signs mean, and what is broken.
fn legend(status: &Status) -> Vec<Line> {
    let mut lines = Vec::new();
    if status.hosts.iter().any(|host| host.on && !host.virtual_ips.is_empty()) {
        lines.push(Line::new(Tone::Strong, "◆").then(Tone::Plain, " a virtual IP, held by this node"));
    }
    let heal = |line: Line, name: &str| line.then(Tone::Plain, &format!(": dualgate lab heal {name}"));
    for host in status.hosts.iter().filter(|host| !host.on) {
        lines.push(heal(Line::new(Tone::Bad, "OFF").then(Tone::Plain, &format!(" host {}", host.name)), &host.name));
    }
    for link in status.links.iter().filter(|link| link.state == LinkState::Cut) {
        lines.push(heal(Line::new(Tone::Bad, "CUT").then(Tone::Plain, &format!(" link {}", link.name)), &link.name));
    }
    lines
}
