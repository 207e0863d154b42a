"""Outside readers judge what a site publishes: checkdmarc, pyspf, dkimpy, and hickory's and unbound's validation of the chain.

The zones are those of a rendered site, served by BIND below a signed root of the laboratory's own: example.com is signed, example.net is
not, and the signatures of example.org are broken. What is judged comes from `postseal dns --format json`, so that a further kind of record
is one more question.
"""

from __future__ import annotations

import base64
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dkim as dkimpy  # type: ignore[import-untyped]
import dns.message
import dns.query
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from lab.client import compose
from lab.host import Daemon, Host
from lab.site import HOST, PROGRAM, Site

CHAIN = PROGRAM.parent / "examples/chain"
PYTHON = Path(__file__).parents[2] / "target/lab-venv/bin/python"
AUTHORITY, RESOLVER, MX, FOREIGN = "198.51.100.53", "198.51.100.2", "203.0.113.10", "192.0.2.66"
SIGNED, UNSIGNED, BROKEN = "example.com", "example.net", "example.org"
ZONES = (SIGNED, UNSIGNED, BROKEN)

NAMED = f"""
options {{ directory "/run/named"; pid-file none; listen-on {{ {AUTHORITY}; }}; listen-on-v6 {{ none; }}; recursion no;
  dnssec-validation no; notify no; session-keyfile none; }};
controls {{ }};
"""
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
  root-hints: /run/unbound/hints
  module-config: "validator iterator"
  trust-anchor-file: /run/named/anchor
  local-zone: "113.0.203.in-addr.arpa." nodefault
remote-control:
  control-enable: no
"""
HEAD = "$TTL 3600\n@ SOA ns.dns.test. hostmaster.dns.test. 1 3600 600 86400 60\n@ NS ns.dns.test.\n"
# Of a key that no site has: for as long as postseal publishes none itself, the chain to a TLSA record is asked for all the same.
STAND_IN = "3 1 1 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@dataclass(frozen=True)
class World:
    """A host that serves the zones and validates them."""

    host: Host
    site: Site
    records: list[dict[str, Any]]

    def run(self, script: str) -> Any:
        """Runs a script of Python's on the host, with what it finds by the validating resolver; returns what it printed."""
        self.host.write("/run/script.py", textwrap.dedent(script))
        return json.loads(self.host.run(str(PYTHON), "/run/script.py").stdout)

    def has(self, name: str) -> bool:
        """Tells whether the site publishes something at the name."""
        return any(record["name"] == name for record in self.records)


def sign(host: Host, zone: str, file: str) -> None:
    """Signs a zone with one key for everything."""
    host.run("sh", "-ce", f"cd /run/named; dnssec-keygen -q -a ECDSAP256SHA256 -f KSK '{zone}'; dnssec-keygen -q -a ECDSAP256SHA256 '{zone}'"
             f"; dnssec-signzone -q -S -z -o '{zone}' -N keep {file} >/dev/null")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    site = Site(tmp_path_factory.mktemp("outside") / "site")
    site.run("init", SIGNED, "--user", f"alice@{SIGNED}", "--address", MX)
    settings = site.directory / "postseal.toml"
    others = "".join(f'[[domain]]\nname = "{zone}"\n' for zone in (UNSIGNED, BROKEN))
    aliases = "".join(f'"postmaster@{zone}" = "alice@{SIGNED}"\n' for zone in (UNSIGNED, BROKEN))
    text = settings.read_text().replace("[aliases]\n", f"{others}[aliases]\n{aliases}")
    # Everything that a domain may publish beyond what it must.
    reports = f'dmarc.reports = "dmarc-reports@{SIGNED}"\n'
    more = f'tls_reports = "dmarc-reports@{SIGNED}"\nbimi = "declined"\ncaa.issue = ["letsencrypt.org"]\ndnssec = true\n'
    assert text.count(reports) == 1
    settings.write_text(text.replace(reports, reports + more))
    site.run("render")
    records = json.loads(site.run("dns", "--format", "json"))["records"]
    with Host("world") as host:
        for address in (AUTHORITY, RESOLVER, MX):
            host.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        host.write("/etc/resolv.conf", f"nameserver {RESOLVER}\n")
        conf = NAMED
        has_tlsa = any(record["type"] == "TLSA" for record in records)
        for zone in ZONES:
            text = (site.directory / f"out/dns/{zone}.zone").read_text()
            more = f"_25._tcp.{HOST}. TLSA {STAND_IN}\n" if zone == SIGNED and not has_tlsa else ""
            host.write(f"/run/named/{zone}", f"$ORIGIN {zone}.\n{HEAD}{text}\n{more}")
        sign(host, SIGNED, SIGNED)
        sign(host, BROKEN, BROKEN)
        broken = host.path(f"/run/named/{BROKEN}.signed")
        # The policy is another one than was signed.
        text, changed = re.subn(r"v=spf1 mx", "v=spf1 +mx", broken.read_text())
        assert changed
        broken.write_text(text)
        delegations = "".join(f"{zone}. NS ns.dns.test.\n" for zone in (*ZONES, "113.0.203.in-addr.arpa"))
        secure = "".join(host.path(f"/run/named/dsset-{zone}.").read_text() for zone in (SIGNED, BROKEN))
        host.write("/run/named/root", f"$ORIGIN .\n{HEAD}ns.dns.test. A {AUTHORITY}\n{delegations}{secure}")
        sign(host, ".", "root")
        host.write("/run/named/reverse", f"$ORIGIN 113.0.203.in-addr.arpa.\n{HEAD}10 PTR {HOST}.\n")
        keys = [file.read_text() for file in host.path("/run/named").glob("K.+*.key")]
        host.write("/run/named/anchor", "".join(line + "\n" for key in keys for line in key.splitlines() if " 257 " in line))
        files = {SIGNED: f"{SIGNED}.signed", UNSIGNED: UNSIGNED, BROKEN: f"{BROKEN}.signed", ".": "root.signed",
                 "113.0.203.in-addr.arpa": "reverse"}
        conf += "".join(f'zone "{zone}" {{ type primary; file "{file}"; }};\n' for zone, file in files.items())
        host.write("/run/named/conf", conf)
        host.write("/run/unbound/hints", f". 3600 IN NS ns.dns.test.\nns.dns.test. 3600 IN A {AUTHORITY}\n")
        host.write("/run/unbound/conf", UNBOUND)

        def answers(server: str) -> bool:
            with host.network():
                return bool(dns.query.tcp(dns.message.make_query(SIGNED, "SOA"), server, timeout=5).answer)

        for name, server, command in [
            ("named", AUTHORITY, ("named", "-g", "-n1", "-c", "/run/named/conf")),
            ("unbound", RESOLVER, ("unbound", "-d", "-c", "/run/unbound/conf")),
        ]:
            Daemon(host, name, *command, ready=lambda server=server: answers(server)).start()
        yield World(host, site, records)


def test_hickory_proves_every_record_of_the_signed_zone_and_none_of_the_others(world: World) -> None:
    def ask(zone: str, more: list[tuple[str, str]]) -> dict[str, str]:
        sets = sorted({(one["name"], one["type"]) for one in world.records if one["zone"] == zone} | set(more))
        words = [word for pair in sets for word in pair]
        lines = world.host.run(str(CHAIN), AUTHORITY, "/run/named/anchor", *words).stdout.splitlines()
        assert len(lines) == len(sets)
        return {line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in lines}

    signed = ask(SIGNED, [(f"_25._tcp.{HOST}", "TLSA")])
    assert set(signed.values()) == {"secure"}, signed
    unsigned = ask(UNSIGNED, [])
    assert set(unsigned.values()) == {"insecure"}, unsigned
    broken = ask(BROKEN, [])
    assert broken.pop(f"{BROKEN} TXT") == "bogus"
    # What nobody changed is as it was signed.
    assert set(broken.values()) == {"secure"}, broken


def test_checkdmarc_finds_nothing_wrong_with_the_signed_domain(world: World) -> None:
    found = world.run(
        f"""
        import json, checkdmarc
        result = checkdmarc.check_domains(["{SIGNED}"], nameservers=["{RESOLVER}"], skip_tls=True, timeout=5)
        print(json.dumps(result, default=str))
        """
    )
    assert found["dnssec"] is True
    for part in ("spf", "dmarc"):
        assert found[part]["valid"] is True and not found[part].get("error"), found[part]
    published = {one["data"] for one in world.records if one["name"] == f"_25._tcp.{HOST}"} or {STAND_IN}
    [host] = found["mx"]["hosts"]
    assert (host["hostname"], host["addresses"], host["dnssec"], set(host["tlsa"])) == (HOST, [MX], True, published)
    if world.has(f"_smtp._tls.{SIGNED}"):
        assert found["smtp_tls_reporting"]["valid"] is True, found["smtp_tls_reporting"]
    if world.has(f"default._bimi.{SIGNED}"):
        assert found["bimi"]["valid"] is True, found["bimi"]
    # Of MTA-STS only the record: the policy would be served by a web server at mta-sts.DOMAIN, which is to join this host here.
    if world.has(f"_mta-sts.{SIGNED}"):
        tags = world.run(
            f"""
            import json, checkdmarc.mta_sts as mta_sts
            record = mta_sts.query_mta_sts_record("{SIGNED}", nameservers=["{RESOLVER}"])["record"]
            print(json.dumps(mta_sts.parse_mta_sts_record(record)["tags"]))
            """
        )
        assert tags["v"] == "STSv1" and re.fullmatch("[0-9a-z]{1,32}", tags["id"])


def test_pyspf_passes_the_host_and_nobody_else(world: World) -> None:
    found = world.run(
        f"""
        import json, spf
        asked = [
            ("{MX}", "alice@{SIGNED}", "{HOST}"), ("{FOREIGN}", "alice@{SIGNED}", "mail.far.test"),
            ("{MX}", "", "{HOST}"), ("{FOREIGN}", "", "{HOST}"), ("{MX}", "alice@{UNSIGNED}", "{HOST}"),
        ]
        print(json.dumps([spf.check2(i=address, s=sender, h=helo, timeout=5)[0] for address, sender, helo in asked]))
        """
    )
    assert found == ["pass", "softfail", "pass", "fail", "pass"]


def test_dkimpy_verifies_what_our_keys_sign_by_the_records_that_are_served(world: World) -> None:
    message = compose(f"alice@{SIGNED}", "bob@far.test")
    signatures = b""
    for file in sorted((world.site.root / "var/lib/rspamd/dkim").glob(f"{SIGNED}.*.key")):
        selector = file.name.removeprefix(f"{SIGNED}.").removesuffix(".key")
        text = file.read_bytes()
        if text.startswith(b"-----"):
            key = load_pem_private_key(text, None)
            private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
            algorithm = b"rsa-sha256"
        else:
            # Rspamd's form of an Ed25519 key; dkimpy wants the seed alone.
            algorithm, private = b"ed25519-sha256", base64.b64encode(base64.b64decode(text)[:32])
        signatures += dkimpy.sign(
            message, selector.encode(), SIGNED.encode(), private, signature_algorithm=algorithm, include_headers=[b"from", b"to"]
        )
    world.host.write("/run/message", signatures + message)
    found = world.run(
        """
        import dkim, json
        def verify(text, index):
            try:
                return dkim.DKIM(text).verify(index)
            except dkim.ValidationError:
                return False
        with open("/run/message", "rb") as file:
            text = file.read()
        changed = text.replace(b"Good morning", b"Good evening")
        print(json.dumps([verify(text, 0), verify(text, 1), verify(changed, 0), verify(changed, 1)]))
        """
    )
    assert found == [True, True, False, False]
