"""What `postseal dns` writes is read by the tool that each form is for, and means the same records there.

The zones are those of every golden case and of a site with hostile values. `tests/writers.rs` holds the texts that no setting takes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dns.message
import dns.name
import dns.query
import dns.rdata
import dns.rdatatype
import dns.update
import dns.zone
import pytest

from lab.host import Daemon, Host
from lab.site import Site

GOLDEN = Path(__file__).parents[2] / "golden"
PYTHON = Path(__file__).parents[2] / "target/lab-venv/bin/python"

Rrset = tuple[str, str]
"""Name and type."""

Rrsets = dict[Rrset, set[str]]
"""The contents in the canonical form of dnspython, whose TXT strings are joined."""

Case = tuple[Path, dict[str, Rrsets]]
"""The directory with a case's files in every form, and the records of each of its zones by JSON."""

# postseal writes the mail's part of a zone; its owner has the rest.
HEAD = "$TTL 3600\n{zone}. SOA ns.other.test. hostmaster.other.test. 1 3600 600 86400 60\n{zone}. NS ns.other.test.\n"
STRICT = ["-i", "local", "-k", "fail", "-n", "fail", "-m", "fail", "-M", "fail", "-S", "fail", "-r", "fail"]


def tool(command: list[str | Path]) -> str:
    """Runs a reader and returns its output; what it said if it refuses."""
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def canonical(kind: str, content: str) -> str:
    """A content in one way to write it: a text is joined, the same octets are the same word."""
    data = dns.rdata.from_text("IN", kind, content)
    return repr(b"".join(data.strings)) if kind == "TXT" else data.to_text().lower()


def of_json(records: list[dict[str, Any]]) -> Rrsets:
    """What `dns --format json` says."""
    found: Rrsets = {}
    for record in records:
        content = " ".join(json.dumps(one) for one in record.get("strings", [])) or record["data"]
        found.setdefault((record["name"], record["type"]), set()).add(canonical(record["type"], content))
    return found


def of_zone(text: str, origin: str) -> Rrsets:
    """What a zone file says, without SOA and NS."""
    zone = dns.zone.from_text(text, f"{origin}.", relativize=False, check_origin=False)
    found: Rrsets = {}
    for name, _, data in zone.iterate_rdatas():
        kind = dns.rdatatype.to_text(data.rdtype)
        if kind not in ("SOA", "NS"):
            key = (name.to_text(omit_final_dot=True).lower(), kind)
            found.setdefault(key, set()).add(canonical(kind, data.to_text()))
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host("primary") as host:
        host.run("ip", "address", "add", "198.51.100.53/32", "dev", "lo")
        # nsupdate sends to the server that the SOA names.
        host.write("/etc/hosts", "127.0.0.1 localhost\n198.51.100.53 ns.other.test\n")
        yield host


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Writes a case once."""
    place = tmp_path_factory.mktemp("written")

    @cache
    def write(case: str) -> Case:
        site = hostile(place / case / "site") if case == "hostile" else clone(case, place / case / "site")
        for form in ("zone", "octodns", "dnscontrol", "nsupdate", "table"):
            site.run("dns", "--format", form, "--output", str(place / case))
        records: dict[str, list[dict[str, Any]]] = {}
        for record in json.loads(site.run("dns", "--format", "json"))["records"]:
            records.setdefault(record["zone"], []).append(record)
        return place / case, {zone: of_json(of) for zone, of in records.items()}

    return write


def clone(case: str, directory: Path) -> Site:
    """A golden case as a clone has it: without the ledger."""
    shutil.copytree(GOLDEN / case, directory)
    return Site(directory)


def hostile(directory: Path) -> Site:
    """Names that look like something else to YAML, JavaScript or people, and quotes in reports' addresses."""
    site = Site.init(directory, "--ca-key", "p256")
    domains = ["yes.example", "1e5.example", "0x10.null.example", "10k.example", "xn--80ak6aa92e.example", "a10.a9.a1.example"]
    locals = ["o'hara", "'", "a/b=c", "a+b", "0", "a/" + "b" * 60]
    tables = [
        f"[[domain]]\nname = '{domain}'\ndkim = ['rsa']\ndmarc.reports = \"{local}@{domain}\"\n"
        for domain, local in zip(domains, locals, strict=True)
    ]
    aliases = [f'"postmaster@{domain}" = "alice@example.com"\n"{local}@{domain}" = "alice@example.com"\n'
               for domain, local in zip(domains, locals, strict=True)]
    settings = directory / "postseal.toml"
    text = settings.read_text().replace("[aliases]\n", f"{''.join(tables)}[aliases]\n{''.join(aliases)}")
    settings.write_text(text)
    site.run("render")
    return site


# Their zones are like those of debian-minimal.
ALIKE = {"acme-certificates", "ca-rsa", "fragments", "maildir-external-accounts", "openbsd", "selector-map"}
ALL = ["hostile", *sorted(file.parent.name for file in GOLDEN.glob("*/postseal.lock"))]
CASES = [case for case in ALL if case not in ALIKE or os.environ.get("POSTSEAL_FULL") == "yes"]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, written: Callable[[str], Case]) -> Case:
    return written(request.param)


def test_knot_and_bind_load_each_zone_and_bind_reads_the_same_records(world: Host, case: Case) -> None:
    directory, zones = case
    files = []
    for zone in zones:
        text = HEAD.format(zone=zone) + (directory / f"{zone}.zone").read_text()
        world.write(f"/run/zones/{zone}.zone", text)
        files.append(f"/run/zones/{zone}.zone")
    # One start for all of them: fifty zones are not rare.
    script = (
        f"for file; do zone=$(basename \"$file\" .zone); named-checkzone {' '.join(STRICT)} -q -s full -o \"$file.bind\" \"$zone\" \"$file\""
        " && kzonecheck -o \"$zone\" \"$file\" || exit 1; done"
    )
    world.run("sh", "-c", script, "sh", *files)
    for zone, records in zones.items():
        assert of_zone(world.path(f"/run/zones/{zone}.zone.bind").read_text(), zone) == records


# octoDNS as its commands run it, for all cases in one process: validate, then sync into zone files by octodns-bind.
OCTODNS = """
import sys
from octodns.manager import Manager
for config in sys.argv[1:]:
    manager = Manager(config)
    manager.validate_configs()
    manager.sync(dry_run=False, force=True)
"""


def test_octodns_validates_every_file_and_makes_zone_files_of_the_same_records(
    written: Callable[[str], Case], tmp_path: Path
) -> None:
    configs = []
    for name in CASES:
        directory, zones = written(name)
        config = {
            "providers": {
                "postseal": {"class": "octodns.provider.yaml.YamlProvider", "directory": str(directory)},
                "files": {"class": "octodns_bind.ZoneFileProvider", "directory": str(tmp_path / name)},
            },
            "zones": {f"{zone}.": {"sources": ["postseal"], "targets": ["files"]} for zone in zones},
        }
        (tmp_path / f"{name}.yaml").write_text(json.dumps(config))
        configs.append(tmp_path / f"{name}.yaml")
    tool([PYTHON, "-c", OCTODNS, *configs])
    for name in CASES:
        for zone, records in written(name)[1].items():
            assert of_zone((tmp_path / name / f"{zone}.").read_text(), zone) == records, name


# What DNSControl's functions do, as far as a domain has these types: the file is run as DNSControl runs it, after D(...).
SHIM = """
const fs = require('fs'), vm = require('vm');
const answers = {};
for (const file of process.argv.slice(1)) {
    const lines = [];
    const strings = text => (text.match(/[^]{1,255}/g) || ['']).map(one => JSON.stringify(one)).join(' ');
    const make = (kind, arity, write) => (name, ...rest) => {
        if (rest.length !== arity + 1) throw new Error(kind + ' has ' + rest.length + ' arguments');
        const {ttl} = rest.pop();
        return domain => lines.push(`${name === '@' ? '' : name + '.'}${domain}. ${ttl} IN ${kind} ${write(...rest)}`);
    };
    const plain = (...all) => all.join(' ');
    const world = {
        TTL: ttl => ({ttl}),
        A: make('A', 1, plain), AAAA: make('AAAA', 1, plain), CNAME: make('CNAME', 1, plain), MX: make('MX', 2, plain),
        SRV: make('SRV', 4, plain), TLSA: make('TLSA', 4, plain), TXT: make('TXT', 1, strings),
        CAA: make('CAA', 2, (tag, value) => `0 ${tag} ${JSON.stringify(value)}`),
        D_EXTEND: (domain, ...records) => { for (const one of records) one(domain); answers[domain] = lines.join('\\n') + '\\n'; },
    };
    vm.runInNewContext(fs.readFileSync(file, 'utf8'), world);
}
console.log(JSON.stringify(answers));
"""


def test_the_file_for_dnscontrol_adds_the_same_records(case: Case) -> None:
    directory, zones = case
    files = [directory / f"{zone}.js" for zone in zones]
    found = json.loads(tool(["node", "-e", SHIM, *files]))
    assert found.keys() == zones.keys()
    for zone, records in zones.items():
        assert of_zone(found[zone], zone) == records


def test_the_table_has_every_long_text_whole_in_strings_and_in_pieces(case: Case) -> None:
    directory, zones = case
    for zone, records in zones.items():
        lines = (directory / f"{zone}.txt").read_text().splitlines()
        for (_, kind), contents in records.items():
            if kind != "TXT":
                continue
            for content in contents:
                text = content[2:-1]
                cells = [line.strip() for line in lines]
                if len(text) <= 255:
                    assert any(line.endswith(f"  {text}") for line in lines), text
                else:
                    assert text in cells
                    assert " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255)) in cells
                    assert all(text[at : at + 255] in cells for at in range(0, len(text), 255))


NAMED = """
options { directory "/run/named"; pid-file none; listen-on port 53 { 198.51.100.53; }; listen-on-v6 { none; }; recursion no;
  dnssec-validation no; notify no; allow-transfer { any; }; session-keyfile none; };
controls { };
key "postseal" { algorithm hmac-sha256; secret "c2VjcmV0IG9mIHRoZSBsYWJvcmF0b3J5IG9ubHk="; };
"""
KEY = 'key "postseal" { algorithm hmac-sha256; secret "c2VjcmV0IG9mIHRoZSBsYWJvcmF0b3J5IG9ubHk="; };\n'
# What others have at the apex, and what postseal published before the policy moved.
OTHERS = ['"site-verification=abc; def"', '"MS=ms1234"']


class Zones:
    """A real BIND that takes updates, with zones that hold something already."""

    def __init__(self, host: Host, zones: dict[str, str]) -> None:
        self.host, conf = host, NAMED
        # With what was updated before, in journals.
        host.run("rm", "-rf", "/run/named")
        for zone, text in zones.items():
            host.write(f"/run/named/{zone}", HEAD.format(zone=zone) + text)
            conf += f'zone "{zone}" {{ type primary; file "{zone}"; update-policy {{ grant postseal zonesub ANY; }}; }};\n'
        host.write("/run/named/conf", conf)
        host.write("/run/named/key", KEY)
        host.write("/etc/resolv.conf", "nameserver 198.51.100.53\n")
        self._any = next(iter(zones))
        self.daemon = Daemon(host, "named", "named", "-g", "-n1", "-c", "/run/named/conf", ready=lambda: self.serial(self._any))

    def __enter__(self) -> Zones:
        self.daemon.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.stop()

    def _ask(self, name: str, kind: str) -> dns.message.Message:
        with self.host.network():
            return dns.query.tcp(dns.message.make_query(name, kind), "198.51.100.53", timeout=5)

    def serial(self, zone: str) -> int:
        return int(self._ask(zone, "SOA").answer[0][0].serial)

    def records(self, zone: str) -> Rrsets:
        with self.host.network():
            whole = dns.zone.Zone(f"{zone}.", relativize=False)
            dns.query.inbound_xfr("198.51.100.53", whole)
        return of_zone(whole.to_text(relativize=False), zone)

    def update(self, script: str, *, check: bool = True) -> str:
        self.host.write("/run/script", script)
        done = self.host.run("nsupdate", "-k", "/run/named/key", "/run/script", check=check)
        return done.stdout + done.stderr


def test_nsupdate_leaves_ours_and_that_of_others_and_changes_nothing_a_second_time(world: Host, case: Case) -> None:
    directory, zones = case
    # Of many zones some are enough.
    names = list(zones)[:3]
    before = {}
    for number, zone in enumerate(names):
        spf = next((one for one in zones[zone].get((zone, "TXT"), set()) if "v=spf1" in one), "")
        old = spf[2:-1].replace("~all", "OTHER").replace("-all", "~all").replace("OTHER", "-all")
        lines = [f"{zone}. TXT {other}" for other in OTHERS] + [f'{zone}. TXT "{old}"'] * bool(old)
        lines += [f"{zone}. MX 5 old.other.test.", f"_dmarc.{zone}. TXT \"v=DMARC1; p=reject\"", f"www.{zone}. A 192.0.2.1"]
        before[zone] = "\n".join(lines) + "\n" if number != 1 else ""
    with Zones(world, before) as bind:
        for zone in names:
            script = (directory / f"{zone}.nsupdate").read_text()
            bind.update(script)
            wanted = {key: set(value) for key, value in zones[zone].items()}
            if before[zone]:
                wanted.setdefault((zone, "TXT"), set()).update(canonical("TXT", other) for other in OTHERS)
                wanted[(f"www.{zone}", "A")] = {"192.0.2.1"}
                # Of a domain that left, only keys are published: the rest is not touched.
                if (zone, "MX") not in zones[zone]:
                    wanted[(zone, "MX")] = {"5 old.other.test."}
                if (f"_dmarc.{zone}", "TXT") not in zones[zone]:
                    wanted[(f"_dmarc.{zone}", "TXT")] = {canonical("TXT", '"v=DMARC1; p=reject"')}
            assert bind.records(zone) == wanted
            serial = bind.serial(zone)
            bind.update(script)
            assert bind.serial(zone) == serial and bind.records(zone) == wanted


def test_nsupdate_changes_nothing_where_an_alias_is_in_the_way(
    world: Host, written: Callable[[str], Case]
) -> None:
    directory, zones = written("debian-minimal")
    zone = next(iter(zones))
    with Zones(world, {zone: f"_dmarc.{zone}. CNAME elsewhere.other.test.\n"}) as bind:
        serial = bind.serial(zone)
        said = bind.update((directory / f"{zone}.nsupdate").read_text(), check=False)
        assert "YXRRSET" in said and bind.serial(zone) == serial
        assert bind.records(zone) == {(f"_dmarc.{zone}", "CNAME"): {"elsewhere.other.test."}}
