"""Who is not let in on 465 and 587, and what those who are may not send."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from lab import Lab, Person, Reply, Site, compose
from lab.client import Client
from lab.forge import Identity, authority, client_certificate, client_of, impersonate, name
from lab.site import certificates

PORTS = [465, 587]
# What the server answers when no chain leads to its list, or one ends in a signature that is not the CA's.
NOT_ON_THE_LIST = ("unknown ca", "decrypt error", "bad certificate")


def assert_refused_in_tls(reply: Reply, *alerts: str) -> None:
    assert (reply.accepted, reply.stage) == (False, "tls"), reply
    assert any(f"alert {alert}" in reply.text for alert in alerts), reply


@pytest.mark.parametrize(
    ("tls", "alert"),
    [(ssl.TLSVersion.TLSv1_2, "handshake failure"), (ssl.TLSVersion.TLSv1_3, "certificate required")],
    ids=["TLSv1_2", "TLSv1_3"],
)
@pytest.mark.parametrize("port", PORTS)
def test_no_certificate_is_refused(lab: Lab, alice: Person, port: int, tls: ssl.TLSVersion, alert: str) -> None:
    assert_refused_in_tls(alice.send(lab, "dave@far.test", client=None, port=port, tls=tls), alert)


@pytest.mark.parametrize("port", PORTS)
def test_a_certificate_of_a_strangers_ca_is_refused(lab: Lab, alice: Person, tmp_path: Path, port: int) -> None:
    stranger = authority()
    client = client_of(client_certificate(alice.address, stranger), tmp_path, stranger)
    assert_refused_in_tls(alice.send(lab, "dave@far.test", client=client, port=port), "unknown ca")


IMPOSTORS = ["alone", "with-chain", "with-twin"]


def impostor(site: Site, alice: Person, directory: Path, sent: str) -> tuple[Client, Identity]:
    """A client with every name and key identifier of Alice's chain and keys of its own; and the twin to its CA."""
    chain = certificates(alice.client)
    twins = x509.load_pem_x509_certificates(site.rendered("/etc/mail/postseal/clients.pem").encode())
    [original] = [twin for twin in twins if twin.subject == chain[0].issuer]
    leaf, issuing, site_ca, twin = impersonate([*chain, original])
    with_it = {"alone": [], "with-chain": [issuing, site_ca], "with-twin": [twin]}[sent]
    return client_of(leaf, directory, *with_it), twin


@pytest.mark.parametrize("sent", IMPOSTORS)
@pytest.mark.parametrize("port", PORTS)
def test_an_impostor_of_alice_is_refused(
    lab: Lab, site: Site, alice: Person, tmp_path: Path, port: int, sent: str
) -> None:
    client, _ = impostor(site, alice, tmp_path, sent)
    assert_refused_in_tls(alice.send(lab, "dave@far.test", client=client, port=port), *NOT_ON_THE_LIST)


@pytest.mark.parametrize("port", PORTS)
def test_the_servers_own_certificate_is_refused(lab: Lab, site: Site, alice: Person, port: int) -> None:
    client = Client(*site.server())
    assert_refused_in_tls(alice.send(lab, "dave@far.test", client=client, port=port), *NOT_ON_THE_LIST)


WAYS = ["directly", "through-a-new-issuing-ca", "through-a-namesake-of-alices-issuing-ca"]


def made_with_the_site_cas_key(site: Site, alice: Person, directory: Path, way: str) -> Client:
    """What a thief of the site CA's key and passphrase can make."""
    site_ca = site.site_ca()
    if way == "directly":
        return client_of(client_certificate(alice.address, site_ca), directory, site_ca)
    subject = certificates(alice.client)[0].issuer if "namesake" in way else name("0123456789abcdef")
    issuing = authority(subject, site_ca)
    return client_of(client_certificate(alice.address, issuing), directory, issuing, site_ca)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("port", PORTS)
def test_a_certificate_made_with_the_site_cas_key_is_refused(
    lab: Lab, site: Site, alice: Person, tmp_path: Path, port: int, way: str
) -> None:
    client = made_with_the_site_cas_key(site, alice, tmp_path, way)
    assert_refused_in_tls(alice.send(lab, "dave@far.test", client=client, port=port), *NOT_ON_THE_LIST)


@pytest.mark.parametrize("port", PORTS)
def test_tls_1_1_is_refused(lab: Lab, alice: Person, port: int) -> None:
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        reply = alice.send(lab, "dave@far.test", port=port, tls=ssl.TLSVersion.TLSv1_1)
    assert_refused_in_tls(reply, "protocol version")


@pytest.mark.parametrize("port", PORTS)
def test_the_right_certificate_with_a_wrong_password_is_refused(lab: Lab, alice: Person, port: int) -> None:
    reply = alice.send(lab, "dave@far.test", port=port, login=(alice.address, "wrong"))
    assert (reply.stage, reply.code) == ("auth", 535), reply


def test_the_right_certificate_with_an_unknown_login_is_refused(lab: Lab, alice: Person) -> None:
    reply = alice.send(lab, "dave@far.test", login=("dave@example.com", alice.login[1]))
    assert (reply.stage, reply.code) == ("auth", 535), reply


@pytest.mark.parametrize("recipient", ["dave@far.test", "bob@example.com"])
@pytest.mark.parametrize("port", PORTS)
def test_the_right_certificate_without_a_login_is_refused(lab: Lab, alice: Person, port: int, recipient: str) -> None:
    reply = alice.send(lab, recipient, port=port, login=None)
    assert (reply.stage, reply.code) == ("mail", 530), reply


@pytest.mark.parametrize(
    "sender", ["bob@example.com", "sales@example.com", "alice@far.test", "", "alice@mail.example.com"]
)
@pytest.mark.parametrize("port", PORTS)
def test_an_envelope_sender_that_is_not_the_logins_is_refused(lab: Lab, alice: Person, port: int, sender: str) -> None:
    reply = alice.send(lab, "dave@far.test", port=port, sender=sender)
    assert (reply.accepted, reply.code) == (False, 530) and "Sender rejected" in reply.text, reply


@pytest.mark.parametrize("sender", ["bob@example.com", "x@example.com", "sales@far.test", "xsales@example.com"])
def test_a_listed_sender_address_lets_no_other_pass(lab: Lab, carol: Person, sender: str) -> None:
    reply = carol.send(lab, "dave@far.test", compose(sender, "dave@far.test"), sender=sender)
    assert (reply.accepted, reply.code) == (False, 530), reply


@pytest.mark.parametrize(("sender", "written"), [("carol", "sales"), ("sales", "carol")])
def test_two_addresses_of_ones_own_are_not_mixed_in_one_mail(
    lab: Lab, carol: Person, sender: str, written: str
) -> None:
    message = compose(f"{written}@example.com", "dave@far.test")
    reply = carol.send(lab, "dave@far.test", message, sender=f"{sender}@example.com")
    assert (reply.stage, reply.code) == ("data", 550), reply


@pytest.mark.parametrize(
    "written",
    [
        "bob@example.com",
        "Bob <bob@example.com>",
        "bob@far.test",
        "alice@example.com, bob@example.com",
        "bob@example.com, alice@example.com",
        "bob@example.com <alice@example.com>, bob@example.com",
        "<alice@example.com> <bob@example.com>",
        "",
    ],
)
def test_a_from_header_that_is_not_the_envelopes_is_refused(lab: Lab, alice: Person, written: str) -> None:
    reply = alice.send(lab, "dave@far.test", compose(written, "dave@far.test"))
    assert (reply.stage, reply.code) == ("data", 550) and "From:" in reply.text, reply


@pytest.mark.parametrize("port", PORTS)
def test_a_forged_from_header_is_refused_on_either_port(lab: Lab, alice: Person, port: int) -> None:
    reply = alice.send(lab, "dave@far.test", compose("bob@example.com", "dave@far.test"), port=port)
    assert (reply.stage, reply.code) == ("data", 550) and "From:" in reply.text, reply


def test_a_forged_from_header_to_a_colleague_is_refused(lab: Lab, alice: Person) -> None:
    reply = alice.send(lab, "carol@example.com", compose("bob@example.com", "carol@example.com"))
    assert (reply.stage, reply.code) == ("data", 550) and "From:" in reply.text, reply


@pytest.mark.parametrize(("first", "second"), [("alice", "bob"), ("bob", "alice"), ("alice", "alice")])
def test_two_from_headers_are_refused(lab: Lab, alice: Person, first: str, second: str) -> None:
    message = compose(f"{first}@example.com", "dave@far.test", extra=f"From: {second}@example.com\r\n")
    reply = alice.send(lab, "dave@far.test", message)
    assert (reply.stage, reply.code) == ("data", 550) and "From:" in reply.text, reply


@pytest.mark.parametrize("disguise", ["From : ", "From\t: ", "From\r\n : ", "fROM: ", "X: x\rFrom: ", "X: x\nFrom: "])
@pytest.mark.parametrize("place", ["above", "below"])
def test_a_second_from_header_in_disguise_is_refused(lab: Lab, alice: Person, disguise: str, place: str) -> None:
    """Some mail programs and some verifiers would take it for the From header."""
    honest, forged = f"From: {alice.address}\r\n".encode(), f"{disguise}bob@example.com\r\n".encode()
    message = compose(alice.address, "dave@far.test")
    message = message.replace(honest, forged + honest if place == "above" else honest + forged, 1)
    reply = alice.send(lab, "dave@far.test", message)
    assert (reply.stage, reply.code) == ("data", 550), reply


def test_no_from_header_is_refused(lab: Lab, alice: Person) -> None:
    message = compose("x", "dave@far.test").removeprefix(b"From: x\r\n")
    reply = alice.send(lab, "dave@far.test", message)
    assert (reply.stage, reply.code) == ("data", 550) and "From:" in reply.text, reply


@pytest.mark.parametrize("header", ["Sender", "Resent-From"])
def test_another_header_with_ones_own_address_does_not_excuse_a_forged_from(
    lab: Lab, alice: Person, header: str
) -> None:
    message = compose("bob@example.com", "dave@far.test", extra=f"{header}: alice@example.com\r\n")
    reply = alice.send(lab, "dave@far.test", message)
    assert (reply.stage, reply.code) == ("data", 550) and "From:" in reply.text, reply


def plain(person: Person) -> str:
    user, password = person.login
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()


@pytest.mark.parametrize(("port", "start_tls"), [(587, False), (25, False), (25, True)], ids=["587", "25", "25-tls"])
def test_a_password_is_neither_asked_for_nor_taken(lab: Lab, alice: Person, port: int, start_tls: bool) -> None:
    """In clear on 587 it would be overheard, and on 25 no certificate was asked for."""
    with lab.session(port, start_tls=start_tls) as smtp:
        assert "auth" not in smtp.esmtp_features
        code, text = smtp.docmd("AUTH", f"PLAIN {plain(alice)}")
    assert 500 <= code < 600, text


def test_mail_in_clear_on_587_is_refused(lab: Lab) -> None:
    with lab.session(587) as smtp:
        code, text = smtp.mail("alice@example.com")
    assert code == 530 and b"STARTTLS" in text
