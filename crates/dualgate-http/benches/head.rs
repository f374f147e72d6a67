//! What a request head costs, next to `httparse` alone on the same bytes: `cargo bench -p dualgate-http`.
//!
//! The steps are interleaved in rounds and the best round counts, so that a busy machine disturbs all of them alike.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use dualgate_http::{CanonicalPath, HeadLimits, RequestHead, parse_authority, write_field, write_request_line};

const BROWSER: &[u8] = b"GET /api/v1/users/42/orders?limit=20&after=abc HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: application/json, text/plain, */*\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Referer: https://shop.example.com/orders\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Sec-Fetch-Mode: cors\r\n\
    Cache-Control: no-cache\r\n\r\n";

const ROUNDS: usize = 20;
const CALLS: u32 = 20_000;

fn main() {
    let limits = HeadLimits::default();
    let mut head = RequestHead::new();
    let mut best = [Duration::MAX; 3];
    for _ in 0..ROUNDS {
        best[0] = best[0].min(time(tokenise));
        best[1] = best[1].min(time(|| _ = black_box(head.parse(black_box(BROWSER), &limits))));
        let (mut path, mut host, mut out) = (Vec::new(), Vec::new(), Vec::new());
        best[2] = best[2].min(time(|| forward(&mut head, &limits, &mut path, &mut host, &mut out)));
    }
    for (step, time) in ["httparse alone", "parse", "parse, canonical path and host, write"].iter().zip(best) {
        let (each, ratio) = (time.as_nanos() / u128::from(CALLS), time.as_secs_f64() / best[0].as_secs_f64());
        println!("{step:40} {ratio:5.2} x  {each:5} ns");
    }
}

fn tokenise() {
    let mut fields = [const { MaybeUninit::uninit() }; 100];
    let mut request = httparse::Request::new(&mut []);
    _ = black_box(request.parse_with_uninit_headers(black_box(BROWSER), &mut fields));
}

fn forward(head: &mut RequestHead, limits: &HeadLimits, path: &mut Vec<u8>, host: &mut Vec<u8>, out: &mut Vec<u8>) {
    host.clear();
    out.clear();
    let buffer = black_box(BROWSER);
    _ = black_box(head.parse(buffer, limits));
    let view = head.view(buffer);
    if let Ok(authority) = parse_authority(view.authority()) {
        authority.normalised_host(host);
    }
    let (raw, _) = dualgate_http::split_query(view.path_and_query());
    if let Ok(path) = CanonicalPath::new(raw, path) {
        write_request_line(view.method(), path.as_bytes(), out);
    }
    for field in view.end_to_end_fields().filter(|field| !field.has_underscore()) {
        write_field(field.name, field.value, out);
    }
    black_box(&out);
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn time(mut call: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    start.elapsed()
}
