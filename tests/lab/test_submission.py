"""People with a certificate and a password: their mail is taken, signed, and reaches the world and the site itself."""

from __future__ import annotations

import ssl

import pytest

from lab import DOMAIN, HOST, SIGNED, Lab, Person, Site, compose, verdicts, verify, zone_txt

PORTS = [465, 587]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def version_name(version: ssl.TLSVersion) -> str:
    return version.name


@pytest.fixture(scope="module")
def relayed(lab: Lab, alice: Person) -> bytes:
    """A mail of Alice's as it arrives at far.test."""
    message = compose(alice.address, "relayed@far.test")
    reply = alice.send(lab, "relayed@far.test", message)
    assert reply.accepted, reply
    return lab.arrived("relayed@far.test", message)


@pytest.mark.parametrize("tls", VERSIONS, ids=version_name)
@pytest.mark.parametrize("port", PORTS)
def test_certificate_and_password_send_to_the_world(lab: Lab, alice: Person, port: int, tls: ssl.TLSVersion) -> None:
    message = compose(alice.address, "dave@far.test")
    reply = alice.send(lab, "dave@far.test", message, port=port, tls=tls)
    assert reply.accepted, reply
    assert verdicts(lab.arrived("dave@far.test", message), lab.live_txt) == SIGNED


@pytest.mark.parametrize("port", [465, pytest.param(587, marks=pytest.mark.full)])
def test_ipv6_serves_as_well(lab: Lab, alice: Person, port: int) -> None:
    message = compose(alice.address, "dave@far.test")
    reply = alice.send(lab, "dave@far.test", message, port=port, ipv6=True)
    assert reply.accepted, reply
    assert verdicts(lab.arrived("dave@far.test", message), lab.live_txt) == SIGNED


@pytest.mark.parametrize("port", PORTS)
def test_certificate_and_password_send_to_a_colleague_through_dovecot(lab: Lab, alice: Person, port: int) -> None:
    message = compose(alice.address, "bob@example.com")
    reply = alice.send(lab, "bob@example.com", message, port=port)
    assert reply.accepted, reply
    assert b"Delivered-To: bob@example.com" in lab.arrived("bob@example.com", message)


def test_mail_to_a_colleague_is_signed_too(lab: Lab, alice: Person) -> None:
    message = compose(alice.address, "bob@example.com")
    alice.send(lab, "bob@example.com", message)
    assert verdicts(lab.arrived("bob@example.com", message), lab.live_txt) == SIGNED


def test_both_signatures_verify_with_the_rendered_zone(relayed: bytes, site: Site) -> None:
    assert verdicts(relayed, zone_txt(site.zone, DOMAIN)) == SIGNED


def test_both_signatures_verify_with_the_name_server(relayed: bytes, lab: Lab) -> None:
    assert verdicts(relayed, lab.live_txt) == SIGNED


def test_the_two_signatures_have_selectors_of_their_own(relayed: bytes, lab: Lab) -> None:
    assert len({signature.selector for signature in verify(relayed, lab.live_txt)}) == 2


@pytest.mark.parametrize("header", ["From", "To", "Subject", "Date", "Message-ID"])
def test_the_signatures_cover_what_a_reader_sees(relayed: bytes, lab: Lab, header: str) -> None:
    """A reader takes these for the writer's words, so none may be changed or, where signed twice, added."""
    before, name, after = relayed.partition(f"\n{header}: ".encode())
    changed = before + name + b"x" + after
    assert name and "valid" not in {verdict for _, _, verdict in verdicts(changed, lab.live_txt)}


def test_a_second_from_header_breaks_both_signatures(relayed: bytes, lab: Lab) -> None:
    changed = b"From: mallory@far.test\r\n" + relayed
    assert "valid" not in {verdict for _, _, verdict in verdicts(changed, lab.live_txt)}


def test_the_address_that_alice_sent_from_does_not_leave(relayed: bytes) -> None:
    assert b"198.51.100.20" not in relayed and b"client.far.test" not in relayed.split(b"\nFrom:")[0]


@pytest.mark.parametrize("apple", [False, True], ids=["modern", "apple"])
def test_both_forms_of_the_p12_file_hold_a_certificate_that_is_let_in(lab: Lab, site: Site, apple: bool) -> None:
    bob = site.person("bob@example.com", apple=apple)
    reply = bob.send(lab, "dave@far.test")
    assert reply.accepted, reply


@pytest.mark.parametrize("port", [25, 465, 587])
def test_the_servers_certificate_verifies_against_the_handed_out_ca_with_the_hosts_name(
    lab: Lab, site: Site, alice: Person, port: int
) -> None:
    how = ["-starttls", "smtp"] if port != 465 else []
    pem = alice.client.certificate.read_bytes()
    lab.far.write("/tmp/alice.pem", pem, mode=0o600)
    lab.far.write("/tmp/site-ca.pem", site.ca_certificate.read_bytes())
    said = lab.far.run(
        *[
            "openssl",
            "s_client",
            "-connect",
            f"203.0.113.10:{port}",
            *how,
            "-cert",
            "/tmp/alice.pem",
            "-key",
            "/tmp/alice.pem",
        ],
        *["-no-CApath", "-no-CAstore", "-CAfile", "/tmp/site-ca.pem", "-verify_hostname", HOST, "-verify_return_error"],
        input="QUIT\r\n",
    ).stdout
    assert "Verify return code: 0 (ok)" in said and f"Verified peername: {HOST}" in said


@pytest.mark.parametrize("port", PORTS)
def test_the_servers_certificate_is_for_no_other_name(lab: Lab, alice: Person, port: int) -> None:
    lab.server_name = "mail.example.net"
    try:
        reply = alice.send(lab, "dave@far.test", port=port)
    finally:
        lab.server_name = HOST
    assert "Hostname mismatch" in reply.text, reply


@pytest.fixture
def from_sales(lab: Lab, carol: Person) -> bytes:
    """A mail that Carol sends as sales@example.com, as it arrives."""
    message = compose("Sales <sales@example.com>", "dave@far.test")
    reply = carol.send(lab, "dave@far.test", message, sender="sales@example.com")
    assert reply.accepted, reply
    return lab.arrived("dave@far.test", message)


def test_a_listed_sender_address_is_let_in_and_signed(lab: Lab, from_sales: bytes) -> None:
    assert verdicts(from_sales, lab.live_txt) == SIGNED


def test_a_listed_sender_address_stays_in_the_envelope_and_in_from(from_sales: bytes) -> None:
    assert b"Return-Path: <sales@example.com>" in from_sales and b"From: Sales <sales@example.com>" in from_sales


@pytest.mark.parametrize(
    "written",
    [
        "Alice A. <alice@example.com>",
        '"Doe,\r\n Alice"\r\n <alice@example.com>',
        "=?utf-8?Q?Al=C3=ADce?= <alice@example.com>",
        "alice@example.com (Alice)",
        "Alice <Alice@Example.COM>",
    ],
    ids=["display-name", "folded", "encoded", "comment", "case"],
)
def test_every_way_to_write_ones_own_address_is_signed(lab: Lab, alice: Person, written: str) -> None:
    message = compose(written, "dave@far.test")
    reply = alice.send(lab, "dave@far.test", message)
    assert reply.accepted, reply
    assert verdicts(lab.arrived("dave@far.test", message), lab.live_txt) == SIGNED


BODIES = {
    "empty": "",
    "no end of line": "x",
    "dots": ".\r\n..\r\n.x\r\n",
    "blank lines at the end": "x\r\n\r\n\r\n",
    "blank at a line's end": "x \r\n\ty\t\r\nz\r\n",
    "long line": "x" * 900 + "\r\n",
    "eight bits": "ä\r\n",
    "many lines": "line\r\n" * 20000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_of_any_shape_is_signed(lab: Lab, alice: Person, body: str) -> None:
    message = compose(alice.address, "dave@far.test", body)
    reply = alice.send(lab, "dave@far.test", message)
    assert reply.accepted, reply
    assert verdicts(lab.arrived("dave@far.test", message), lab.live_txt) == SIGNED


def test_a_body_that_ends_in_a_blank_leaves_with_signatures_that_do_not_verify(lab: Lab, alice: Person) -> None:
    """README.md says so of filter-rspamd 0.1.8 with Rspamd 3.4. If this fails, it was mended: then mend README.md."""
    message = compose(alice.address, "dave@far.test", "Good morning.\r\n-- \r\n")
    assert alice.send(lab, "dave@far.test", message).accepted
    problems = [problem for _, _, problem in verdicts(lab.arrived("dave@far.test", message), lab.live_txt)]
    assert len(problems) == 2 and all("body hash mismatch" in problem for problem in problems), problems


def test_the_same_body_with_a_line_after_the_blank_is_signed(lab: Lab, alice: Person) -> None:
    message = compose(alice.address, "dave@far.test", "Good morning.\r\n-- \r\nAlice\r\n")
    assert alice.send(lab, "dave@far.test", message).accepted
    assert verdicts(lab.arrived("dave@far.test", message), lab.live_txt) == SIGNED


def test_alices_certificate_with_bobs_password_is_let_in(lab: Lab, alice: Person, bob: Person) -> None:
    """A documented limit: OpenSMTPD does not bind a certificate to a login (docs/trust.md)."""
    reply = bob.send(lab, "dave@far.test", client=alice.client)
    assert reply.accepted, reply


def test_a_display_name_may_be_anything(lab: Lab, alice: Person) -> None:
    """A documented limit, as everywhere (docs/trust.md)."""
    reply = alice.send(lab, "dave@far.test", compose('"bob@example.com" <alice@example.com>', "dave@far.test"))
    assert reply.accepted, reply


def test_what_cannot_be_delivered_comes_back_to_the_sender(lab: Lab, alice: Person) -> None:
    message = compose(alice.address, "dave@nowhere.test")
    reply = alice.send(lab, "dave@nowhere.test", message)
    assert reply.accepted, reply
    assert b"dave@nowhere.test: Domain does not exist" in lab.arrived(alice.address, message)


def test_a_mail_to_many_reaches_all_of_them(lab: Lab, alice: Person) -> None:
    message = compose(alice.address, "all@far.test")
    reply = lab.submit(
        alice.address,
        ["one@far.test", "two@far.test", "bob@example.com"],
        message,
        client=alice.client,
        login=alice.login,
    )
    assert reply.accepted, reply
    for recipient in ("one@far.test", "two@far.test", "bob@example.com"):
        assert verdicts(lab.arrived(recipient, message), lab.live_txt) == SIGNED
