"""Each golden case is accepted by the real daemons' own checks, with stand-ins for what is private or secret.

OpenBSD's trees are judged by Debian's daemons: that proves their words and paths, not OpenBSD's own programs.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.forge import Identity, authority, key_pem, pem
from lab.host import Host
from lab.manifest import Entry, read_manifest

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = [(case.parent.name, manifest.parent.name) for case in sorted(GOLDEN.glob("*/golden"))
         for manifest in sorted(case.glob("*/MANIFEST"))]
ZONES = [(zone.parents[2].name, zone.stem) for zone in sorted(GOLDEN.glob("*/golden/dns/*.zone"))]

# An administrator's own smtpd.conf, as docs/settings.md describes it for `smtpd_conf = "fragments"`.
OWN_SMTPD_CONF = "".join(f'include "/etc/mail/postseal/conf.d/{part}.conf"\n' for part in ("names", "listeners", "rules"))


def settings_of(case: str, host: str) -> dict[str, object]:
    settings = tomllib.loads((GOLDEN / case / "postseal.toml").read_text())
    return next(found for found in settings["host"] if found["name"] == host)


def stand_in(entry: Entry, identity: Identity) -> bytes:
    """Something in place of a file that is not public; a private table may be empty."""
    if entry.path.endswith(".key") and "/dkim/" not in entry.path:
        return key_pem(identity)
    return pem(identity) if entry.path.endswith("clients.pem") else b""


def install_case(host: Host, case: str, name: str) -> None:
    public = GOLDEN / case / "golden" / name / "root"
    identity = authority()
    for user in ("vmail", "_smtpd", "_rspamd"):
        host.add_user(user, "/var/empty")
    host.run("groupadd", "--force", "wheel")
    entries = read_manifest((GOLDEN / case / "golden" / name / "MANIFEST").read_text())
    for entry in sorted(entries, key=lambda entry: (not entry.is_directory, entry.path)):
        if entry.is_directory:
            host.directory(entry.path.rstrip("/"), entry.owner, entry.group, entry.mode)
        else:
            content = (public / entry.path[1:]).read_bytes() if entry.kind == "public" else stand_in(entry, identity)
            host.write(entry.path, content, entry.owner, entry.group, entry.mode)
    for source in ("mx_certificate", "submission_certificate"):
        files = settings_of(case, name).get(source)
        if isinstance(files, dict):
            host.write(files["files"]["certificate"], pem(identity))
            host.write(files["files"]["key"], key_pem(identity), mode=0o600)
    if case == "maildir-external-accounts":
        host.write("/etc/mail/creds", "")
        host.run("makemap", "-o", "/etc/mail/creds.db", "/etc/mail/creds")


@pytest.fixture(scope="module", params=CASES, ids=[f"{case}-{host}" for case, host in CASES])
def installed(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, Host]]:
    """A host with one case's files at their places; no daemon runs."""
    case, name = request.param
    with Host(name) as host:
        install_case(host, case, name)
        yield case, name, host


def test_smtpd_calls_the_case_ok(installed: tuple[str, str, Host]) -> None:
    case, name, host = installed
    conf = "/etc/mail/smtpd.conf" if settings_of(case, name)["platform"] == "openbsd" else "/etc/smtpd.conf"
    if case == "fragments":
        host.write(conf, OWN_SMTPD_CONF)
    assert "configuration OK" in host.run("smtpd", "-n", "-f", conf).stderr


def test_rspamd_calls_the_case_ok(installed: tuple[str, str, Host]) -> None:
    _, _, host = installed
    assert "syntax OK" in host.run("rspamadm", "configtest", user="_rspamd").stdout


def test_rspamd_signs_as_the_case_says(installed: tuple[str, str, Host]) -> None:
    case, name, host = installed
    effective = json.loads(host.run("rspamadm", "configdump", "-j", "dkim_signing", user="_rspamd").stdout)
    state = "/var/rspamd" if settings_of(case, name)["platform"] == "openbsd" else "/var/lib/rspamd"
    wanted: dict[str, list[tuple[str, str]]] = {}
    for key in tomllib.loads((GOLDEN / case / "postseal.lock").read_text())["dkim_key"]:
        path = f"{state}/dkim/{key['domain']}.{key['selector']}.key"
        wanted.setdefault(key["domain"], []).append((key["selector"], path))
    found = {
        domain: [(key["selector"], key["path"]) for key in rule["selectors"]]
        for domain, rule in effective["domain"].items()
    }
    assert found == wanted
    scalars = ("use_esld", "try_fallback", "sign_local", "allow_username_mismatch", "allow_hdrfrom_mismatch")
    assert [effective[name] for name in scalars] == [False] * len(scalars)


@pytest.mark.parametrize(("case", "domain"), ZONES)
def test_bind_loads_the_zone_of_the_case(case: str, domain: str) -> None:
    records = (GOLDEN / case / "golden/dns" / f"{domain}.zone").read_text()
    zone = f"$TTL 3600\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 203.0.113.53\n{records}"
    strict = ["-i", "local", "-k", "fail", "-n", "fail", "-m", "fail", "-M", "fail", "-S", "fail", "-r", "fail"]
    with Host("ns.example.net") as host:
        host.write("/root/zone", zone)
        said = host.run("named-checkzone", *strict, domain, "/root/zone")
    assert said.stdout.endswith("OK\n")
