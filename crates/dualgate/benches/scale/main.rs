//! What a large cluster costs: `cargo bench -p dualgate --bench scale --profile dist` (docs/scale.md).
//!
//! `--source cluster` and `--source folder` run the program itself in a process of its own and look at it from outside;
//! `--source memory` runs its pipeline in this process, and says where the time goes. As a part of `cargo test` it is small.

mod live;
mod objects;
mod pipeline;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use dualgate_core::model::Site;
use dualgate_core::parse;

use live::Kind;
use objects::{KeyPair, Size};
use support::Reservation;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let pairs = [key_pair()?, key_pair()?];
    // `cargo bench` says so; `cargo test` asks for something else, or for nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        let size = Size { ingresses: 40, endpoints: 80, paths: 3, certificates: 4, changes: 2 };
        return [Source::Memory, Source::Live(Kind::Cluster), Source::Live(Kind::Folder)]
            .into_iter()
            .try_for_each(|source| measure(source, size, &pairs));
    }
    let (size, sources) = arguments()?;
    sources.into_iter().try_for_each(|source| measure(source, size, &pairs))
}

/// What is measured.
#[derive(Clone, Copy)]
enum Source {
    /// The pipeline in this process.
    Memory,
    /// The program.
    Live(Kind),
}

fn measure(source: Source, size: Size, pairs: &[KeyPair; 2]) -> anyhow::Result<()> {
    let what = match source {
        Source::Memory => "memory",
        Source::Live(Kind::Cluster) => "cluster",
        Source::Live(Kind::Folder) => "folder",
    };
    println!(
        "\n{what}: {} Ingresses with {} paths, {} endpoints, {} certificates",
        size.ingresses, size.paths, size.endpoints, size.certificates
    );
    match source {
        Source::Memory => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(pipeline::run(size, pairs))
        }
        Source::Live(kind) => live::run(kind, size, pairs),
    }
}

fn arguments() -> anyhow::Result<(Size, Vec<Source>)> {
    let mut sources = vec![Source::Memory, Source::Live(Kind::Cluster), Source::Live(Kind::Folder)];
    let mut size = Size { ingresses: 10_000, endpoints: 20_000, paths: 3, certificates: 100, changes: 20 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let place = match argument.as_str() {
            "--bench" => continue,
            "--source" => {
                sources = match arguments.next().as_deref() {
                    Some("memory") => vec![Source::Memory],
                    Some("cluster") => vec![Source::Live(Kind::Cluster)],
                    Some("folder") => vec![Source::Live(Kind::Folder)],
                    _ => bail!("--source is `memory`, `cluster` or `folder`"),
                };
                continue;
            }
            "--ingresses" => &mut size.ingresses,
            "--endpoints" => &mut size.endpoints,
            "--paths" => &mut size.paths,
            "--certificates" => &mut size.certificates,
            "--changes" => &mut size.changes,
            other => {
                bail!("`{other}` is none of --source, --ingresses, --endpoints, --paths, --certificates, --changes")
            }
        };
        *place = arguments.next().and_then(|n| n.parse().ok()).with_context(|| format!("{argument} needs a number"))?;
    }
    if !size.changes.is_multiple_of(2) {
        bail!("each second change undoes the one before, so --changes needs an even number");
    }
    if size.ingresses < 2 || size.certificates == 0 || size.paths < 2 {
        bail!("there must be two Ingresses, a certificate and two paths");
    }
    Ok((size, sources))
}

fn key_pair() -> anyhow::Result<KeyPair> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["*.example.org".to_owned()])?.self_signed(&key)?;
    let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
    let (chain, key) = (encode(certificate.pem()), encode(key.serialize_pem()));
    Ok(KeyPair { chain, key, der: certificate.der().to_vec() })
}

/// A home with one node, whose address is written to every Ingress; no other machine need have it here.
fn site_text(web: &Reservation, websecure: &Reservation, admin: &Reservation) -> String {
    format!(
        "apiVersion: dualgate.dev/v1alpha1
kind: Site
name: scale
nodes:
  - {{ name: home1, addresses: [192.168.178.5], roles: [internal-gate] }}
gates:
  internal:
    addresses: [0.0.0.0]
    entryPoints:
      web: {}
      websecure: {{ port: {}, protocol: https }}
admin: {{ listen: ['{}'] }}
ingressClasses: [{{ name: dualgate, controller: dualgate.dev/ingress-controller }}]
",
        web.address.port(),
        websecure.address.port(),
        admin.address,
    )
}

fn site(text: &str) -> anyhow::Result<Site> {
    let (site, findings) = parse::site::site("site.yaml", text);
    site.with_context(|| format!("the site: {findings:?}"))
}

/// Whose turn it is: each application's twice in a row, so that what goes comes back. The last one stays.
fn which(turn: usize, size: Size) -> usize {
    turn / 2 * 7919 % (size.ingresses - 1)
}

/// Median and 99th percentile, in milliseconds.
fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let at =
        |part: usize| milliseconds(times.get(times.len().saturating_sub(1) * part / 100).copied().unwrap_or_default());
    format!("median {:.2} ms, p99 {:.2} ms", at(50), at(99))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Resident memory now and at most, in millions of octets: what is the process's own (`container_memory_rss` of a pod), and pages
/// of the program's file, which the system can let go of.
fn memory(status: &str) -> String {
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() * 1024.0 / 1e6
    };
    let (now, peak, own, file) = (field("VmRSS:"), field("VmHWM:"), field("RssAnon:"), field("RssFile:"));
    format!("RSS {now:.1} MB ({own:.1} its own, {file:.1} of the program's file), peak {peak:.1} MB")
}
