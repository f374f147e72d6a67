//! The admin listener: health, metrics and dumps, for this machine only.
//!
//! No gate leads here: planners refuse backends at its address, and requests whose `Host` is a name are refused, so
//! that no web page can reach it through a visitor's browser.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::state::State;

/// How long a request's head may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often an address that cannot be had is tried again: a predecessor may still hold it.
const RETRY: Duration = Duration::from_millis(250);

/// Listens on every address. One that cannot be had is logged and tried again; the gates do not wait for it.
pub fn start(addresses: &[SocketAddr], state: &State) {
    for address in addresses {
        tokio::spawn(listen(*address, state.clone()));
    }
}

async fn listen(address: SocketAddr, state: State) {
    let mut complained = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return accept(listener, state).await,
            Err(error) if !complained => {
                complained = true;
                tracing::warn!(%address, %error, "the admin listener is not open yet; it is tried again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn accept(listener: TcpListener, state: State) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &state);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 * 1024);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "admin connection ended");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    if !is_addressed_by_number(request) {
        return text(StatusCode::FORBIDDEN, "the admin listener answers only when it is asked by its IP address\n");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "alive\n"),
        "/readyz" => match state.not_ready() {
            why if why.is_empty() => text(StatusCode::OK, "ready\n"),
            why => text(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {}\n", why.join("; "))),
        },
        "/metrics" => with_type(StatusCode::OK, "text/plain; version=0.0.4", state.metrics()),
        "/status" => json(&state.report()),
        "/snapshot" => json(&state.dump()),
        "/findings" => json(&state.report().findings),
        "/" => text(StatusCode::OK, "/livez\n/readyz\n/metrics\n/status\n/snapshot\n/findings\n"),
        _ => text(StatusCode::NOT_FOUND, "there is: /livez /readyz /metrics /status /snapshot /findings\n"),
    }
}

/// A browser that was led here by a name of its own (DNS rebinding) says so in `Host`.
fn is_addressed_by_number(request: &Request<Incoming>) -> bool {
    let Some(host) = request.headers().get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    host.parse::<SocketAddr>().is_ok()
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        || host.split(':').next() == Some("localhost")
}

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string_pretty(value) {
        Ok(document) => with_type(StatusCode::OK, "application/json", document + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", body.to_owned())
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}
