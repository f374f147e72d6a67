//! The configuration as a file, and what a person does with it.

use std::fmt::Write as _;

use serde_json::json;

use super::{AGENT_TOKEN, Config, Entry, PATH, Part, SERVER_TOKEN, Value};
use crate::yaml;

/// Where a comment is broken.
const WIDTH: usize = 110;

impl Config {
    /// As YAML, with a comment above each key.
    pub fn to_yaml(&self) -> String {
        let mut page = String::new();
        let title = format!("K3s on {}, {} of the site {}: {PATH}", self.node, self.part.word(), self.site);
        comment(&mut page, &title);
        comment(&mut page, "Written from the site file by `dualgate render k3s`: change it there.");
        for Entry { key, value, why } in &self.entries {
            page.push('\n');
            let later = key.later.sentence().map(|sentence| format!(" {sentence}")).unwrap_or_default();
            comment(&mut page, &format!("{why}{later}"));
            let value = match value {
                Value::Yes => json!(true),
                Value::Text(text) => json!(text),
                Value::List(items) => json!(items),
            };
            page.push_str(&yaml::document(&json!({ key.name: value })));
        }
        page
    }

    /// What a person does with it, in order.
    pub(super) fn steps(&self) -> Vec<String> {
        let node = &self.node;
        let mut steps = vec![format!("put the file to {PATH} on {node} (owner root, mode 0600)")];
        match &self.part {
            Part::FirstServer => steps.push(format!(
                "make the two tokens there, once for the cluster: (umask 077; for token in {SERVER_TOKEN} {AGENT_TOKEN}; do \
                 head -c 32 /dev/urandom | base64 > $token; done)"
            )),
            Part::Server(first) => {
                steps.push(format!("copy {SERVER_TOKEN} and {AGENT_TOKEN} there from {first} (mode 0600)"));
            }
            Part::Agent(first) | Part::EdgeAgent(first) => steps.push(format!(
                "copy /var/lib/rancher/k3s/server/agent-token of {first}, once K3s runs there, to {AGENT_TOKEN} (mode \
                 0600): this form of the token (K10...) also says which cluster is the right one"
            )),
        }
        let program = self.part.program();
        steps.push(match &self.part {
            Part::FirstServer => format!("install K3s there as `{program}`; it reads the file when it starts"),
            Part::Server(first) => format!("install K3s there as `{program}`, once {first} is ready; one server at a time"),
            Part::Agent(first) => format!("install K3s there as `{program}`, once {first} is ready"),
            Part::EdgeAgent(_) => format!(
                "install K3s there as `{program}`, once `ip -brief address show dualgate` shows the tunnel with its addresses"
            ),
        });
        if let Part::EdgeAgent(_) = &self.part {
            steps.push(format!(
                "nobody but the cluster's side can label it: dualgate does, once it runs in the cluster; or, once it has joined, \
                 kubectl label node {node} node-role.kubernetes.io/edge=true"
            ));
        }
        steps
    }
}

fn comment(page: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(page, "{line}");
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(page, "{line}");
}
