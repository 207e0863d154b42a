"""An installation that is killed between two renames: whatever mixture it leaves starts, admits, signs, and is completed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab import Lab, Person, Site
from lab.site import MAILBOXES
from lab.test_apply import PLACES, SITE, Machine, Said
from lab.test_variants import assert_sends

BEFORE = '[[domain]]\nname = "example.net"\n\n'
AFTER = '[[domain]]\nname = "example.org"\n\n'
SAVED = "/srv/before.tar"
# What is told to the daemons is tried elsewhere: here are the files alone.
APPLY = ["apply", "--no-reload", "--site", SITE]


class Changed(Machine):
    """A running laboratory's host where one rendering is installed and another is due: a user, a domain and an address come,
    a domain goes."""

    def __init__(self, lab: Lab, site: Site) -> None:
        super().__init__(lab.mx, site)
        self.lab = lab
        # The laboratory installed the site by hand: what is there as it should be is known to be ours from then on.
        assert self.apply().steps == {}
        self._domain("", BEFORE)
        assert self.apply().code == 0
        self._domain(BEFORE, AFTER)
        self.edit(f"{SITE}/postseal.toml", 'platform = "debian"', 'listen = ["0.0.0.0"]\nplatform = "debian"')
        assert self.run("user", "add", "dora@example.com").code == 0
        self.host.run("tar", "-c", "-p", "-f", SAVED, SITE, *PLACES)
        self.renames = self._count()

    def apply(self, *arguments: str) -> Said:
        return super().apply("--no-reload", *arguments)

    def _domain(self, old: str, new: str) -> None:
        self.edit(f"{SITE}/postseal.toml", f"{old}[aliases]", f"{new}[aliases]")
        postmaster = f'"postmaster@{new.split(chr(34))[1]}" = "alice@example.com"\n'
        settings = self.host.path(f"{SITE}/postseal.toml")
        lines = [line for line in settings.read_text().splitlines(keepends=True) if "postmaster@example." not in line]
        text = "".join(lines).replace("[aliases]\n", f'[aliases]\n"postmaster@example.com" = "alice@example.com"\n{postmaster}')
        settings.write_text(text)
        assert self.run("render").code == 0

    def restore(self) -> None:
        self.host.run("rm", "-rf", SITE, "/etc/mail/postseal", "/var/lib/rspamd/dkim")
        self.host.run("tar", "-x", "-p", "-f", SAVED, "-C", "/")

    def _count(self) -> int:
        traced = self.host.run("strace", "-f", "-o", "/srv/trace", "-e", "trace=renameat", self.program, *APPLY)
        assert traced.returncode == 0
        return self.host.path("/srv/trace").read_text().count("renameat(")

    def killed_at(self, count: int) -> None:
        inject = f"inject=renameat:signal=KILL:when={count}"
        self.host.run("strace", "-f", "-o", "/dev/null", "-e", inject, self.program, *APPLY, check=False)


@pytest.fixture(scope="module")
def changed(site: Site) -> Iterator[Changed]:
    with site.lab([*MAILBOXES, "dora@example.com"]) as lab:
        lab.start()
        yield Changed(lab, site)


def test_the_whole_installation_starts_admits_and_signs(changed: Changed, alice: Person) -> None:
    changed.restore()
    assert changed.apply().code == 0
    restart(changed.lab)
    assert_sends(changed.lab, alice)


def test_whatever_a_killed_installation_leaves_starts_admits_and_signs(changed: Changed, alice: Person) -> None:
    every = range(1, changed.renames + 1)
    for count in every if os.environ.get("POSTSEAL_FULL") == "yes" else [every[-1] // 2, every[-1]]:
        changed.restore()
        changed.killed_at(count)
        assert changed.plan().code == 1, f"killed at rename {count}, and nothing was left to do"
        restart(changed.lab)
        assert_sends(changed.lab, alice)
        completed = changed.apply()
        assert completed.code == 0, completed
        assert completed.told == ["systemctl restart rspamd", "systemctl restart opensmtpd"], count
        assert changed.plan().code == 0
        assert ".postseal" not in changed.state()


def restart(lab: Lab) -> None:
    lab.rspamd.restart()
    lab.smtpd.restart()
