//! Case files: a site, manifests, and what must come of them, as text that a person can read.
//!
//! A case is pure text; who runs it decides how: the planner's runner asks the table, another one sends real
//! requests through real sockets. The form:
//!
//! ```text
//! # Comments, and blank lines, count for nothing outside of `site` and `objects`.
//! == site
//! aliases: [{domain: example.org, home: home.arpa}]
//! == services
//! grafana http=3000 pods=2
//! == objects
//! apiVersion: networking.k8s.io/v1
//! kind: Ingress
//! ...
//! == requests
//! A-1 GET http://grafana.example.org/ @internal -> 200 grafana:3000
//! A-2 GET http://grafana.example.org/ @external -> 404
//! == findings
//! ingress-exposed Ingress default/grafana
//! ```
//!
//! - `site`: keys added to the site of [`Case::site`], or a whole site file if it starts with `apiVersion`.
//! - `services`: `[namespace/]name port... [pods=N]`, a port being `8080` or `http=8080`; each becomes an ordinary
//!   Service with EndpointSlices of the families that are run.
//! - `objects`: ordinary YAML.
//! - `requests`: `[id] [100x] METHOD URL [host=RAW] [target=RAW] @gate -> STATUS [[namespace/]service[:port]]
//!   [key=value...]` with `certificate=namespace/secret` or `certificate=default`, `pods=N` (how many answer), `path=`
//!   and `host=` (what the backend sees). Before the arrow, `host=` and `target=` are sent as they stand.
//! - `findings`: `code object [field]` of every error and warning; without the section there must be none.
//! - `notes`: the same for notes; without the section they are not looked at.
//! - `== through: sockets` leaves out the planner's runner: what is asked happens before the table.
//! - `== now: 1795305600` sets the clock, in seconds since 1970.

use std::fmt;
use std::sync::Arc;

use crate::model::address::Family;
use crate::model::object::{AddressType, Body};
use crate::model::snapshot::{Facts, Generation};
use crate::model::{GateName, Snapshot};
use crate::parse;

/// The clock of a case that does not set it: 2026-11-22.
pub const NOW: i64 = 1_795_305_600;

/// The families that a case is run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Both,
}

impl Families {
    /// Every variant that a case is run in.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Both];

    /// Whether a family is there.
    pub fn has(self, family: Family) -> bool {
        match (self, family) {
            (Self::Both, _) | (Self::V4, Family::V4) | (Self::V6, Family::V6) => true,
            (Self::V4, Family::V6) | (Self::V6, Family::V4) => false,
        }
    }

    /// A YAML list of what there is of an IPv4 and an IPv6 item.
    fn list(self, v4: &str, v6: &str) -> String {
        let of = |family, item: &str| self.has(family).then(|| format!("'{item}'"));
        let items: Vec<_> = [of(Family::V4, v4), of(Family::V6, v6)].into_iter().flatten().collect();
        format!("[{}]", items.join(", "))
    }
}

/// One case file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    /// Its name, for messages.
    pub name: String,
    /// Keys of the site, or a whole site file.
    site: String,
    services: Vec<Service>,
    objects: String,
    /// What is asked, and what must come back.
    pub requests: Vec<Request>,
    /// Errors and warnings, as `code object field`.
    pub findings: Vec<String>,
    /// Notes, when the case looks at them.
    pub notes: Option<Vec<String>>,
    /// Who runs it.
    pub through: Through,
    /// The clock, in seconds since 1970.
    pub now: i64,
}

/// Who runs a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Through {
    /// Every runner.
    #[default]
    Everything,
    /// Only the runner with real sockets: what is asked happens before the table.
    Sockets,
}

#[derive(Clone, Debug, PartialEq)]
struct Service {
    namespace: String,
    name: String,
    /// Name (may be empty) and number.
    ports: Vec<(String, u16)>,
    pods: u16,
}

/// A request and the answer that must come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The line of the case file.
    pub line: usize,
    /// Its name, such as `PR-1`; may be empty.
    pub id: String,
    /// How often it is sent.
    pub times: u32,
    /// The method.
    pub method: String,
    /// The URL's scheme: `http` or `https`.
    pub scheme: String,
    /// The URL's authority as written: it names the host, and the port of the entry point.
    pub authority: String,
    /// The URL's path and query as written; `/` if it has none.
    pub target: String,
    /// The Host field, if it is not the authority.
    pub host: Option<String>,
    /// The request target, if it is not path and query of the URL.
    pub raw_target: Option<String>,
    /// The gate that is asked.
    pub gate: GateName,
    /// What must come back.
    pub answer: Answer,
}

/// What must come back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `namespace/name` of the Service that serves it.
    pub service: Option<String>,
    /// The port of the Service.
    pub port: Option<u16>,
    /// `namespace/name` of the Secret whose certificate is shown; `default` for the default certificate.
    pub certificate: Option<String>,
    /// How many different pods answer.
    pub pods: Option<u16>,
    /// The target that the backend sees.
    pub path: Option<String>,
    /// The Host that the backend sees.
    pub host: Option<String>,
}

/// Why a text is not a case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}:{line}: {message}")]
pub struct CaseError {
    name: String,
    line: usize,
    message: String,
}

impl Request {
    /// The port of the URL; by default 80 and 443.
    pub fn port(&self) -> u16 {
        let written = self.authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let default = if self.scheme == "https" { 443 } else { 80 };
        written.and_then(|(_, port)| port.parse().ok()).unwrap_or(default)
    }

    /// The host as the client sends it.
    pub fn host_field(&self) -> &str {
        self.host.as_deref().unwrap_or(&self.authority)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, id, method, scheme, authority, target, gate, .. } = self;
        write!(f, "line {line}: {id} {method} {scheme}://{authority}{target} @{gate}")
    }
}

impl Case {
    /// Reads a case.
    pub fn parse(name: &str, text: &str) -> Result<Self, CaseError> {
        let mut case = Self { name: name.to_owned(), now: NOW, ..Self::default() };
        let mut section = "";
        for (number, line) in (1..).zip(text.lines()) {
            let wrong = |message: String| CaseError { name: name.to_owned(), line: number, message };
            if let Some(heading) = line.strip_prefix("== ") {
                section = case.heading(number, heading).map_err(wrong)?;
                continue;
            }
            case.line(section, number, line).map_err(wrong)?;
        }
        Ok(case)
    }

    fn heading<'t>(&mut self, number: usize, heading: &'t str) -> Result<&'t str, String> {
        match heading.split_once(": ") {
            None => {
                match heading {
                    // Blank lines before it, so that places in the manifests are places in the case file.
                    "objects" if self.objects.is_empty() => self.objects = "\n".repeat(number),
                    "site" | "services" | "objects" | "requests" | "findings" => {}
                    "notes" => self.notes = Some(Vec::new()),
                    other => return Err(format!("`{other}` is not a section")),
                }
                Ok(heading)
            }
            Some(("through", "sockets")) => {
                self.through = Through::Sockets;
                Ok("")
            }
            Some(("now", seconds)) => {
                self.now = seconds.parse().map_err(|_| format!("`{seconds}` is not a number of seconds"))?;
                Ok("")
            }
            Some((other, _)) => Err(format!("`{other}` is not a setting")),
        }
    }

    fn line(&mut self, section: &str, number: usize, line: &str) -> Result<(), String> {
        let counts = !line.trim().is_empty() && !line.starts_with('#');
        match section {
            "site" => self.site.extend([line, "\n"]),
            "objects" => self.objects.extend([line, "\n"]),
            "services" if counts => self.services.push(Service::parse(line)?),
            "requests" if counts => self.requests.push(Request::parse(number, line)?),
            "findings" if counts => self.findings.push(words(line)),
            "notes" if counts => self.notes.get_or_insert_default().push(words(line)),
            "" if counts => return Err(format!("`{line}` stands in no section")),
            _ => {}
        }
        Ok(())
    }

    /// The site file: a home with two nodes behind virtual IPs, an edge, and default entry points; or what
    /// the case brings.
    pub fn site(&self, families: Families) -> String {
        if self.site.starts_with("apiVersion:") {
            return self.site.clone();
        }
        let mut site = format!(
            "apiVersion: dualgate.dev/v1alpha1
kind: Site
name: case
cluster: {{podCIDRs: {pods}, serviceCIDRs: {services}}}
lan: {{subnets: {lan}}}
nodes:
- {{name: home1, roles: [server, internal-gate, virtual-ips{dns}], addresses: {home1}}}
- {{name: home2, roles: [server, internal-gate, virtual-ips{dns}], addresses: {home2}}}
- {{name: edge, roles: [external-gate{dns}], addresses: {edge}, publicAddresses: {public}}}
",
            pods = families.list("10.42.0.0/16", "fd01::/48"),
            services = families.list("10.43.0.0/16", "fd02::/112"),
            lan = families.list("192.168.178.0/24", "fda8:a1db:5685::/64"),
            home1 = families.list("192.168.178.5", "fda8:a1db:5685::5"),
            home2 = families.list("192.168.178.6", "fda8:a1db:5685::6"),
            edge = families.list("192.168.178.201", "fda8:a1db:5685::201"),
            public = families.list("203.0.113.10", "2001:db8:1::10"),
            dns = if self.site.lines().any(|line| line.starts_with("dns:")) { ", dns" } else { "" },
        );
        if !self.site.starts_with("gates:") && !self.site.contains("\ngates:") {
            let gate = families.list("192.168.178.10", "fda8:a1db:5685::10");
            site.push_str(&format!("gates: {{internal: {{addresses: {gate}}}, external: {{}}}}\n"));
        }
        site.push_str(&self.site);
        site
    }

    /// The manifests: those of the case, and those of its `services`.
    pub fn manifests(&self, families: Families) -> String {
        let mut text = self.objects.clone();
        let mut pod = 0;
        for service in &self.services {
            text.push_str(&service.manifest(families, &mut pod));
        }
        text
    }

    /// Everything together. EndpointSlices of other families are left out, as a cluster without a family has none.
    /// The error is a text for people.
    pub fn snapshot(&self, families: Families) -> Result<Snapshot, String> {
        let (site, findings) = parse::site::site(&self.name, &self.site(families));
        let site = site.ok_or_else(|| findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        let file = parse::file::file(&self.name, &self.manifests(families));
        let mut objects = parse::file::assemble([&file].into_iter());
        objects.objects.retain(|object| match &object.body {
            Body::EndpointSlice(slice) => match slice.address_type {
                AddressType::V4 => families.has(Family::V4),
                AddressType::V6 => families.has(Family::V6),
                AddressType::Fqdn => true,
            },
            _ => true,
        });
        Ok(Snapshot {
            generation: Generation(1),
            site: Arc::new(site),
            objects: Arc::new(objects),
            facts: Facts { now: self.now, ..Facts::default() },
        })
    }
}

impl Service {
    fn parse(line: &str) -> Result<Self, String> {
        let mut tokens = line.split_whitespace();
        let full = qualified(tokens.next().ok_or("a Service needs a name")?);
        let (namespace, name) = full.split_once('/').ok_or("a Service needs a name")?;
        let mut service = Self { namespace: namespace.to_owned(), name: name.to_owned(), ports: Vec::new(), pods: 1 };
        for token in tokens {
            let number = |text: &str| text.parse::<u16>().map_err(|_| format!("`{text}` is not a number"));
            match token.split_once('=') {
                Some(("pods", pods)) => service.pods = number(pods)?,
                Some((name, port)) => service.ports.push((name.to_owned(), number(port)?)),
                None => service.ports.push((String::new(), number(token)?)),
            }
        }
        if service.ports.is_empty() { Err(format!("Service `{full}` needs a port")) } else { Ok(service) }
    }

    fn manifest(&self, families: Families, pod: &mut u16) -> String {
        let Self { namespace, name, ports, pods } = self;
        let port = |(name, number): &(String, u16)| match name.as_str() {
            "" => format!("{{port: {number}}}"),
            name => format!("{{name: {name}, port: {number}}}"),
        };
        let ports = ports.iter().map(port).collect::<Vec<_>>().join(", ");
        let mut text = format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{app: {name}}}, ports: [{ports}]}}
"
        );
        let first = *pod;
        *pod += pods;
        for (family, kind, suffix) in [(Family::V4, "IPv4", "v4"), (Family::V6, "IPv6", "v6")] {
            if !families.has(family) {
                continue;
            }
            text.push_str(&format!(
                "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{suffix}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: {kind}
ports: [{ports}]
endpoints:
"
            ));
            for number in 1..=*pods {
                let [high, low] = (first + number).to_be_bytes();
                let address = match family {
                    Family::V4 => format!("10.42.{high}.{low}"),
                    Family::V6 => format!("fd01::{:x}", first + number),
                };
                text.push_str(&format!(
                    "- {{addresses: ['{address}'], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {name}-{number}, namespace: {namespace}}}}}\n"
                ));
            }
        }
        text
    }
}

impl Request {
    fn parse(line: usize, text: &str) -> Result<Self, String> {
        let (asked, answer) = text.split_once(" -> ").ok_or("a request needs ` -> ` and an answer")?;
        let mut tokens: Vec<&str> = asked.split_whitespace().collect();
        let gate = tokens.pop().and_then(|token| token.strip_prefix('@')).ok_or("` -> ` must follow `@gate`")?;
        let raw_target = option(&mut tokens, "target=");
        let host = option(&mut tokens, "host=");
        let url = tokens.pop().ok_or("a request needs a URL")?;
        let method = tokens.pop().ok_or("a request needs a method")?;
        let times = tokens.last().and_then(|token| token.strip_suffix('x')?.parse().ok());
        if times.is_some() {
            tokens.pop();
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("`{url}` is not a URL"))?;
        let (authority, target) = match rest.find(['/', '?']) {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        if !matches!(scheme, "http" | "https") || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("`{method} {url}` is not a request of HTTP"));
        }
        Ok(Self {
            line,
            id: tokens.join(" "),
            times: times.unwrap_or(1),
            method: method.to_owned(),
            scheme: scheme.to_owned(),
            authority: authority.to_owned(),
            target: target.to_owned(),
            host,
            raw_target,
            gate: gate.parse()?,
            answer: Answer::parse(answer)?,
        })
    }
}

impl Answer {
    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = text.split_whitespace();
        let status = tokens.next().unwrap_or_default();
        let mut answer =
            Self { status: status.parse().map_err(|_| format!("`{status}` is not a status"))?, ..Self::default() };
        for token in tokens {
            match token.split_once('=') {
                Some(("certificate", "default")) => answer.certificate = Some("default".to_owned()),
                Some(("certificate", secret)) => answer.certificate = Some(qualified(secret)),
                Some(("pods", pods)) => {
                    answer.pods = Some(pods.parse().map_err(|_| format!("`{pods}` is not a number"))?);
                }
                Some(("path", path)) => answer.path = Some(path.to_owned()),
                Some(("host", host)) => answer.host = Some(host.to_owned()),
                Some(_) => return Err(format!("`{token}` says nothing about an answer")),
                None => {
                    let (service, port) = token.split_once(':').unzip();
                    answer.service = Some(qualified(service.unwrap_or(token)));
                    answer.port = port.map(str::parse).transpose().map_err(|_| format!("`{token}` has a bad port"))?;
                }
            }
        }
        Ok(answer)
    }
}

/// The last token's value, if it has this name.
fn option(tokens: &mut Vec<&str>, name: &str) -> Option<String> {
    let value = tokens.last()?.strip_prefix(name)?.to_owned();
    tokens.pop();
    Some(value)
}

/// With the namespace `default` if it names none.
fn qualified(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("default/{name}") }
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_everything_in_one_line() {
        let case = Case::parse(
            "x",
            "== requests\nLB-1 100x GET https://a.b:8443/c?d host=A.B. @external -> 200 x/web:80 certificate=tls pods=10\n",
        )
        .unwrap();
        let expected = Request {
            line: 2,
            id: "LB-1".into(),
            times: 100,
            method: "GET".into(),
            scheme: "https".into(),
            authority: "a.b:8443".into(),
            target: "/c?d".into(),
            host: Some("A.B.".into()),
            raw_target: None,
            gate: GateName::External,
            answer: Answer {
                status: 200,
                service: Some("x/web".into()),
                port: Some(80),
                certificate: Some("default/tls".into()),
                pods: Some(10),
                ..Answer::default()
            },
        };
        assert_eq!(case.requests, [expected]);
        assert_eq!(case.requests[0].port(), 8443);
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        for (text, message) in [
            ("== request\n", "x:1: `request` is not a section"),
            ("GET\n", "x:1: `GET` stands in no section"),
            ("== requests\n\nGET http://a/ @internal\n", "x:3: a request needs ` -> ` and an answer"),
            ("== services\nweb\n", "x:2: Service `default/web` needs a port"),
        ] {
            assert_eq!(Case::parse("x", text).unwrap_err().to_string(), message);
        }
    }
}
