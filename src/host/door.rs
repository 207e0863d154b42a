//! Whether OpenSMTPD lets a certificate in, found out by a handshake without its key.
//!
//! A server judges the chain of a client before it looks at the proof that the client has the key (RFC 8446 §4.4.2.4 and
//! §4.4.3; of TLS 1.2, RFC 5246 §7.4.8). Who shows a chain and then a false proof is turned away in either case, but the alert
//! says for which of the two: so a revocation is proved for a certificate whose key only its lost device has.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureAlgorithm, SignatureScheme,
};

use crate::keys::KeyKind;
use crate::names::{HostName, visible};

/// What a listener says of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// The chain is good: with the key, the certificate is let in.
    Open,
    /// The chain is refused, with the alert's name.
    Shut(String),
    /// Neither: the listener does not answer, or asks for no certificate.
    Unclear(String),
}

/// A listener of a running OpenSMTPD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener<'a> {
    /// Where it listens.
    pub address: IpAddr,
    /// At which port: 465 begins with TLS, any other with STARTTLS (RFC 3207).
    pub port: u16,
    /// The host's name.
    pub name: &'a HostName,
}

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

impl Listener<'_> {
    /// Shows a chain, the client's own certificate first, each as DER; `kind` is that of the certified key.
    pub fn shows(&self, chain: &[Vec<u8>], kind: KeyKind) -> Door {
        match self.handshake(chain, kind) {
            Ok(()) => Door::Unclear("it asks for no certificate, or takes a false signature".to_owned()),
            Err(error) => verdict(&error),
        }
    }

    fn handshake(&self, chain: &[Vec<u8>], kind: KeyKind) -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(self.address, self.port), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        if self.port != 465 {
            start_tls(&mut stream)?;
        }
        let name = ServerName::try_from(self.name.to_string()).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::new(config(chain, kind)?), name).map_err(io::Error::other)?;
        let mut session = rustls::Stream::new(&mut tls, &mut stream);
        // With TLS 1.3 the client is through before the server has judged it: the alert comes in the place of data.
        session.write_all(b"QUIT\r\n")?;
        session.flush()?;
        let mut octet = [0];
        session.read_exact(&mut octet)
    }
}

/// Goes as far as STARTTLS. The server's certificate is not looked at, so nothing else is believed either.
fn start_tls(stream: &mut TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut answer = |expected: &str| loop {
        let mut line = String::new();
        // A line of a reply has 512 octets at most (RFC 5321 §4.5.3.1.5).
        (&mut reader).take(1024).read_line(&mut line)?;
        if !line.starts_with(expected) {
            return Err(io::Error::other(format!("it answers `{}`", visible(line.trim_end()))));
        }
        if line.get(3..4) != Some("-") {
            return Ok(());
        }
    };
    answer("220")?;
    stream.write_all(b"EHLO localhost\r\n")?;
    answer("250")?;
    stream.write_all(b"STARTTLS\r\n")?;
    answer("220")
}

/// Reads the verdict out of the alert (RFC 8446 §6.2).
fn verdict(error: &io::Error) -> Door {
    use AlertDescription as Alert;

    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        // What is wrong is the signature alone. OpenSSL and LibreSSL say the first.
        Some(rustls::Error::AlertReceived(Alert::DecryptError | Alert::IllegalParameter)) => Door::Open,
        Some(rustls::Error::AlertReceived(
            alert @ (Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied),
        )) => Door::Shut(format!("{alert:?}")),
        _ => Door::Unclear(error.to_string()),
    }
}

fn config(chain: &[Vec<u8>], kind: KeyKind) -> io::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let liar = Liar { chain: chain.iter().map(|der| CertificateDer::from(der.clone())).collect(), kind };
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_client_cert_resolver(Arc::new(liar));
    Ok(config)
}

/// Shows a certificate, and signs with nothing.
#[derive(Clone, Debug)]
struct Liar {
    chain: Vec<CertificateDer<'static>>,
    kind: KeyKind,
}

impl Liar {
    fn scheme(&self) -> SignatureScheme {
        match self.kind {
            KeyKind::P256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            KeyKind::Rsa2048 | KeyKind::Rsa3072 => SignatureScheme::RSA_PSS_SHA256,
        }
    }
}

impl ResolvesClientCert for Liar {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::new(CertifiedKey::new(self.chain.clone(), Arc::new(self.clone()))))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl SigningKey for Liar {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.kind {
            KeyKind::P256 => SignatureAlgorithm::ECDSA,
            KeyKind::Rsa2048 | KeyKind::Rsa3072 => SignatureAlgorithm::RSA,
        }
    }
}

impl Signer for Liar {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(match self.kind {
            // r = 1, s = 1 (RFC 3279 §2.2.3): well formed, and wrong.
            KeyKind::P256 => vec![0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01],
            KeyKind::Rsa2048 => vec![0x01; 256],
            KeyKind::Rsa3072 => vec![0x01; 384],
        })
    }

    fn scheme(&self) -> SignatureScheme {
        Self::scheme(self)
    }
}

/// Takes every server: it is asked what it thinks of a client, and is told nothing that is secret.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
