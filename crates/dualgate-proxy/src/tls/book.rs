//! Which certificate is shown for which name, at which entry point.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dualgate_core::model::{Digest, Host, HostPattern};
use dualgate_core::plan::proxy::{Certificate, ProxyPlan};
use dualgate_core::route::{EntryPointIndex, EntryPointSet};
use foldhash::HashMapExt as _;
use foldhash::{HashMap, HashSet};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};

use crate::listener::EntryPointId;

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No PEM block of the kind that is needed.
    #[error("read the certificate or key: {0}")]
    Pem(rustls::pki_types::pem::Error),
    /// The key does not belong to the certificate, or is of an unknown kind.
    #[error("use the key: {0}")]
    Key(rustls::Error),
    /// The chain is empty.
    #[error("the chain holds no certificate")]
    Empty,
    /// The default certificate could not be made.
    #[error("make the default certificate: {0}")]
    Make(rcgen::Error),
}

/// The certificates of a plan by name.
#[derive(Debug)]
pub struct CertificateBook {
    entry_points: Vec<(EntryPointId, EntryPointIndex)>,
    exact: HashMap<Host, Entries>,
    wildcard: HashMap<Host, Entries>,
    any: Option<Entries>,
    default: Arc<CertifiedKey>,
}

/// What is shown for a name: nearly always one certificate at all of its entry points.
#[derive(Debug)]
struct Entries {
    first: Entry,
    further: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    entry_points: EntryPointSet,
    key: Arc<CertifiedKey>,
}

impl CertificateBook {
    /// From a plan. Keys that `known` already holds are not parsed again; what cannot be shown is returned.
    pub fn new(
        plan: &ProxyPlan,
        default: &DefaultCertificate,
        known: &mut HashMap<Digest, Arc<CertifiedKey>>,
    ) -> (Self, Vec<(Arc<Certificate>, CertificateError)>) {
        let certificates = &plan.certificates;
        let mut book = Self {
            entry_points: plan.listeners.iter().map(|listener| (EntryPointId::of(listener), listener.index)).collect(),
            exact: HashMap::with_capacity(certificates.iter().map(|certificate| certificate.hosts.len()).sum()),
            wildcard: HashMap::new(),
            any: None,
            default: default.0.clone(),
        };
        let mut refused = Vec::new();
        let planned: HashSet<Digest> = certificates.iter().map(|certificate| certificate.digest).collect();
        known.retain(|digest, _| planned.contains(digest));
        for certificate in certificates.iter() {
            let key = match known.get(&certificate.digest) {
                Some(key) => key.clone(),
                None => match certified_key(&certificate.chain, certificate.key.expose()) {
                    Ok(key) => known.entry(certificate.digest).or_insert(Arc::new(key)).clone(),
                    Err(error) => {
                        refused.push((certificate.clone(), error));
                        continue;
                    }
                },
            };
            for host in &certificate.hosts {
                book.add(host, Entry { entry_points: certificate.entry_points, key: key.clone() });
            }
        }
        (book, refused)
    }

    fn add(&mut self, host: &HostPattern, entry: Entry) {
        let known = match host {
            HostPattern::Exact(host) => self.exact.get_mut(host),
            HostPattern::Wildcard(suffix) => self.wildcard.get_mut(suffix),
            HostPattern::Any => self.any.as_mut(),
        };
        if let Some(known) = known {
            return known.further.push(entry);
        }
        let entries = Entries { first: entry, further: Vec::new() };
        match host {
            HostPattern::Exact(host) => drop(self.exact.insert(host.clone(), entries)),
            HostPattern::Wildcard(suffix) => drop(self.wildcard.insert(suffix.clone(), entries)),
            HostPattern::Any => self.any = Some(entries),
        }
    }

    /// The certificate for `name`; the default one where nothing fits.
    fn find(&self, entry_point: &EntryPointId, name: Option<&str>) -> Arc<CertifiedKey> {
        let Some((_, entry_point)) = self.entry_points.iter().find(|(id, _)| id == entry_point) else {
            return self.default.clone();
        };
        let served = |entries: &Entries| {
            let mut all = std::iter::once(&entries.first).chain(&entries.further);
            all.find(|entry| entry.entry_points.contains(*entry_point)).map(|entry| entry.key.clone())
        };
        let named = name.and_then(|name| {
            let exact = self.exact.get(name).and_then(served);
            exact.or_else(|| self.wildcard.get(name.split_once('.')?.1).and_then(served))
        });
        named.or_else(|| self.any.as_ref().and_then(served)).unwrap_or_else(|| self.default.clone())
    }
}

fn certified_key(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>().map_err(CertificateError::Pem)?;
    if chain.is_empty() {
        return Err(CertificateError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::Pem)?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(CertificateError::Key)
}

/// What is shown where no certificate fits: self-signed, made at start.
#[derive(Clone, Debug)]
pub struct DefaultCertificate(Arc<CertifiedKey>);

impl DefaultCertificate {
    /// Makes one.
    pub fn make() -> Result<Self, CertificateError> {
        let key = rcgen::KeyPair::generate().map_err(CertificateError::Make)?;
        let mut params = rcgen::CertificateParams::new(vec!["default.dualgate.invalid".to_owned()])
            .map_err(CertificateError::Make)?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "dualgate default certificate");
        let certificate = params.self_signed(&key).map_err(CertificateError::Make)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|_| CertificateError::Make(rcgen::Error::CouldNotParseKeyPair))?;
        let key = CertifiedKey::from_der(vec![certificate.der().clone()], key, &aws_lc_rs::default_provider())
            .map_err(CertificateError::Key)?;
        Ok(Self(Arc::new(key)))
    }
}

/// What the TLS sockets of a process share: sessions can be resumed at any of them.
pub struct TlsListener {
    provider: Arc<CryptoProvider>,
    ticketer: Arc<dyn rustls::server::ProducesTickets>,
    book: Arc<ArcSwap<CertificateBook>>,
}

impl fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListener").finish_non_exhaustive()
    }
}

impl TlsListener {
    /// Shows what `book` holds at the moment of each handshake.
    pub fn new(book: Arc<ArcSwap<CertificateBook>>) -> Result<Self, rustls::Error> {
        Ok(Self { provider: Arc::new(aws_lc_rs::default_provider()), ticketer: aws_lc_rs::Ticketer::new()?, book })
    }

    /// The configuration of one entry point: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    pub fn config(&self, entry_point: EntryPointId) -> Result<Arc<ServerConfig>, rustls::Error> {
        let resolver = Resolver { book: self.book.clone(), entry_point };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        config.ticketer = self.ticketer.clone();
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

#[derive(Debug)]
struct Resolver {
    book: Arc<ArcSwap<CertificateBook>>,
    entry_point: EntryPointId,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        Some(self.book.load().find(&self.entry_point, name.as_deref()))
    }
}

/// For servers that speak TLS: encrypted, but whoever answers at a pod's address is believed, as nothing signs the
/// certificates of pods.
pub fn client_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyServer { provider: provider.clone() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Believes any certificate, but checks that the peer has its key.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _at: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
