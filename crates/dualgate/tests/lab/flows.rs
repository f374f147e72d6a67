//! Both ways to an application, over both families, and what it is told of its client.

use std::path::Path;

use dualgate_lab::trial::Trial;

use crate::site::{get, ip, seed};

pub const TRIALS: &[Trial] =
    &[("the_seeds_application_answers_at_home_and_from_the_internet_and_knows_its_client", both_flows)];

const HOST: &str = "grafana.yourdomain.com";

fn both_flows(directory: &Path) {
    let lab = seed(directory);
    for (from, gate, client) in [
        ("lan-client", "192.168.178.10", "192.168.178.50"),
        ("lan-client", "fda8:a1db:5685::10", "fda8:a1db:5685:0:d6:ff:fe00:11"),
        ("internet-client", "203.0.113.10", "198.51.100.7"),
        ("internet-client", "2001:db8:1::10", "2001:db8:7::7"),
    ] {
        let answer = get(&lab, from, gate, HOST);
        assert_eq!(answer.status, 200, "{from} -> {gate}: {}", answer.text());
        let echo = answer.echo().unwrap_or_else(|| panic!("no pod answered: {}", answer.text()));
        assert!(echo.pod.starts_with("grafana-"), "{echo:?}");
        let told = echo.client_address().expect("the pod is told who its client is");
        assert_eq!((told, answer.local.ip()), (ip(client), ip(client)), "{from} -> {gate}");
    }
}
