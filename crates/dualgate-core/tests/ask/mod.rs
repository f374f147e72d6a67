//! The cases of `cases/ingress`, and what the planner and its table answer to them: for every source of objects.

use std::fs;
use std::path::Path;

use dualgate_core::case::{Answer, Case, Request};
use dualgate_core::check;
use dualgate_core::explain::{self, Outcome, Question};
use dualgate_core::model::site::{EntryProtocol, Role};
use dualgate_core::model::{Finding, Severity, Snapshot};
use dualgate_core::plan;
use dualgate_core::plan::proxy::ProxyPlan;
use dualgate_core::route::Action;

/// Every case, in the order of their names.
pub fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dualgate-core/tests/cases/ingress");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    paths.sort();
    let read = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy();
        Case::parse(&name, &fs::read_to_string(path).unwrap()).unwrap_or_else(|error| panic!("{error}"))
    };
    paths.iter().map(|path| read(path)).collect()
}

/// What of a case's findings is missing, and what is there beside them.
pub fn check_findings(case: &Case, snapshot: &Snapshot) -> Vec<String> {
    let mut found = snapshot.objects.findings.clone();
    found.extend(check::objects::objects(snapshot));
    let lines = |wanted: &dyn Fn(Severity) -> bool| {
        let mut lines: Vec<String> = found.iter().filter(|finding| wanted(finding.severity)).map(line_of).collect();
        lines.sort();
        lines
    };
    let compare = |what: &str, expected: &[String], found: Vec<String>| {
        let mut expected = expected.to_vec();
        expected.sort();
        (expected != found).then(|| format!("{what}: expected {expected:#?}, found {found:#?}"))
    };
    let mistakes = lines(&|severity| severity != Severity::Note);
    let notes = case.notes.as_ref().and_then(|notes| compare("notes", notes, lines(&|s| s == Severity::Note)));
    compare("findings", &case.findings, mistakes).into_iter().chain(notes).collect()
}

fn line_of(finding: &Finding) -> String {
    let object = finding.at.object.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{} {object} {}", finding.code, finding.at.field).trim_end().to_owned()
}

/// Asks every node that serves the gate, and `explain`; each must give the same answer.
pub fn ask(snapshot: &Snapshot, request: &Request) -> Vec<String> {
    let mut failures = Vec::new();
    let nodes = snapshot.site.nodes.iter().filter(|node| node.has(Role::of_gate(request.gate)));
    let url = format!("{}://{}{}", request.scheme, request.authority, request.target);
    let question = match Question::parse(&url, request.gate) {
        Ok(question) => question,
        Err(error) => return vec![format!("{request}: {error}")],
    };
    let question = match &request.host {
        Some(host) => question.with_host_field(host),
        None => question,
    };
    let mut asked = 0;
    for node in nodes {
        asked += 1;
        let plan = plan::node(snapshot, &node.name).proxy;
        let found = answer(&plan, &question, &request.answer);
        if found.as_ref() != Some(&comparable(&request.answer)) {
            failures.push(format!("{request} at {}: expected {:?}, found {found:?}", node.name, request.answer));
        }
    }
    let explained = explain::explain(snapshot, &question);
    let status = match explained.outcome {
        Outcome::Forwarded => Some(200),
        Outcome::NotFound => Some(404),
        Outcome::Unavailable => Some(503),
        Outcome::NotListening => None,
    };
    if status != Some(request.answer.status) || explained.to_string().is_empty() {
        failures.push(format!("{request}: explain says {status:?}:\n{explained}"));
    }
    if asked == 0 {
        failures.push(format!("{request}: no node serves the gate"));
    }
    failures
}

/// Without what only a backend can tell.
fn comparable(answer: &Answer) -> Answer {
    Answer { path: None, host: None, ..answer.clone() }
}

/// What a node would answer, as far as `wanted` asks for it; `None` if it does not listen.
fn answer(plan: &ProxyPlan, question: &Question, wanted: &Answer) -> Option<Answer> {
    let listener = plan.listeners.iter().find(|l| l.gate == question.gate && l.address.port() == question.port)?;
    let name = question.server_name();
    let shown = name.and_then(|name| plan.certificate(listener.index, name));
    let shown = shown.map_or_else(|| "default".to_owned(), |certificate| certificate.secret.to_string());
    let certificate = (listener.protocol == EntryProtocol::Https).then_some(shown);
    let mut answer = Answer { certificate: certificate.filter(|_| wanted.certificate.is_some()), ..Answer::default() };
    let Some(index) = plan.table.find(listener.index, &question.host, &question.path) else {
        answer.status = 404;
        return Some(answer);
    };
    match &plan.table.route(index).action {
        Action::Unavailable(_) => answer.status = 503,
        Action::Forward(backend) => {
            let backend = plan.backends.get(*backend).unwrap();
            answer.status = if backend.servers.is_empty() { 503 } else { 200 };
            answer.service = wanted.service.as_ref().map(|_| backend.id.service.to_string());
            answer.port = wanted.port.map(|_| backend.id.port);
            answer.pods = wanted.pods.map(|_| u16::try_from(backend.servers.len()).unwrap());
        }
    }
    Some(answer)
}
