"""`apply` on a running system: Rspamd takes over what was installed, is proved to sign with it, or has its old files back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab import DOMAIN, HOST, Lab, Person, Site, compose, verify
from lab.dkim import Signature
from lab.test_apply import LOCAL_D, SITE, Machine, Said

KEYS = "/var/lib/rspamd/dkim"
PLACE = "/usr/local/sbin/systemctl"

# systemd does not run in the laboratory; what stands in for it does what the unit does.
RELOAD = "pkill -HUP -f ^rspamd:.main"
SYSTEMCTL = f'#!/bin/sh\necho "$*" >>/run/told\ncase "$*" in "reload rspamd") {RELOAD};; esac\n'

LEDGER = """
import json, sqlite3, sys
sql = sqlite3.connect(sys.argv[1])
print(json.dumps([list(sql.execute(statement)) for statement in sys.argv[2:]][-1]))
sql.commit()
"""


class Running(Machine):
    """A host that runs what is installed on it."""

    def __init__(self, lab: Lab, site: Site) -> None:
        self.lab, self.host = lab, lab.mx
        # What another test left.
        lab.mx.run("rm", "-rf", SITE, KEYS, "/run/told")
        lab.install(site.root, site.manifest)
        self.publish(site.zone)
        if not lab.rspamd.running:
            lab.rspamd.start()
        self.order(SYSTEMCTL)
        lab.mx.run("sh", "-c", RELOAD)
        super().__init__(lab.mx, site)
        # The laboratory installed the site by hand: what is there as it should be is known to be ours from then on.
        said = self.apply()
        assert (said.code, said.steps) == (0, {}), said

    def publish(self, zone: str) -> None:
        if self.lab.zones[DOMAIN] != zone:
            self.lab.publish({DOMAIN: zone})

    @property
    def zone(self) -> str:
        """The records as the site on the host has them."""
        return self.host.path(f"{SITE}/out/dns/{DOMAIN}.zone").read_text()

    def order(self, script: str) -> None:
        """Lets systemctl be that."""
        self.host.write(PLACE, script, mode=0o755)

    def told_systemd(self) -> list[str]:
        place = self.host.path("/run/told")
        return place.read_text().splitlines() if place.exists() else []

    def ledger(self, *statements: str) -> list[list[Any]]:
        """Reads or spoils the ledger; returns what the last statement found."""
        done = self.host.run("/usr/bin/python3", "-c", LEDGER, f"{SITE}/state/ledger.sqlite", *statements)
        found: list[list[Any]] = json.loads(done.stdout)
        return found

    @property
    def in_force(self) -> bool:
        """Whether it is recorded that the host signs with what is to sign."""
        return self.ledger("SELECT host FROM dkim_in_force, dkim_change USING (number)") == [[HOST]]

    @property
    def active(self) -> set[str]:
        return {str(row[0]) for row in self.ledger("SELECT selector FROM dkim_key WHERE state = 'active'")}

    def replace_keys(self) -> tuple[set[str], set[str]]:
        """Lets new keys become active whose records are published, as after a rotation; returns the old and the new selectors."""
        before = self.active
        assert self.run("dkim", "rotate", "--all").code == 0
        self.ledger(
            "UPDATE dkim_key SET state = 'published', seen = since, ttl = 60, negative_ttl = 60 WHERE state = 'generated'",
            "UPDATE dkim_key SET state = 'retiring', left_at = (SELECT number FROM dkim_change) + 1 WHERE state = 'active'",
            "UPDATE dkim_key SET state = 'active', look_at = NULL WHERE state = 'published'",
            "UPDATE dkim_change SET number = number + 1",
        )
        assert self.run("render").code == 0
        self.publish(self.zone)
        return before, self.active

    def signatures(self, person: Person) -> list[Signature]:
        message = compose(person.address, "dave@far.test")
        assert person.send(self.lab, "dave@far.test", message).accepted
        return verify(self.lab.arrived("dave@far.test", message), self.lab.live_txt)

    def signs_with(self, person: Person, selectors: set[str]) -> bool:
        found = self.signatures(person)
        return {one.selector for one in found if one.valid} == selectors and len(found) == len(selectors)


@pytest.fixture(scope="module")
def own_lab(site: Site) -> Iterator[Lab]:
    with site.lab() as lab:
        lab.start()
        yield lab


@pytest.fixture
def running(own_lab: Lab, site: Site) -> Running:
    return Running(own_lab, site)


def test_a_host_that_signs_as_it_should_is_recorded_without_a_reload(running: Running) -> None:
    assert running.in_force
    assert running.told_systemd() == []
    assert running.apply().out == "/ is as it should be\n", "what is known is not proved again"


def test_rspamd_signs_with_new_keys_when_apply_ends(running: Running, alice: Person) -> None:
    old, new = running.replace_keys()
    assert not running.in_force and not old & new
    said = running.apply()
    assert (said.code, said.codes, said.told) == (0, [], []), said
    assert "proved: Rspamd signs for 1 domain as it should; of 2 signatures all verify, 2 by DNS" in said.out
    assert running.told_systemd() == ["reload rspamd"]
    assert running.signs_with(alice, new)
    assert running.in_force
    [[unused]] = running.ledger("SELECT count(*) FROM dkim_key WHERE state = 'retiring' AND unused IS NOT NULL")
    assert unused == 2, "the clock of what signed before begins"


def test_a_first_key_that_nobody_can_verify_yet_is_a_warning(running: Running) -> None:
    running.publish("\n".join(line for line in running.zone.splitlines() if "_domainkey" not in line) + "\n")
    running.ledger("DELETE FROM dkim_in_force")
    said = running.apply()
    assert (said.code, said.codes) == (0, ["dkim-unconfirmed"]), said
    assert running.in_force


@pytest.mark.full
def test_a_silent_resolver_is_a_warning(running: Running) -> None:
    running.ledger("DELETE FROM dkim_in_force")
    said = running.apply("--resolver", "127.0.0.1:9")
    assert (said.code, said.codes) == (0, ["dns-silent"]), said
    assert running.in_force


def assert_old_files_back(running: Running, said: Said, code: str, alice: Person, old: set[str]) -> None:
    assert (said.code, said.codes) == (3, [code]), said
    assert "the old files are back" in said.errors
    assert all(selector in running.host.path(f"{LOCAL_D}/dkim_signing.conf").read_text() for selector in old)
    assert running.signs_with(alice, old)
    assert not running.in_force


def test_where_the_reload_fails_the_old_files_are_back(running: Running, alice: Person) -> None:
    old, new = running.replace_keys()
    running.order("#!/bin/sh\necho no such unit >&2\nexit 5\n")
    said = running.apply()
    assert_old_files_back(running, said, "rspamd-reload", alice, old)
    assert "no such unit" in said.errors
    running.order(SYSTEMCTL)
    assert running.apply().code == 0
    assert running.signs_with(alice, new)


@pytest.mark.full
def test_where_rspamd_goes_on_with_the_old_keys_the_old_files_are_back(running: Running, alice: Person) -> None:
    old, new = running.replace_keys()
    running.order("#!/bin/sh\nexit 0\n")
    said = running.apply()
    assert_old_files_back(running, said, "probe-failed", alice, old)
    assert f"is signed with {' and '.join(sorted(old))} instead of {' and '.join(sorted(new))}" in said.errors


def test_where_rspamd_signs_with_a_wrong_key_the_old_files_are_back(running: Running, alice: Person) -> None:
    old, new = running.replace_keys()
    [was], [now] = ([name for name in names if "r" in name] for names in (old, new))
    swap = f"cp {KEYS}/{DOMAIN}.{was}.key {KEYS}/{DOMAIN}.{now}.key"
    running.order(SYSTEMCTL.replace(RELOAD, f"{swap}; {RELOAD}"))
    said = running.apply()
    assert_old_files_back(running, said, "probe-failed", alice, old)
    assert f"{now} that does not verify by its own key" in said.errors


def test_where_a_record_that_was_seen_is_lost_the_old_files_are_back(running: Running, alice: Person) -> None:
    before = running.zone
    old, new = running.replace_keys()
    running.publish(before)
    said = running.apply()
    assert_old_files_back(running, said, "record-lost", alice, old)
    assert all(f"{selector}._domainkey.{DOMAIN}" in said.errors for selector in new)


def test_there_is_no_way_back_to_a_revoked_selector(running: Running) -> None:
    [rsa] = [selector for selector in running.active if selector.endswith("r")]
    assert running.run("dkim", "revoke", rsa).code == 0
    running.order("#!/bin/sh\nexit 5\n")
    said = running.apply()
    assert (said.code, said.codes) == (3, ["rspamd-reload"]), said
    assert f"the new files stay: the old ones sign with {rsa}._domainkey.{DOMAIN}, which is no longer published" in said.errors
    assert rsa not in running.host.path(f"{LOCAL_D}/dkim_signing.conf").read_text().replace(f"{rsa}2", "")


def test_without_reload_files_are_put_in_place_and_nothing_else(running: Running, alice: Person) -> None:
    old, _ = running.replace_keys()
    said = running.apply("--no-reload")
    assert (said.code, said.told) == (0, ["systemctl restart rspamd"])
    assert running.told_systemd() == []
    assert running.signs_with(alice, old)
    assert not running.in_force


def test_where_rspamd_is_down_nothing_is_proved_and_apply_says_so(running: Running) -> None:
    running.replace_keys()
    running.lab.rspamd.stop()
    said = running.apply()
    assert (said.code, said.told) == (0, ["systemctl restart rspamd"]), said
    assert "note: Rspamd does not answer at /run/rspamd/normal.sock" in said.out
    assert not running.in_force
    running.lab.rspamd.start()
    said = running.apply()
    assert (said.code, said.told, running.in_force) == (0, [], True), said


def test_the_next_apply_completes_one_that_was_killed_at_the_reload(running: Running, alice: Person) -> None:
    _, new = running.replace_keys()
    running.order("#!/bin/sh\nkill -9 $PPID\n")
    assert running.apply().code != 0
    assert not running.in_force
    running.order(SYSTEMCTL)
    said = running.apply()
    assert (said.code, said.steps, running.told_systemd()) == (0, {}, ["reload rspamd"]), said
    assert running.in_force and running.signs_with(alice, new)


def test_what_others_must_be_told_is_not_lost_where_rspamd_fails(running: Running) -> None:
    running.replace_keys()
    assert running.run("user", "passwd", "alice@example.com").code == 0
    running.order("#!/bin/sh\nexit 5\n")
    assert "now: smtpctl update table credentials" in running.apply().errors
    running.order(SYSTEMCTL)
    assert running.apply().told == ["smtpctl update table credentials"]


def test_an_algorithm_that_the_settings_give_up_signs_no_more(running: Running, alice: Person) -> None:
    running.edit(f"{SITE}/postseal.toml", '# dkim = ["rsa", "ed25519"]', 'dkim = ["rsa"] #')
    assert running.run("render").code == 0
    rsa = {selector for selector in running.active if "r" in selector}
    said = running.apply()
    assert (said.code, said.codes) == (0, []), said
    assert running.signs_with(alice, rsa)
