//! The one door to PKCS#11 tokens: a CA's key that lives on one signs there. Only with the feature `pkcs11`, for few sites have a
//! token; without it the same function says how to get one that can.

use crate::keys::{KeyKind, PublicKey, SigningKey};
use crate::secret::Secret;
use crate::token_uri::TokenUri;

/// Why a token cannot be used, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {mend}")]
pub struct TokenError {
    /// What is wrong, where.
    pub problem: String,
    /// What to do.
    pub mend: String,
}

impl TokenError {
    fn new(problem: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { problem: problem.into(), mend: mend.into() }
    }
}

/// Which key a token should have.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// That of a certificate.
    Of(&'a PublicKey),
    /// Any of that kind, whose public half the token tells.
    Any(KeyKind),
}

/// Finds a key on its token, and proves that it signs. `pin` is asked for once the token is there, and
/// tried once: a token locks itself after a few wrong ones.
///
/// # Errors
/// What `pin` returns; [`TokenError`] if this postseal has no PKCS#11, for a module, token or key that is not there or stands
/// there twice, for a wrong PIN, and for a key that is not what is wanted.
pub fn open<E: From<TokenError>>(
    uri: &TokenUri,
    wanted: Wanted<'_>,
    pin: impl FnOnce() -> Result<Secret, E>,
) -> Result<SigningKey, E> {
    imp::open(uri, wanted, pin)
}

#[cfg(not(feature = "pkcs11"))]
mod imp {
    use super::{Secret, SigningKey, TokenError, TokenUri, Wanted};

    pub(super) fn open<E: From<TokenError>>(
        uri: &TokenUri,
        _: Wanted<'_>,
        _: impl FnOnce() -> Result<Secret, E>,
    ) -> Result<SigningKey, E> {
        let problem =
            format!("the CA's key is on the token `{}`, and this postseal was built without PKCS#11", uri.token());
        Err(TokenError::new(problem, "build it with the feature: cargo install postseal --features pkcs11").into())
    }
}

#[cfg(feature = "pkcs11")]
mod imp {
    use std::fmt;
    use std::sync::{Arc, Mutex};

    use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
    use cryptoki::error::{Error, RvError};
    use cryptoki::mechanism::Mechanism;
    use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
    use cryptoki::session::{Session, UserType};
    use cryptoki::slot::{Slot, TokenInfo};
    use cryptoki::types::AuthPin;
    use pkcs8::der::Encode as _;
    use pkcs8::der::asn1::UintRef;
    use sha2::{Digest as _, Sha256};

    use super::{PublicKey, Secret, SigningKey, TokenError, TokenUri, Wanted};
    use crate::keys::{KeyError, KeyKind, RemoteKey, Signing};
    use crate::names::visible;

    /// What knows all modules of the system, where p11-kit is installed; `p11-kit-proxy.so` is another name of it.
    const EVERY_MODULE: &str = "libp11-kit.so.0";

    /// What is signed to see whether the key is the one.
    const PROBE: &[u8] = b"postseal: whose key is this?";

    struct TokenKey {
        public: PublicKey,
        /// For messages.
        place: String,
        /// Cryptoki wants a session used by one thread at a time.
        session: Mutex<Session>,
        handle: ObjectHandle,
        /// Dropped after the session.
        _module: Module,
    }

    /// A module that is told when it is no longer needed, before it is unloaded: it may have threads of its own.
    struct Module(Pkcs11);

    impl Drop for Module {
        fn drop(&mut self) {
            // Nothing is left to save.
            let _ = self.0.clone().finalize();
        }
    }

    impl fmt::Debug for TokenKey {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "TokenKey({}, {})", self.public.kind(), self.place)
        }
    }

    impl RemoteKey for TokenKey {
        fn public(&self) -> &PublicKey {
            &self.public
        }

        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
            let failed = |why: &dyn fmt::Display| KeyError::Elsewhere(format!("{} did not sign: {why}", self.place));
            let session = self.session.lock().map_err(|error| failed(&error))?;
            let sign =
                |mechanism, data: &[u8]| session.sign(mechanism, self.handle, data).map_err(|error| failed(&error));
            match self.public.kind() {
                // Tokens that hash themselves are fewer.
                KeyKind::P256 => {
                    let raw = sign(&Mechanism::Ecdsa, &Sha256::digest(message))?;
                    ecdsa_der(&raw).ok_or_else(|| failed(&"its signature is no pair of numbers"))
                }
                KeyKind::Rsa2048 | KeyKind::Rsa3072 => sign(&Mechanism::Sha256RsaPkcs, message),
            }
        }
    }

    /// Writes a signature that is two numbers side by side (PKCS#11 3.1 §6.3.1) as certificates have it (RFC 3279 §2.2.3).
    fn ecdsa_der(raw: &[u8]) -> Option<Vec<u8>> {
        let (r, s) = raw.split_at_checked(32).filter(|(_, s)| s.len() == 32)?;
        let number = |octets| UintRef::new(octets).and_then(|number| number.to_der()).ok();
        let both = [number(r)?, number(s)?].concat();
        // Two numbers of 32 octets stay below 128.
        Some([&[0x30, u8::try_from(both.len()).ok()?], both.as_slice()].concat())
    }

    pub(super) fn open<E: From<TokenError>>(
        uri: &TokenUri,
        wanted: Wanted<'_>,
        pin: impl FnOnce() -> Result<Secret, E>,
    ) -> Result<SigningKey, E> {
        let module = load(uri)?;
        let (slot, info) = find_token(&module.0, uri)?;
        refuse_locked(uri, &info)?;
        let session = module.0.open_ro_session(slot).map_err(|error| broken(uri, &error))?;
        log_in(&session, uri, &pin()?)?;
        let (handle, public) = match wanted {
            Wanted::Of(public) => (find_key(&session, uri, ObjectClass::PRIVATE_KEY, public.kind())?, public.clone()),
            Wanted::Any(kind) => (
                find_key(&session, uri, ObjectClass::PRIVATE_KEY, kind)?,
                public_key(&session, find_key(&session, uri, ObjectClass::PUBLIC_KEY, kind)?, uri, kind)?,
            ),
        };
        let place = format!("the token `{}`", visible(uri.token()));
        let key = TokenKey { public, place, session: Mutex::new(session), handle, _module: module };
        match Signing::Elsewhere(&key).sign(PROBE) {
            Ok(_) => Ok(SigningKey::Elsewhere(Arc::new(key))),
            Err(error) => {
                let mend = "name the right key, which may have another label on the token";
                let of = match wanted {
                    Wanted::Of(_) => "the certificate",
                    Wanted::Any(_) => "the public key beside it",
                };
                Err(TokenError::new(format!("the key `{uri}` is not that of {of}: {error}"), mend).into())
            }
        }
    }

    fn load(uri: &TokenUri) -> Result<Module, TokenError> {
        let path = uri.module().map_or(EVERY_MODULE, |path| path.as_str());
        let module = Pkcs11::new(path).map_err(|error| {
            let mend = match uri.module() {
                Some(_) => "install the token's software, or name its module: ?module-path=/usr/lib/.../MODULE.so",
                None => "name the token's module: ?module-path=/usr/lib/.../MODULE.so; or install p11-kit",
            };
            TokenError::new(format!("the PKCS#11 module `{path}` cannot be loaded: {}", why(&error)), mend)
        })?;
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) => Ok(Module(module)),
            Err(error) => {
                let mend = "look whether its daemon runs, and whether its settings can be read";
                Err(TokenError::new(format!("the PKCS#11 module `{path}` does not start: {}", why(&error)), mend))
            }
        }
    }

    /// libloading's words are its cause.
    fn why(error: &Error) -> String {
        let text = match error {
            Error::LibraryLoading(cause) => cause.to_string(),
            other => other.to_string(),
        };
        visible(&text)
    }

    fn broken(uri: &TokenUri, error: &Error) -> TokenError {
        let problem = format!("the token `{}` failed: {}", visible(uri.token()), why(error));
        TokenError::new(problem, "look at the token with: pkcs11-tool --list-slots")
    }

    fn find_token(module: &Pkcs11, uri: &TokenUri) -> Result<(Slot, TokenInfo), TokenError> {
        let slots = module.get_slots_with_token().map_err(|error| broken(uri, &error))?;
        let mut found = Vec::new();
        for slot in slots {
            // A slot that is pulled meanwhile is none.
            let Ok(info) = module.get_token_info(slot) else { continue };
            if uri.means(info.label(), info.serial_number(), info.manufacturer_id(), info.model()) {
                found.push((slot, info));
            }
        }
        let token = visible(uri.token());
        match (found.len(), found.pop()) {
            (1, Some(one)) => Ok(one),
            (0, _) => Err(TokenError::new(
                format!("there is no token `{token}`"),
                "plug it in, or look how it is called: pkcs11-tool --list-slots",
            )),
            (many, _) => Err(TokenError::new(
                format!("{many} tokens are called `{token}`"),
                "add the serial number of the one that is meant to the URI: serial=...",
            )),
        }
    }

    /// The last try is left to a person: from cron it would lock the token.
    fn refuse_locked(uri: &TokenUri, info: &TokenInfo) -> Result<(), TokenError> {
        let token = visible(uri.token());
        if info.user_pin_locked() {
            let mend = "unlock it with the PIN of its security officer: pkcs11-tool --init-pin --login --login-type so";
            return Err(TokenError::new(format!("the token `{token}` is locked, after too many wrong PINs"), mend));
        }
        if info.user_pin_final_try() {
            let mend =
                "log in once with the right PIN, which gives it all its tries back: pkcs11-tool --login --list-objects";
            return Err(TokenError::new(format!("the token `{token}` locks itself at the next wrong PIN"), mend));
        }
        Ok(())
    }

    fn log_in(session: &Session, uri: &TokenUri, pin: &Secret) -> Result<(), TokenError> {
        let token = visible(uri.token());
        let Some(pin) = pin.expose_str().filter(|pin| !pin.is_empty()).map(AuthPin::from) else {
            let problem = format!("the PIN for the token `{token}` is empty, or not in UTF-8; it was not tried");
            return Err(TokenError::new(problem, "look which PIN belongs to this token"));
        };
        session.login(UserType::User, Some(&pin)).map_err(|error| match error {
            Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) => {
                let mend =
                    "look which PIN belongs to this token before you try again: it locks itself after a few wrong ones";
                TokenError::new(format!("the PIN does not open the token `{token}`; it was tried once"), mend)
            }
            Error::Pkcs11(RvError::PinLocked, _) => {
                let mend =
                    "unlock it with the PIN of its security officer: pkcs11-tool --init-pin --login --login-type so";
                TokenError::new(format!("the token `{token}` is locked, after too many wrong PINs"), mend)
            }
            Error::Pkcs11(RvError::PinExpired | RvError::UserPinNotInitialized, _) => {
                let mend = "set a PIN: pkcs11-tool --init-pin --login --login-type so";
                TokenError::new(format!("the PIN of the token `{token}` is not set, or has to be changed"), mend)
            }
            other => broken(uri, &other),
        })
    }

    fn public_key(
        session: &Session,
        handle: ObjectHandle,
        uri: &TokenUri,
        kind: KeyKind,
    ) -> Result<PublicKey, TokenError> {
        let wanted = [AttributeType::EcPoint, AttributeType::Modulus, AttributeType::PublicExponent];
        let wanted = if kind == KeyKind::P256 { &wanted[..1] } else { &wanted[1..] };
        let told = session.get_attributes(handle, wanted).map_err(|error| broken(uri, &error))?;
        let public = match told.as_slice() {
            // The point in an OCTET STRING (PKCS#11 3.1 §6.3.3).
            [Attribute::EcPoint(point)] => PublicKey::p256(point.strip_prefix(&[0x04, 0x41]).unwrap_or(point)),
            [Attribute::Modulus(modulus), Attribute::PublicExponent(exponent)]
            | [Attribute::PublicExponent(exponent), Attribute::Modulus(modulus)] => PublicKey::rsa(modulus, exponent),
            _ => Err(KeyError::Malformed("the token does not tell it".to_owned())),
        };
        match public {
            Ok(public) if public.kind() == kind => Ok(public),
            Ok(public) => Err(TokenError::new(
                format!("the key `{uri}` is of the kind {}, not {kind}", public.kind()),
                format!("say so: --ca-key {}", public.kind()),
            )),
            Err(error) => Err(TokenError::new(
                format!("the public key `{uri}` cannot be used: {error}"),
                "make a P-256, RSA-2048 or RSA-3072 key on the token",
            )),
        }
    }

    fn find_key(
        session: &Session,
        uri: &TokenUri,
        class: ObjectClass,
        kind: KeyKind,
    ) -> Result<ObjectHandle, TokenError> {
        let what = if class == ObjectClass::PRIVATE_KEY { "private" } else { "public" };
        let key_type = if kind == KeyKind::P256 { KeyType::EC } else { KeyType::RSA };
        let mut wanted = vec![Attribute::Class(class), Attribute::KeyType(key_type)];
        wanted.extend(uri.object().map(|label| Attribute::Label(label.as_bytes().to_vec())));
        wanted.extend(uri.id().map(|id| Attribute::Id(id.to_vec())));
        let found = session.find_objects(&wanted).map_err(|error| broken(uri, &error))?;
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(TokenError::new(
                format!("the token has no {what} key `{uri}` of the kind {kind}"),
                "look what keys there are, and of which kind: pkcs11-tool --login --list-objects",
            )),
            many => Err(TokenError::new(
                format!("the token has {} {what} keys `{uri}`", many.len()),
                "add the identifier of the one that is meant to the URI: id=%01",
            )),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::ecdsa_der;

        #[test]
        fn a_raw_signature_is_written_as_der() {
            let mut raw = [0; 64];
            (raw[0], raw[31], raw[63]) = (0x80, 1, 0x7f);
            let der = ecdsa_der(&raw).unwrap();
            // A number whose first bit is set has a zero before it; one of zeros but for its last octet has one octet.
            assert_eq!((&der[..5], &der[der.len() - 3..]), (&[0x30, 38, 2, 33, 0][..], &[2, 1, 0x7f][..]));
            assert_eq!(der.len(), 40);
            assert!(ecdsa_der(&raw[..63]).is_none() && ecdsa_der(&[0; 65]).is_none());
        }
    }
}
