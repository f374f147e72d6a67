//! Who the API server takes us for: certificates, tokens, and what becomes of both, over TLS.

mod support;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dualgate_apiserver::{ApiServer, Authorization, ClientCertificates, Credentials, Options, User};
use dualgate_core::model::ObjectSet;
use dualgate_kube::access::Access;
use dualgate_kube::source::ClusterSource;
use serde_json::json;
use support::{Listener, PATIENCE, has, run};

/// A server over TLS that wants to know who asks, and a folder with what clients have.
struct Guarded {
    server: ApiServer,
    folder: PathBuf,
}

impl Guarded {
    fn new(address: &str) -> Self {
        Self::judging(ClientCertificates::default(), address)
    }

    fn judging(client_certificates: ClientCertificates, address: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let listener = TcpListener::bind((address, 0)).unwrap();
        let certificate_for = vec![address.to_owned()];
        let authorization = Authorization::Rbac;
        let options = Options { authorization, certificate_for, client_certificates, ..Options::default() };
        let folder = std::env::temp_dir().join(format!("dualgate-access-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let guarded = Self { server: ApiServer::start(vec![listener], options).unwrap(), folder };
        guarded.ingress("a");
        guarded
    }

    fn ingress(&self, name: &str) {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let ingress = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name, "namespace": "default"},
            "spec": {"defaultBackend": backend},
        });
        self.server.objects().create(ingress).unwrap();
    }

    fn write(&self, name: &str, text: &str) -> String {
        // Whole or not at all, as a kubelet writes it.
        let (new, path) = (self.folder.join("new"), self.folder.join(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &path).unwrap();
        path.display().to_string()
    }

    fn write_kubeconfig(&self, credentials: &Credentials) -> Access {
        let path = self.write("kubeconfig", &self.server.kubeconfig_as(&self.server.url(), credentials));
        Access { kubeconfig: Some(path.into()), context: None }
    }

    fn certificate(&self, ends: Result<Duration, Duration>) -> Credentials {
        Credentials::Certificate(self.server.client_certificate(User::admin(), ends).unwrap())
    }

    async fn listen(&self, credentials: &Credentials) -> Listener {
        let source = ClusterSource::new(self.write_kubeconfig(credentials)).await.unwrap();
        Listener { source, last: std::sync::Arc::default() }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Whether a finding has all of these words.
fn says(set: &ObjectSet, words: &[&str]) -> bool {
    set.findings.iter().any(|finding| words.iter().all(|word| finding.message.contains(word)))
}

/// There was no set yet, and so there is none that could say it; the report does.
async fn report_says(listener: &mut Listener, word: &str) {
    let (view, deadline) = (listener.source.view(), Instant::now() + PATIENCE);
    while !view.report().troubles.iter().any(|trouble| trouble.contains(word)) {
        assert!(Instant::now() < deadline, "{word}: {:?}", view.report());
        assert!(listener.goes_on(Duration::from_millis(200)).await.is_none(), "it has a set");
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_token_or_a_certificate_is_taken_over_both_families() {
    run(async {
        for address in ["127.0.0.1", "::1"] {
            let guarded = Guarded::new(address);
            let token = Credentials::Token(guarded.server.token(User::admin()));
            for credentials in [token, guarded.certificate(Ok(HOUR))] {
                let mut listener = guarded.listen(&credentials).await;
                listener.until("the objects", |set| has(set, "Ingress default/a")).await;
            }
            assert!(guarded.server.requests().iter().all(|request| request.user == "kubernetes-admin"));
        }
    });
}

#[test]
fn a_server_of_another_authority_is_not_believed_and_the_message_says_so() {
    run(async {
        let (guarded, other) = (Guarded::new("127.0.0.1"), Guarded::new("127.0.0.1"));
        let token = Credentials::Token(guarded.server.token(User::admin()));
        // The right server, and the authority of the other one.
        let path = guarded.write("kubeconfig", &other.server.kubeconfig_as(&guarded.server.url(), &token));
        let access = Access { kubeconfig: Some(path.into()), context: None };
        let source = ClusterSource::new(access).await.unwrap();
        let mut listener = Listener { source, last: std::sync::Arc::default() };
        report_says(&mut listener, "certificate").await;
        assert_eq!(guarded.server.requests(), vec![], "the token was shown to nobody");
    });
}

#[test]
fn a_token_that_became_another_is_read_again_and_nothing_is_lost_meanwhile() {
    run(async {
        let guarded = Guarded::new("127.0.0.1");
        let token = guarded.server.token(User::admin());
        let file = guarded.write("token", &token);
        let mut listener = guarded.listen(&Credentials::TokenFile(file)).await;
        listener.until("the objects", |set| has(set, "Ingress default/a")).await;
        guarded.server.revoke(&token);
        guarded.server.faults().cut_connections();
        let told = |set: &ObjectSet| has(set, "Ingress default/a") && says(set, &["does not know who asks (401)"]);
        listener.until("that it is not known any more", told).await;
        guarded.write("token", &guarded.server.token(User::admin()));
        guarded.ingress("b");
        let well = |set: &ObjectSet| has(set, "Ingress default/b") && set.findings.is_empty();
        listener.until("what happened meanwhile", well).await;
    });
}

/// What is told of a certificate that has expired, by who looks at it when.
const EXPIRED: [(ClientCertificates, &str, &str); 2] = [
    (
        ClientCertificates::JudgedAtHandshake,
        "received fatal alert: CertificateExpired",
        "does not take the certificate of the kubeconfig",
    ),
    (ClientCertificates::JudgedAtRequest, "does not know who asks (401)", "make a new kubeconfig"),
];

#[test]
fn a_certificate_that_has_expired_is_told_and_the_next_one_is_taken_from_the_kubeconfig() {
    async fn tell((judged, word, help): (ClientCertificates, &str, &str)) {
        let guarded = Guarded::judging(judged, "127.0.0.1");
        let mut listener = guarded.listen(&guarded.certificate(Ok(Duration::from_secs(3)))).await;
        listener.until("the objects", |set| has(set, "Ingress default/a")).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        guarded.server.faults().cut_connections();
        let told = |set: &ObjectSet| {
            has(set, "Ingress default/a") && says(set, &[word]) && set.findings[0].help.contains(help)
        };
        listener.until("that it has expired", told).await;
        guarded.write_kubeconfig(&guarded.certificate(Ok(HOUR)));
        guarded.ingress("b");
        let well = |set: &ObjectSet| has(set, "Ingress default/b") && set.findings.is_empty();
        listener.until("what happened meanwhile", well).await;
    }
    let [at_handshake, at_request] = EXPIRED;
    run(async { tokio::join!(tell(at_handshake), tell(at_request)) });
}

#[test]
fn a_certificate_that_had_expired_before_the_start_is_told() {
    run(async {
        for (judged, word, _) in EXPIRED {
            let guarded = Guarded::judging(judged, "127.0.0.1");
            let mut listener = guarded.listen(&guarded.certificate(Err(HOUR))).await;
            let word = word.strip_prefix("received fatal alert: Certificate").unwrap_or(word);
            report_says(&mut listener, word).await;
        }
    });
}
