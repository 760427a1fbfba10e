//! Which certificate of a hub is believed: one that the hub's own key vouches for, or one that this machine trusts anyway.
//!
//! A hub that listens with TLS itself shows a certificate signed by a certificate authority of one: its own Ed25519 key,
//! which this node knows from the invite. The chain is checked against that key, and neither names nor dates matter: the
//! hub may have any address, and a clock may be wrong by a day. Behind a reverse proxy with an ordinary certificate the
//! ordinary rules hold, by the roots of this machine. Everything else is refused before a byte is said.

use std::fmt;
use std::sync::{Arc, OnceLock};

use idlewatt_protocol::PublicKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// An Ed25519 SubjectPublicKeyInfo without its outer header, up to the key (RFC 8410).
const ED25519_SPKI: [u8; 10] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// How a client speaks TLS with this hub. The roots of this machine are read only where the hub's own key does not do.
///
/// # Errors
/// When no protocol version is left to speak, which is a fault of this program.
pub fn client_config(hub: PublicKey) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = HubVerifier { hub, provider: Arc::clone(&provider), ordinary: OnceLock::new() };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

struct HubVerifier {
    hub: PublicKey,
    provider: Arc<CryptoProvider>,
    /// By this machine's roots; `None` where it has none.
    ordinary: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
}

impl fmt::Debug for HubVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubVerifier").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl HubVerifier {
    /// Whether one of the certificates shown is an authority with the hub's own key and signed this one, at whatever time.
    fn is_vouched_for(
        &self,
        leaf: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<bool, Error> {
        let leaf = ParsedCertificate::try_from(leaf)?;
        let mut roots = RootCertStore::empty();
        for certificate in shown {
            // What cannot be read is of no use, and no reason to refuse what can.
            let _ = roots.add(certificate.clone().into_owned());
        }
        let expected = [&ED25519_SPKI[..], &self.hub.0].concat();
        roots.roots.retain(|it| it.subject_public_key_info.as_ref() == expected);
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verify = |at| verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], at, algorithms);
        Ok(!roots.is_empty()
            && match verify(now) {
                Err(Error::InvalidCertificate(
                    CertificateError::ExpiredContext { not_after: valid, .. }
                    | CertificateError::NotValidYetContext { not_before: valid, .. },
                )) => verify(valid).is_ok(),
                result => result.is_ok(),
            })
    }

    fn ordinary(&self) -> Option<&Arc<WebPkiServerVerifier>> {
        let read = || {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let provider = Arc::clone(&self.provider);
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()
        };
        self.ordinary.get_or_init(read).as_ref()
    }
}

impl ServerCertVerifier for HubVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.is_vouched_for(leaf, shown, now)? {
            return Ok(ServerCertVerified::assertion());
        }
        match self.ordinary() {
            Some(ordinary) => ordinary.verify_server_cert(leaf, shown, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
