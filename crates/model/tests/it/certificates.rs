//! Servers whose certificate is not to be trusted.

use std::sync::Arc;

use bowline_model::ErrorKind;
use bowline_testkit::provider::Wire;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

use crate::bench::{PATIENT, model};
use crate::messages::{request, user};

/// A server with a certificate that it signed itself, for `localhost`. The task returns what it was
/// sent before each of its connections ended.
async fn signed_by_itself(connections: usize) -> (u16, tokio::task::JoinHandle<Vec<u8>>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut taken = Vec::new();
        for _ in 0..connections {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok(mut tls) = acceptor.accept(tcp).await {
                // The client ends the connection; how is the same here.
                let _ = tls.read_to_end(&mut taken).await;
            }
        }
        taken
    });
    (port, task)
}

#[tokio::test]
async fn a_certificate_that_nobody_signed_is_named_and_the_key_is_not_sent() {
    let (port, server) = signed_by_itself(Wire::ALL.len()).await;
    for wire in Wire::ALL {
        let model = model(format!("https://localhost:{port}/v1"), wire, PATIENT);
        let sent = model
            .provider
            .stream(request("test-model", vec![user("hello")]))
            .await;
        let Err(error) = sent else { panic!() };
        assert_eq!(error.kind, ErrorKind::Certificate, "{wire:?}: {error}");
        assert_eq!(error.code(), "model_certificate");
        assert_eq!(
            error.to_string(),
            format!(
                "test: the certificate of localhost:{port} is signed by no authority that this machine trusts"
            )
        );
        assert!(error.hint().contains("SSL_CERT_FILE"));
        assert!(!error.is_transient(), "it will be no better in a second");
    }
    assert_eq!(server.await.unwrap(), b"");
}
