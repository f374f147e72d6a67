//! One kind's way from the API server into its store: the reflector says what is to be asked, this asks it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dualgate_core::model::Interner;
use http::header::{ACCEPT, RETRY_AFTER};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;

use super::json::Splitter;
use super::kind::Kind;
use super::reflector::{Ask, Failure, Listed, Reflector, Refusal, Why};
use super::store::{Change, Page, Store, Told};
use crate::access::{innermost, one_line};

/// How many pieces are taken in one go: other kinds, and whoever shares the thread, get their turn.
const PIECES: usize = 16;

/// How much is read of an answer that is none, in octets.
const MAX_EXPLANATION: usize = 64 << 10;

/// One kind's way.
pub(super) struct Feed {
    pub(super) kind: Kind,
    pub(super) reflector: Reflector,
    pub(super) store: Store,
    /// When something last happened to an object.
    pub(super) newest: Option<Instant>,
    open: Open,
}

enum Open {
    Nothing,
    Asked(Pin<Box<dyn Future<Output = Result<Body, Failure>> + Send>>, Form),
    Answering(Body, Splitter, Form),
}

#[derive(Clone, Copy)]
enum Form {
    List,
    Watch,
}

/// What a turn came to.
pub(super) struct Turn {
    pub change: Change,
    /// Whether more is there already.
    pub more: bool,
}

impl Feed {
    pub(super) fn new(kind: Kind, seed: u64, now: Instant) -> Self {
        let (reflector, store) = (Reflector::new(seed, now), Store::new(kind));
        Self { kind, reflector, store, newest: None, open: Open::Nothing }
    }

    /// Goes as far as it can without waiting, or until it had its share.
    pub(super) fn turn(&mut self, client: &Client, texts: &mut Interner, context: &mut Context<'_>) -> Turn {
        let mut turn = Turn { change: Change::Nothing, more: true };
        for _ in 0..PIECES {
            let now = Instant::now();
            if self.reflector.poll_timeout() <= now {
                self.reflector.handle_timeout(now);
                self.open = Open::Nothing;
            }
            if let Some(ask) = self.reflector.poll_ask(now) {
                self.open = self.ask(client, &ask);
            }
            let Poll::Ready(change) = self.step(texts, context) else {
                turn.more = false;
                break;
            };
            if change == Change::Something {
                turn.change = Change::Something;
            }
        }
        turn
    }

    fn ask(&mut self, client: &Client, ask: &Ask) -> Open {
        let form = match ask {
            Ask::Page { after: None } => {
                self.store.begin();
                Form::List
            }
            Ask::Page { after: Some(_) } => Form::List,
            Ask::Watch { .. } => Form::Watch,
        };
        tracing::debug!(kind = self.kind.name(), ?ask, "asking the API server");
        Open::Asked(Box::pin(send(client.clone(), self.kind.target(ask))), form)
    }

    /// Waits for nothing else than what is open.
    fn step(&mut self, texts: &mut Interner, context: &mut Context<'_>) -> Poll<Change> {
        match &mut self.open {
            Open::Nothing => Poll::Pending,
            Open::Asked(answer, form) => {
                let (answer, form) = (std::task::ready!(answer.as_mut().poll(context)), *form);
                match answer {
                    Ok(body) => {
                        self.reflector.handle_head(Instant::now());
                        let splitter = match form {
                            Form::List => Splitter::list(),
                            Form::Watch => Splitter::stream(),
                        };
                        self.open = Open::Answering(body, splitter, form);
                    }
                    Err(failure) => self.fail(failure),
                }
                Poll::Ready(Change::Nothing)
            }
            Open::Answering(body, ..) => match std::task::ready!(Pin::new(&mut body.frame()).poll(context)) {
                Some(Ok(frame)) => Poll::Ready(match frame.into_data() {
                    Ok(octets) => self.take(&octets, texts),
                    Err(_trailers) => Change::Nothing,
                }),
                Some(Err(error)) => {
                    self.fail(Failure::new(Why::Cut, innermost(&error)));
                    Poll::Ready(Change::Nothing)
                }
                None => Poll::Ready(self.end()),
            },
        }
    }

    /// A piece of an answer.
    fn take(&mut self, octets: &[u8], texts: &mut Interner) -> Change {
        let now = Instant::now();
        let Self { kind: _, reflector, store, newest, open: Open::Answering(_, splitter, form) } = self else {
            return Change::Nothing;
        };
        let (mut change, mut wrong) = (Change::Nothing, None);
        reflector.handle_octets(now);
        let fed = splitter.feed(octets, |object| {
            if wrong.is_some() {
                return;
            }
            match form {
                Form::List => wrong = store.stage(object, texts).err().map(|nonsense| failure(&nonsense)),
                Form::Watch => match store.told(object, texts) {
                    Ok(Told::Event(now_other, version)) => {
                        reflector.handle_event(version);
                        *newest = Some(now);
                        if now_other == Change::Something {
                            change = Change::Something;
                        }
                    }
                    Ok(Told::Bookmark(version)) => reflector.handle_bookmark(version, now),
                    Ok(Told::Error { status, text }) => wrong = Some(answered(status, text, None)),
                    Err(nonsense) => wrong = Some(failure(&nonsense)),
                },
            }
        });
        if let Some(failure) = wrong.or(fed.err().map(|broken| failure(&broken))) {
            self.fail(failure);
        }
        change
    }

    /// An answer is over.
    fn end(&mut self) -> Change {
        let now = Instant::now();
        let (splitter, form) = match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Answering(_, splitter, form) => (splitter, form),
            Open::Nothing | Open::Asked(..) => return Change::Nothing,
        };
        let rest = match (splitter.finish(), form) {
            (Ok(rest), _) => rest,
            (Err(broken), _) => {
                self.fail(Failure::new(Why::Cut, broken.to_string()));
                return Change::Nothing;
            }
        };
        match form {
            Form::Watch => {
                self.reflector.handle_end(now);
                Change::Nothing
            }
            Form::List => match Page::parse(&rest) {
                Ok(page) => match self.reflector.handle_page(page.metadata.version, page.metadata.next, now) {
                    Listed::More => Change::Nothing,
                    Listed::All => self.store.commit(),
                },
                Err(nonsense) => {
                    self.fail(failure(&nonsense));
                    Change::Nothing
                }
            },
        }
    }

    fn fail(&mut self, failure: Failure) {
        tracing::debug!(kind = self.kind.name(), why = ?failure.why, text = failure.text, "the API server failed");
        self.open = Open::Nothing;
        self.reflector.handle_failure(failure, Instant::now());
    }
}

/// The body of a good answer.
async fn send(client: Client, target: String) -> Result<Body, Failure> {
    let request = Request::get(target).header(ACCEPT, "application/json").body(Body::empty());
    let request = request.map_err(|error| Failure::new(Why::Wrong, error.to_string()))?;
    let response = client.send(request).await.map_err(|error| {
        let why = if is_connect(&error) { Why::Unreachable } else { Why::Cut };
        Failure::new(why, innermost(&error))
    })?;
    let (head, body) = response.into_parts();
    if head.status == StatusCode::OK {
        return Ok(body);
    }
    let status = head.status.as_u16();
    Err(answered(status, explanation(status, body).await, retry_after(&head.headers)))
}

/// What the server says of its refusal, else the status.
async fn explanation(status: u16, mut body: Body) -> String {
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if read.len() > MAX_EXPLANATION {
            break;
        }
    }
    let said: Option<serde_json::Value> = serde_json::from_slice(&read).ok();
    let message = said.as_ref().and_then(|said| said["message"].as_str()).filter(|message| !message.is_empty());
    message.map_or_else(|| format!("it answers with the status {status}"), one_line)
}

fn answered(status: u16, text: String, retry_after: Option<Duration>) -> Failure {
    let why = match status {
        410 => Why::Gone,
        401 => Why::Refused(Refusal::Unknown),
        403 => Why::Refused(Refusal::Forbidden),
        404 => Why::Refused(Refusal::Absent),
        429 | 500..=599 => Why::Busy,
        _ => Why::Wrong,
    };
    Failure { why, text, retry_after }
}

fn failure(error: &dyn std::error::Error) -> Failure {
    Failure::new(Why::Wrong, error.to_string())
}

/// In seconds; a date is left out, as API servers do not send one.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Whether there was no connection to ask on.
fn is_connect(error: &kube::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect()) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_their_status() {
        for (status, why) in [
            (400, Why::Wrong),
            (401, Why::Refused(Refusal::Unknown)),
            (403, Why::Refused(Refusal::Forbidden)),
            (404, Why::Refused(Refusal::Absent)),
            (410, Why::Gone),
            (429, Why::Busy),
            (500, Why::Busy),
            (504, Why::Busy),
            (302, Why::Wrong),
        ] {
            assert_eq!(answered(status, String::new(), None).why, why, "{status}");
        }
    }

    #[test]
    fn the_server_says_in_seconds_when_to_come_back() {
        for (text, expected) in [("7", Some(7)), (" 1 ", Some(1)), ("soon", None), ("-1", None)] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{text}");
        }
    }
}
