//! `dualgate install` and `dualgate uninstall`: what of dualgate is in a cluster.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use dualgate_core::plan::cluster::Write;
use dualgate_core::plan::install::changes::{Action, Change, Line};
use dualgate_core::plan::install::object::ObjectId;
use dualgate_core::plan::install::{Installation, NAMESPACE, Options, install};
use dualgate_core::yaml;
use dualgate_kube::access::{Access, Api, connect};
use dualgate_kube::install::{self as cluster, Conflict, Conflicts, Look, Prune, Step};
use serde_json::{Value, json};

use crate::cli::Format;
use crate::cli::install::{Cluster, Consent, Install, Uninstall};
use crate::inputs::usable_site;
use crate::output::{self, Colour, Style};

/// How long it may take to take back what was written: pods end first, and who died holds the Lease until it runs out.
const PATIENCE: Duration = Duration::from_secs(120);

/// Installs a site.
pub fn run(args: &Install) -> anyhow::Result<ExitCode> {
    let site = usable_site(&args.site)?;
    let site_file = std::fs::read_to_string(&args.site).with_context(|| format!("read `{}`", args.site.display()))?;
    let (edges, services) = (args.edge_daemonset.clone(), args.host_service.clone());
    let installation = install(&site, &Options { image: args.image.clone(), site_file, edges, services })?;
    if site.tunnel.is_some() && !args.edge_daemonset.is_empty() {
        eprintln!(
            "note: the pod on the edge makes the tunnel, so K3s must get to its server without it there; where it does not, as with \
             what `dualgate render k3s` writes, dualgate belongs on the edge as a service (`dualgate edge bundle`)"
        );
    }
    if args.print {
        output::text(&yaml::documents(&installation.objects))?;
        return Ok(output::verdict(true));
    }
    let prune = match (args.prune || args.consent.prune_protected, args.consent.prune_protected) {
        (false, _) => Prune::Nothing,
        (true, false) => Prune::Unprotected,
        (true, true) => Prune::Everything,
    };
    let conflicts = if args.force_conflicts { Conflicts::Take } else { Conflicts::Refuse };
    let wait = args.wait.then_some(args.timeout);
    start(&args.cluster, Order { installation, prune, conflicts, wait, ..Order::of(&args.consent, args.output.output) })
}

/// Removes what was installed, and takes back what it wrote.
pub fn uninstall(args: &Uninstall) -> anyhow::Result<ExitCode> {
    let prune = if args.consent.prune_protected { Prune::Everything } else { Prune::Unprotected };
    start(&args.cluster, Order { prune, takes_back: true, ..Order::of(&args.consent, args.output.output) })
}

/// What is to be done, and how.
struct Order<'a> {
    installation: Installation,
    prune: Prune,
    conflicts: Conflicts,
    consent: &'a Consent,
    format: Format,
    /// How long to wait until it runs.
    wait: Option<Duration>,
    /// Whether statuses and labels go as well.
    takes_back: bool,
}

impl<'a> Order<'a> {
    fn of(consent: &'a Consent, format: Format) -> Self {
        Self {
            installation: Installation::default(),
            prune: Prune::Nothing,
            conflicts: Conflicts::Refuse,
            consent,
            format,
            wait: None,
            takes_back: false,
        }
    }
}

fn start(cluster: &Cluster, order: Order<'_>) -> anyhow::Result<ExitCode> {
    let access = Access { kubeconfig: cluster.kubeconfig.clone(), context: cluster.context.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let api = connect(&access).await?;
        carry_out(&access, &api, order).await
    })
}

async fn carry_out(access: &Access, api: &Api, order: Order<'_>) -> anyhow::Result<ExitCode> {
    let (client, server) = (&api.client, || format!("ask the Kubernetes API {}", api.server));
    let objects = &order.installation.objects;
    let look = cluster::look(client, objects, order.conflicts).await.with_context(server)?;
    let mut report = Report::new(&look, order.prune);
    if order.takes_back {
        report.written = cluster::written(client).await.with_context(server)?;
    }
    let is_text = order.format == Format::Text;
    if is_text {
        output::text(&report.page(Style::stdout()))?;
    }
    if order.consent.dry_run {
        return report.end(order.format, report.is_as_wanted());
    }
    if !report.conflicts.is_empty() {
        bail!("nothing was applied; leave these fields to their owners, or take them with --force-conflicts");
    }
    if !report.is_as_wanted() && !agreed(&order, &api.server)? {
        eprintln!("nothing was changed");
        return Ok(output::verdict(false));
    }
    if !report.is_as_wanted() || look.is_interrupted() {
        let mut done = Vec::new();
        let mut tell = |line: String| {
            if is_text {
                let _ = output::text(&format!("{line}\n"));
            }
            done.push(line);
        };
        // The Lease of who writes is in the namespace, which so goes last.
        let first = if order.takes_back { Prune::Unprotected } else { order.prune };
        cluster::apply(client, objects, look, first, order.conflicts, |step| tell(told(step)))
            .await
            .with_context(server)?;
        if order.takes_back {
            report.left = cluster::take_back(access, client, PATIENCE, &mut tell).await.with_context(server)?;
        }
        if order.takes_back && report.left.is_empty() && order.prune == Prune::Everything {
            let look = cluster::look(client, objects, order.conflicts).await.with_context(server)?;
            let step = |step: &Step| tell(told(step));
            cluster::apply(client, objects, look, order.prune, order.conflicts, step).await.with_context(server)?;
        }
        report.done = done;
    }
    if let Some(patience) = order.wait {
        for (set, nodes) in &order.installation.nodes {
            let progress = |missing: &[String]| missing.iter().for_each(|line| eprintln!("waiting for {set}: {line}"));
            let missing = cluster::wait(client, set, nodes, patience, progress).await.with_context(server)?;
            report.missing.extend(missing.into_iter().map(|line| format!("{set}: {line}")));
        }
    }
    if is_text {
        for line in report.missing.iter().chain(&report.left) {
            output::text(&format!("not yet: {line}\n"))?;
        }
    }
    report.end(order.format, report.missing.is_empty() && report.left.is_empty())
}

/// Whether a person wants it, or has said so before.
fn agreed(order: &Order<'_>, server: &str) -> anyhow::Result<bool> {
    if order.consent.yes {
        return Ok(true);
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || order.format == Format::Json {
        bail!("nobody can be asked here: nothing was applied; --yes does it unasked, --dry-run only looks");
    }
    eprint!("\nDo this in the cluster of {server}? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    stdin.read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn told(step: &Step) -> String {
    match step {
        Step::Created(id) => format!("created {id}"),
        Step::Updated(id) => format!("changed {id}"),
        Step::Deleted(id) => format!("removed {id}"),
        Step::Left(id) => format!("left {id}, which is somebody else's now"),
    }
}

/// What was found and done.
struct Report {
    changes: Vec<Change>,
    removed: Vec<ObjectId>,
    /// What is left over and stays.
    kept: Vec<ObjectId>,
    conflicts: Vec<Conflict>,
    unchanged: usize,
    /// What takes back what was written into objects of others.
    written: Vec<Arc<Write>>,
    done: Vec<String>,
    missing: Vec<String>,
    /// What was to be taken back and is not.
    left: Vec<String>,
}

impl Report {
    fn new(look: &Look, prune: Prune) -> Self {
        let (removed, kept) = look.leftovers.iter().cloned().partition(|id| prune.removes(id));
        Self {
            changes: look.changes.clone(),
            removed,
            kept,
            conflicts: look.conflicts.clone(),
            unchanged: look.unchanged,
            written: Vec::new(),
            done: Vec::new(),
            missing: Vec::new(),
            left: Vec::new(),
        }
    }

    fn is_as_wanted(&self) -> bool {
        self.changes.is_empty() && self.removed.is_empty() && self.conflicts.is_empty() && self.written.is_empty()
    }

    fn page(&self, style: Style) -> String {
        let mut page = String::new();
        for change in &self.changes {
            page.push_str(&block(change, style));
        }
        for id in &self.removed {
            let _ = writeln!(page, "{}", style.paint(Colour::Red, &format!("- {id}")));
        }
        for id in &self.kept {
            let option = if id.kind == "Namespace" { "--prune-protected" } else { "--prune" };
            let _ = writeln!(page, "  {id} is not part of it any more ({option} removes it)");
        }
        for write in &self.written {
            let text = format!("~ {}: what dualgate wrote into its {} is taken back", write.object, write.what());
            let _ = writeln!(page, "{}", style.paint(Colour::Yellow, &text));
        }
        for conflict in &self.conflicts {
            let text = format!("{}: {} belongs to `{}`", conflict.id, conflict.field, conflict.manager);
            let _ = writeln!(page, "{} {}", style.paint(Colour::Red, "!"), output::one_line(&text));
        }
        let of = |action| self.changes.iter().filter(|change| change.action == action).count();
        let (create, remove) = (of(Action::Create), self.removed.len());
        let change = of(Action::Update) + self.written.len();
        let _ = match (self.is_as_wanted(), self.unchanged) {
            (true, 0) => writeln!(page, "there is nothing of dualgate in the namespace {NAMESPACE} to remove"),
            (true, unchanged) => writeln!(page, "{} as wanted", output::count(unchanged, "object")),
            (false, unchanged) => writeln!(
                page,
                "{create} to create, {change} to change, {remove} to remove, {unchanged} as wanted{}",
                match self.conflicts.len() {
                    0 => String::new(),
                    conflicts => format!(", {}", output::count(conflicts, "conflict")),
                }
            ),
        };
        page
    }

    fn end(&self, format: Format, is_well: bool) -> anyhow::Result<ExitCode> {
        if format == Format::Json {
            output::json(&self.json())?;
        }
        Ok(output::verdict(is_well))
    }

    fn json(&self) -> Value {
        let change = |change: &Change| {
            let lines: Vec<String> = change.lines.iter().map(|line| plain(line).0).collect();
            json!({"action": action(change.action), "object": change.id, "lines": lines})
        };
        let conflict =
            |conflict: &Conflict| json!({"object": conflict.id, "field": conflict.field, "manager": conflict.manager});
        let removed =
            self.removed.iter().map(|id| json!({"action": action(Action::Delete), "object": id, "lines": []}));
        let written = |write: &Arc<Write>| json!({"object": write.object.to_string(), "of": write.what()});
        json!({
            "changes": self.changes.iter().map(change).chain(removed).collect::<Vec<_>>(),
            "takenBack": self.written.iter().map(written).collect::<Vec<_>>(),
            "kept": self.kept,
            "conflicts": self.conflicts.iter().map(conflict).collect::<Vec<_>>(),
            "unchanged": self.unchanged,
            "done": self.done,
            "missing": self.missing,
            "left": self.left,
        })
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Delete => "delete",
    }
}

/// An object with its lines.
fn block(change: &Change, style: Style) -> String {
    let (sign, colour) = match change.action {
        Action::Create => ("+", Colour::Green),
        Action::Update => ("~", Colour::Yellow),
        Action::Delete => ("-", Colour::Red),
    };
    let mut block = format!("{}\n", style.paint(colour, &format!("{sign} {}", change.id)));
    for line in &change.lines {
        let (text, colour) = plain(line);
        let text = output::one_line(&text).into_owned();
        let shown = colour.map_or(text.clone(), |colour| style.paint(colour, &text));
        let _ = writeln!(block, "    {shown}");
    }
    block
}

/// A line with its sign.
fn plain(line: &Line) -> (String, Option<Colour>) {
    match line {
        Line::Same(text) => (format!("  {text}"), None),
        Line::Gone(text) => (format!("- {text}"), Some(Colour::Red)),
        Line::Come(text) => (format!("+ {text}"), Some(Colour::Green)),
        Line::Skipped => ("...".to_owned(), None),
    }
}
