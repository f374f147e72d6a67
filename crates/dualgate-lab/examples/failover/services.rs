//! A Service of type LoadBalancer: from its manifest to an answer, and from its end to silence.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dualgate_lab::capture::{Capture, Frame};
use dualgate_lab::probe::{Request, get};

use crate::measure::{ask, pass, wait};
use crate::subject::{Failure, Ours, Subject as _};
use crate::table::Results;

const ADDRESSES: [&str; 2] = ["192.168.178.11", "fda8:a1db:5685::11"];
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: direct, namespace: apps}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: whoami}
  ports: [{name: http, port: 8080, targetPort: http}]
";
/// Nobody answers any more when so long nobody has.
const SILENCE: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(10);

/// Creates and deletes it as often as wanted.
pub fn measure(ours: &Ours, manifests: &Path, runs: u32, results: &mut Results) -> Result<(), Failure> {
    let mut addresses = Vec::new();
    for address in ADDRESSES {
        addresses.push(address.parse::<IpAddr>()?);
    }
    let client = ours.host("lan-client").ok_or("the LAN's client is off")?;
    let capture = Capture::start(&*ours.host("lan").ok_or("the LAN's switch is off")?)?;
    let stop = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = addresses
        .iter()
        .map(|address| {
            let (client, stop, address) = (client.clone(), stop.clone(), *address);
            std::thread::spawn(move || ask(&client, address, &stop, &AtomicU64::new(0)))
        })
        .collect();
    let file = manifests.join("direct.yaml");
    let mut once = || -> Result<(), Failure> {
        capture.take();
        let created = Instant::now();
        std::fs::write(&file, SERVICE)?;
        for (family, address) in ["IPv4", "IPv6"].into_iter().zip(&addresses) {
            let claims = |frame: &Frame| frame.claim().is_some_and(|(claimed, ..)| claimed == *address);
            let first = capture.wait(LIMIT, claims).ok_or("nobody answers for the Service")?;
            results.service("created -> answers for its address", family, first.at - created);
            let request = Request::new(SocketAddr::new(*address, 8080), "direct");
            wait("a pod answers", LIMIT, || get(&client, &request, Duration::from_secs(1)).is_ok())?;
            results.service("created -> a pod has answered", family, created.elapsed());
        }
        pass(Duration::from_millis(200));
        let deleted = Instant::now();
        capture.take();
        std::fs::remove_file(&file)?;
        let mut last = [deleted; 2];
        wait("nobody answers any more", LIMIT, || {
            for frame in capture.take() {
                let claimed = frame.claim().map(|(address, ..)| address);
                let family = addresses.iter().position(|address| Some(*address) == claimed);
                family.into_iter().for_each(|family| last[family] = frame.at);
            }
            last.iter().all(|at| at.elapsed() > SILENCE)
        })?;
        results.service("deleted -> its last answer", "IPv4", last[0] - deleted);
        results.service("deleted -> its last answer", "IPv6", last[1] - deleted);
        Ok(())
    };
    let outcome = (1..=runs).try_for_each(|run| {
        eprintln!("Service {run} of {runs}");
        once()
    });
    stop.store(true, Ordering::Relaxed);
    askers.into_iter().for_each(|asker| drop(asker.join()));
    outcome
}
