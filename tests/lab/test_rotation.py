"""Rspamd under constant load through a whole rotation, in both shapes: no mail without a signature, none with a selector that
is not published at that moment, and all verify."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from lab import DOMAIN, Lab, Person, Site, compose, verify, zone_txt
from lab.lab import NAME_SERVER
from lab.site import PROGRAM
from lab.test_apply import LOCAL_D, SITE, Said
from lab.test_takeover import KEYS, Running

AT = PROGRAM.parent / "examples/postseal-at"

# So many messages are signed by each shape; the clock is put on so often meanwhile.
MESSAGES = 3000 if os.environ.get("POSTSEAL_FULL") == "yes" else 300
POSTERS = 3
JUMPS = [
    timedelta(minutes=10),
    timedelta(hours=2),
    timedelta(hours=1),
    timedelta(days=6),
    timedelta(days=1),
    timedelta(days=1),
    timedelta(days=2),
]


@dataclass
class Load:
    """Mail that is signed all the time, each with what DNS published before and after."""

    lab: Lab
    alice: Person
    published: list[str]
    signed: list[tuple[int, int, bytes]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Load]:
        with ThreadPoolExecutor(POSTERS + 1) as pool:
            work = [pool.submit(self._post) for _ in range(POSTERS)] + [pool.submit(self._submit)]
            try:
                yield self
            finally:
                self.over.set()
        for one in work:
            one.result()

    def until(self, count: int) -> None:
        deadline = time.monotonic() + 300
        while len(self.signed) < count:
            assert time.monotonic() < deadline and not self.errors, self.errors
            time.sleep(0.05)

    def _keep(self, before: int, message: bytes) -> None:
        self.signed.append((before, len(self.published) - 1, message))

    def _post(self) -> None:
        path = str(self.lab.mx.path("/run/rspamd/normal.sock"))
        while not self.over.is_set():
            before, message = len(self.published) - 1, compose(self.alice.address, "dave@far.test")
            try:
                signatures = checked(path, message)
            except OSError as error:
                self.errors.append(str(error))
                return
            self._keep(before, b"".join(b"DKIM-Signature: " + one.encode() + b"\r\n" for one in signatures) + message)
            time.sleep(0.02)

    def _submit(self) -> None:
        while not self.over.is_set():
            before, message = len(self.published) - 1, compose(self.alice.address, "dave@far.test")
            reply = self.alice.send(self.lab, "dave@far.test", message)
            if not reply.accepted:
                self.errors.append(str(reply))
                return
            self._keep(before, self.lab.arrived("dave@far.test", message))

    def verdicts(self) -> set[tuple[str, ...]]:
        """The selectors of each mail's signatures; raises on the first one that does not verify by what was published."""
        zones = [zone_txt(zone, DOMAIN) for zone in self.published]
        found = set()
        for before, after, message in self.signed:
            for zone in {before, after}:
                signatures = verify(message, zones[zone])
                assert signatures and all(one.valid for one in signatures), (before, after, signatures)
            found.add(tuple(sorted(one.selector for one in signatures)))
        return found


def checked(path: str, message: bytes) -> list[str]:
    """What Rspamd signs with, asked as filter-rspamd does."""
    head = f"POST /checkv2 HTTP/1.0\r\nContent-Length: {len(message)}\r\nUser: alice@{DOMAIN}\r\nFrom: alice@{DOMAIN}\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(path)
        connection.sendall(f"{head}Rcpt: dave@far.test\r\nIp: 203.0.113.200\r\n\r\n".encode() + message)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    said = json.loads(answer.partition(b"\r\n\r\n")[2])["dkim-signature"]
    return [said] if isinstance(said, str) else said


class Rotating(Running):
    """A host whose site lives at a time that the test sets."""

    def __init__(self, lab: Lab, site: Site) -> None:
        super().__init__(lab, site)
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.program = str(AT)
        if not self.host.path(self.program).exists():
            self.program = "/usr/local/bin/postseal-at"
            self.host.write(self.program, AT.read_bytes(), mode=0o755)

    def run(self, *arguments: str, user: str | None = None) -> Said:
        if not hasattr(self, "now"):
            return super().run(*arguments, user=user)
        command = ["env", f"POSTSEAL_NOW={self.now.isoformat()}", self.program, *arguments, "--site", SITE]
        done = self.host.run(*command, user=user, check=False)
        return Said(done.returncode, done.stdout, done.stderr)

    def states(self) -> list[str]:
        return sorted(str(row[0]) for row in self.ledger("SELECT state FROM dkim_key"))

    @property
    def has_map(self) -> bool:
        return self.host.path(f"{KEYS}/selectors.map").exists()

    @property
    def signing(self) -> set[str]:
        """The selectors that the installed files sign with."""
        text = self.host.path(f"{KEYS}/selectors.map" if self.has_map else f"{LOCAL_D}/dkim_signing.conf").read_text()
        return {selector for selector in self.active if selector in text}

    def cron(self, load: Load) -> None:
        """What runs each hour, and what an administrator publishes then."""
        said = self.run("dkim", "advance", "--resolver", NAME_SERVER)
        assert said.code == 0, said
        if self.zone != load.published[-1]:
            self.publish(self.zone)
            load.published.append(self.zone)
        said = self.apply("--resolver", NAME_SERVER)
        assert said.code == 0, said
        assert self.in_force


@pytest.fixture(scope="module", params=["domains", "selector_map"])
def rotating(site: Site, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotating]:
    own = site.copy(tmp_path_factory.mktemp("rotation") / "example.com")
    settings = own.directory / "postseal.toml"
    if request.param == "selector_map":
        text = settings.read_text()
        settings.write_text(text.replace("[aliases]", '[dkim]\nsigning = "selector_map"\n\n[aliases]', 1))
        own.run("render")
    with own.lab() as lab:
        lab.start()
        yield Rotating(lab, own)


def test_a_rotation_under_load_loses_no_signature(rotating: Rotating, alice: Person) -> None:
    before, old = rotating.active, rotating.signing
    load = Load(rotating.lab, alice, [rotating.zone])
    with load.running():
        load.until(MESSAGES // (len(JUMPS) + 2))
        assert rotating.run("dkim", "rotate", "--all").code == 0
        for step, jump in enumerate([timedelta(), *JUMPS], start=2):
            rotating.now += jump
            rotating.cron(load)
            load.until(MESSAGES * step // (len(JUMPS) + 2))
    assert load.errors == []
    new = rotating.active
    assert not old & new and len(new) == len(old)
    # Where a map has room for one of two keys, the other one is given up.
    assert rotating.states() == sorted(["active"] * len(new) + ["destroyed"] * len(before))
    assert len(load.signed) >= MESSAGES
    assert load.verdicts() == {tuple(sorted(old)), tuple(sorted(new))}
    assert rotating.told_systemd() == ([] if rotating.has_map else ["reload rspamd"])
    keys = {path.name for path in rotating.host.path(KEYS).glob("*.key")}
    assert keys == {f"{DOMAIN}.{selector}.key" for selector in new}
