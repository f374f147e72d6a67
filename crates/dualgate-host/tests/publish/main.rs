//! Providers with an API over HTTP: exchanges as their documentation has them, and a webhook of external-dns.

mod apis;
mod server;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::model::site::{Provider, ProviderAccess, PublishPolicy};
use dualgate_core::plan::publish::{Publication, Set, SetKey, Wanted};
use dualgate_host::publish::{Failure, Synced, open, sync};
use dualgate_wire::dns::{Rdata, RecordType};

/// A zone of which these are wanted: `NAME TTL TYPE DATA`.
fn publication(access: ProviderAccess, wanted: &[&str]) -> Publication {
    let one = |line: &&str| {
        let [name, ttl, rtype, data] = line.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let rtype: RecordType = rtype.parse().unwrap();
        let set = Set { ttl: ttl.parse().unwrap(), data: [Rdata::parse(rtype, data).unwrap()].into() };
        (SetKey::new(name.parse().unwrap(), rtype), Wanted { set, from: "ingress/apps/app".into() })
    };
    let provider = Provider { access, zone: None, policy: PublishPolicy::Sync, interval: Duration::from_secs(300) };
    Publication {
        zone: "example.org".parse().unwrap(),
        at: "example.org".parse().unwrap(),
        name: "provider".into(),
        provider: Arc::new(provider),
        owner: "home".into(),
        takes_over: false,
        policy: PublishPolicy::Sync,
        wanted: Arc::new(wanted.iter().map(one).collect::<BTreeMap<_, _>>()),
        except: Vec::new(),
    }
}

fn synced(publication: &Publication) -> Result<Synced, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { sync(&open(publication)?, publication).await })
}

fn made(synced: &Synced) -> Vec<String> {
    synced.made.iter().map(|(kind, key)| format!("{} {key}", kind.as_str())).collect()
}
