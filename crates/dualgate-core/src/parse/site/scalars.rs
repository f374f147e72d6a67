//! The single values of the site file: numbers, durations, sizes, addresses, names and fixed words.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dualgate_wire::dns::tsig::Algorithm;
use dualgate_wire::dns::{NameError, RecordType};
use ipnet::IpNet;

use super::fields::{Name, Read, Sink, nearest, words};
use crate::model::object::Protocol;
use crate::model::site::{
    AccessLogFormat, Challenge, EntryProtocol, HomeEnd, Publish, PublishPolicy, Reading, RecordView, Role, RouterKind,
    TraefikAnnotation, Underscores, Uplink,
};
use crate::model::upstream::Upstream;
use crate::model::{Code, EntryPointName, GateName, Host, IpRange, NodeName, ObjectName, PublicKey};
use crate::parse::object::syntax;
use crate::parse::yaml::{Node, Value};

/// Reads text by a function whose error says what is wrong.
fn from_text<T: Read>(node: &Node, path: &str, sink: &mut Sink, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    let Value::String(text) = &node.value else {
        sink.wrong_kind::<T>(node, path);
        return None;
    };
    match read(text.trim()) {
        Ok(value) => Some(value),
        Err(message) => {
            sink.wrong_value::<T>(path, message);
            None
        }
    }
}

macro_rules! text_value {
    ($($type:ty: $form:literal, $example:literal, $read:expr;)+) => {$(
        impl Read for $type {
            fn form() -> String {
                $form.to_owned()
            }

            fn example() -> &'static str {
                $example
            }

            fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self> {
                from_text(node, path, sink, $read)
            }

            fn show(&self) -> String {
                let text = self.to_string();
                if text.starts_with(['[', ':']) { format!("'{text}'") } else { text }
            }
        }
    )+};
}

text_value! {
    String: "text", "", non_empty;
    IpAddr: "IP address", "`192.168.178.5`, `fd00:1::5`",
        |text| text.parse().map_err(|_| format!("`{text}` is not an IP address"));
    IpNet: "CIDR", "`10.42.0.0/16`, `fd00:1::/64`", cidr;
    IpRange: "address range", "`192.168.178.11-192.168.178.20`, `fd00:1::/120`, `fd00:1::5`", range;
    SocketAddr: "socket address", "`127.0.0.1:9180`, `'[::1]:9180'`", socket;
    DnsAddress: "address of a DNS server", "`192.168.178.1`, `fd00:1::1`, `127.0.0.1:5353`", dns_address;
    Upstream: "resolver", "`192.168.178.1`, `tls://9.9.9.9#dns.quad9.net`, `https://9.9.9.9/dns-query#dns.quad9.net`", str::parse;
    Host: "host name", "`grafana.example.org`", str::parse;
    GateName: "gate", "`internal`, `external`", str::parse;
    NodeName: "node name", "`k3s-node1`", node_name;
    PublicKey: "WireGuard public key", "`hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=`", str::parse;
    ObjectName: "`namespace/name`", "`apps/grafana`", object_name;
    Namespace: "namespace", "`apps`", |text| kubernetes(text, syntax::label).map(Namespace);
    LabelValue: "label value", "`web`, `'true'`", label_value;
    InterfaceName: "network interface", "`eth0`, `enp1s0`", interface_name;
    RecordType: "type of records", "`TXT`, `TYPE65400`", str::parse;
    dualgate_wire::dns::Name: "DNS name", "`dualgate-key`, `key.example.org`", dns_name;
    FilePath: "path of a file", "`/etc/dualgate/tsig.key`", file_path;
    HttpUrl: "HTTP URL", "`http://127.0.0.1:8888`, `https://dns.example.org/v1`", http_url;
    HttpsUrl: "HTTPS URL", "`https://acme.example.org/directory`", https_url;
}

fn non_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("the text is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// Bits behind the prefix would be ignored without a word, so they are refused.
fn cidr(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text.parse().map_err(|_| format!("`{text}` is not a CIDR"))?;
    if net.addr() == net.network() {
        return Ok(net);
    }
    Err(format!("`{text}` has bits behind its prefix; the network is `{}`", net.trunc()))
}

fn range(text: &str) -> Result<IpRange, String> {
    if text.contains('/') {
        cidr(text)?;
    }
    text.parse()
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address with a port"))
}

fn node_name(text: &str) -> Result<NodeName, String> {
    let host: Result<Host, _> = text.parse();
    match host {
        Ok(host) if host.as_str() == text => Ok(NodeName::new(text)),
        Ok(_) | Err(_) => Err(format!("`{text}` is not a node's name: lower-case letters, digits, `-` and `.`")),
    }
}

fn kubernetes(text: &str, check: fn(&str) -> Result<(), &'static str>) -> Result<String, String> {
    check(text).map(|()| text.to_owned()).map_err(|needed| format!("`{text}` is not valid: {needed}"))
}

fn object_name(text: &str) -> Result<ObjectName, String> {
    let (namespace, name) = text.split_once('/').ok_or_else(|| format!("`{text}` names no namespace"))?;
    Ok(ObjectName::new(kubernetes(namespace, syntax::label)?, kubernetes(name, syntax::label)?))
}

/// The name of a namespace.
pub(super) struct Namespace(pub(super) String);

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of a label.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LabelKey(pub(super) String);

impl Name for LabelKey {
    const PLACEHOLDER: &'static str = "<label>";

    fn parse(text: &str) -> Result<Self, (Code, String, String)> {
        kubernetes(text, syntax::qualified).map(Self).map_err(|message| (Code::SiteValue, message, String::new()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The value of a label, which may be empty.
pub(super) struct LabelValue(pub(super) String);

impl std::fmt::Display for LabelValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn label_value(text: &str) -> Result<LabelValue, String> {
    let plain = !text.contains('/') && syntax::qualified(text).is_ok();
    if text.is_empty() || plain { Ok(LabelValue(text.to_owned())) } else { Err(format!("`{text}` is no label value")) }
}

/// The name of a network interface, as the kernel takes it: 1 to 15 octets, which name no other folder of `/sys`.
pub(super) struct InterfaceName(pub(super) String);

impl std::fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn interface_name(text: &str) -> Result<InterfaceName, String> {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    let fits = (1..16).contains(&text.len()) && text.bytes().all(is_plain) && text != "." && text != "..";
    if fits { Ok(InterfaceName(text.to_owned())) } else { Err(format!("`{text}` is no name of a network interface")) }
}

/// Where DNS is answered.
#[derive(Clone, Copy)]
pub(super) struct DnsAddress(pub(super) SocketAddr);

impl std::fmt::Display for DnsAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn dns_address(text: &str) -> Result<DnsAddress, String> {
    let bare = text.parse().map(|address: IpAddr| SocketAddr::new(address, 53));
    bare.or_else(|_| text.parse()).map(DnsAddress).map_err(|_| format!("`{text}` is not an address of a DNS server"))
}

fn dns_name(text: &str) -> Result<dualgate_wire::dns::Name, String> {
    text.parse().map_err(|why: NameError| format!("`{text}` is not a name: {why}"))
}

/// Where a file is, from the root: who reads it may have been started anywhere.
pub(super) struct FilePath(pub(super) String);

impl std::fmt::Display for FilePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn file_path(text: &str) -> Result<FilePath, String> {
    let is_file = text.starts_with('/') && !text.ends_with('/');
    if is_file { Ok(FilePath(text.to_owned())) } else { Err(format!("`{text}` is no path of a file from the root on")) }
}

/// What zones call a provider.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProviderName(pub(super) String);

fn provider_name(text: &str) -> Result<ProviderName, String> {
    let host = text.parse::<Host>().is_ok_and(|host| host.as_str() == text);
    let name = || ProviderName(text.to_owned());
    host.then(name).ok_or_else(|| format!("`{text}` is no name: lower-case letters, digits, `-` and `.`"))
}

impl Name for ProviderName {
    const PLACEHOLDER: &'static str = "<provider>";

    fn parse(text: &str) -> Result<Self, (Code, String, String)> {
        provider_name(text).map_err(|message| (Code::SiteValue, message, String::new()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A URL that begins with `http://` or `https://`.
pub(super) struct HttpUrl(pub(super) String);

impl std::fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn http_url(text: &str) -> Result<HttpUrl, String> {
    let broken = || format!("`{text}` is not a URL with http or https and a host");
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or_else(broken)?;
    let authority = rest.split('/').next().unwrap_or_default();
    let is_address =
        |text: &str| text.parse::<SocketAddr>().is_ok() || text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let is_host = host.parse::<Host>().is_ok() && port.parse::<u16>().is_ok();
    let is_plain = !rest.contains(['?', '#', '@', ' ']);
    if is_plain && (is_address(authority) || is_host) { Ok(HttpUrl(text.to_owned())) } else { Err(broken()) }
}

/// A URL that begins with `https://`.
pub(super) struct HttpsUrl(pub(super) String);

impl std::fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn https_url(text: &str) -> Result<HttpsUrl, String> {
    let host = text.strip_prefix("https://").unwrap_or_default().split(['/', ':']).next().unwrap_or_default();
    host.parse::<Host>().map_err(|_| format!("`{text}` is not a URL with https and a host name"))?;
    Ok(HttpsUrl(text.to_owned()))
}

impl Read for bool {
    fn form() -> String {
        "boolean".to_owned()
    }

    fn example() -> &'static str {
        "`true`, `false`"
    }

    fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self> {
        let Value::Bool(value) = node.value else {
            sink.wrong_kind::<Self>(node, path);
            return None;
        };
        Some(value)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A number from `MIN` to `MAX`.
#[derive(Clone, Copy)]
pub(super) struct Number<const MIN: u32, const MAX: u32>(u32);

/// A TCP or UDP port.
pub(super) type Port = Number<1, 65_535>;

impl<const MIN: u32, const MAX: u32> Number<MIN, MAX> {
    /// A default; `MIN` where it is out of bounds.
    pub(super) const fn new(number: u32) -> Self {
        Self(if number < MIN || number > MAX { MIN } else { number })
    }

    /// For fields of 16 bits; a larger bound saturates.
    pub(super) fn as_u16(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }

    pub(super) fn as_u32(self) -> u32 {
        self.0
    }

    pub(super) fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u32, const MAX: u32> Read for Number<MIN, MAX> {
    fn form() -> String {
        format!("number from {MIN} to {MAX}")
    }

    fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self> {
        let Value::Integer(number) = node.value else {
            sink.wrong_kind::<Self>(node, path);
            return None;
        };
        let inside = u32::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number));
        if inside.is_none() {
            sink.wrong_value::<Self>(path, format!("`{number}` is out of bounds"));
        }
        inside.map(Self)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

impl Read for Duration {
    fn form() -> String {
        "duration".to_owned()
    }

    fn example() -> &'static str {
        "`10s`, `1m30s`, `250ms`, `2h`"
    }

    fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self> {
        from_text(node, path, sink, |text| {
            let value = duration(text).ok_or_else(|| format!("`{text}` is not a duration"))?;
            if value > MAX_DURATION { Err(format!("`{text}` is longer than a year")) } else { Ok(value) }
        })
    }

    fn show(&self) -> String {
        let (seconds, millis) = (self.as_secs(), self.subsec_millis());
        let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"), (u64::from(millis), "ms")];
        let shown: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
        if shown.is_empty() { "0s".to_owned() } else { shown }
    }
}

/// Numbers with units, the largest unit first, each at most once.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let (mut rest, mut total, mut units) = (text, 0u64, UNITS.iter());
    if text.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (_, millis) = units.find(|(unit, _)| *unit == &after[..unit_end])?;
        total = total.checked_add(number.checked_mul(*millis)?)?;
        rest = &after[unit_end..];
    }
    Some(Duration::from_millis(total))
}

/// A duration that is not zero.
#[derive(Clone, Copy)]
pub(super) struct Timeout(pub(super) Duration);

impl Read for Timeout {
    fn form() -> String {
        Duration::form()
    }

    fn example() -> &'static str {
        Duration::example()
    }

    fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self> {
        let duration = Duration::read(node, path, sink)?;
        if duration.is_zero() {
            sink.mistake(Code::SiteValue, path, "`0s` is too short", "write a duration above zero");
            return None;
        }
        Some(Self(duration))
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

/// A number of octets, at least `MIN`.
#[derive(Clone, Copy)]
pub(super) struct Size<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    pub(super) const fn new(octets: u64) -> Self {
        Self(octets)
    }

    pub(super) fn as_u64(self) -> u64 {
        self.0
    }

    pub(super) fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Read for Size<MIN, MAX> {
    fn example() -> &'static str {
        "`32KiB`, `64Ki`, `65536`"
    }

    fn form() -> String {
        format!("size from {} to {}", show_size(MIN), show_size(MAX))
    }

    fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self> {
        let read = |text: &str| {
            let octets = size(text).ok_or_else(|| format!("`{text}` is not a size"))?;
            let inside = (MIN..=MAX).contains(&octets);
            if inside { Ok(Self(octets)) } else { Err(format!("`{text}` is out of bounds")) }
        };
        if let Value::Integer(octets) = node.value {
            let node = Node { at: node.at, value: Value::String(octets.to_string()) };
            return from_text(&node, path, sink, read);
        }
        from_text(node, path, sink, read)
    }

    fn show(&self) -> String {
        show_size(self.0)
    }
}

const SIZE_UNITS: [(&str, u64); 6] =
    [("GiB", 1 << 30), ("Gi", 1 << 30), ("MiB", 1 << 20), ("Mi", 1 << 20), ("KiB", 1 << 10), ("Ki", 1 << 10)];

fn size(text: &str) -> Option<u64> {
    let unit = SIZE_UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, factor) = unit.map_or((text, 1), |(unit, factor)| (&text[..text.len() - unit.len()], *factor));
    number.trim_end().parse::<u64>().ok()?.checked_mul(factor)
}

fn show_size(octets: u64) -> String {
    let unit = SIZE_UNITS.iter().find(|(_, factor)| octets >= *factor && octets.is_multiple_of(*factor));
    unit.map_or_else(|| octets.to_string(), |(unit, factor)| format!("{}{unit}", octets / factor))
}

macro_rules! word_value {
    ($($type:ty: $($word:literal => $value:expr),+;)+) => {$(
        impl Read for $type {
            fn form() -> String {
                one_of(&[$($word),+])
            }

            fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self> {
                read_word(node, path, sink, &[$(($word, $value)),+])
            }

            fn show(&self) -> String {
                let all: &[(&str, Self)] = &[$(($word, $value)),+];
                all.iter().find(|(_, value)| value == self).map(|(word, _)| (*word).to_owned()).unwrap_or_default()
            }
        }
    )+};
}

word_value! {
    ApiVersion: "dualgate.dev/v1alpha1" => Self;
    Kind: "Site" => Self;
    RouterKind: "fritzbox" => Self::Fritzbox, "other" => Self::Other;
    Uplink: "ds-lite" => Self::DsLite, "cgnat" => Self::Cgnat, "dual-stack" => Self::DualStack,
        "ipv4-only" => Self::Ipv4Only, "ipv6-only" => Self::Ipv6Only;
    EntryProtocol: "http" => Self::Http, "https" => Self::Https;
    TraefikAnnotation: "honour" => Self::Honour, "ignore" => Self::Ignore;
    Reading: "specification" => Self::Specification, "traefik" => Self::Traefik;
    Underscores: "reject" => Self::Reject, "drop" => Self::Drop, "keep" => Self::Keep;
    AccessLogFormat: "json" => Self::Json, "common" => Self::Common;
    HomeEnd: "nodes" => Self::Nodes, "router" => Self::Router;
    Challenge: "http-01" => Self::Http01, "tls-alpn-01" => Self::TlsAlpn01, "dns-01" => Self::Dns01;
    Algorithm: "hmac-sha256" => Self::HmacSha256, "hmac-sha384" => Self::HmacSha384, "hmac-sha512" => Self::HmacSha512;
    ProviderType: "rfc2136" => Self::Rfc2136, "webhook" => Self::Webhook, "ionos" => Self::Ionos,
        "cloudflare" => Self::Cloudflare;
    PublishPolicy: "sync" => Self::Sync, "upsert-only" => Self::UpsertOnly;
    RecordView: "home" => Self::Home, "public" => Self::Public, "both" => Self::Both;
    Protocol: "tcp" => Self::Tcp, "udp" => Self::Udp;
}

/// What kind of provider it is.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum ProviderType {
    /// A name server that takes changes.
    Rfc2136,
    /// A webhook of external-dns.
    Webhook,
    /// IONOS.
    Ionos,
    /// Cloudflare.
    Cloudflare,
}

/// `apiVersion`.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct ApiVersion;

/// `kind`.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Kind;

impl Read for Role {
    fn form() -> String {
        let names: Vec<_> = Self::WORDS.iter().map(|(word, _)| *word).collect();
        one_of(&names)
    }

    fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self> {
        read_word(node, path, sink, Self::WORDS)
    }
}

fn one_of(names: &[&str]) -> String {
    let shown = words(names.iter().copied());
    if names.len() == 1 { shown } else { format!("one of {shown}") }
}

fn read_word<T: Read + Copy>(node: &Node, path: &str, sink: &mut Sink, all: &[(&str, T)]) -> Option<T> {
    let Value::String(text) = &node.value else {
        sink.wrong_kind::<T>(node, path);
        return None;
    };
    let found = all.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
    if found.is_none() {
        let help = match nearest(text, all.iter().map(|(word, _)| *word)) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("write {}", T::form()),
        };
        sink.mistake(Code::SiteValue, path, format!("`{text}` is not known here"), help);
    }
    found
}

impl Read for Publish {
    fn form() -> String {
        "one of `home-only`, `edge`, `provider:NAME`".to_owned()
    }

    fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self> {
        from_text(node, path, sink, |text| match (text, text.strip_prefix("provider:")) {
            ("home-only", _) => Ok(Self::HomeOnly),
            ("edge", _) => Ok(Self::Edge),
            (_, Some(name)) if name.parse::<Host>().is_ok() => Ok(Self::Provider(name.to_owned())),
            (_, _) => Err(format!("`{text}` does not say where the zone's public view lives")),
        })
    }

    fn show(&self) -> String {
        match self {
            Self::HomeOnly => "home-only".to_owned(),
            Self::Edge => "edge".to_owned(),
            Self::Provider(name) => format!("provider:{name}"),
        }
    }
}

impl Name for GateName {
    const PLACEHOLDER: &'static str = "<gate>";

    fn parse(text: &str) -> Result<Self, (Code, String, String)> {
        text.parse().map_err(|message| {
            let near = nearest(text, Self::ALL.iter().map(|gate| gate.as_str()));
            (Code::SiteUnknownKey, message, near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default())
        })
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Name for EntryPointName {
    const PLACEHOLDER: &'static str = "<name>";

    fn parse(text: &str) -> Result<Self, (Code, String, String)> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !text.is_empty() && text.len() <= 63 && text.chars().all(allowed) {
            return Ok(Self::new(text));
        }
        let help = "use 1 to 63 letters, digits, `-` and `_`".to_owned();
        Err((Code::SiteValue, format!("`{text}` is not a name of an entry point"), help))
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_kubernetes() {
        let millis = |text| duration(text).map(|duration| duration.as_millis());
        assert_eq!(millis("10s"), Some(10_000));
        assert_eq!(millis("1m30s"), Some(90_000));
        assert_eq!(millis("1h"), Some(3_600_000));
        assert_eq!(millis("250ms"), Some(250));
        for wrong in ["", "10", "s", "1s1m", "1s1s", "-1s", "1.5s", "1 s", "99999999999999999999h", "1d"] {
            assert_eq!(millis(wrong), None, "{wrong}");
        }
        assert_eq!(Duration::from_millis(90_250).show(), "1m30s250ms");
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!((size("32KiB"), size("32Ki"), size("7")), (Some(32 << 10), Some(32 << 10), Some(7)));
        assert_eq!((size("1 MiB"), size("2Gi"), size("1KB"), size("KiB")), (Some(1 << 20), Some(2 << 30), None, None));
        assert_eq!((show_size(32 << 10), show_size(1025)), ("32KiB".to_owned(), "1025".to_owned()));
    }
}
