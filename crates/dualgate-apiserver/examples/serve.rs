//! Serves an empty cluster until its standard input ends, and prints a kubeconfig: `kubectl --kubeconfig FILE get all`.

use std::io;
use std::net::TcpListener;

use dualgate_apiserver::{ApiServer, Options};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let server = ApiServer::start(vec![TcpListener::bind(address)?], Options::default())?;
    print!("{}", server.kubeconfig());
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
