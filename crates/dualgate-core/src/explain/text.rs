//! Explanations and exposures for people.

use std::fmt;
use std::net::SocketAddr;

use super::{Explanation, Exposure, ListenView, RouteView};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} at the {} gate", self.url, self.gate)?;
        writeln!(f, "  {}", self.because)?;
        if let Some(name) = &self.name {
            name.fmt(f)?;
        }
        if let Some(point) = &self.entry_point {
            writeln!(f, "entry point  {} ({}): {}", point.name, point.protocol, listening(&point.listens))?;
        }
        if let Some(certificate) = &self.certificate {
            let secret = certificate.secret.as_ref().map_or("default".to_owned(), |secret| format!("Secret {secret}"));
            writeln!(f, "certificate  {secret}: {}", certificate.because)?;
        }
        if let Some(route) = &self.route {
            writeln!(f, "host         {}", route.host)?;
            writeln!(f, "path         {}", route.path)?;
            writeln!(f, "Ingress      {}", whose(route))?;
        }
        if let Some(class) = &self.class {
            writeln!(f, "class        {class}")?;
        }
        if let Some(backend) = &self.backend {
            let host = if backend.pass_host { "the client's Host" } else { "its own Host" };
            writeln!(f, "backend      {} over {}, with {host}", backend.service, backend.scheme)?;
            for server in &backend.servers {
                let at = server.at.join(", ");
                let id = if server.id == at || server.id == server.at.join("+") { "" } else { &*server.id };
                writeln!(f, "  server     {}{}{at}", id, if id.is_empty() { "" } else { ": " })?;
            }
        }
        if !self.lost.is_empty() {
            writeln!(f, "not chosen")?;
        }
        for lost in &self.lost {
            let route = &lost.route;
            writeln!(f, "  {} {} -> {}: {}", route.host, route.path, route.backend, lost.because)?;
            writeln!(f, "    {}, served at {}", whose(route), route.served)?;
        }
        if self.lost_more > 0 {
            writeln!(f, "  and {} more", self.lost_more)?;
        }
        self.hints.iter().try_for_each(|hint| writeln!(f, "note         {hint}"))
    }
}

/// Each address once, behind it who listens there: several nodes at a virtual IP, which one of them at a time holds.
fn listening(listens: &[ListenView]) -> String {
    let mut groups: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for listen in listens.iter().map(|listen| listen.address) {
        if addresses.contains(&listen) {
            continue;
        }
        addresses.push(listen);
        let at: Vec<&str> = listens.iter().filter(|l| l.address == listen).map(|l| l.node.as_str()).collect();
        match groups.iter_mut().find(|(nodes, _)| *nodes == at) {
            Some((_, shown)) => shown.push(listen.to_string()),
            None => groups.push((at, vec![listen.to_string()])),
        }
    }
    let shown = groups.iter().map(|(nodes, addresses)| {
        let one_of = if nodes.len() > 1 { "one of " } else { "" };
        format!("{} ({one_of}{})", addresses.join(", "), nodes.join(", "))
    });
    shown.collect::<Vec<_>>().join("; ")
}

fn whose(route: &RouteView) -> String {
    let at = if route.at.is_empty() { String::new() } else { format!(" ({})", route.at) };
    format!("{} {}{at}", route.ingress, route.part)
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.routes.is_empty() {
            return writeln!(f, "nothing is public");
        }
        let head = ["HOST", "PATH", "ENTRY POINTS", "INGRESS", "WHY"].map(str::to_owned);
        let rows = self.routes.iter().map(|route| {
            [
                route.host.clone(),
                route.path.clone(),
                route.entry_points.join(","),
                route.ingress.clone(),
                route.why.clone(),
            ]
        });
        let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        for [host, path, points, ingress, why] in &rows {
            let [a, b, c, d] = widths;
            writeln!(f, "{host:a$}  {path:b$}  {points:c$}  {ingress:d$}  {why}")?;
        }
        Ok(())
    }
}
