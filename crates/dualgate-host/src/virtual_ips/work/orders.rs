//! Orders from people: begun, watched, answered.

use std::net::IpAddr;
use std::time::Duration;

use dualgate_core::plan::virtual_ips::Group;

use super::{Pending, Work, clock, resource};
use crate::virtual_ips::control::{Answer, Order};

impl Work {
    pub(super) fn begin(&mut self, order: &Order, now: Duration) -> Result<(), String> {
        self.news = true;
        match order {
            Order::Move { address, to } => {
                let unknown = || format!("no gate, edge or Service has {address} (see `dualgate vip list`)");
                let group = self.plan.group_of(*address).ok_or_else(unknown)?;
                let mut asked: Vec<IpAddr> = group.addresses.clone();
                // The one that was named decides; those beside it may be elsewhere for a moment.
                asked.sort_by_key(|other| other != address);
                for (number, other) in asked.iter().enumerate() {
                    match self.ownership.move_to(&resource(*other), to, now) {
                        Err(refusal) if number == 0 => return Err(format!("{address} stays: {refusal}")),
                        Ok(()) | Err(_) => {}
                    }
                }
            }
            Order::Drain => self.ownership.drain(now),
            Order::Undrain => self.ownership.undrain(),
        }
        Ok(())
    }

    /// Answers the orders that have come about, and those that have not in time.
    pub(super) fn answer(&mut self, now: Duration) {
        for Pending { order, reply, until } in std::mem::take(&mut self.pending) {
            match self.outcome(&order, now >= until) {
                Some(answer) => reply.send(&answer),
                None => self.pending.push(Pending { order, reply, until }),
            }
        }
        if let Some(until) = self.pending.iter().map(|pending| pending.until).min() {
            self.look_at = self.look_at.min(until);
        }
    }

    /// What became of an order; nothing yet while it may still come about.
    fn outcome(&self, order: &Order, late: bool) -> Option<Answer> {
        let held = |group: &&Group| {
            let owned = |address: &IpAddr| self.ownership.owned_until(&resource(*address));
            group.addresses.iter().any(|address| owned(address).is_some_and(|until| until > clock()))
        };
        match order {
            Order::Move { address, to } => {
                let Some(group) = self.plan.group_of(*address) else {
                    return Some(Answer::Refused(format!("nobody has {address} any more")));
                };
                match (held(&group), late) {
                    (false, _) => {
                        let verb = if group.addresses.len() > 1 { "are" } else { "is" };
                        Some(Answer::Done(format!("{} {verb} at {to} now", shown(&group.addresses))))
                    }
                    (true, true) => Some(Answer::Refused(format!(
                        "{address} stays: {to} did not take it; is it drained, or can it not serve it? (`dualgate vip \
                         explain {address}` there)"
                    ))),
                    (true, false) => None,
                }
            }
            Order::Drain => {
                let left: Vec<String> =
                    self.plan.groups.iter().filter(held).map(|group| shown(&group.addresses)).collect();
                match (left.as_slice(), late) {
                    ([], _) => Some(Answer::Done(format!("{} holds no address now, and takes none", self.node))),
                    (left, true) => Some(Answer::Done(format!(
                        "{} takes no address any more, and keeps {}, which no other node can take",
                        self.node,
                        left.join("; ")
                    ))),
                    (_, false) => None,
                }
            }
            Order::Undrain => Some(Answer::Done(format!("{} takes addresses again", self.node))),
        }
    }
}

fn shown(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}
