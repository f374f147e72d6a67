//! The API by itself, over TLS and with rights, for `kubectl` and for tests that ask for a `KUBECONFIG`:
//!
//! ```sh
//! sleep 600 | cargo run -p dualgate-apiserver --example serve -- /tmp/kubeconfig &
//! KUBECONFIG=/tmp/kubeconfig cargo test -p dualgate-kube
//! ```
//!
//! It writes the kubeconfig of an admin, listens on loopback, and ends with its standard input.

use std::io::Read as _;
use std::net::TcpListener;

use dualgate_apiserver::{ApiServer, Authorization, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("name the file for the kubeconfig")?;
    let certificate_for = vec!["127.0.0.1".to_owned()];
    let options = Options { authorization: Authorization::Rbac, certificate_for, ..Options::default() };
    let server = ApiServer::start(vec![TcpListener::bind("127.0.0.1:0")?], options)?;
    std::fs::write(&file, server.kubeconfig())?;
    println!("{} until the end of the standard input; KUBECONFIG={file}", server.url());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
