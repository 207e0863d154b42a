"""Both ways of trust on the real OpenSMTPD and Dovecot: who is revoked stays outside, and nobody else does.

Dovecot has Debian's own configuration with the blocks of README.md and docs/trust.md, and nothing else but what a test without
syslog needs.
"""

from __future__ import annotations

import datetime
import imaplib
import shutil
import sqlite3
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from lab import Client, Lab, Person, Site
from lab.client import tls_context
from lab.lab import MX4
from lab.test_dovecot import AUTH_CONF, FOR_THE_TEST, PAM
from lab.test_installed import code_block

TABLES = "/etc/mail/postseal"
PAGE = Path(__file__).parents[2] / "docs/trust.md"
PINNED, WITH_CRL = "ssl_ca = </etc/mail/postseal/clients.pem", "ssl_ca = </etc/mail/postseal/clients-with-crl.pem"
BOTH_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def block(line: str) -> str:
    """The block of docs/trust.md that has a line."""
    [found] = [text for text in PAGE.read_text().split("```")[1::2] if line in text.splitlines()]
    return found.partition("\n")[2]


class Doors:
    """OpenSMTPD's port 465 and Dovecot's 993 on one host."""

    def __init__(self, lab: Lab, site: Site, ssl_ca: str) -> None:
        self.lab, self.site = lab, site
        # The handout that it is read from may be one of somebody who is removed.
        lab.server_ca = Path(shutil.copy(site.ca_certificate, site.directory.parent / "known-ca.pem"))
        certificate, key = site.server()
        tls = f"ssl_cert = <{TABLES}/tls/{certificate.name}\nssl_key = <{TABLES}/tls/{key.name}\n"
        with_pam = lab.mx.path(AUTH_CONF).read_text()
        lab.mx.write(AUTH_CONF, with_pam.replace(PAM, f"#{PAM}"))
        self.tls = FOR_THE_TEST + code_block("service lmtp") + tls
        self.trust(ssl_ca)
        lab.dovecot.command = ("dovecot", "-F")
        # Nobody writes to the far server.
        lab.daemons = (lab.named, lab.rspamd, lab.dovecot, lab.smtpd)

    def trust(self, ssl_ca: str) -> None:
        """Writes what docs/trust.md says into Dovecot's configuration."""
        self.lab.mx.write("/etc/dovecot/local.conf", self.tls + block(ssl_ca))

    def update(self) -> None:
        """Installs what is rendered now, and tells the daemons as `apply` says."""
        self.lab.install(self.site.root, self.site.manifest)
        self.lab.smtpd.restart()
        self.lab.dovecot.restart()

    def reload_dovecot(self) -> None:
        self.lab.install(self.site.root, self.site.manifest)
        self.lab.mx.run("doveadm", "reload")

    def smtp(self, person: Person) -> str:
        """Logs in for submission: `admitted`, or the alert."""
        try:
            with self.lab.session(465, client=person.client) as smtp:
                smtp.login(*person.login)
                return "admitted"
        except OSError as error:
            return str(error)

    def imap(self, person: Person, tls: ssl.TLSVersion | None = None) -> str:
        """Reads mail: `admitted`, or what Dovecot says."""
        context = tls_context(person.client, tls)
        try:
            with self.lab.far.network(), imaplib.IMAP4_SSL(MX4, 993, ssl_context=context, timeout=20) as imap:
                imap.login(*person.login)
                return "admitted" if imap.select("INBOX")[0] == "OK" else "no mailbox"
        except (imaplib.IMAP4.error, OSError) as error:
            return str(error)

    def both(self, person: Person) -> tuple[bool, bool]:
        return self.smtp(person) == "admitted", self.imap(person) == "admitted"


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Doors, dict[tuple[str, str], Person]]]:
    """Three people with two devices each."""
    site = Site.init(tmp_path_factory.mktemp("pinned") / "example.com")
    people = {}
    for address in ["alice@example.com", "bob@example.com", "carol@example.com"]:
        if address != "alice@example.com":
            site.run("user", "add", address)
        site.run("user", "add", address, "--device", "phone")
        people |= {(address, device): site.person(address, device) for device in ["default", "phone"]}
    with site.lab() as lab:
        doors = Doors(lab, site, PINNED)
        lab.start()
        yield doors, people


def test_of_six_pinned_devices_the_revoked_one_is_refused_and_five_are_admitted(
    pinned: tuple[Doors, dict[tuple[str, str], Person]],
) -> None:
    doors, people = pinned
    assert {whose: doors.both(person) for whose, person in people.items()} == dict.fromkeys(people, (True, True))
    doors.site.run("user", "revoke", "bob@example.com", "--device", "phone")
    doors.update()
    lost = ("bob@example.com", "phone")
    expected = {whose: (whose != lost, whose != lost) for whose in people}
    assert {whose: doors.both(person) for whose, person in people.items()} == expected
    assert "unknown ca" in doors.smtp(people[lost])
    assert "valid SSL certificate" in doors.imap(people[lost])


def test_without_a_certificate_the_password_alone_opens_no_mailbox(
    pinned: tuple[Doors, dict[tuple[str, str], Person]], tmp_path: Path
) -> None:
    doors, people = pinned
    alice = people["alice@example.com", "default"]
    context = tls_context(None)
    with doors.lab.far.network(), imaplib.IMAP4_SSL(MX4, 993, ssl_context=context, timeout=20) as imap:
        with pytest.raises(imaplib.IMAP4.error, match="valid SSL certificate"):
            imap.login(*alice.login)


@pytest.fixture(scope="module")
def one_ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Doors, dict[str, Person]]]:
    """Alice's certificate is pinned; then the trust was changed, and the others have theirs from the issuing CA."""
    site = Site.init(tmp_path_factory.mktemp("one-ca") / "example.com")
    site.set('# clients.trust = "pinned"', 'clients.trust = "ca"')
    for address in ["bob@example.com", "carol@example.com", "dave@example.com"]:
        site.run("user", "add", address)
    addresses = [f"{name}@example.com" for name in ["alice", "bob", "carol", "dave"]]
    people = {address: site.person(address) for address in addresses}
    with site.lab(addresses) as lab:
        doors = Doors(lab, site, WITH_CRL)
        lab.start()
        yield doors, people


# The tests below tell one story, in this order.


def test_with_one_ca_the_people_under_it_are_admitted(one_ca: tuple[Doors, dict[str, Person]]) -> None:
    doors, people = one_ca
    for address in ["bob@example.com", "carol@example.com", "dave@example.com"]:
        assert doors.both(people[address]) == (True, True), address


def test_a_pinned_certificate_from_before_has_no_crl_and_dovecot_wants_one(
    one_ca: tuple[Doors, dict[str, Person]],
) -> None:
    doors, people = one_ca
    alice = people["alice@example.com"]
    assert doors.smtp(alice) == "admitted"
    assert "valid SSL certificate" in doors.imap(alice)
    doors.trust(PINNED)
    doors.reload_dovecot()
    assert doors.imap(alice) == "admitted"
    doors.trust(WITH_CRL)
    doors.reload_dovecot()


def test_dovecot_refuses_the_revoked_after_a_reload_and_admits_the_rest(one_ca: tuple[Doors, dict[str, Person]]) -> None:
    doors, people = one_ca
    carol = people["carol@example.com"]
    # Carol keeps the certificate, and has learnt Bob's password.
    thief = Person("bob@example.com", carol.client, people["bob@example.com"].login)
    assert doors.both(thief) == (True, True)
    doors.site.run("user", "remove", "carol@example.com")
    doors.reload_dovecot()
    for tls in BOTH_VERSIONS:
        assert "valid SSL certificate" in doors.imap(thief, tls)
        assert doors.imap(people["bob@example.com"], tls) == doors.imap(people["dave@example.com"], tls) == "admitted"
    # OpenSMTPD has read everything anew, and still: docs/trust.md says so.
    doors.update()
    assert doors.smtp(thief) == "admitted"


def test_an_expired_crl_shuts_everybody_out(one_ca: tuple[Doors, dict[str, Person]]) -> None:
    doors, people = one_ca
    path = f"{TABLES}/clients-with-crl.pem"
    good = doors.lab.mx.path(path).read_text()
    twins = good[: good.index("-----BEGIN X509 CRL-----")]
    assert good != twins
    doors.lab.mx.write(path, twins + old_crl(doors.site))
    doors.lab.mx.run("doveadm", "reload")
    assert "valid SSL certificate" in doors.imap(people["bob@example.com"])
    doors.lab.mx.write(path, good)
    doors.lab.mx.run("doveadm", "reload")
    assert doors.imap(people["bob@example.com"]) == "admitted"


def old_crl(site: Site) -> str:
    """A CRL of the issuing CA that ended yesterday, made as whoever holds state/ can."""
    now = datetime.datetime.now(datetime.UTC)
    issuer, key = issuing_ca(site)
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - datetime.timedelta(days=31))
        .next_update(now - datetime.timedelta(days=1))
        .add_extension(x509.AuthorityKeyIdentifier(key_id.digest, None, None), False)
        .add_extension(x509.CRLNumber(1), False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def issuing_ca(site: Site) -> tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes]:
    """The certificate and the key of the issuing CA for all clients."""
    with sqlite3.connect(site.directory / "state/ledger.sqlite") as ledger:
        [(pem, digest)] = ledger.execute("SELECT twin, key FROM certificate WHERE kind = 'issuing_ca' AND status = 'live'")
    ledger.close()
    passphrase = (site.directory / "state/ca.passphrase").read_text().rstrip("\n").encode()
    [file] = [path for path in (site.directory / "state/keys").iterdir() if digest.startswith(path.stem)]
    key = load_pem_private_key(file.read_bytes(), passphrase)
    return x509.load_pem_x509_certificate(pem.encode()), key  # type: ignore[return-value]


def test_a_new_issuing_ca_at_once_shuts_out_the_revoked_at_opensmtpd_too(
    one_ca: tuple[Doors, dict[str, Person]],
) -> None:
    doors, people = one_ca
    carol = people["carol@example.com"]
    thief = Person("bob@example.com", carol.client, people["bob@example.com"].login)
    doors.site.run("ca", "renew", "--clients", "--now")
    doors.update()
    assert "unknown ca" in doors.smtp(thief) and "valid SSL certificate" in doors.imap(thief)
    # The old certificates of the others are refused, and their new ones admitted.
    assert doors.both(people["dave@example.com"]) == (False, False)
    for address in ["bob@example.com", "dave@example.com"]:
        assert doors.both(doors.site.person(address)) == (True, True), address


def test_back_to_pinned_everybody_is_admitted_at_every_step(one_ca: tuple[Doors, dict[str, Person]]) -> None:
    doors, _ = one_ca
    site = doors.site
    site.set('clients.trust = "ca"', 'clients.trust = "pinned"')
    site.run("user", "add", "erin@example.com")
    doors.update()
    # Dovecot still heeds CRLs: Erin's pinned certificate has one of its own.
    for address in ["bob@example.com", "dave@example.com", "erin@example.com"]:
        assert doors.both(site.person(address)) == (True, True), address
    old = {address: site.person(address) for address in ["bob@example.com", "dave@example.com"]}
    old = {address: Person(address, keep(person.client), person.login) for address, person in old.items()}
    site.run("user", "renew", "--all")
    doors.update()
    new = {address: site.person(address) for address in old}
    assert {address: doors.both(person) for address, person in old.items()} == dict.fromkeys(old, (True, True))
    assert {address: doors.both(person) for address, person in new.items()} == dict.fromkeys(new, (True, True))
    doors.trust(PINNED)
    doors.reload_dovecot()
    site.run("ca", "retire")
    doors.update()
    assert {address: doors.both(person) for address, person in old.items()} == dict.fromkeys(old, (False, False))
    assert {address: doors.both(person) for address, person in new.items()} == dict.fromkeys(new, (True, True))
    assert doors.both(site.person("erin@example.com")) == (True, True)


def keep(client: Client) -> Client:
    """The same certificate, whatever becomes of the file that it is in."""
    return Client(Path(shutil.copy(client.certificate, client.certificate.with_suffix(".kept"))))


def test_openssl_takes_the_rendered_crl(tmp_path: Path) -> None:
    """As nginx reads it: twins and CRLs in two files."""
    site = Site.init(tmp_path / "example.com")
    site.set('# clients.trust = "pinned"', 'clients.trust = "ca"')
    site.run("user", "add", "bob@example.com")
    site.run("user", "add", "carol@example.com")
    people = {address: site.person(address).client for address in ["bob@example.com", "carol@example.com"]}
    site.run("user", "remove", "carol@example.com")
    said = {address: verify(site, client) for address, client in people.items()}
    assert said["bob@example.com"].endswith(": OK\n") and "certificate revoked" in said["carol@example.com"]


def verify(site: Site, client: Client) -> str:
    lists = site.root / TABLES[1:]
    command = ["openssl", "verify", "-x509_strict", "-crl_check_all", "-no-CApath", "-no-CAstore", "-purpose", "sslclient"]
    command += ["-CAfile", lists / "clients.pem", "-CRLfile", lists / "clients.crl", "-untrusted", client.certificate]
    done = subprocess.run([*command, client.certificate], capture_output=True, check=False, text=True)
    return done.stdout + done.stderr
