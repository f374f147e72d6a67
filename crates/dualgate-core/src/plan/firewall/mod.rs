//! What one node lets in, as a table of nftables: `inet dualgate`.
//!
//! Pure. An edge's plan is made from the site file alone, so that it is there before anything else is; that of a home
//! node also knows which pods stand behind public routes. The actuator in `host` puts the table into the kernel. A site
//! without `firewall` has the empty plan everywhere.
//!
//! **The edge** ([`edge`]) shuts everything that is not an [`Opening`], each of which says why it is there. Nothing is
//! forwarded between the Internet and the tunnel, home's addresses are believed of the tunnel only, and packets to them
//! leave by the tunnel only.
//!
//! **A home node** ([`home`]) trusts its LAN and looks only at what comes from an edge: an edge that was taken over
//! reaches the pods behind public routes, on their ports, and nothing else.
//!
//! **Other software** keeps its own tables. An accept of ours is not final across tables and a drop is, so that no rule
//! looks at forwarded packets that touch neither the tunnel nor, translated, a port of the edge that is shut. What
//! kube-proxy or Docker translate on its way in is judged by the port that it came to (`ct original proto-dst`).

mod change;
mod edge;
mod home;
mod opening;
mod rules;
mod ways;

use std::fmt;

use dualgate_wire::nftables::{Family, Ownership, Table};

use crate::lower::{self, Lowered};
use crate::model::{NodeName, Snapshot};

pub use change::{FirewallChange, Line, Moved, diff, moved};
pub use opening::{Opening, Source, Why};
pub use ways::{By, Connection, Purpose, Way, Ways, names};

/// The name of the table, in the family `inet`.
pub const TABLE: &str = "dualgate";
/// What the table's comment says: by it an own table is told from another of the same name.
pub const MARK: &str = "dualgate made this table from the site file and undoes changes of others";
/// Where nodes talk with each other, TCP.
pub const EXCHANGE_PORT: u16 = 9181;

/// What one node lets in. The default is everything: the firewall is off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirewallPlan {
    /// The rules; `None` where there are none.
    pub table: Option<Table>,
    /// The ports that the rules leave open, and for whom. What the rules add to it is in no way wider.
    pub openings: Vec<Opening>,
}

/// The plan of one node.
pub fn firewall(snapshot: &Snapshot, node: &NodeName) -> FirewallPlan {
    select(snapshot, &lower::snapshot(snapshot), node)
}

/// The plan of one node, from the snapshot and what it was lowered to.
pub fn select(snapshot: &Snapshot, lowered: &Lowered, node: &NodeName) -> FirewallPlan {
    let site = &*snapshot.site;
    match (&site.firewall, site.node(node)) {
        (Some(firewall), Some(node)) if node.is_edge() => edge::plan(snapshot, firewall, node),
        (Some(_), Some(node)) => home::plan(snapshot, lowered, node),
        (None, _) | (_, None) => FirewallPlan::default(),
    }
}

/// The table without anything in it.
fn table() -> Table {
    let mut table = Table::new(Family::Inet, TABLE);
    table.ownership = Ownership::OwnerPersist;
    table.comment = Some(MARK.to_owned());
    table
}

/// In nft's words.
impl fmt::Display for FirewallPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.table {
            None => writeln!(f, "off"),
            Some(table) => table.fmt(f),
        }
    }
}
