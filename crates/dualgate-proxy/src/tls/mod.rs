//! TLS: sessions over our own buffers, and the book of certificates.

mod book;
mod session;

pub use book::{CertificateBook, CertificateError, DefaultCertificate, TlsListener, client_config};
pub use session::{ClientSession, ServerSession};
