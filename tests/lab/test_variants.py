"""Sites with other settings, each in a small laboratory of its own."""

from __future__ import annotations

import smtplib
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from lab import DOMAIN, HOST, SIGNED, Host, Lab, Person, Site, compose, verdicts
from lab.forge import authority, key_pem, pem, server_certificate
from lab.site import certificates
from lab.test_refused import assert_refused_in_tls

ALICE, STRANGER = "alice@example.com", "dave@far.test"


def assert_sends(lab: Lab, person: Person, port: int = 465) -> None:
    """Mail of the person's is let in and arrives with valid signatures."""
    message = compose(person.address, "dave@far.test")
    reply = person.send(lab, "dave@far.test", message, port=port)
    assert reply.accepted, reply
    assert verdicts(lab.arrived("dave@far.test", message), lab.live_txt) == SIGNED


def assert_receives(lab: Lab, recipient: str, mailbox: str) -> None:
    """A stranger's mail to the recipient arrives in the mailbox."""
    message = compose(STRANGER, recipient)
    reply = lab.submit(STRANGER, recipient, message, port=25)
    assert reply.accepted, reply
    lab.arrived(mailbox, message)


@pytest.mark.parametrize("kind", ["rsa2048", pytest.param("rsa3072", marks=pytest.mark.full)])
def test_rsa_keys_of_the_ca_and_of_users_serve_as_well(tmp_path: Path, kind: str) -> None:
    site = Site.init(tmp_path / "site", "--ca-key", kind)
    site.run("user", "add", "bob@example.com", "--key", kind, "--apple")
    bob = site.person("bob@example.com")
    assert all(isinstance(certificates(bob.client)[i].public_key(), rsa.RSAPublicKey) for i in (0, 2))
    with site.lab() as lab:
        lab.start()
        assert_sends(lab, bob)
        assert_sends(lab, site.person("bob@example.com", apple=True), port=587)
        assert_sends(lab, site.person(ALICE))


OWN_SMTPD_CONF = """
# The administrator's own.
table "readers" { "@" = vmail }
include "/etc/mail/postseal/conf.d/names.conf"
include "/etc/mail/postseal/conf.d/listeners.conf"
action "lists" maildir "/var/vmail/lists.example.com/%{rcpt.user}" virtual <"readers">
match from any for domain "lists.example.com" action "lists"
include "/etc/mail/postseal/conf.d/rules.conf"
"""


def test_fragments_serve_in_an_smtpd_conf_of_ones_own(tmp_path: Path) -> None:
    site = Site.init(tmp_path / "site")
    site.set('# smtpd_conf = "complete"', 'smtpd_conf = "fragments"')
    assert "/etc/smtpd.conf" not in [entry.path for entry in site.manifest]
    with site.lab() as lab:
        lab.mx.write("/etc/smtpd.conf", OWN_SMTPD_CONF)
        assert "configuration OK" in lab.mx.run("smtpd", "-n").stderr
        lab.start()
        assert_sends(lab, site.person(ALICE))
        assert_receives(lab, "postmaster@example.com", ALICE)
        assert_receives(lab, "talk@lists.example.com", "talk@lists.example.com")


def test_maildirs_take_the_mail_without_dovecot(tmp_path: Path) -> None:
    site = Site.init(tmp_path / "site")
    site.run("user", "add", "bob@example.com")
    site.set("# [delivery.maildir]", "[delivery.maildir]")
    with site.lab() as lab:
        lab.daemons = tuple(daemon for daemon in lab.daemons if daemon is not lab.dovecot)
        lab.start()
        assert_sends(lab, site.person(ALICE))
        for recipient, mailbox in [
            (ALICE, ALICE),
            ("alice+tag@example.com", ALICE),
            ("Alice@Example.COM", ALICE),
            ("postmaster@example.com", ALICE),
            ("abuse@example.com", ALICE),
            ("postmaster", ALICE),
            ("bob@example.com", "bob@example.com"),
        ]:
            assert_receives(lab, recipient, mailbox)
        message = compose("root", "root", "cron said something\r\n")
        lab.mx.run("sendmail", "root", input=message.replace(b"\r\n", b"\n"))
        lab.arrived(ALICE, message)
        # Nothing else was made: each mailbox has one Maildir.
        made = {str(path.relative_to(lab.mx.path("/var/vmail"))) for path in lab.mx.path("/var/vmail").glob("*/*")}
        assert made == {"example.com/alice", "example.com/bob"}


FRIEND = "friend@example.com"


def test_an_alias_that_leads_out_of_the_site_forwards_strangers_mail_and_opens_no_relay(tmp_path: Path) -> None:
    site = Site.init(tmp_path / "site")
    site.set("[aliases]", f'[aliases]\n"{FRIEND}" = ["{ALICE}", "erin@far.test"]')
    with site.lab() as lab:
        lab.start()
        for recipient in [FRIEND, "Friend@EXAMPLE.com", "friend+tag@example.com"]:
            message = compose(STRANGER, recipient)
            reply = lab.submit(STRANGER, recipient, message, port=25)
            assert reply.accepted, reply
            lab.arrived("erin@far.test", message)
            lab.arrived(ALICE, message)
        # Only the alias leads there: neither its target nor anybody else may be named by a stranger.
        with lab.session(25) as smtp:
            for recipient in ["erin@far.test", "Erin@FAR.test", "erin+tag@far.test", "frank@far.test"]:
                smtp.rset()
                assert smtp.mail(STRANGER)[0] == 250
                assert smtp.docmd("RCPT", f"TO:<{recipient}>")[0] == 550, recipient
        # Nor by a program that reaches the host's own address: what loopback says is a stranger's word as well.
        for loopback in ["127.0.0.1", "::1"]:
            with lab.mx.network(), smtplib.SMTP(loopback, 25, "localhost", timeout=10) as smtp:
                smtp.ehlo()
                assert smtp.mail(STRANGER)[0] == 250
                assert smtp.docmd("RCPT", "TO:<erin@far.test>")[0] == 550, loopback


def hashed(host: Host, password: str) -> str:
    """A password as OpenSMTPD's own tool hashes it."""
    return host.run("smtpctl", "encrypt", password).stdout.strip()


def test_accounts_of_the_administrators_own_table_serve(tmp_path: Path) -> None:
    site = Site.init(tmp_path / "site", "--credentials", "file:/etc/mail/own-credentials")
    assert not [entry.path for entry in site.manifest if "credentials" in entry.path]
    alice = site.person(ALICE)
    assert alice.login[1] == ""
    with site.lab() as lab:
        lab.mx.write("/etc/mail/own-credentials", f"{ALICE}\t{hashed(lab.mx, 'her own')}\n", "root", "opensmtpd", 0o640)
        lab.start()
        assert_sends(lab, Person(ALICE, alice.client, (ALICE, "her own")))
        reply = alice.send(lab, STRANGER, login=(ALICE, "wrong"))
        assert (reply.stage, reply.code) == ("auth", 535), reply


def shown_certificate(lab: Lab, alice: Person, port: int) -> x509.Certificate:
    """The certificate that the server shows at a port."""
    lab.server_ca = None
    with lab.session(port, client=alice.client, start_tls=port != 465) as smtp:
        assert isinstance(smtp.sock, ssl.SSLSocket)
        return x509.load_der_x509_certificate(smtp.sock.getpeercert(binary_form=True) or b"")


def test_port_25_shows_the_certificate_files_that_an_acme_client_keeps(tmp_path: Path) -> None:
    certificate, key = "/etc/acme/fullchain.pem", "/etc/acme/privkey.pem"
    site = Site.init(tmp_path / "site", "--mx-certificate", certificate, "--mx-key", key)
    public_ca = authority()
    public = server_certificate(HOST, public_ca)
    issued = x509.load_pem_x509_certificate(site.server()[0].read_bytes())
    alice = site.person(ALICE)
    with site.lab() as lab:
        lab.mx.write(certificate, pem(public) + pem(public_ca))
        lab.mx.write(key, key_pem(public), mode=0o600)
        lab.start()
        assert_sends(lab, alice)
        assert shown_certificate(lab, alice, 25) == public.certificate
        assert shown_certificate(lab, alice, 465) == issued
        assert shown_certificate(lab, alice, 587) == issued
        assert_refused_in_tls(alice.send(lab, STRANGER, client=None), "certificate required")


@pytest.mark.full
def test_a_host_with_ipv4_alone_serves(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.run("init", DOMAIN, "--user", ALICE, "--address", "203.0.113.10")
    with site.lab() as lab:
        lab.start()
        assert_sends(lab, site.person(ALICE))
        listening = lab.mx.run("ss", "-Hltn").stdout.splitlines()
        assert {line.split()[4].rpartition(":")[0] for line in listening} == {"0.0.0.0"}
