"""Other mail servers: they reach the site's people, without a certificate, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import DOMAIN, Lab, Person, Site, compose

STRANGER = "dave@far.test"


@pytest.mark.parametrize(
    ("recipient", "mailbox"),
    [
        ("alice@example.com", "alice@example.com"),
        ("Alice@Example.COM", "alice@example.com"),
        ("alice+lists@example.com", "alice@example.com"),
        ("bob@example.com", "bob@example.com"),
        ("postmaster@example.com", "alice@example.com"),
        ("PostMaster@example.com", "alice@example.com"),
        ("abuse@example.com", "alice@example.com"),
        ("postmaster", "alice@example.com"),
    ],
)
def test_a_strangers_mail_reaches_the_mailbox(lab: Lab, recipient: str, mailbox: str) -> None:
    message = compose(STRANGER, recipient)
    reply = lab.submit(STRANGER, recipient, message, port=25)
    assert reply.accepted, reply
    assert lab.arrived(mailbox, message)


def test_mail_in_clear_is_taken_too(lab: Lab) -> None:
    message = compose(STRANGER, "alice@example.com")
    reply = lab.submit(STRANGER, "alice@example.com", message, port=25, start_tls=False)
    assert reply.accepted, reply
    assert lab.arrived("alice@example.com", message)


def test_ipv6_serves_as_well(lab: Lab) -> None:
    message = compose(STRANGER, "alice@example.com")
    reply = lab.submit(STRANGER, "alice@example.com", message, port=25, ipv6=True)
    assert reply.accepted, reply
    assert lab.arrived("alice@example.com", message)


def test_another_mail_server_delivers_by_mx_lookup(lab: Lab) -> None:
    """The far server looks up the MX of example.com in the rendered zone and finds the way."""
    message = compose(STRANGER, "alice@example.com")
    lab.far.run("sendmail", "-f", STRANGER, "alice@example.com", input=message.replace(b"\r\n", b"\n"))
    assert lab.arrived("alice@example.com", message)


def test_a_bounce_with_the_empty_sender_is_taken(lab: Lab) -> None:
    message = compose("MAILER-DAEMON@far.test", "alice@example.com")
    reply = lab.submit("", "alice@example.com", message, port=25)
    assert reply.accepted, reply


def test_a_strangers_mail_is_not_signed(lab: Lab) -> None:
    message = compose(STRANGER, "alice@example.com")
    lab.submit(STRANGER, "alice@example.com", message, port=25)
    assert b"DKIM-Signature" not in lab.arrived("alice@example.com", message)


def test_the_authentication_results_of_a_strangers_mail_are_the_servers_own(lab: Lab) -> None:
    forged = "Authentication-Results: mail.example.com; dkim=pass header.d=bank.example\r\n"
    message = compose(STRANGER, "alice@example.com", extra=forged)
    lab.submit(STRANGER, "alice@example.com", message, port=25)
    mail = lab.arrived("alice@example.com", message)
    assert b"Authentication-Results: mail.example.com" in mail and b"bank.example" not in mail


def test_starttls_is_offered(lab: Lab) -> None:
    with lab.session(25) as smtp:
        assert "starttls" in smtp.esmtp_features


def handshake(lab: Lab, port: int, version: str) -> str:
    """The messages of a handshake that presents no certificate, as openssl prints them."""
    how = ["-starttls", "smtp"] if port != 465 else []
    return lab.far.run(
        *["openssl", "s_client", "-connect", f"203.0.113.10:{port}", *how, f"-{version}", "-msg"],
        input="QUIT\r\n",
        check=False,
    ).stdout


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_port_25_asks_nobody_for_a_certificate(lab: Lab, alice: Person, version: str) -> None:
    # After somebody passed 465, for OpenSMTPD once let the two listeners share their setting.
    assert alice.send(lab, "dave@far.test").accepted
    said = handshake(lab, 25, version)
    assert "Finished" in said and "CertificateRequest" not in said


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
@pytest.mark.parametrize("port", [465, 587])
def test_the_submission_ports_ask_everyone_for_a_certificate(lab: Lab, port: int, version: str) -> None:
    assert "CertificateRequest" in handshake(lab, port, version)


FOREIGN = [
    "erin@far.test",
    "erin%far.test@example.com",
    "erin%far.test@mail.example.com",
    "@example.com:erin@far.test",
    '"erin@far.test"@example.com',
    '"erin@far.test"',
    "far.test!erin@example.com",
    "far.test!erin",
    "erin@far.test@example.com",
    "erin@[198.51.100.25]",
    "erin@[203.0.113.10]",
    "root@mail.example.com",
    "vmail@mail.example.com",
]


@pytest.mark.parametrize("sender", [STRANGER, "alice@example.com", ""], ids=["stranger", "alice", "empty"])
@pytest.mark.parametrize("recipient", FOREIGN)
def test_port_25_relays_nothing(lab: Lab, sender: str, recipient: str) -> None:
    with lab.session(25) as smtp:
        assert smtp.mail(sender)[0] == 250
        code, text = smtp.docmd("RCPT", f"TO:<{recipient}>")
    assert 500 <= code < 600, text


def test_port_25_relays_nothing_for_a_client_certificate(lab: Lab, alice: Person) -> None:
    reply = alice.send(lab, "erin@far.test", port=25, login=None)
    assert (reply.stage, reply.code) == ("rcpt", 550), reply


@pytest.mark.parametrize("recipient", ["nobody@example.com", "root@example.com", "vmail@example.com", "@example.com"])
def test_an_unknown_recipient_is_refused_at_once(lab: Lab, recipient: str) -> None:
    with lab.session(25) as smtp:
        assert smtp.mail(STRANGER)[0] == 250
        code, text = smtp.docmd("RCPT", f"TO:<{recipient}>")
    assert 500 <= code < 600, text


SPOOF = compose("Alice <alice@example.com>", "bob@example.com")


@pytest.fixture
def strict(site: Site, lab: Lab, tmp_path: Path) -> Iterator[None]:
    """While this is in use, the published zone is the one of `dmarc.policy = "reject"`."""
    changed = site.copy(tmp_path / "strict")
    changed.set('# dmarc.policy = "none"', 'dmarc.policy = "reject"')
    lab.publish({DOMAIN: changed.zone})
    yield
    lab.publish({DOMAIN: site.zone})


@pytest.mark.parametrize("sender", ["alice@example.com", STRANGER], ids=["alice", "stranger"])
def test_a_forgery_of_the_sites_own_domain_is_rejected_once_dmarc_says_reject(
    lab: Lab, strict: None, sender: str
) -> None:
    reply = lab.submit(sender, "bob@example.com", SPOOF, port=25)
    assert (reply.stage, reply.code) == ("data", 550), reply


def test_the_same_forgery_is_taken_while_dmarc_says_none(lab: Lab) -> None:
    reply = lab.submit("alice@example.com", "bob@example.com", SPOOF, port=25)
    assert reply.accepted, reply


def test_alices_own_mail_to_a_colleague_is_taken_while_dmarc_says_reject(lab: Lab, strict: None, alice: Person) -> None:
    reply = alice.send(lab, "bob@example.com")
    assert reply.accepted, reply


def test_a_client_certificate_on_port_25_changes_nothing(lab: Lab, alice: Person) -> None:
    message = compose(STRANGER, "alice@example.com")
    reply = lab.submit(STRANGER, "alice@example.com", message, port=25, client=alice.client)
    assert reply.accepted, reply
    assert lab.arrived("alice@example.com", message)
