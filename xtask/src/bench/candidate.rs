//! The candidates: dualgate and the peers, each with a configuration that asks for the same work.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::backend::{CHECK_PATH, ENDPOINTS};
use super::workload::Scheme;
use crate::process::{Running, ask, free_ports};

/// What all candidates share.
pub struct Setting {
    /// Where the configurations' templates are.
    pub templates: PathBuf,
    /// Where everything of this run is written.
    pub folder: PathBuf,
    /// The endpoints of the back end.
    pub endpoints: Vec<SocketAddr>,
    /// Threads or processes of each candidate.
    pub workers: usize,
}

/// Which program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The binary that was built.
    Dualgate(PathBuf),
    /// From the system.
    Nginx,
    /// From the system.
    Haproxy,
}

/// A candidate that serves.
pub struct Candidate {
    /// Its name.
    pub name: &'static str,
    /// Its version, as it says itself.
    pub version: String,
    /// Whether others are compared with it.
    pub is_peer: bool,
    /// The process.
    pub process: Running,
    http: u16,
    https: u16,
}

impl Program {
    fn name(&self) -> &'static str {
        match self {
            Self::Dualgate(_) => "dualgate",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    fn is_peer(&self) -> bool {
        match self {
            Self::Dualgate(_) => false,
            Self::Nginx | Self::Haproxy => true,
        }
    }

    fn version(&self) -> Result<String> {
        let (program, argument) = match self {
            Self::Dualgate(path) => (path.as_path(), "--version"),
            Self::Nginx => (Path::new("nginx"), "-v"),
            Self::Haproxy => (Path::new("haproxy"), "-v"),
        };
        let output = Command::new(program).arg(argument).output();
        let output = output.with_context(|| format!("ask {} for its version", self.name()))?;
        // nginx says it on standard error.
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        let words = printed.split(|c: char| c.is_whitespace() || c == '/');
        let mut versions = words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'));
        Ok(versions.next().unwrap_or("of unknown version").to_owned())
    }
}

impl Candidate {
    /// Starts a program, and sees it answer as the others do.
    pub fn start(program: &Program, setting: &Setting) -> Result<Self> {
        let [http, https, admin] = free_ports()?;
        let fill = Fill { setting, http, https, admin };
        let mut command = fill.command(program)?;
        let name = program.name();
        let log = setting.folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("create `{}`", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut process = Running::start(name, &mut command)?;
        let reachable = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        let ready = process.wait_until(|| reachable(http) && reachable(https));
        ready.with_context(|| format!("{name} wrote its log to `{}`", log.display()))?;
        does_equal_work(&mut process, http).with_context(|| format!("{name} does not do equal work"))?;
        Ok(Self { name, version: program.version()?, is_peer: program.is_peer(), process, http, https })
    }

    /// The port for a scheme.
    pub fn port(&self, scheme: Scheme) -> u16 {
        match scheme {
            Scheme::Http => self.http,
            Scheme::Https => self.https,
        }
    }
}

/// The back end shows what a candidate sent it.
fn does_equal_work(process: &mut Running, port: u16) -> Result<()> {
    let mut answer = String::new();
    let answered = process.wait_until(|| {
        answer = ask(port, "localhost", CHECK_PATH).unwrap_or_default();
        answer.starts_with("HTTP/1.1 200")
    });
    answered.with_context(|| format!("its last answer was:\n{answer}"))?;
    for field in ["x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http"] {
        if !answer.to_ascii_lowercase().contains(&format!("\n{field}\r")) {
            bail!("`{field}` is missing:\n{answer}");
        }
    }
    Ok(())
}

/// Fills a candidate's templates.
struct Fill<'a> {
    setting: &'a Setting,
    http: u16,
    https: u16,
    admin: u16,
}

impl Fill<'_> {
    fn command(&self, program: &Program) -> Result<Command> {
        let Setting { folder, workers, .. } = self.setting;
        Ok(match program {
            Program::Nginx => {
                let servers = self.servers(|_, address| format!("server {address};"), "\n        ");
                let config = self.file("nginx.conf", "nginx.conf", &servers)?;
                let mut nginx = Command::new("nginx");
                nginx.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(config);
                nginx
            }
            Program::Haproxy => {
                let servers = self.servers(|number, address| format!("server pod{number} {address}"), "\n    ");
                let config = self.file("haproxy.cfg", "haproxy.cfg", &servers)?;
                let mut haproxy = Command::new("haproxy");
                haproxy.args(["-q", "-db", "-f"]).arg(config);
                haproxy
            }
            Program::Dualgate(path) => {
                let servers = self.servers(|_, address| address.to_string(), ",");
                std::fs::create_dir_all(folder.join("objects"))?;
                let site = self.file("dualgate-site.yaml", "site.yaml", &servers)?;
                self.file("dualgate-objects.yaml", "objects/objects.yaml", &servers)?;
                let mut dualgate = Command::new(path);
                let source = format!("folder:{}", folder.join("objects").display());
                dualgate.arg("run").arg("--site").arg(site).args(["--source", &source]);
                dualgate.arg("--state").arg(folder.join("state")).args(["--workers", &workers.to_string()]);
                dualgate
            }
        })
    }

    fn servers(&self, one: impl Fn(usize, &SocketAddr) -> String, between: &str) -> String {
        let servers = self.setting.endpoints.iter().enumerate().map(|(number, address)| one(number, address));
        servers.collect::<Vec<_>>().join(between)
    }

    fn file(&self, template: &str, name: &str, servers: &str) -> Result<PathBuf> {
        let Setting { templates, folder, workers, .. } = self.setting;
        let text = std::fs::read_to_string(templates.join(template)).with_context(|| format!("read `{template}`"))?;
        let pem = |file: &str| std::fs::read_to_string(folder.join(file)).map(|pem| pem.trim().replace('\n', "\n    "));
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
        let values = [
            ("SERVERS", servers.to_owned()),
            ("WORKERS", workers.to_string()),
            ("FOLDER", folder.display().to_string()),
            ("HTTP", local(self.http)),
            ("HTTPS", local(self.https)),
            ("HTTP_PORT", self.http.to_string()),
            ("HTTPS_PORT", self.https.to_string()),
            ("ADMIN", local(self.admin)),
            ("CERTIFICATE", pem("cert.pem")?),
            ("KEY", pem("key.pem")?),
        ];
        let path = folder.join(name);
        std::fs::write(&path, filled(&text, &values)).with_context(|| format!("write `{}`", path.display()))?;
        Ok(path)
    }
}

fn filled(template: &str, values: &[(&str, String)]) -> String {
    // The comment at the top speaks of the names; nothing else does but to be filled.
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

/// Starts the back end; its endpoints are what it prints.
pub fn start_backend(program: &Path) -> Result<(Running, Vec<SocketAddr>)> {
    let mut command = Command::new(program);
    let mut backend =
        Running::start("the back end", command.arg("backend").stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let lines = BufReader::new(backend.stdout()?).lines().take(ENDPOINTS);
    let endpoints = lines.map(|line| Ok(line?.parse()?)).collect::<Result<Vec<SocketAddr>>>()?;
    if endpoints.len() < ENDPOINTS {
        bail!("the back end did not say where it listens");
    }
    Ok((backend, endpoints))
}

/// A self-signed P-256 certificate for `localhost` in the folder: `cert.pem`, `key.pem`, and both in `both.pem`.
pub fn make_certificate(folder: &Path) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    openssl.args(["-keyout", "key.pem", "-out", "cert.pem"]).current_dir(folder);
    let output = openssl.output().context("start openssl")?;
    if !output.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
    let both = [std::fs::read(folder.join("cert.pem"))?, std::fs::read(folder.join("key.pem"))?].concat();
    std::fs::write(folder.join("both.pem"), both).context("write the certificate with its key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_everywhere() {
        let values = [("HTTP", "127.0.0.1:80".to_owned()), ("HTTPS", "127.0.0.1:443".to_owned())];
        assert_eq!(filled("a {{HTTP}} {{HTTPS}} {{HTTP}}", &values), "a 127.0.0.1:80 127.0.0.1:443 127.0.0.1:80");
    }
}
