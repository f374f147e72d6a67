//! Running the built program, and folders for it to read.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// How long anything may take; far more than it does.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {}", self.out))
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The program in a folder, with nothing of this environment that changes what it prints.
pub fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dualgate"));
    command.current_dir(folder).args(args).stdin(Stdio::null());
    for name in ["NO_COLOR", "COLUMNS", "STATE_DIRECTORY", "POD_NAME", "NAMESPACE", "INGRESS_NAME", "SERVICE_NAME"] {
        command.env_remove(name);
    }
    command
}

/// Runs the program to its end.
pub fn dualgate_in(folder: &Path, args: &[&str]) -> Outcome {
    let output = command(folder, args).output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints UTF-8");
    Outcome { code: output.status.code().expect("it exits"), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs the program in the root of the repository.
pub fn dualgate(args: &[&str]) -> Outcome {
    dualgate_in(&root(), args)
}

/// A folder that goes away with its test.
pub struct Folder(PathBuf);

impl Folder {
    /// With these files.
    pub fn with(files: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("dualgate-cli-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir(&folder.0).expect("a folder of this name is not there yet");
        for (path, text) in files {
            let path = folder.0.join(path);
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("make the folder");
            fs::write(path, text).expect("write the file");
        }
        folder
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs the program in it.
    pub fn dualgate(&self, args: &[&str]) -> Outcome {
        dualgate_in(&self.0, args)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that goes on until its test ends.
pub struct Running {
    child: Child,
    log: Receiver<String>,
}

impl Running {
    /// Starts the program; its log is standard error.
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = command(folder, args);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program runs");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (sender, log) = sync_channel(1024);
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, log }
    }

    /// The next line of the log with this text in it.
    pub fn line_with(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.log.recv_timeout(left) else { panic!("no `{text}` in the log: {seen:#?}") };
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free at both loopback addresses, or at 127.0.0.1 where there is no `::1`.
pub fn free_port() -> u16 {
    let is_free = |port| !has_ipv6() || TcpListener::bind(("::1", port)).is_ok();
    let ports = (0..100).map(|_| TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()));
    let mut ports = ports.map(|address| address.expect("a loopback address").port());
    ports.find(|port| is_free(*port)).expect("a port that is free at both addresses")
}

/// Whether this machine has `::1`.
pub fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// A connection on which nothing waits for ever.
pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}
