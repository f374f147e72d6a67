//! The real binary as a process.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use super::{Answer, Client, Home, eventually};

/// A running `dualgate run`; it is killed with its value.
pub struct Node {
    child: Child,
    admin: std::net::SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Node {
    /// Starts it and waits until it is ready.
    pub fn serve(home: &Home) -> Self {
        let node = Self::start(home, &[]);
        node.wait_until_ready();
        node
    }

    /// Starts it with more arguments.
    pub fn start(home: &Home, arguments: &[&str]) -> Self {
        Self::start_with(home, arguments, &[])
    }

    /// The same with more in its environment.
    pub fn start_with(home: &Home, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child =
            command(home).args(arguments).envs(environment.iter().copied()).spawn().expect("start the binary");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("it is piped");
        let written = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                written.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, admin: home.admin[0], log }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Asks its admin listener.
    pub fn admin(&self, path: &str) -> Result<Answer, String> {
        let client = Client::connect(self.admin);
        let answer = client.and_then(|mut client| client.get(&self.admin.to_string(), path));
        answer.map_err(|error| format!("{path}: {error}; it logged:\n{}", self.log()))
    }

    /// A JSON document of its admin listener.
    pub fn document(&self, path: &str) -> Result<serde_json::Value, String> {
        serde_json::from_slice(&self.admin(path)?.body).map_err(|error| format!("{path}: {error}"))
    }

    /// Waits until it is ready.
    #[track_caller]
    pub fn wait_until_ready(&self) {
        eventually("ready", || {
            let answer = self.admin("/readyz")?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{}{}", answer.text(), self.log())) }
        });
    }

    /// The codes of what it finds wrong, each with its message.
    pub fn findings(&self) -> Result<Vec<(String, String)>, String> {
        let found = self.document("/findings")?;
        let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let list = found.as_array().ok_or("no list")?;
        Ok(list.iter().map(|finding| (text(finding, "code"), finding.to_string())).collect())
    }

    /// Waits until a finding of this code holds this text.
    #[track_caller]
    pub fn wait_for_finding(&self, code: &str, text: &str) {
        eventually(&format!("finding {code} with {text:?}"), || {
            let found = self.findings()?;
            let is_there = found.iter().any(|(id, message)| id == code && message.contains(text));
            if is_there { Ok(()) } else { Err(format!("{found:#?}")) }
        });
    }

    /// Waits until there is no finding of this code.
    #[track_caller]
    pub fn wait_until_no_finding(&self, code: &str) {
        eventually(&format!("no finding {code}"), || {
            let found = self.findings()?;
            if found.iter().all(|(id, _)| id != code) { Ok(()) } else { Err(format!("{found:#?}")) }
        });
    }

    /// A counter or gauge of its metrics, summed over labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").unwrap().text();
        let lines = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{')));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// The most memory that the process has had, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the node logged:\n{}", self.log());
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it until it ends by itself; its exit code and what it wrote to standard error.
#[track_caller]
pub fn output(home: &Home) -> (Option<i32>, String) {
    let mut node = Node::start(home, &[]);
    let status = node.wait();
    // The thread that reads has seen the end when nothing is added any more: it holds the other end of the pipe.
    let log = eventually("the end of the log", || match Arc::strong_count(&node.log) {
        1 => Ok(node.log()),
        _ => Err("it is still read".to_owned()),
    });
    (status.code(), log)
}

fn command(home: &Home) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dualgate"));
    let folder = |name: &str| home.directory.join(name);
    command.arg("run").arg("--site").arg(folder("site.yaml")).arg("--state").arg(folder("state"));
    command.args(["--node", "node", "--workers", "2"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}
