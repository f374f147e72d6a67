//! Which certificate is shown for which name, at which entry point.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dualgate_core::model::{Digest, Host, HostPattern};
use dualgate_core::plan::proxy::{Certificate, ProxyPlan};
use dualgate_core::route::EntryPointIndex;
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
    certificates: Arc<[Arc<Certificate>]>,
    /// In the same order; what cannot be shown has none.
    keys: Vec<Option<Arc<CertifiedKey>>>,
    names: Arc<Names>,
    default: Arc<CertifiedKey>,
}

/// Which certificates are for which name, by their number in the plan.
#[derive(Debug, Default)]
struct Names {
    exact: ByHost,
    wildcard: ByHost,
    any: Vec<u32>,
}

/// Nearly every name has one certificate, at all of its entry points.
#[derive(Debug, Default)]
struct ByHost {
    first: HashMap<Host, u32>,
    further: HashMap<Host, Vec<u32>>,
}

impl CertificateBook {
    /// From a plan. Keys that `known` already holds are not parsed again, and names that are as `before` are not sorted again;
    /// what cannot be shown is returned.
    pub fn new(
        plan: &ProxyPlan,
        default: &DefaultCertificate,
        known: &mut HashMap<Digest, Arc<CertifiedKey>>,
        before: Option<&Self>,
    ) -> (Self, Vec<(Arc<Certificate>, CertificateError)>) {
        let certificates = &plan.certificates;
        let planned: HashSet<Digest> = certificates.iter().map(|certificate| certificate.digest).collect();
        known.retain(|digest, _| planned.contains(digest));
        let mut refused = Vec::new();
        let mut key = |certificate: &Arc<Certificate>| {
            if let Some(key) = known.get(&certificate.digest) {
                return Some(key.clone());
            }
            match certified_key(&certificate.chain, certificate.key.expose()) {
                Ok(key) => Some(known.entry(certificate.digest).or_insert(Arc::new(key)).clone()),
                Err(error) => {
                    refused.push((certificate.clone(), error));
                    None
                }
            }
        };
        let keys = certificates.iter().map(&mut key).collect();
        let names = match before {
            Some(before) if has_same_names(&before.certificates, certificates) => before.names.clone(),
            Some(_) | None => Arc::new(Names::of(certificates)),
        };
        let entry_points = plan.listeners.iter().map(|listener| (EntryPointId::of(listener), listener.index)).collect();
        (Self { entry_points, certificates: certificates.clone(), keys, names, default: default.0.clone() }, refused)
    }

    /// The certificate for `name`; the default one where nothing fits.
    fn find(&self, entry_point: &EntryPointId, name: Option<&str>) -> Arc<CertifiedKey> {
        let Some((_, entry_point)) = self.entry_points.iter().find(|(id, _)| id == entry_point) else {
            return self.default.clone();
        };
        let shown = |number: u32| {
            let certificate = self.certificates.get(number as usize)?;
            let key = self.keys.get(number as usize)?.as_ref()?;
            certificate.entry_points.contains(*entry_point).then_some(key)
        };
        let named = name.and_then(|name| {
            let exact = self.names.exact.of(name).find_map(shown);
            exact.or_else(|| self.names.wildcard.of(name.split_once('.')?.1).find_map(shown))
        });
        named.or_else(|| self.names.any.iter().copied().find_map(shown)).unwrap_or(&self.default).clone()
    }
}

impl Names {
    fn of(certificates: &[Arc<Certificate>]) -> Self {
        let count = certificates.iter().map(|certificate| certificate.hosts.len()).sum();
        let exact = ByHost { first: HashMap::with_capacity(count), ..ByHost::default() };
        let mut names = Self { exact, ..Self::default() };
        for (number, certificate) in (0..).zip(certificates) {
            for host in &certificate.hosts {
                match host {
                    HostPattern::Exact(host) => names.exact.add(host, number),
                    HostPattern::Wildcard(suffix) => names.wildcard.add(suffix, number),
                    HostPattern::Any => names.any.push(number),
                }
            }
        }
        names
    }
}

impl ByHost {
    fn add(&mut self, host: &Host, number: u32) {
        match self.first.entry(host.clone()) {
            Entry::Vacant(free) => drop(free.insert(number)),
            Entry::Occupied(_) => self.further.entry(host.clone()).or_default().push(number),
        }
    }

    fn of(&self, host: &str) -> impl Iterator<Item = u32> {
        let further = || self.further.get(host).into_iter().flatten();
        self.first.get(host).into_iter().flat_map(move |first| std::iter::once(first).chain(further())).copied()
    }
}

/// Whether names and numbers are as before, as when keys were exchanged.
fn has_same_names(before: &[Arc<Certificate>], after: &[Arc<Certificate>]) -> bool {
    let is_same = |(before, after): (&Arc<Certificate>, &Arc<Certificate>)| {
        Arc::ptr_eq(before, after) || before.hosts == after.hosts
    };
    before.len() == after.len() && before.iter().zip(after).all(is_same)
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
