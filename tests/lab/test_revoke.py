"""One device is revoked of three people with two each: its door is shut, at once if asked, and the five others are admitted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lab import Lab, Site
from lab.client import Reply
from lab.site import MAILBOXES
from lab.test_apply import SITE, Machine, Said
from lab.test_refused import assert_refused_in_tls

PEOPLE = ["alice@example.com", "bob@example.com", "carol@example.com"]
DEVICES = ["default", "phone"]

# systemd does not run in the laboratory; what stands in for it does what its unit does.
SYSTEMCTL = """#!/bin/sh
[ "$1 $2" = "restart opensmtpd" ] || exit 0
pkill -x smtpd
while pgrep -x -r S,R,D smtpd >/dev/null; do sleep 0.05; done
exec smtpd
"""


class Office:
    """A running laboratory on whose host the site is kept, and what everybody holds."""

    def __init__(self, lab: Lab, site: Site) -> None:
        self.lab = lab
        # What another test's revocation left: its site, its files, and an smtpd that the laboratory did not start.
        lab.smtpd.stop()
        lab.mx.run("sh", "-c", "pkill -x smtpd; while pgrep -x -r S,R,D smtpd; do sleep 0.05; done")
        lab.mx.run("rm", "-rf", SITE)
        lab.install(site.root, site.manifest)
        lab.smtpd.start()
        self.machine = Machine(lab.mx, site)
        self.people = {(who, device): site.person(who, device) for who in PEOPLE for device in DEVICES}
        lab.mx.write("/usr/local/sbin/systemctl", SYSTEMCTL, mode=0o755)
        # The laboratory installed the site by hand: what is there as it should be is known to be ours from then on.
        assert self.machine.apply().steps == {}

    def revoke(self, *arguments: str) -> Said:
        return self.machine.run("user", "revoke", *arguments)

    def password(self, address: str) -> str:
        return self.lab.mx.path(f"{SITE}/state/passwords/{address}/password").read_text().strip()

    def send(self, who: str, device: str, **changes: Any) -> Reply:
        return self.people[who, device].send(self.lab, "dave@far.test", **changes)


@pytest.fixture(scope="module")
def with_phones(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    own = site.copy(tmp_path_factory.mktemp("phones") / "example.com")
    for who in PEOPLE:
        own.run("user", "add", who, "--device", "phone")
    return own


@pytest.fixture(scope="module")
def running(with_phones: Site) -> Iterator[Lab]:
    with with_phones.lab(MAILBOXES) as lab:
        lab.start()
        yield lab


@pytest.fixture
def office(running: Lab, with_phones: Site) -> Office:
    return Office(running, with_phones)


def test_of_six_devices_the_revoked_one_is_refused_and_five_are_admitted(office: Office) -> None:
    said = office.revoke("bob@example.com", "--device", "phone", "--now")
    assert said.code == 0, said
    assert "still admitted: bob@example.com for `default`" in said.out
    for port in (465, 587):
        assert f"127.0.0.1:{port} refuses the certificate of bob@example.com for `phone` (UnknownCA)" in said.out
        assert f"127.0.0.1:{port} admits the certificate of alice@example.com for `default`, which is live" in said.out
    for who, device in office.people:
        reply = office.send(who, device)
        if (who, device) == ("bob@example.com", "phone"):
            assert_refused_in_tls(reply, "unknown ca")
        else:
            assert reply.accepted, (who, device, reply)


def test_a_door_that_stays_open_is_told(office: Office) -> None:
    office.lab.mx.write("/usr/local/sbin/systemctl", "#!/bin/sh\nexit 0\n", mode=0o755)
    said = office.revoke("bob@example.com", "--device", "phone", "--now")
    assert said.code == 1
    assert set(said.codes) == {"door-open"}
    assert "127.0.0.1:465 still admits the certificate of bob@example.com for `phone`" in said.errors


def test_a_server_that_does_not_start_again_is_no_proof(office: Office) -> None:
    office.lab.mx.write("/usr/local/sbin/systemctl", "#!/bin/sh\npkill -x smtpd\nexit 0\n", mode=0o755)
    said = office.revoke("bob@example.com", "--device", "phone", "--now")
    assert said.code == 1
    assert set(said.codes) == {"door-unclear"}


def test_a_restart_that_fails_is_told_with_what_is_left_to_do(office: Office) -> None:
    office.lab.mx.write("/usr/local/sbin/systemctl", "#!/bin/sh\necho no such unit >&2\nexit 5\n", mode=0o755)
    said = office.revoke("bob@example.com", "--device", "phone", "--now")
    assert (said.code, said.codes) == (3, ["daemon-order", "door-unclear"])
    assert "no such unit" in said.errors and "systemctl restart opensmtpd" in said.errors
    assert "revoked the certificate of bob@example.com for `phone`" in said.out


def test_who_repeats_what_came_to_no_proof_gets_the_proof(office: Office) -> None:
    office.lab.mx.write("/usr/local/sbin/systemctl", "#!/bin/sh\nexit 5\n", mode=0o755)
    assert office.revoke("bob@example.com", "--device", "phone", "--now").code == 3
    office.lab.mx.write("/usr/local/sbin/systemctl", "#!/bin/sh\nexit 0\n", mode=0o755)
    assert office.revoke("bob@example.com", "--device", "phone", "--now").codes[:1] == ["door-open"]
    office.lab.mx.write("/usr/local/sbin/systemctl", SYSTEMCTL, mode=0o755)
    said = office.revoke("bob@example.com", "--device", "phone", "--now")
    assert said.code == 0, said
    assert "127.0.0.1:465 refuses the certificate of bob@example.com for `phone` (UnknownCA)" in said.out


def test_broken_settings_say_that_nothing_is_revoked_yet(office: Office) -> None:
    office.lab.mx.path(f"{SITE}/postseal.toml").write_text("no toml")
    said = office.revoke("bob@example.com", "--device", "phone", "--now")
    assert said.code == 2 and "leave out --now to revoke at once" in said.errors
    assert office.revoke("bob@example.com", "--device", "phone").code == 3


def test_a_lost_device_knows_neither_certificate_nor_password_any_more(office: Office) -> None:
    old = office.people["bob@example.com", "phone"].login
    said = office.revoke("bob@example.com", "--device", "phone", "--reason", "lost", "--now")
    assert said.code == 0, said
    new = ("bob@example.com", office.password("bob@example.com"))
    assert new != old
    reply = office.send("bob@example.com", "default", login=old)
    assert (reply.stage, reply.code) == ("auth", 535), reply
    reply = office.send("bob@example.com", "default", login=new)
    assert reply.accepted, reply


def test_what_is_not_installed_yet_is_said(office: Office) -> None:
    said = office.revoke("carol@example.com")
    assert "no certificate of carol@example.com is left" in said.out
    assert "systemctl restart opensmtpd" in said.out
    assert office.send("carol@example.com", "phone").accepted
