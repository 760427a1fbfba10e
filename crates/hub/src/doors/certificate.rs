//! The hub as a certificate authority of one: its Ed25519 key vouches for the certificates that it shows, so whoever knows
//! the key from an invite needs nothing else. The key itself never takes part in TLS: each certificate has a key of its
//! own, of a kind that browsers know, made anew when the hub starts and never kept.

use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signer as _, SigningKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
    date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, sign};
use time::{Duration, OffsetDateTime};

use crate::hub::lock;

/// The authority's own certificate, for clients that know no pin but take a file of roots.
const FILE: &str = "hub.pem";
/// A certificate is valid from a little before, since clocks differ, and for as long as Apple's systems let one be
/// (825 days); it is made anew with the hub, and whenever the hub's addresses change.
const BEFORE: Duration = Duration::days(2);
const LIFE: Duration = Duration::days(820);

/// Vouches for the hub's certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, HubKey>,
    shown: Arc<Shown>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Writes its own certificate into the folder: always the same bytes for the same key.
    pub(crate) fn new(key: &SigningKey, folder: &Path) -> anyhow::Result<Self> {
        let key = HubKey { public: key.verifying_key().to_bytes(), key: key.clone() };
        let mut params = params(&format!("Idlewatt hub {}", HEXLOWER.encode(&key.public[..4])));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(SerialNumber::from_slice(&key.public[..16]));
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
        let issuer = CertifiedIssuer::self_signed(params, key)?;
        let mut file = std::fs::File::create(folder.join(FILE))?;
        file.write_all(pem(issuer.der()).as_bytes())?;
        let shown = Arc::new(Shown { key: KeyPair::generate()?, now: Mutex::default() });
        Ok(Self { issuer, shown })
    }

    /// Shows a certificate for these names from now on.
    pub(crate) fn certify(&self, names: &[String]) -> anyhow::Result<()> {
        let mut params = params("Idlewatt hub");
        params.subject_alt_names = names.iter().filter_map(|name| alternative(name)).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - BEFORE, now + LIFE);
        let leaf = params.signed_by(&self.shown.key, &self.issuer)?;
        let key = PrivatePkcs8KeyDer::from(self.shown.key.serialize_der());
        let key = ring::sign::any_ecdsa_type(&key.into())?;
        let chain = vec![leaf.der().clone(), self.issuer.der().clone()];
        *lock(&self.shown.now) = Some(Arc::new(CertifiedKey::new(chain, key)));
        Ok(())
    }

    /// How to speak TLS as this hub.
    pub(crate) fn server_config(&self) -> anyhow::Result<ServerConfig> {
        let resolver: Arc<dyn ResolvesServerCert> = self.shown.clone();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The certificate that is shown now.
struct Shown {
    key: KeyPair,
    now: Mutex<Option<Arc<CertifiedKey>>>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<sign::CertifiedKey>> {
        lock(&self.now).clone()
    }
}

/// The hub's key as one that signs certificates.
struct HubKey {
    key: SigningKey,
    public: [u8; 32],
}

impl PublicKeyData for HubKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for HubKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message).to_bytes().to_vec())
    }
}

fn params(name: &str) -> CertificateParams {
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name;
    params.use_authority_key_identifier_extension = true;
    params
}

fn alternative(name: &str) -> Option<SanType> {
    match name.parse::<IpAddr>() {
        Ok(address) => Some(SanType::IpAddress(address)),
        Err(_) => name.try_into().ok().map(SanType::DnsName),
    }
}

fn pem(der: &CertificateDer<'_>) -> String {
    let text = BASE64.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned());
    let lines: Vec<String> = lines.collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
