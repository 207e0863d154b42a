"""A site of postseal's, made and changed by the program's own commands, and the people in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from lab.client import Client, Reply, compose
from lab.forge import Identity, PrivateKey
from lab.lab import MX4, MX6, Lab
from lab.manifest import Entry, read_manifest

PROGRAM = Path(__file__).parents[2] / "target/debug/postseal"
HOST, DOMAIN = "mail.example.com", "example.com"
SIGNED = [(DOMAIN, "ed25519-sha256", "valid"), (DOMAIN, "rsa-sha256", "valid")]
MAILBOXES = ["alice@example.com", "bob@example.com", "carol@example.com"]


@dataclass(frozen=True)
class Person:
    """What somebody holds: a certificate and a mail password."""

    address: str
    client: Client
    login: tuple[str, str]

    def send(self, lab: Lab, recipient: str, message: bytes | None = None, **changes: Any) -> Reply:
        """Submits a message as this person's mail program does, except for what `changes` says to `Lab.submit`."""
        how = {"sender": self.address, "client": self.client, "login": self.login, **changes}
        return lab.submit(
            recipients=recipient, message=compose(self.address, recipient) if message is None else message, **how
        )


@dataclass(frozen=True)
class Site:
    """A site's directory."""

    directory: Path

    @classmethod
    def init(cls, directory: Path, *options: str) -> Site:
        """`postseal init` with Alice and the laboratory's addresses."""
        site = cls(directory)
        site.run("init", DOMAIN, "--user", "alice@example.com", "--address", MX4, "--address", MX6, *options)
        return site

    def run(self, *arguments: str) -> str:
        """Runs postseal and returns what it said on standard output; anything but exit code 0 raises."""
        done = subprocess.run(
            [PROGRAM, *arguments, "--site", self.directory],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
        )
        if done.returncode:
            raise OSError(f"postseal {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def copy(self, directory: Path) -> Site:
        """The same site in another directory, to change it there."""
        shutil.copytree(self.directory, directory)
        return Site(directory)

    def set(self, old: str, new: str) -> None:
        """Edits postseal.toml, where `old` stands exactly once, and renders."""
        settings = self.directory / "postseal.toml"
        text = settings.read_text()
        if text.count(old) != 1:
            raise ValueError(f"`{old}` stands {text.count(old)} times in postseal.toml:\n{text}")
        settings.write_text(text.replace(old, new))
        self.run("render")

    # What was rendered

    @property
    def root(self) -> Path:
        return self.directory / "out" / HOST / "root"

    @property
    def manifest(self) -> list[Entry]:
        return read_manifest((self.directory / "out" / HOST / "MANIFEST").read_text())

    @property
    def zone(self) -> str:
        return (self.directory / "out/dns" / f"{DOMAIN}.zone").read_text()

    def rendered(self, path: str) -> str:
        """The content of a file of the host's tree."""
        return (self.root / path[1:]).read_text()

    def lab(self, mailboxes: list[str] = MAILBOXES) -> Lab:
        """A laboratory with this site installed."""
        return Lab(
            self.root, self.manifest, {DOMAIN: self.zone}, mailboxes, host_name=HOST, server_ca=self.ca_certificate
        )

    # Keys and passwords

    @property
    def ca_certificate(self) -> Path:
        """The site CA's certificate as it is handed out."""
        return next(self.directory.glob("handout/*/*/site-ca.pem"))

    def site_ca(self) -> Identity:
        """The site CA with its key, decrypted as whoever holds state/ can."""
        certificate = x509.load_pem_x509_certificate(self.ca_certificate.read_bytes())
        passphrase = _word(self.directory / "state/ca.passphrase").encode()
        for file in (self.directory / "state/keys").iterdir():
            if b"ENCRYPTED" in file.read_bytes():
                key = load_pem_private_key(file.read_bytes(), passphrase)
                if key.public_key() == certificate.public_key():
                    assert isinstance(key, PrivateKey)
                    return Identity(certificate, key)
        raise LookupError("the site CA's key is not in state/keys")

    def server(self) -> tuple[Path, Path]:
        """The rendered server certificate with its chain, and its key."""
        [certificate] = self.root.glob("etc/mail/postseal/tls/*.pem")
        return certificate, certificate.with_suffix(".key")

    def person(self, address: str, device: str = "default", *, apple: bool = False) -> Person:
        """Opens the .p12 file of the handout as the person does."""
        handout = self.directory / "handout" / address / device
        passwords = self.directory / "state/passwords" / address
        password = _word(passwords / f"{device}.p12-password").encode()
        bundle = (handout / f"{address}{'-apple' if apple else ''}.p12").read_bytes()
        key, certificate, others = pkcs12.load_key_and_certificates(bundle, password)
        assert key and certificate
        chain = b"".join(one.public_bytes(Encoding.PEM) for one in [certificate, *others])
        pem = self.directory.parent / f"{self.directory.name}-{address}-{device}{'-apple' if apple else ''}.pem"
        pem.write_bytes(chain + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        mail_password = passwords / "password"
        return Person(address, Client(pem), (address, _word(mail_password) if mail_password.exists() else ""))


def certificates(client: Client) -> list[x509.Certificate]:
    """A client's certificate and the chain that it sends."""
    return x509.load_pem_x509_certificates(client.certificate.read_bytes())


def _word(file: Path) -> str:
    return file.read_text().rstrip("\n")
