//! Whole sites, end to end: each trial builds one in namespaces of its own, with a real `dualgate run` on every node.

mod acceptance;
mod bundle;
mod confirm;
mod dns;
mod failures;
mod firewall;
mod flows;
mod kubernetes;
mod migration;
mod site;
mod told;
mod topologies;
mod tunnel;
mod virtual_ips;

use std::process::ExitCode;

use dualgate_lab::trial;

fn main() -> ExitCode {
    trial::main(
        "lab",
        &[
            flows::TRIALS,
            failures::TRIALS,
            confirm::TRIALS,
            dns::TRIALS,
            topologies::TRIALS,
            firewall::TRIALS,
            told::TRIALS,
            tunnel::TRIALS,
            bundle::TRIALS,
            virtual_ips::TRIALS,
            acceptance::TRIALS,
            kubernetes::TRIALS,
            migration::TRIALS,
        ]
        .concat(),
    )
}
