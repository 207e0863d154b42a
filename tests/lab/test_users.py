"""What changes for people when files are installed, a table is read anew, or smtpd is restarted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, Person, Site, compose
from lab.forge import authority, client_certificate, client_of, pem
from lab.test_refused import IMPOSTORS, WAYS, assert_refused_in_tls, impostor, made_with_the_site_cas_key

TRUST_LIST = "/etc/mail/postseal/clients.pem"


@pytest.fixture(scope="module")
def running(site: Site) -> Iterator[Lab]:
    """A laboratory of this module's own, for it is changed."""
    with site.lab() as lab:
        lab.start()
        yield lab


@pytest.fixture
def own_lab(running: Lab, site: Site) -> Iterator[Lab]:
    """The laboratory, in the state of the unchanged site again after each test."""
    yield running
    if not running.rspamd.running:
        running.rspamd.start()
    activate(running, site)


@pytest.fixture
def own_site(site: Site, tmp_path: Path) -> Site:
    """A copy of the site to change."""
    return site.copy(tmp_path / "site")


def install(lab: Lab, site: Site) -> None:
    lab.install(site.root, site.manifest)


def activate(lab: Lab, site: Site) -> None:
    """What `user add` and `user remove` tell the administrator to do."""
    install(lab, site)
    lab.smtpd.restart()


def read_credentials(lab: Lab) -> None:
    lab.mx.run("smtpctl", "update", "table", "credentials")


def test_before_the_restart_a_removed_users_password_is_refused(own_lab: Lab, own_site: Site, carol: Person) -> None:
    own_site.run("user", "remove", carol.address)
    install(own_lab, own_site)
    read_credentials(own_lab)
    reply = carol.send(own_lab, "dave@far.test")
    assert (reply.stage, reply.code) == ("auth", 535), reply


def test_before_the_restart_the_others_are_still_let_in(own_lab: Lab, own_site: Site, alice: Person) -> None:
    own_site.run("user", "remove", "carol@example.com")
    install(own_lab, own_site)
    read_credentials(own_lab)
    reply = alice.send(own_lab, "dave@far.test")
    assert reply.accepted, reply


def test_after_the_restart_a_removed_users_certificate_is_refused(own_lab: Lab, own_site: Site, carol: Person) -> None:
    own_site.run("user", "remove", carol.address)
    activate(own_lab, own_site)
    assert_refused_in_tls(carol.send(own_lab, "dave@far.test"), "unknown ca")


def test_after_the_restart_a_removed_users_certificate_is_refused_with_anothers_password(
    own_lab: Lab, own_site: Site, alice: Person, carol: Person
) -> None:
    own_site.run("user", "remove", carol.address)
    activate(own_lab, own_site)
    assert_refused_in_tls(alice.send(own_lab, "dave@far.test", client=carol.client), "unknown ca")


def test_after_the_restart_the_others_are_still_let_in(own_lab: Lab, own_site: Site, alice: Person) -> None:
    own_site.run("user", "remove", "carol@example.com")
    activate(own_lab, own_site)
    reply = alice.send(own_lab, "dave@far.test")
    assert reply.accepted, reply


def test_a_removed_users_mailbox_takes_no_more_mail(own_lab: Lab, own_site: Site) -> None:
    own_site.run("user", "remove", "carol@example.com")
    activate(own_lab, own_site)
    message = compose("dave@far.test", "carol@example.com")
    reply = own_lab.submit("dave@far.test", "carol@example.com", message, port=25)
    assert reply.stage == "rcpt" and reply.code and reply.code >= 500, reply


@pytest.fixture
def nobody_left(own_lab: Lab, own_site: Site) -> Lab:
    """The laboratory after every user was removed."""
    for address in ("alice", "bob", "carol"):
        own_site.run("user", "remove", f"{address}@example.com")
    activate(own_lab, own_site)
    return own_lab


def test_without_any_user_every_client_is_refused(nobody_left: Lab, alice: Person) -> None:
    assert_refused_in_tls(alice.send(nobody_left, "dave@far.test"), "unknown ca")


def test_without_any_user_port_25_still_answers(nobody_left: Lab) -> None:
    with nobody_left.session(25, start_tls=True) as smtp:
        assert smtp.mail("dave@far.test")[0] == 250


def test_a_new_user_is_let_in_after_the_restart(own_lab: Lab, own_site: Site) -> None:
    own_site.run("user", "add", "erin@example.com")
    activate(own_lab, own_site)
    reply = own_site.person("erin@example.com").send(own_lab, "dave@far.test")
    assert reply.accepted, reply


def test_a_new_user_is_refused_before_the_restart(own_lab: Lab, own_site: Site) -> None:
    own_site.run("user", "add", "erin@example.com")
    install(own_lab, own_site)
    read_credentials(own_lab)
    assert_refused_in_tls(own_site.person("erin@example.com").send(own_lab, "dave@far.test"), "unknown ca")


def test_a_second_device_is_let_in_with_the_same_password(own_lab: Lab, own_site: Site, alice: Person) -> None:
    own_site.run("user", "add", alice.address, "--device", "phone")
    activate(own_lab, own_site)
    phone = own_site.person(alice.address, "phone")
    reply = phone.send(own_lab, "dave@far.test", login=alice.login)
    assert reply.accepted, reply


def test_a_second_device_leaves_the_first_one_let_in(own_lab: Lab, own_site: Site, alice: Person) -> None:
    own_site.run("user", "add", alice.address, "--device", "phone")
    activate(own_lab, own_site)
    reply = alice.send(own_lab, "dave@far.test")
    assert reply.accepted, reply


def test_a_new_password_is_taken_once_the_table_is_read_anew(own_lab: Lab, own_site: Site, alice: Person) -> None:
    own_site.run("user", "passwd", alice.address)
    install(own_lab, own_site)
    read_credentials(own_lab)
    reply = own_site.person(alice.address).send(own_lab, "dave@far.test")
    assert reply.accepted, reply


def test_an_old_password_is_refused_once_the_table_is_read_anew(own_lab: Lab, own_site: Site, alice: Person) -> None:
    own_site.run("user", "passwd", alice.address)
    install(own_lab, own_site)
    read_credentials(own_lab)
    reply = alice.send(own_lab, "dave@far.test")
    assert (reply.stage, reply.code) == ("auth", 535), reply


def trust(lab: Lab, pems: str) -> None:
    """Gives the server another trust list."""
    lab.mx.write(TRUST_LIST, pems)
    lab.smtpd.restart()


def test_an_expired_certificate_of_a_listed_ca_is_refused(
    own_lab: Lab, site: Site, alice: Person, tmp_path: Path
) -> None:
    twin = authority()
    trust(own_lab, site.rendered(TRUST_LIST) + pem(twin).decode())
    client = client_of(client_certificate(alice.address, twin, days=-1), tmp_path, twin)
    assert_refused_in_tls(alice.send(own_lab, "dave@far.test", client=client), "certificate expired")


# What follows is no promise. It shows that the certificates of the tests for refusal are well made: each of them is let
# in when the list names its CA.


def test_a_valid_certificate_of_a_listed_ca_is_let_in(own_lab: Lab, site: Site, alice: Person, tmp_path: Path) -> None:
    twin = authority()
    trust(own_lab, site.rendered(TRUST_LIST) + pem(twin).decode())
    reply = alice.send(own_lab, "dave@far.test", client=client_of(client_certificate(alice.address, twin), tmp_path))
    assert reply.accepted, reply


@pytest.mark.parametrize("sent", IMPOSTORS)
def test_an_impostor_would_be_let_in_if_its_twin_were_listed(
    own_lab: Lab, site: Site, alice: Person, tmp_path: Path, sent: str
) -> None:
    client, twin = impostor(site, alice, tmp_path, sent)
    trust(own_lab, pem(twin).decode())
    reply = alice.send(own_lab, "dave@far.test", client=client)
    assert reply.accepted, reply


@pytest.mark.parametrize("way", WAYS)
def test_a_certificate_made_with_the_site_cas_key_would_be_let_in_if_the_site_ca_were_listed(
    own_lab: Lab, site: Site, alice: Person, tmp_path: Path, way: str
) -> None:
    """The reason why docs/trust.md keeps the site CA off every list."""
    trust(own_lab, site.ca_certificate.read_text())
    reply = alice.send(own_lab, "dave@far.test", client=made_with_the_site_cas_key(site, alice, tmp_path, way))
    assert reply.accepted, reply


def test_while_rspamd_is_down_mail_is_put_off_and_not_sent_unsigned(own_lab: Lab, alice: Person) -> None:
    own_lab.rspamd.stop()
    reply = alice.send(own_lab, "dave@far.test")
    assert (reply.stage, reply.code) == ("data", 421), reply


def test_after_a_restart_of_rspamd_alone_mail_is_signed_again(own_lab: Lab, alice: Person) -> None:
    own_lab.rspamd.restart()
    reply = alice.send(own_lab, "dave@far.test")
    assert reply.accepted, reply
