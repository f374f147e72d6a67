//! One request from its head to its answer.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Method, Request as HttpRequest};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::access::{self, APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH};
use super::answer::{self, Answer};
use super::path::{Endpoint, Place};
use super::query::Query;
use super::{discovery, watch};
use crate::api::{Api, Caller, Effect, How, OnConflict, Part, Patch, Preconditions, Target, Written};
use crate::failure::Failure;
use crate::requests::{Request, Verb};
use crate::rights::{self, Attributes};
use crate::server::Authorization;
use crate::shared::Shared;
use crate::time::Timestamp;
use crate::users::User;

/// The largest body, as etcd and the API server have it.
const MAX_BODY: usize = 3 << 20;

/// A request as it came.
struct Asked {
    method: Method,
    path: String,
    query: Query,
    headers: HeaderMap,
    body: Bytes,
    /// Who asks, where that counts.
    user: Option<User>,
}

impl Asked {
    /// Refuses what this user may not do.
    fn may(&self, api: &Api, verb: &str, target: &Target) -> Result<(), Failure> {
        match &self.user {
            None => Ok(()),
            Some(user) => rights::check(api, user, &Attributes::new(verb, target)),
        }
    }

    /// Refuses to make an object by writing what is not there. An API server has fewer words for that.
    fn may_create(&self, api: &Api, target: &Target) -> Result<(), Failure> {
        self.may(api, "create", target).map_err(|_| Failure::forbidden(&target.kind, &target.name, ""))
    }

    /// Refuses a user who may not even know that there is nothing.
    fn may_look(&self, api: &Api, endpoint: &Endpoint) -> Result<(), Failure> {
        let Some(user) = &self.user else { return Ok(()) };
        match endpoint {
            // Each of them asks for itself, and everybody may ask what they may do.
            Endpoint::Collection(_) | Endpoint::Object(_) | Endpoint::AccessReview => Ok(()),
            Endpoint::NoSuchKind(place) | Endpoint::Token(place) => rights::check(api, user, &self.attributes(place)),
            Endpoint::Health
            | Endpoint::Version
            | Endpoint::OpenApi
            | Endpoint::CoreVersions
            | Endpoint::Groups
            | Endpoint::Group(_)
            | Endpoint::Resources { .. }
            | Endpoint::Nowhere => rights::check_path(api, user, self.method.as_str(), &self.path),
        }
    }

    fn attributes(&self, place: &Place) -> Attributes {
        let Place { group, resource, namespace, name } = place.clone();
        let verb = match self.method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            _ if !name.is_empty() => "get",
            _ if self.query.is_set("watch") => "watch",
            _ => "list",
        };
        Attributes { verb: verb.to_owned(), group, resource, namespace, name }
    }
}

/// Answers a request, after the faults that are in its way, and remembers it.
pub(crate) async fn handle(shared: Arc<Shared>, certified: Option<User>, request: HttpRequest<Incoming>) -> Answer {
    let mut seen = Request::unanswered(&request);
    let answer = answer(&shared, certified, request, &mut seen).await;
    let answer = answer.unwrap_or_else(|failure| answer::failure(&failure));
    seen.code = answer.status().as_u16();
    tracing::debug!(verb = ?seen.verb, path = seen.path, code = seen.code, "answered");
    shared.requests.push(seen);
    answer
}

async fn answer(
    shared: &Arc<Shared>,
    certified: Option<User>,
    request: HttpRequest<Incoming>,
    seen: &mut Request,
) -> Result<Answer, Failure> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Failure::too_large(MAX_BODY))?.to_bytes();
    let query = Query::parse(head.uri.query().unwrap_or_default())?;
    let path = head.uri.path().to_owned();
    let mut asked = Asked { method: head.method, path, query, headers: head.headers, body, user: None };
    let endpoint = shared.look(|api| Endpoint::find(&api.kinds, &asked.path));
    seen.verb = verb(&asked, &endpoint);
    if let Endpoint::Collection(target) | Endpoint::Object(target) = &endpoint {
        seen.is_about(target);
    }
    shared.faults.delay(seen.verb, shared.options.latency).await;
    if let Some(failure) = shared.faults.next_answer(seen.verb, &seen.path) {
        return Err(failure);
    }
    if shared.options.authorization == Authorization::Rbac {
        let token = access::token(&asked.headers).map(|token| shared.users.of_token(token));
        // Who shows a token means it, whatever else was shown.
        let user = token.unwrap_or(certified).ok_or_else(Failure::unauthorized)?;
        seen.user.clone_from(&user.name);
        asked.user = Some(user);
    }
    shared.look(|api| asked.may_look(api, &endpoint))?;
    match endpoint {
        Endpoint::Collection(place) => collection(shared, &asked, &place, seen.verb),
        Endpoint::Object(target) => object(shared, &asked, &target),
        Endpoint::Token(account) => token(shared, &asked, &account),
        Endpoint::NoSuchKind(_) | Endpoint::Nowhere => Err(Failure::no_such_path()),
        endpoint => about_the_server(shared, &asked, endpoint),
    }
}

fn verb(asked: &Asked, endpoint: &Endpoint) -> Verb {
    let is_collection = matches!(endpoint, Endpoint::Collection(_));
    match asked.method {
        Method::GET if is_collection && asked.query.is_set("watch") => Verb::Watch,
        Method::GET if is_collection => Verb::List,
        Method::GET => Verb::Get,
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH if access::content_type(&asked.headers) == APPLY_PATCH => Verb::Apply,
        Method::PATCH => Verb::Patch,
        Method::DELETE if is_collection => Verb::DeleteCollection,
        Method::DELETE => Verb::Delete,
        _ => Verb::Other,
    }
}

fn about_the_server(shared: &Shared, asked: &Asked, endpoint: Endpoint) -> Result<Answer, Failure> {
    if matches!(endpoint, Endpoint::AccessReview) {
        return access_review(shared, asked);
    }
    if asked.method != Method::GET {
        return Err(Failure::method_not_allowed());
    }
    let found = shared.look(|api| match &endpoint {
        Endpoint::Version => Some(discovery::version()),
        Endpoint::CoreVersions => Some(discovery::core_versions()),
        Endpoint::Groups => Some(discovery::groups(&api.kinds)),
        Endpoint::Group(name) => discovery::group(&api.kinds, name),
        Endpoint::Resources { group, version } => discovery::resources(&api.kinds, group, version),
        Endpoint::OpenApi => Some(discovery::open_api()),
        Endpoint::Health
        | Endpoint::AccessReview
        | Endpoint::Token(_)
        | Endpoint::Collection(_)
        | Endpoint::Object(_)
        | Endpoint::NoSuchKind(_)
        | Endpoint::Nowhere => None,
    });
    match endpoint {
        Endpoint::Health => Ok(answer::with_type(200, "text/plain; charset=utf-8", "ok")),
        Endpoint::OpenApi if access::accepts(&asked.headers, "protobuf").is_some() => {
            let content_type = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
            Ok(answer::with_type(200, content_type, discovery::open_api_protobuf()))
        }
        _ => found.map(|found| answer::value(200, &found)).ok_or_else(Failure::no_such_path),
    }
}

/// Hands out a token of a ServiceAccount.
fn token(shared: &Shared, asked: &Asked, account: &Place) -> Result<Answer, Failure> {
    if asked.method != Method::POST {
        return Err(Failure::method_not_allowed());
    }
    let request = access::body(&asked.headers, &asked.body)?;
    let (namespace, name) = (account.namespace.clone(), account.name.clone());
    shared.look(|api| {
        let kind = api.kinds.by_path("", "v1", "serviceaccounts").ok_or_else(Failure::no_such_path)?;
        api.find(&Target { kind: kind.clone(), namespace, name, part: Part::Main }).map(drop)
    })?;
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    if seconds < 600 {
        return Err(Failure::bad_request("spec.expirationSeconds: may not specify a duration less than 10 minutes"));
    }
    let expires = now().after(seconds);
    let token = shared.users.hand_out(User::service_account(&account.namespace, &account.name));
    let review = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": account.name, "namespace": account.namespace},
        "spec": {"expirationSeconds": seconds},
        "status": {"token": token, "expirationTimestamp": expires.to_string()},
    });
    Ok(answer::value(201, &review))
}

/// Tells somebody whether they may do something.
fn access_review(shared: &Shared, asked: &Asked) -> Result<Answer, Failure> {
    if asked.method != Method::POST {
        return Err(Failure::method_not_allowed());
    }
    let spec = access::body(&asked.headers, &asked.body).map(|review| review["spec"].clone()).unwrap_or_default();
    let word = |field: &str| spec["resourceAttributes"][field].as_str().unwrap_or_default().to_owned();
    let resource = match word("subresource") {
        part if part.is_empty() => word("resource"),
        part => format!("{}/{part}", word("resource")),
    };
    let (verb, group, namespace, name) = (word("verb"), word("group"), word("namespace"), word("name"));
    let wanted = Attributes { verb, group, resource, namespace, name };
    let allowed = asked.user.as_ref().is_none_or(|user| shared.look(|api| rights::may(api, user, &wanted)));
    let review = json!({
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": spec,
        "status": {"allowed": allowed},
    });
    Ok(answer::value(201, &review))
}

fn collection(shared: &Arc<Shared>, asked: &Asked, place: &Target, verb: Verb) -> Result<Answer, Failure> {
    let form = access::form(&asked.headers);
    let right = match verb {
        Verb::Watch => "watch",
        Verb::Create => "create",
        Verb::DeleteCollection => "deletecollection",
        _ => "list",
    };
    // A list or a watch of one object is about that object; what is created or deleted this way has no name.
    let name = if matches!(verb, Verb::List | Verb::Watch) { asked.query.name(&place.kind) } else { String::new() };
    shared.look(|api| asked.may(api, right, &Target { name, ..place.clone() }))?;
    match verb {
        Verb::Watch => watch::start(shared, place, &asked.query, form),
        Verb::List => {
            let options = asked.query.list(&place.kind)?;
            let list = shared.look(|api| api.list(place, &options))?;
            Ok(answer::json(200, answer::list(&place.kind, &list, form)))
        }
        Verb::Create => {
            if place.kind.is_namespaced() && place.namespace.is_empty() {
                return Err(Failure::method_not_allowed());
            }
            let (object, caller) = (access::body(&asked.headers, &asked.body)?, caller(asked)?);
            let written = shared.change(|api| api.create(place, object, &caller))?;
            Ok(written_answer(place, &written))
        }
        Verb::DeleteCollection => {
            let (selector, caller) = (asked.query.selector(&place.kind)?, caller(asked)?);
            let items = shared.change(|api| api.delete_all(place, &selector, &caller))?;
            let version = shared.look(|api| api.store.version());
            let list = crate::api::List { items, version, resume: None, remaining: None };
            Ok(answer::json(200, answer::list(&place.kind, &list, form)))
        }
        Verb::Get | Verb::Update | Verb::Patch | Verb::Apply | Verb::Delete | Verb::Other => {
            Err(Failure::method_not_allowed())
        }
    }
}

fn object(shared: &Arc<Shared>, asked: &Asked, target: &Target) -> Result<Answer, Failure> {
    let form = access::form(&asked.headers);
    let right = match asked.method {
        Method::GET if asked.query.is_set("watch") => "watch",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    shared.look(|api| {
        asked.may(api, right, target)?;
        // Other patches of what is not there change nothing, and a status is never the first of its object.
        let may_create = match right {
            "update" => target.kind.update_may_create(),
            "patch" => access::content_type(&asked.headers) == APPLY_PATCH,
            _ => false,
        };
        let creates = may_create && target.part == Part::Main && api.find(target).is_err();
        if creates { asked.may_create(api, target) } else { Ok(()) }
    })?;
    match asked.method {
        Method::GET if asked.query.is_set("watch") => watch::start(shared, target, &asked.query, form),
        Method::GET => {
            let entry = shared.look(|api| api.find(target))?;
            Ok(answer::json(200, answer::object(&target.kind, &entry, form)))
        }
        Method::PUT => {
            let (object, caller) = (access::body(&asked.headers, &asked.body)?, caller(asked)?);
            let written = shared.change(|api| api.replace(target, object, &caller))?;
            Ok(written_answer(target, &written))
        }
        Method::PATCH => {
            let (patch, caller) = (patch(asked)?, caller(asked)?);
            let written = shared.change(|api| api.patch(target, patch, &caller))?;
            Ok(written_answer(target, &written))
        }
        Method::DELETE if target.part == Part::Main => {
            let options = access::options(&asked.headers, &asked.body)?;
            let mut caller = caller(asked)?;
            if options["dryRun"] == json!(["All"]) {
                caller.effect = Effect::DryRun;
            }
            let preconditions = Preconditions::from_options(&options);
            let deleted = shared.change(|api| api.delete(target, &preconditions, &caller))?;
            Ok(answer::deleted(&target.kind, &target.name, &deleted))
        }
        _ => Err(Failure::method_not_allowed()),
    }
}

fn patch(asked: &Asked) -> Result<Patch, Failure> {
    let on_conflict = if asked.query.is_set("force") { OnConflict::TakeOver } else { OnConflict::Refuse };
    let content_type = access::content_type(&asked.headers);
    let as_patch: fn(serde_json::Value, OnConflict) -> Patch = match content_type {
        JSON_PATCH => |value, _| Patch::Json(value),
        MERGE_PATCH => |value, _| Patch::Merge(value),
        STRATEGIC_PATCH => |value, _| Patch::Strategic(value),
        APPLY_PATCH => Patch::Apply,
        other => {
            let supported = [JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH];
            return Err(Failure::unsupported_media_type(other, &supported));
        }
    };
    if content_type == APPLY_PATCH {
        asked.query.applier()?;
    }
    Ok(as_patch(access::json(&asked.body)?, on_conflict))
}

fn caller(asked: &Asked) -> Result<Caller, Failure> {
    let program = access::user_agent(&asked.headers).split('/').next().unwrap_or_default();
    let named = Some(asked.query.text("fieldManager")).filter(|manager| !manager.is_empty());
    let manager = named.or(Some(program).filter(|program| !program.is_empty())).unwrap_or("unknown").to_owned();
    Ok(Caller { manager, now: now(), effect: asked.query.effect()? })
}

fn written_answer(target: &Target, written: &Written) -> Answer {
    let code = match written.how {
        How::Created => 201,
        How::Updated => 200,
    };
    answer::json(code, answer::object(&target.kind, &written.entry, answer::Form::Whole))
}

/// The clock of the whole server.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::from_unix(since.map_or(0, |since| since.as_secs() as i64))
}
