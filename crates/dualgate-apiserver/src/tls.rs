//! TLS, with an authority that lives as long as its server: nobody believes it who was not given its certificate.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName as Name, Error, RootCertStore, ServerConfig, SignatureScheme};

use crate::server::ClientCertificates;
use crate::users::User;

/// A certificate of a client, and its key: both as PEM.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// Who issues certificates here.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    clients: Arc<dyn ClientCertVerifier>,
    pub(crate) config: Arc<ServerConfig>,
}

/// Lets everybody in who has the key of the certificate that they show, whatever it is worth.
#[derive(Debug)]
struct Later(Arc<dyn ClientCertVerifier>);

impl Authority {
    /// With a certificate of the server for these names and addresses.
    pub(crate) fn new(names: &[String], judged: ClientCertificates) -> io::Result<Self> {
        let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = called("an authority in memory", &[]);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(io::Error::other)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name = called("an API server in memory", &[]);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &issuer).map_err(io::Error::other)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).map_err(io::Error::other)?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let clients = clients.allow_unauthenticated().build().map_err(io::Error::other)?;
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let config = config.with_client_cert_verifier(match judged {
            ClientCertificates::JudgedAtHandshake => clients.clone(),
            ClientCertificates::JudgedAtRequest => Arc::new(Later(clients.clone())),
        });
        let mut config = config.with_single_cert(vec![certificate.der().clone()], key).map_err(io::Error::other)?;
        // Who resumes a session shows no certificate, and one that has expired would go on.
        (config.session_storage, config.send_tls13_tickets) = (Arc::new(NoServerSessionStorage {}), 0);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { issuer, clients, config: Arc::new(config) })
    }

    /// Whether a certificate that a client has shown is good at this moment.
    pub(crate) fn accepts(&self, certificate: &CertificateDer<'_>) -> bool {
        self.clients.verify_client_cert(certificate, &[], UnixTime::now()).is_ok()
    }

    /// What clients are to believe.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// The same as PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate of a user that ends so long from now, or ended so long ago; and its octets.
    pub(crate) fn issue(
        &self,
        user: &User,
        ends: Result<Duration, Duration>,
    ) -> io::Result<(ClientCertificate, Vec<u8>)> {
        const DAY: Duration = Duration::from_secs(86400);
        let now = SystemTime::now();
        let end = match ends {
            Ok(left) => now + left,
            Err(ago) => now - ago,
        };
        let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = called(&user.name, &user.groups);
        (params.not_before, params.not_after) = ((end.min(now) - DAY).into(), end.into());
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        let pem = ClientCertificate { certificate: certificate.pem(), key: key.serialize_pem() };
        Ok((pem, certificate.der().to_vec()))
    }
}

impl ClientCertVerifier for Later {
    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[Name] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn called(name: &str, groups: &[String]) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    // One is all that this form holds; what counts is who it was issued to.
    if let Some(group) = groups.first() {
        called.push(DnType::OrganizationName, group.as_str());
    }
    called
}
