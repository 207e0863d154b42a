"""Certificates that postseal did not make: of strangers, of impostors, and of whoever stole a key."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.client import Client

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Identity:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: PrivateKey


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def authority(subject: x509.Name | None = None, issuer: Identity | None = None) -> Identity:
    """A CA: self-signed like a twin, or issued by another."""
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    extensions = [(x509.BasicConstraints(True, 0), True), (usage, True)]
    return _make(subject or name(secrets.token_hex(8)), issuer, extensions)


def client_certificate(address: str, issuer: Identity, *, days: int = 30) -> Identity:
    """A certificate for a mail program, as postseal's are; with negative `days` it has been expired for so long."""
    extensions = [
        (x509.BasicConstraints(False, None), True),
        (x509.KeyUsage(True, *[False] * 8), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (x509.SubjectAlternativeName([x509.RFC822Name(address)]), False),
    ]
    return _make(name(address), issuer, extensions, days)


def server_certificate(host: str, issuer: Identity, *others: str) -> Identity:
    """A certificate for a server of one or more names."""
    extensions = [
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName([x509.DNSName(name) for name in (host, *others)]), False),
    ]
    return _make(name(host), issuer, extensions)


def impersonate(originals: Sequence[x509.Certificate]) -> list[Identity]:
    """Copies in everything but the keys: names, serials, dates, extensions and key identifiers are the originals'."""
    keys = {original.subject: ec.generate_private_key(ec.SECP256R1()) for original in originals}
    return [Identity(_copy(original, keys), keys[original.subject]) for original in originals]


def _copy(original: x509.Certificate, keys: dict[x509.Name, ec.EllipticCurvePrivateKey]) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(original.subject)
        .issuer_name(original.issuer)
        .serial_number(original.serial_number)
        .not_valid_before(original.not_valid_before_utc)
        .not_valid_after(original.not_valid_after_utc)
        .public_key(keys[original.subject].public_key())
    )
    for extension in original.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(keys[original.issuer], hashes.SHA256())


def client_of(identity: Identity, directory: Path, *chain: Identity) -> Client:
    """What a mail program presents: a certificate, its key, and the certificates of `chain`."""
    return save(directory / f"{secrets.token_hex(8)}.pem", identity, *chain)


def save(file: Path, identity: Identity, *chain: Identity) -> Client:
    """Writes a certificate, a chain and the key of the first into one file."""
    file.write_bytes(b"".join(pem(one) for one in (identity, *chain)) + key_pem(identity))
    return Client(file)


def pem(identity: Identity) -> bytes:
    return identity.certificate.public_bytes(Encoding.PEM)


def key_pem(identity: Identity) -> bytes:
    return identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _make(
    subject: x509.Name, issuer: Identity | None, extensions: Sequence[tuple[x509.ExtensionType, bool]], days: int = 30
) -> Identity:
    """Makes a key and its certificate, which without an issuer is self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = issuer.key if issuer else key
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - datetime.timedelta(days=abs(days) + 30))
        .not_valid_after(until)
        .public_key(key.public_key())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(_authority_key(issuer, key), False)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return Identity(builder.sign(signer, hashes.SHA256()), key)


def _authority_key(issuer: Identity | None, key: PrivateKey) -> x509.AuthorityKeyIdentifier:
    """The issuer's key as its own certificate calls it, whatever it was made with."""
    if not issuer:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    subject_key = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key.value)
