"""`dkim advance` and real authoritative name servers: BIND and NSD, found by way of unbound, with faults to mend."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import pytest

from lab.host import Daemon, Host, wait_until
from lab.site import PROGRAM, Site

AT = PROGRAM.parent / "examples/postseal-at"
"""The program with a clock that a test sets."""

RESOLVER, ROOT = "198.51.100.2", "198.51.100.1"
FAST, SLOW, LATE, REFUSING, LAME = (f"198.51.100.{last}" for last in range(11, 16))
ROUTELESS = "2001:db8:51::12"

NSD = """
server:
  server-count: 1 ip-address: {address} username: "" chroot: "" database: "" zonesdir: "{place}" pidfile: "{place}/pid"
  xfrdfile: "{place}/xfrd" zonelistfile: "{place}/list" xfrdir: "{place}"
remote-control:
  control-enable: no
"""
NAMED = """
options {{ directory "{place}"; pid-file none; listen-on {{ {address}; }}; listen-on-v6 {{ none; }}; recursion no;
  dnssec-validation no; notify no; session-keyfile none; }};
controls {{ }};
"""
# Nothing is kept, so that a test sees at once what it changed; BIND on the other side does keep.
UNBOUND = f"""
server:
  interface: {RESOLVER}
  do-daemonize: no
  use-syslog: no
  username: ""
  chroot: ""
  pidfile: ""
  access-control: 0.0.0.0/0 allow
  do-ip6: no
  root-hints: /etc/lab/hints
  module-config: iterator
  cache-max-ttl: 0
  cache-max-negative-ttl: 0
  local-zone: "test." nodefault
remote-control:
  control-enable: no
"""


@dataclass
class Authority:
    """A name server and its zones, which are fragments without SOA."""

    host: Host
    name: str
    program: str
    address: str
    soa: str = "3600 IN SOA ns.test. hostmaster.test. {serial} 3600 600 86400 86400"
    zones: dict[str, str] = field(default_factory=dict)
    serial: int = 0

    def __post_init__(self) -> None:
        conf = f"{self._place}/conf"
        command = ["named", "-g", "-n1", "-c", conf] if self.program == "named" else ["nsd", "-d", "-c", conf]
        self.daemon = Daemon(self.host, self.name, *command, ready=self._serves)

    @property
    def _place(self) -> str:
        return f"/run/{self.name}"

    def _serves(self) -> bool:
        # By TCP, which tells at once when nobody serves.
        with self.host.network():
            for zone in self.zones or ["."]:
                try:
                    answer = dns.query.tcp(dns.message.make_query(zone, "SOA"), self.address, timeout=2)
                except dns.exception.DNSException as error:
                    raise OSError(str(error)) from error
                if self.zones and (not answer.answer or answer.answer[0][0].serial != self.serial):
                    return False
        return True

    def serve(self, zones: dict[str, str]) -> None:
        """Serves these zones, as others than before."""
        self.zones.update(zones)
        self.serial += 1
        conf = (NSD if self.program == "nsd" else NAMED).format(place=self._place, address=self.address)
        for number, (zone, text) in enumerate(self.zones.items()):
            origin = zone.rstrip(".") + "."
            soa = self.soa.format(serial=self.serial)
            self.host.write(f"{self._place}/zone-{number}", f"$ORIGIN {origin}\n$TTL 300\n@ {soa}\n{text}\n")
            if self.program == "nsd":
                conf += f'zone:\n  name: "{origin}"\n  zonefile: "zone-{number}"\n'
            else:
                conf += f'zone "{origin}" {{ type primary; file "zone-{number}"; }};\n'
        self.host.write(f"{self._place}/conf", conf)
        if self.daemon.running and self.program == "named":
            self.daemon.signal(signal.SIGHUP)
            wait_until(self._serves, f"the zones of {self.name}")
        else:
            self.daemon.stop()
            self.daemon.start()


class World:
    """A root, a resolver, and the servers below it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        for address in (RESOLVER, ROOT, FAST, SLOW, LATE, REFUSING, LAME):
            host.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        self.root = Authority(host, "root", "named", ROOT)
        self.fast = Authority(host, "fast", "named", FAST)
        self.slow = Authority(
            host, "slow", "nsd", SLOW, soa="9000 IN SOA ns.test. hostmaster.test. {serial} 3600 600 86400 7200"
        )
        self.refusing = Authority(host, "refusing", "nsd", REFUSING)
        self.late = Authority(host, "late", "nsd", LATE)
        self.lame = Authority(host, "lame", "named", LAME)
        self.resolver = Daemon(host, "unbound", "unbound", "-d", "-c", "/etc/lab/unbound", ready=self._resolves)

    def start(self, delegations: str) -> None:
        self.host.write("/etc/lab/hints", f". 3600 IN NS ns.test.\nns.test. 3600 IN A {ROOT}\n")
        self.host.write("/etc/lab/unbound", UNBOUND)
        glue = f"ns.test. A {ROOT}\nfast.test. A {FAST}\nslow.test. A {SLOW}\nslow.test. AAAA {ROUTELESS}\n"
        glue += f"late.test. A {LATE}\nrefusing.test. A {REFUSING}\nlame.test. A {LAME}\nsix.test. AAAA {ROUTELESS}\n"
        self.root.serve({".": f"@ NS ns.test.\n{glue}{delegations}"})
        self.resolver.start()

    def _resolves(self) -> bool:
        with self.host.network():
            return bool(dns.query.tcp(dns.message.make_query("fast.test", "A"), RESOLVER, timeout=2).answer)

    def advance(
        self, site: Site, at: float = 0, *, by: str | None = RESOLVER, command: tuple[str, ...] = ("advance",)
    ) -> dict[str, Any]:
        """`dkim advance` in this world, at a time."""
        enter = ["nsenter", f"--target={self.host.pid}", "--net", "--"]
        program: list[str | Path] = [AT, "dkim", *command, "--format", "json", "--site", site.directory]
        if by:
            program += ["--resolver", by]
        else:
            # The system's own: with the host's resolv.conf over ours, for this one process.
            conf = site.directory.parent / "resolv.conf"
            conf.write_text(f"nameserver {RESOLVER}\n")
            enter += ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf; exec "$@"', str(conf)]
        now = datetime.fromtimestamp(at or time.time(), UTC).isoformat()
        environment = {"PATH": os.environ["PATH"], "POSTSEAL_NOW": now}
        done = subprocess.run([*enter, *program], env=environment, capture_output=True, check=True, text=True)
        report = json.loads(done.stdout)
        assert isinstance(report, dict)
        return report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(tmp_path_factory.mktemp("seeing") / "site")
    site.run("init", "example.com", "--user", "alice@example.com", "--address", "203.0.113.10")
    return site


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    return made.copy(tmp_path / "site")


@pytest.fixture
def world() -> Iterator[World]:
    with Host("world") as host:
        yield World(host)


def lacking(report: dict[str, Any], algorithm: str = "rsa") -> dict[str, str]:
    """What is said of the servers that do not have the record of a key."""
    [waiting] = [one for one in report["waiting"] if one.get("algorithm") == algorithm] or [{"servers": []}]
    return {one["server"]: one["reason"] for one in waiting["servers"]}


def steps(report: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((one["what"], one["algorithm"]) for one in report["steps"])


def keys(site: Site, state: str) -> list[dict[str, Any]]:
    found = json.loads(site.run("dkim", "list", "--format", "json"))["keys"]
    return [key for key in found if key["state"] == state]


NAMES = "@ NS fast.test.\n@ NS slow.test.\n@ NS late.test.\n@ NS refusing.test.\n@ NS lame.test.\n"


def test_a_key_signs_only_once_the_last_server_has_had_it_for_the_negative_ttl(site: Site, world: World) -> None:
    world.start(NAMES.replace("@", "example.com."))
    old = {"example.com": NAMES + site.zone}
    world.fast.serve(old)
    world.slow.serve(old)
    world.refusing.serve({"other.test": "@ NS refusing.test."})
    world.lame.serve({".": f"@ NS ns.test.\nns.test. A {ROOT}\ncom. NS ns.test."})
    start = int(time.time())

    # Each server is named until it is mended.
    faults = {
        "lame.test": "does not serve the zone",
        "late.test": "does not answer",
        "refusing.test": "refuses",
    }
    for mend in (world.late, world.lame, world.refusing):
        report = world.advance(site, start)
        assert lacking(report) == lacking(report, "ed25519") == faults and steps(report) == []
        mend.serve(old)
        del faults[f"{mend.name}.test"]
    assert steps(world.advance(site, start)) == [("seen", "ed25519"), ("seen", "rsa")]

    # A rotation: one server has the new records later than the others, and says that they may be kept for longer.
    report = world.advance(site, start, command=("rotate", "example.com"))
    assert steps(report) == [("made", "ed25519"), ("made", "rsa")]
    new = {"example.com": NAMES + site.zone}
    for authority in (world.fast, world.lame, world.late, world.refusing):
        authority.serve(new)
    report = world.advance(site, start)
    assert steps(report) == [] and lacking(report) == lacking(report, "ed25519") == {"slow.test": "has no such record"}
    world.slow.serve({"example.com": new["example.com"].replace(" 3600 IN TXT", " 5400 IN TXT")})
    seen = start + 600
    assert steps(world.advance(site, seen)) == [("seen", "ed25519"), ("seen", "rsa")]
    # 5400 and 7200 are what the slow server says, which the others do not.
    said = [(key["ttl"], key["negative_ttl"], key["seen"]) for key in keys(site, "published")]
    assert said == [(5400, 7200, seen)] * 2

    # A record that vanishes from one server before the switch holds it, and its wait begins again.
    assert steps(world.advance(site, seen + 7199)) == []
    world.fast.serve(old)
    report = world.advance(site, seen + 7200)
    assert steps(report) == [] and lacking(report) == {"fast.test": "has no such record"}
    world.fast.serve(new)
    again = seen + 7300
    assert steps(world.advance(site, again)) == [("seen", "ed25519"), ("seen", "rsa")]
    assert steps(world.advance(site, again + 7199)) == []
    assert len(keys(site, "active")) == len(keys(site, "published")) == 2
    assert steps(world.advance(site, again + 7200)) == [("activated", "ed25519"), ("activated", "rsa")]


OTHERS = ["alias", "circle", "deep", "nowhere", "six", "split"]
"""Domains below `example`, with one key each."""


def test_aliases_and_delegations_are_followed_and_long_answers_come_by_tcp(site: Site, world: World) -> None:
    settings = site.directory / "postseal.toml"
    domains = "".join(f'[[domain]]\nname = "{name}.example"\ndkim = ["rsa"]\n' for name in OTHERS)
    mailboxes = "".join(f'"postmaster@{name}.example" = "alice@example.com"\n' for name in OTHERS)
    text = settings.read_text().replace("[aliases]\n", f"{domains}\n[aliases]\n{mailboxes}")
    settings.write_text(text)
    site.run("render")
    [selector] = {key["selector"] for key in keys(site, "active") if key["algorithm"] == "rsa"}
    [padded] = re.findall(r"(.*_domainkey.example.com. 3600 IN TXT \"v=DKIM1; k=rsa; .*)", site.zone)
    padding = " ".join(['"; n=' + "x" * 200 + '"', *['"' + "x" * 200 + '"'] * 6])
    text = {name: (site.directory / f"out/dns/{name}.example.zone").read_text() for name in OTHERS}
    own = {name: re.sub(rf"{selector}\._domainkey.{name}.example. .*", "", zone) for name, zone in text.items()}
    record = {
        name: re.findall(rf"{selector}\._domainkey.{name}.example. (3600 IN TXT .*)", zone)[0]
        for name, zone in text.items()
    }

    both, fast = "@ NS fast.test.\n@ NS slow.test.\n", "@ NS fast.test.\n"
    big = {"example.com": both + site.zone.replace(padded, f"{padded} {padding}")}
    world.fast.serve(
        {
            **big,
            "alias.example": f"{fast}{own['alias']}{selector}._domainkey 7000 CNAME key.held.example.\n",
            "circle.example": f"{fast}{own['circle']}{selector}._domainkey CNAME back.held.example.\n",
            "deep.example": f"{fast}{own['deep']}{selector}._domainkey NS slow.test.\n",
            "six.example": f"{fast}@ NS six.test.\n{text['six']}",
            "split.example": f"{fast}{own['split']}_domainkey NS slow.test.\n",
        }
    )
    apart = {
        f"{selector}._domainkey.deep.example": f"@ NS slow.test.\n@ {record['deep']}\n",
        "_domainkey.split.example": f"@ NS slow.test.\n{selector} {record['split']}\n",
    }
    held = f"@ NS slow.test.\n@ NS late.test.\nback CNAME {selector}._domainkey.circle.example.\n"
    world.slow.serve({**big, **apart, "held.example": f"{held}key {record['alias']}\n"})
    world.late.serve({"held.example": held})
    names = "".join(f"{name}.example. NS fast.test.\n" for name in OTHERS if name != "nowhere")
    names += "example.com. NS fast.test.\nexample.com. NS slow.test.\nsix.example. NS six.test.\n"
    world.start(names + "held.example. NS slow.test.\nheld.example. NS late.test.\n")

    report = world.advance(site, by=None)
    assert sorted((one["what"], one["domain"], one["algorithm"]) for one in report["steps"]) == [
        ("seen", "deep.example", "rsa"),
        ("seen", "example.com", "ed25519"),
        ("seen", "example.com", "rsa"),
        ("seen", "split.example", "rsa"),
    ]
    assert {one["domain"]: one["servers"] for one in report["waiting"]} == {
        "alias.example": [{"server": "late.test", "reason": "has no such record: key.held.example"}],
        "circle.example": [{"server": "back.held.example", "reason": "is an alias that leads back to itself"}],
        "nowhere.example": [
            {"server": "_domainkey.nowhere.example", "reason": "no name servers are to be found for it"}
        ],
        "six.example": [{"server": "six.test", "reason": "cannot be reached from here"}],
    }
    world.late.serve({"held.example": f"{held}key {record['alias']}\n"})
    report = world.advance(site)
    assert [(one["what"], one["domain"]) for one in report["steps"]] == [("seen", "alias.example")]
    [key] = [key for key in keys(site, "active") if key["domain"] == "alias.example"]
    # The longest on the way, from the alias and from its target.
    assert (key["ttl"], key["negative_ttl"]) == (7000, 7200)
