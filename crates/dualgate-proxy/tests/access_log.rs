//! The access log: what a line says, in both forms, through real sockets.

mod support;

use std::path::PathBuf;

use dualgate_core::model::site::{AccessLog, AccessLogFormat};
use support::{Gate, PATIENCE, Plan, Pod};

struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("dualgate-log-{name}-{}", std::process::id())))
    }

    /// Waits for so many lines.
    async fn lines(&self, count: usize) -> Vec<String> {
        let read = async {
            loop {
                let text = std::fs::read_to_string(&self.0).unwrap_or_default();
                if text.lines().count() >= count {
                    return text.lines().map(str::to_owned).collect();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("the lines were not written")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn log_of(name: &str, format: AccessLogFormat) -> Vec<String> {
    let (pod, file) = (Pod::start("one").await, File::new(name));
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.settings.access_log = Some(AccessLog { path: file.0.to_string_lossy().into_owned(), format });
    let gate = Gate::start(&plan).await;
    let mut client = gate.client().await;
    let post = "POST /x?y=\"1\" HTTP/1.1\r\nHost: a.example\r\nUser-Agent: te\"st\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(client.ask(post).await.status(), 200);
    assert_eq!(client.get("none.example", "/").await.status(), 404);
    file.lines(2).await
}

#[tokio::test]
async fn a_line_of_json_says_who_what_where_and_how_it_ended() {
    let lines = log_of("json", AccessLogFormat::Json).await;
    let line: serde_json::Value = serde_json::from_str(&lines[0]).expect("JSON");
    for (name, value) in [
        ("client", "127.0.0.1"),
        ("gate", "internal"),
        ("entryPoint", "web"),
        ("scheme", "http"),
        ("protocol", "HTTP/1.1"),
        ("method", "POST"),
        ("host", "a.example"),
        ("path", "/x?y=\"1\""),
        ("ingress", "apps/i0"),
        ("service", "s0"),
        ("server", "pod0"),
        ("userAgent", "te\"st"),
    ] {
        assert_eq!(line[name], value, "{name} in {line}");
    }
    assert_eq!((line["status"].as_u64(), line["bytesIn"].as_u64()), (Some(200), Some(3)), "{line}");
    assert!(line["bytesOut"].as_u64() > Some(0) && line["durationMs"].as_f64() > Some(0.0), "{line}");
    let refused: serde_json::Value = serde_json::from_str(&lines[1]).expect("JSON");
    assert_eq!((&refused["trouble"], refused["status"].as_u64()), (&"no-route".into(), Some(404)), "{refused}");
    assert_eq!(refused.get("ingress"), None, "{refused}");
}

#[tokio::test]
async fn a_common_line_is_one_line_that_old_tools_read() {
    let lines = log_of("common", AccessLogFormat::Common).await;
    let (before, after) = lines[0].split_once(" [").expect("a time");
    assert_eq!(before, "127.0.0.1 - -");
    let (_, request) = after.split_once("] ").expect("a request");
    assert!(request.starts_with("\"POST /x?y=\\\"1\\\" HTTP/1.1\" 200 "), "{request}");
    assert!(request.contains(" \"-\" \"te\\\"st\" "), "{request}");
}
