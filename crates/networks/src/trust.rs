//! Which certificate of a hub is believed: one that the hub's own key vouches for, or one that this machine trusts anyway.
//!
//! A hub that listens with TLS itself shows a certificate signed by a certificate authority of one: its own Ed25519 key,
//! which this node knows from the invite. The chain is checked against that key, and neither names nor dates matter: the
//! hub may have any address, and a clock may be wrong by a day. Behind a reverse proxy with an ordinary certificate the
//! ordinary rules hold, by the roots of this machine, but only at a public address: one on this machine's own networks is
//! nobody's for good, and whoever answers there must show the hub's key. Everything else is refused before a byte is said.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use idlewatt_protocol::PublicKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use url::Host;

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

/// On this machine's own networks: private addresses (RFC 1918, RFC 4193), link-local ones and loopback, those that
/// providers and Tailscale share (RFC 6598), and names that are resolved by multicast (RFC 6762).
pub(crate) fn is_near_host<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Ipv4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_link_local() || ip.is_loopback() || shared
        }
        Host::Ipv6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_near_host(&Host::<S>::Ipv4(ip)),
            None => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
        },
        Host::Domain(name) => {
            let name = name.as_ref().trim_end_matches('.').to_ascii_lowercase();
            name.ends_with(".local") || name == "localhost"
        }
    }
}

/// Whether a certificate for this name may be believed by the roots of this machine.
fn is_public(name: &ServerName<'_>) -> bool {
    let host = match name {
        ServerName::DnsName(name) => Host::Domain(name.as_ref()),
        ServerName::IpAddress(ip) => match IpAddr::from(*ip) {
            IpAddr::V4(ip) => Host::Ipv4(ip),
            IpAddr::V6(ip) => Host::Ipv6(ip),
        },
        _ => return false,
    };
    !is_near_host(&host)
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
        match is_public(name).then(|| self.ordinary()).flatten() {
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

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    /// A machine with one ordinary root, and what it makes of a certificate of that root for `name`.
    fn believes(name: &'static str) -> bool {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let ordinary = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&leaf_key, &ordinary).unwrap();

        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let verifier =
            HubVerifier { hub: PublicKey([9; 32]), provider, ordinary: OnceLock::from(Some(verifier)) };
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(leaf.der(), &[], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn an_ordinary_certificate_is_believed_at_a_public_address_and_at_no_near_one() {
        for public in ["hub.example", "192.0.2.7", "2001:db8::7", "100.128.0.1", "local"] {
            assert!(believes(public), "{public}");
        }
        for near in [
            "10.0.0.7",
            "172.16.0.7",
            "192.168.1.7",
            "169.254.0.7",
            "100.64.0.7",
            "127.0.0.1",
            "::1",
            "fe80::7",
            "fd00::7",
            "::ffff:192.168.1.7",
            "hub.local",
            "Hub.LOCAL",
            "localhost",
        ] {
            assert!(!believes(near), "{near}");
        }
    }
}
