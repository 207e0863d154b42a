"""Values that postseal takes although they look like something else: the real parsers read them as themselves, and nothing more.

`tests/hostile.rs` holds what is refused.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import dns.rdatatype
import dns.zone
import pytest

from lab import Site
from lab.host import Host
from lab.manifest import install

# To UCL some of these are numbers or words, to people others are what they are not.
DOMAINS = [
    "xn--80ak6aa92e.example",
    "xn--a.example",
    "10k.example",
    "1e5.example",
    "0x10.example",
    "true.null.example",
    "domain.example",
    ".".join(["a" * 60] * 3 + ["b" * 29, "example"]),
]
LOCAL_PARTS = [
    "o'hara",
    "'",
    "a/b",
    "a/b/c=d",
    "a=b",
    "a-b",
    "_",
    "+",
    "=",
    "a+include",
    "0",
    "null",
    "x" * 64,
    "a" + "/" * 62 + "b",
]
REPORTS = dict(zip(DOMAINS, LOCAL_PARTS, strict=False))
ALIASES = {
    f"{local}@{DOMAINS[0]}": f"{local}@{DOMAINS[number % len(DOMAINS)]}.test"
    for number, local in enumerate(LOCAL_PARTS)
}

ZONE_HEAD = "$TTL 3600\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 203.0.113.53\n"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with all of them, one of which is a user's."""
    site = Site.init(tmp_path_factory.mktemp("hostile") / "site", "--ca-key", "p256")
    settings = site.directory / "postseal.toml"
    domains = [
        f"[[domain]]\nname = '{name}'\ndkim = ['rsa']\ndmarc.reports = \"{REPORTS[name]}@{name}\"\n" for name in DOMAINS
    ]
    aliases = [f'"{address}" = "{target}"\n' for address, target in ALIASES.items()]
    text = settings.read_text().replace("[aliases]\n", "".join(domains) + "[aliases]\n" + "".join(aliases))
    settings.write_text(f"{text}\n[delivery.lmtp]\nsocket = '/run/{'s' * 98}'\n")
    site.run("render")
    site.run("user", "add", "d'arcy/x@10k.example", "--sender", "a=b/c@1e5.example", "--sender", "'@0x10.example")
    return site


@pytest.fixture(scope="module")
def host(hostile: Site) -> Iterator[Host]:
    with Host("mail.example.com") as host:
        host.add_user("vmail", "/var/vmail")
        install(host, hostile.root, hostile.manifest)
        yield host


def table(site: Site, name: str) -> dict[str, list[str]]:
    """A table by the rules of table(5)."""
    lines = site.rendered(f"/etc/mail/postseal/{name}").splitlines()
    fields = [line.split(maxsplit=1) for line in lines if not line.startswith("#")]
    return {field[0]: [one.strip() for one in field[1].split(",")] if field[1:] else [] for field in fields}


def test_smtpd_calls_the_configuration_ok(host: Host) -> None:
    assert "configuration OK" in host.run("smtpd", "-n").stderr


def test_the_tables_hold_the_values_and_nothing_else(hostile: Site) -> None:
    assert list(table(hostile, "domains")) == sorted([*DOMAINS, "example.com"])
    mailboxes = table(hostile, "mailboxes")
    assert {address: mailboxes[address] for address in ALIASES} == {one: [to] for one, to in ALIASES.items()}
    assert mailboxes["d'arcy/x@10k.example"] == ["vmail"]
    own = ["postmaster@example.com", "abuse@example.com", "dmarc-reports@example.com", "alice@example.com"]
    assert set(mailboxes) == {*ALIASES, *own, "d'arcy/x@10k.example"}
    senders = table(hostile, "senders")
    assert senders == {
        "alice@example.com": ["alice@example.com"],
        "d'arcy/x@10k.example": ["d'arcy/x@10k.example", "'@0x10.example", "a=b/c@1e5.example"],
    }


def effective(host: Host) -> dict[str, Any]:
    text = host.run("rspamadm", "configdump", "-j", user="_rspamd").stdout
    found: dict[str, Any] = json.loads(text[text.index("{") :])
    return found


def test_rspamd_reads_the_domains_and_nothing_else(hostile: Site, host: Host, site: Site) -> None:
    """The whole of Rspamd's configuration, compared with that of a site with none of these values."""
    found = effective(host)
    signing, sealing = found["dkim_signing"].pop("domain"), found["arc"].pop("domain")
    keys = tomllib.loads((hostile.directory / "postseal.lock").read_text())["dkim_key"]
    wanted: dict[str, list[dict[str, str]]] = {}
    for key in sorted(keys, key=lambda key: str(key["algorithm"]), reverse=True):
        path = f"/var/lib/rspamd/dkim/{key['domain']}.{key['selector']}.key"
        wanted.setdefault(key["domain"], []).append({"selector": key["selector"], "path": path})
    assert {domain: rule["selectors"] for domain, rule in signing.items()} == wanted
    assert set(wanted) == {*DOMAINS, "example.com"}
    assert {domain: rule["selectors"] for domain, rule in sealing.items()} == {
        domain: selectors[:1] for domain, selectors in wanted.items()
    }
    with Host("mail.example.com") as other:
        install(other, site.root, site.manifest)
        plain = effective(other)
    plain["dkim_signing"].pop("domain")
    # The plain site forwards nothing, so that nothing is sealed there.
    found.pop("arc")
    plain.pop("arc", None)
    assert found == plain


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain[:30])
def test_bind_reads_the_records_and_nothing_else(hostile: Site, host: Host, domain: str) -> None:
    text = (hostile.directory / "out/dns" / f"{domain}.zone").read_text()
    host.write("/root/zone", ZONE_HEAD + text)
    compiled = host.run("named-compilezone", "-i", "none", "-s", "full", "-o", "-", domain, "/root/zone", check=False)
    assert compiled.returncode == 0, compiled.stderr
    zone = dns.zone.from_text(compiled.stdout, domain, relativize=False)
    found = set()
    for name, _, data in zone.iterate_rdatas():
        kind = dns.rdatatype.to_text(data.rdtype)
        if kind not in ("SOA", "NS") and not name.to_text().startswith("ns."):
            value = b"".join(data.strings).decode() if kind == "TXT" else data.to_text()
            found.add((name.to_text(omit_final_dot=True), kind, value))
    records = json.loads(hostile.run("dns", domain, "--format", "json"))["records"]
    assert found == {(record["name"], record["type"], record["data"]) for record in records}
    assert f"rua=mailto:{REPORTS[domain].replace('/', '%2F').replace('=', '%3D')}@{domain}" in text.replace('" "', "")
