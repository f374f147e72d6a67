//! A lab as somebody starts it, asks it and ends it, by whatever means.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use crate::support::{Folder, Outcome, PATIENCE, command, dualgate_in};

/// A lab that runs, and what it says.
struct Lab {
    name: String,
    folder: Folder,
    child: Child,
    lines: Receiver<String>,
}

impl Lab {
    /// Starts the built-in example; nothing where namespaces are forbidden.
    fn start(test: &str) -> Option<Self> {
        Self::start_with(test, &[])
    }

    fn start_with(test: &str, args: &[&str]) -> Option<Self> {
        let name = format!("cli-{test}-{}", std::process::id());
        let folder = Folder::with(&[]);
        let mut command = command(folder.path(), &[&["lab", "--name", &name], args].concat());
        let command = command.env("LANG", "C.UTF-8").env_remove("LC_ALL").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let (sender, lines) = sync_channel(4096);
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut lab = Self { name, folder, child, lines };
        if lab.find("Checks").is_none() {
            let mut why = String::new();
            let _ = lab.child.kill();
            std::io::Read::read_to_string(&mut stderr, &mut why).expect("it prints UTF-8");
            assert!(why.contains("does not let this user make namespaces"), "the lab does not start: {why}");
            eprintln!("SKIPPED: lab_{test}: {why}");
            return None;
        }
        Some(lab)
    }

    /// The next line with this text in it; `None` when there are no more.
    fn find(&self, text: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return Some(line),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Asks it something.
    fn ask(&self, args: &[&str]) -> Outcome {
        dualgate_in(self.folder.path(), &[&["lab", "--name", &self.name], args].concat())
    }

    /// How it ended.
    fn ended(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.child.wait().expect("it can be waited for");
        status.code().or(status.signal().map(|signal| 128 + signal)).expect("it ended")
    }

    fn is_found(&self) -> bool {
        let sockets = fs::read_to_string("/proc/net/unix").expect("the kernel lists its sockets");
        sockets.contains(&format!("/{}\n", self.name))
    }

    /// Waits until the lab's processes are gone: each was started with its name in the environment of none other.
    fn vanishes(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.is_found() || self.processes() > 0 {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        true
    }

    /// Processes whose working directory is the test's folder: the lab's, and all that it started.
    fn processes(&self) -> usize {
        let folder = fs::canonicalize(self.folder.path()).expect("the folder is there");
        let processes = fs::read_dir("/proc").expect("there is a /proc").filter_map(Result::ok);
        processes.filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == folder)).count()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_person_looks_at_a_lab_breaks_things_and_ends_it() {
    let Some(mut lab) = Lab::start("life") else { return };
    let hello = lab.ask(&["exec", "lan-client", "--", "sh", "-c", "hostname; echo $DUALGATE_LAB_HOST; pwd; exit 7"]);
    let folder = fs::canonicalize(lab.folder.path()).unwrap();
    assert_eq!(
        (hello.code, &*hello.out),
        (7, &*format!("lan-client\nlan-client\n{}\n", folder.display())),
        "{hello:?}"
    );
    assert_eq!(lab.ask(&["exec", "lan-client", "--", "sh", "-c", "kill -9 $$"]).code, 137);
    let missing = lab.ask(&["exec", "lan-client", "--", "no-such-command"]);
    assert_eq!(missing.code, 127, "{missing:?}");
    assert!(missing.err.contains("start `no-such-command` on lan-client"), "{missing:?}");
    let failed = lab.ask(&["fail", "k3s-node3"]);
    assert_eq!((failed.code, &*failed.err), (0, ""));
    assert!(lab.find("k3s-node3 was switched off").is_some());
    let status = lab.ask(&["status", "--output", "json"]).json();
    let hosts = status["hosts"].as_array().unwrap();
    let on = |name: &str| hosts.iter().find(|host| host["name"] == name).unwrap()["on"].as_bool().unwrap();
    assert!(on("k3s-node1") && !on("k3s-node3"), "{status:#}");
    let page = lab.ask(&["status"]).out;
    assert!(page.contains("OFF host k3s-node3: dualgate lab heal k3s-node3"), "{page}");
    assert!(page.contains("the built-in home example"), "{page}");
    let unknown = lab.ask(&["fail", "k3s-nod3"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("there is no host `k3s-nod3`: did you mean `k3s-node3`?"), "{unknown:?}");
    let again = dualgate_in(lab.folder.path(), &["lab", "--name", &lab.name]);
    assert_eq!(again.code, 2);
    assert!(again.err.contains(&format!("a lab `{}` runs already", lab.name)), "{again:?}");
    let down = lab.ask(&["down"]);
    assert_eq!((down.code, &*down.out), (0, "the lab has ended\n"), "{down:?}");
    assert_eq!(lab.ended(), 0);
    assert!(lab.vanishes());
    let gone = lab.ask(&["status"]);
    assert_eq!(gone.code, 2);
    let expected = ["no lab is running: start one with `dualgate lab`", &format!("no lab `{}` is running", lab.name)];
    assert!(expected.iter().any(|text| gone.err.contains(text)), "{gone:?}");
}

#[test]
fn a_lab_with_a_kubernetes_api_is_a_cluster_to_install_into() {
    let Some(mut lab) = Lab::start_with("kubernetes", &["--kubernetes"]) else { return };
    let on_a_node = |args: &[&str]| lab.ask(&[&["exec", "k3s-node2", "--", "dualgate"], args].concat());
    let site = "/run/dualgate/site.yaml";
    let shown = on_a_node(&["install", "--site", site, "--dry-run"]);
    assert!(
        shown.code == 1 && shown.out.contains("+ DaemonSet dualgate-system/dualgate-home"),
        "{}{}",
        shown.out,
        shown.err
    );
    let done = on_a_node(&["install", "--site", site, "--yes"]);
    assert_eq!((done.code, &*done.err), (0, ""), "{}", done.out);
    let explained = on_a_node(&["explain", "https://grafana.yourdomain.com", "--site", site, "--source", "cluster"]);
    assert!(explained.code == 0 && explained.out.contains("apps/grafana"), "{}{}", explained.out, explained.err);
    // The nodes have written by then, or do so at once: it is told what would be taken back.
    let deadline = Instant::now() + PATIENCE;
    while !on_a_node(&["uninstall", "--dry-run"])
        .out
        .contains("~ Ingress apps/grafana: what dualgate wrote into its status")
    {
        assert!(Instant::now() < deadline, "no status was written");
    }
    let ended = lab.ask(&["down"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(lab.ended(), 0);
}

#[test]
fn nothing_outlives_a_lab_that_is_killed() {
    let Some(mut lab) = Lab::start("killed") else { return };
    assert!(lab.is_found() && lab.processes() >= 2, "{} processes", lab.processes());
    lab.child.kill().unwrap();
    assert_eq!(lab.ended(), 137);
    assert!(lab.vanishes(), "{} processes are left", lab.processes());
}

#[test]
fn a_lab_whose_reader_has_gone_ends() {
    let Some(mut lab) = Lab::start("reader") else { return };
    // The thread that reads ends with the queue, and closes the pipe at the next line.
    let (_, nothing) = sync_channel(1);
    lab.lines = nothing;
    assert_eq!(lab.ask(&["fail", "lan-client"]).code, 0);
    assert_eq!(lab.ended(), 0);
    assert!(lab.vanishes());
}

#[test]
fn the_first_process_of_a_lab_is_not_for_people() {
    let outcome = dualgate_in(Folder::with(&[]).path(), &["lab", "init"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("start the lab with `dualgate lab`"), "{outcome:?}");
    let outcome = dualgate_in(Folder::with(&[]).path(), &["lab", "--site", "nowhere.yaml"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("read the site file `nowhere.yaml`"), "{outcome:?}");
}
