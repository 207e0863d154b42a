//! `user add --csr`: the public key of a request, once nothing speaks against certifying it.

use camino::Utf8Path;

use crate::cli::failure::Failure;
use crate::cli::make;
use crate::inventory::{ClientCertificate, Inventory, Reason};
use crate::keys::PublicKey;
use crate::names::MailAddress;
use crate::pki::request::{self, MAXIMUM_REQUEST};
use crate::pki::{Certificate, Refusal};
use crate::store::Store;

/// Returns the key of the request in a file, for a certificate of the address.
pub(super) fn key(
    store: &Store,
    inventory: &Inventory,
    file: &Utf8Path,
    address: &MailAddress,
) -> Result<PublicKey, Failure> {
    let content = make::read_given(file, MAXIMUM_REQUEST, "the certificate request")?;
    let key = request::public_key(content.expose(), address)
        .map_err(|Refusal { problem, mend }| Failure::input("csr-refused", problem, mend))?;
    refuse_known(store, inventory, &key, address)?;
    Ok(key)
}

/// Refuses to certify anew a key of the person's own whose certificate was revoked because others have it, on whichever device.
pub(super) fn refuse_compromised(store: &Store, inventory: &Inventory, key: &PublicKey) -> Result<(), Failure> {
    let is_compromised = |known: &&ClientCertificate| {
        known.theirs && known.revocation.is_some_and(|revocation| revocation.reason == Reason::KeyCompromise)
    };
    for known in inventory.client_certificates.iter().filter(is_compromised) {
        let Some(pem) = store.ledger().certificate_pem(&known.serial)? else { continue };
        if Certificate::from_pem(&pem)?.facts().spki == key.spki_der() {
            let message =
                format!("the key is one whose certificate of `{}` was revoked for keyCompromise", known.address);
            let help = "have the person make another key, and certify that: postseal user add ADDRESS --csr FILE";
            return Err(Failure::input("csr-key-taken", message, help));
        }
    }
    Ok(())
}

/// A key that two persons hold tells nobody apart, and one that was seen by others opens for them too, whoever's it is.
fn refuse_known(store: &Store, inventory: &Inventory, key: &PublicKey, address: &MailAddress) -> Result<(), Failure> {
    let help = "have the person make a key of their own, and a request for it";
    for known in &inventory.client_certificates {
        let compromised = known.revocation.is_some_and(|revocation| revocation.reason == Reason::KeyCompromise);
        if known.address == *address && !compromised {
            continue;
        }
        let Some(pem) = store.ledger().certificate_pem(&known.serial)? else { continue };
        if Certificate::from_pem(&pem)?.facts().spki != key.spki_der() {
            continue;
        }
        let message = if compromised {
            format!(
                "the key of the request is one whose certificate of `{}` was revoked for keyCompromise",
                known.address
            )
        } else {
            format!("the key of the request is certified for `{}`", known.address)
        };
        return Err(Failure::input("csr-key-taken", message, help));
    }
    Ok(())
}
