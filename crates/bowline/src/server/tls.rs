//! Certificates.

use std::{fmt, path::Path, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::error::Error;

/// A certificate with its key, ready to be shown to clients. TLS 1.2 and 1.3.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

impl Tls {
    /// Reads a chain of certificates and its private key, both PEM.
    ///
    /// # Errors
    ///
    /// `server_certificate`, with the file and what is wrong with it.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, Error> {
        let wrong = |file: &Path, why: &dyn fmt::Display| {
            Error::usage(
                "server_certificate",
                format!("{}: {why}", file.display()),
                "give a chain of certificates and its private key as PEM files",
            )
        };
        let certs = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(cert, &error))?;
        if certs.is_empty() {
            return Err(wrong(cert, &"holds no certificate"));
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(cert, &error))?
            .with_no_client_auth()
            .with_single_cert(certs, private)
            .map_err(|error| wrong(cert, &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.clone())
    }
}
