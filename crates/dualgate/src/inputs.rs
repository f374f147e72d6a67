//! The site file and the objects, read once: for commands that look and do not serve.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use dualgate_core::check;
use dualgate_core::model::finding::{Finding, Severity};
use dualgate_core::model::site::Site;
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{NodeName, ObjectSet, Snapshot};
use dualgate_core::parse;
use dualgate_core::parse::site::Marks;
use dualgate_core::plan::ipam;
use dualgate_core::seam::Source as _;
use dualgate_host::FolderSource;
use dualgate_kube::access::{Access, AccessError};
use dualgate_kube::source::{ClusterSource, KindReport};

use crate::cli::{Inputs, SourceArgument};

/// How long a cluster may take to list everything, for commands that read it once.
const CLUSTER: Duration = Duration::from_secs(30);
/// For so long one that refuses, or does not answer, is asked again.
const REFUSALS: Duration = Duration::from_secs(5);

/// What was read.
pub struct Loaded {
    /// The snapshot that a node would plan from, if the site file can be used.
    pub snapshot: Option<Snapshot>,
    /// What the source has, also if the site file cannot be used.
    pub objects: Arc<ObjectSet>,
    /// What is wrong, the site file first.
    pub findings: Vec<Finding>,
}

impl Inputs {
    /// Where objects come from.
    pub fn source(&self) -> SourceArgument {
        let beside = || self.site.parent().unwrap_or(Path::new("")).join("manifests");
        self.source.clone().unwrap_or_else(|| SourceArgument::Folder(beside()))
    }

    /// How to reach the cluster, with this context.
    pub fn access(&self, context: Option<&str>) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: context.map(str::to_owned) }
    }

    /// Reads and checks both.
    pub fn load(&self) -> anyhow::Result<Loaded> {
        let (site, mut findings) = read_site(&self.site)?;
        let objects = self.read_objects()?;
        findings.extend(objects.findings.iter().cloned());
        let snapshot = site.map(|site| snapshot(Generation(1), Arc::new(site), objects.clone()));
        if let Some(snapshot) = &snapshot {
            findings.extend(check::objects::objects(snapshot));
        }
        Ok(Loaded { snapshot, objects, findings })
    }

    /// Reads both; the mistakes of a site file that cannot be used are printed and end the command.
    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let Loaded { snapshot, findings, .. } = self.load()?;
        snapshot.with_context(|| unusable(&self.site, &findings))
    }

    /// The same for commands that need the site, and of the objects only what there is: without a folder, none.
    pub fn snapshot_of_site(&self) -> anyhow::Result<Snapshot> {
        let site = usable_site(&self.site)?;
        let objects = match self.source() {
            // An edge has no objects of its own.
            SourceArgument::Home => Arc::default(),
            SourceArgument::Folder(directory) if self.source.is_none() && !directory.exists() => Arc::default(),
            SourceArgument::Folder(_) | SourceArgument::Cluster(_) => self.read_objects()?,
        };
        Ok(snapshot(Generation(1), Arc::new(site), objects))
    }

    fn read_objects(&self) -> anyhow::Result<Arc<ObjectSet>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        runtime.block_on(async {
            match self.source() {
                SourceArgument::Folder(directory) => Ok(open_folder(&directory)?.next().await?),
                SourceArgument::Cluster(context) => read_cluster(open_cluster(&self.access(context.as_deref())).await?).await,
                SourceArgument::Home => bail!(
                    "`home` tells its objects to `dualgate run` alone: ask at home, or name the manifests with --source \
                     folder:DIR"
                ),
            }
        })
    }
}

/// Reads a site file that can be used; the mistakes of one that cannot are the error.
pub fn usable_site(path: &Path) -> anyhow::Result<Site> {
    let (site, findings) = read_site(path)?;
    site.with_context(|| unusable(path, &findings))
}

fn unusable(path: &Path, findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    let errors: Vec<String> = errors.map(|finding| format!("\n  {finding}")).collect();
    format!("the site file `{}` cannot be used:{}", path.display(), errors.concat())
}

/// The same with the places of its fields.
pub fn usable_reading(path: &Path) -> anyhow::Result<(Site, Marks)> {
    let reading = parse::site::read(&path.display().to_string(), &site_text(path)?);
    let site = reading.site.with_context(|| unusable(path, &reading.findings))?;
    Ok((site, reading.marks))
}

/// Reads the site file and looks for mistakes in it.
pub fn read_site(path: &Path) -> anyhow::Result<(Option<Site>, Vec<Finding>)> {
    let reading = parse::site::read(&path.display().to_string(), &site_text(path)?);
    let mut findings = reading.findings;
    if let Some(site) = &reading.site {
        findings.extend(check::site::site(site, &reading.marks));
    }
    Ok((reading.site, findings))
}

/// Lists everything once.
async fn read_cluster(mut cluster: ClusterSource) -> anyhow::Result<Arc<ObjectSet>> {
    let (view, begun) = (cluster.view(), Instant::now());
    loop {
        if let Ok(read) = tokio::time::timeout(Duration::from_millis(200), cluster.next()).await {
            return Ok(read?);
        }
        // A list that takes its time has not failed; and nothing ends before there is a reason to tell.
        let is_refused = |kind: &KindReport| kind.lists > 0 || kind.failures > 2;
        let is_over = begun.elapsed() >= REFUSALS && !view.findings().is_empty();
        let is_hopeless = is_over && view.report().kinds.iter().all(is_refused);
        if begun.elapsed() >= CLUSTER || is_hopeless {
            break;
        }
    }
    let why = view
        .findings()
        .iter()
        .map(|finding| format!("\n  {}\n  {}", finding.message, finding.help))
        .collect::<String>();
    bail!(
        "the cluster was not read within {} s{}{why}",
        begun.elapsed().as_secs(),
        if why.is_empty() { "" } else { ":" }
    )
}

/// Opens a Kubernetes API; nothing is asked of it yet.
pub async fn open_cluster(access: &Access) -> anyhow::Result<ClusterSource> {
    ClusterSource::new(access.clone()).await.map_err(|error| {
        let help = match (&error, &access.kubeconfig) {
            (AccessError::NoSuchContext { .. }, _) => "name one of them: --source cluster:CONTEXT",
            (_, Some(_)) => "--kubeconfig names another file",
            (_, None) => "name it with --kubeconfig; a K3s server has it at /etc/rancher/k3s/k3s.yaml",
        };
        anyhow::Error::new(error).context(format!("find the cluster ({help})"))
    })
}

fn site_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| {
        format!(
            "read the site file `{}` (name it with --site; examples/laptop/site.yaml is one to start from)",
            path.display()
        )
    })
}

/// Opens a folder of manifests.
pub fn open_folder(directory: &PathBuf) -> anyhow::Result<FolderSource> {
    FolderSource::new(directory).with_context(|| {
        format!("open the source folder `{}` (name another with --source folder:DIR)", directory.display())
    })
}

/// Joins what is known at this moment without a running node. Services get the addresses that a new site would give them.
pub fn snapshot(generation: Generation, site: Arc<Site>, objects: Arc<ObjectSet>) -> Snapshot {
    let mut snapshot = Snapshot { generation, site, objects, facts: Facts { now: now(), ..Facts::default() } };
    snapshot.facts.assigned = Arc::new(ipam::assign(&snapshot).assignments);
    snapshot
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// The node that is meant: the one named, else this host's, else the only one.
pub fn choose_node(site: &Site, named: Option<&NodeName>) -> anyhow::Result<NodeName> {
    let known = || site.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = named {
        return match site.node(name) {
            Some(node) => Ok(node.name.clone()),
            None => bail!("the site has no node `{name}`; it has {}", known()),
        };
    }
    let host = NodeName::new(host_name());
    match (site.node(&host), site.nodes.as_slice()) {
        (Some(node), _) => Ok(node.name.clone()),
        (None, [only]) => Ok(only.name.clone()),
        (None, _) => {
            bail!("this host is called `{host}`, which no node of the site is; say which with --node ({})", known())
        }
    }
}

/// Where state is kept: as said, as systemd says, else where the user's programs keep theirs.
pub fn state_directory(named: Option<&Path>, site: &Site, node: &NodeName) -> PathBuf {
    let own = |base: PathBuf| base.join("dualgate").join(&site.name).join(node.as_str());
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named
        .map(Path::to_owned)
        .or_else(|| variable("STATE_DIRECTORY"))
        .or_else(|| variable("XDG_STATE_HOME").map(own))
        .or_else(|| variable("HOME").map(|home| own(home.join(".local/state"))))
        .unwrap_or_else(|| own(PathBuf::from("/var/lib")))
}

/// The host's name, without its domain.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().split('.').next().unwrap_or_default().to_owned()
}
