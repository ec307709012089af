//! Certificates.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::error::Error;

/// A certificate with its key, ready to be shown to clients. TLS 1.2 and 1.3. When the files change, the next
/// connection is shown what they hold then; while they cannot be used, what they held before.
#[derive(Clone)]
pub struct Tls(Arc<Files>);

struct Files {
    cert: PathBuf,
    key: PathBuf,
    /// A std mutex: it is held while files are read, which is when they have changed.
    shown: Mutex<Shown>,
}

struct Shown {
    config: Arc<ServerConfig>,
    /// When the files were last written, as they were last looked at.
    written: Written,
}

/// When a certificate and its key were written, where that can be told.
type Written = [Option<SystemTime>; 2];

fn written(cert: &Path, key: &Path) -> Written {
    [cert, key].map(|file| fs::metadata(file).and_then(|meta| meta.modified()).ok())
}

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
        let shown = Shown {
            written: written(cert, key),
            config: read(cert, key)?,
        };
        Ok(Self(Arc::new(Files {
            cert: cert.to_owned(),
            key: key.to_owned(),
            shown: Mutex::new(shown),
        })))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let files = &self.0;
        let mut shown = files.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let written = written(&files.cert, &files.key);
        if written != shown.written {
            shown.written = written;
            match read(&files.cert, &files.key) {
                Ok(config) => {
                    tracing::info!("the certificate has changed");
                    shown.config = config;
                }
                Err(error) => {
                    tracing::warn!(%error, "the certificate has changed, and the one before is still shown");
                }
            }
        }
        TlsAcceptor::from(shown.config.clone())
    }
}

/// What is shown of these files.
fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, Error> {
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
    Ok(Arc::new(config))
}
