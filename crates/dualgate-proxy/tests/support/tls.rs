//! TLS for tests: certificates made on the spot, clients that believe any of them and remember which they saw.

use std::sync::Arc;

use dualgate_core::model::{Digest, ObjectName, Secret};
use dualgate_core::plan::proxy::Certificate;
use dualgate_core::route::EntryPointIndex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Client, Gate};

/// A client's connection over TLS.
pub type TlsClient = Client<tokio_rustls::client::TlsStream<TcpStream>>;

/// A certificate and its key.
pub struct Made {
    pub der: CertificateDer<'static>,
    chain: String,
    key: rcgen::KeyPair,
}

impl Made {
    /// For these names.
    pub fn new(names: &[&str]) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Self { der: certificate.der().clone(), chain: certificate.pem(), key }
    }

    /// As the plan has it: shown for `hosts` at the first entry point.
    pub fn planned(&self, hosts: &[&str]) -> Certificate {
        self.planned_at(hosts, 0)
    }

    /// Shown for `hosts` at another entry point.
    pub fn planned_at(&self, hosts: &[&str], entry_point: u8) -> Certificate {
        Certificate {
            secret: ObjectName::new("apps", "tls"),
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            entry_points: [EntryPointIndex(entry_point)].into_iter().collect(),
            digest: Digest::of(self.chain.as_bytes()),
            chain: self.chain.as_bytes().into(),
            key: Secret::new(self.key.serialize_pem().into_bytes()),
            not_after: i64::MAX,
        }
    }
}

/// The server's side for pods.
pub fn acceptor(made: &Made) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(made.key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der.clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// What a client offers.
pub fn offer(versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// TLS 1.3 and 1.2 with HTTP/1.1.
pub fn usual() -> Arc<ClientConfig> {
    offer(rustls::ALL_VERSIONS, &["http/1.1"])
}

impl Gate {
    /// A client that asks for `name`.
    pub async fn tls_client(&self, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<TlsClient> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Ok(Client::over(TlsConnector::from(config.clone()).connect(name, tcp).await?))
    }
}

/// The certificate that the gate showed.
pub fn shown(client: &TlsClient) -> &CertificateDer<'static> {
    &client.stream.get_ref().1.peer_certificates().unwrap()[0]
}

/// Believes everybody.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
