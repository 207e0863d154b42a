"""Each golden case is accepted by the real daemons' own checks, with stand-ins for what is private or secret.

OpenBSD's trees are judged by Debian's daemons. That proves their grammar, and that their paths and owners fit together;
it does not prove that OpenBSD has these programs and users there, nor that its smtpd, built with LibreSSL, agrees.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.forge import Identity, authority, key_pem, pem, server_certificate
from lab.host import Host
from lab.manifest import Entry, install, read_manifest

GOLDEN = Path(__file__).parents[2] / "golden"

# An administrator's own smtpd.conf, as docs/settings.md describes it for `smtpd_conf = "fragments"`.
OWN_SMTPD_CONF = "".join(
    f'include "/etc/mail/postseal/conf.d/{part}.conf"\n' for part in ("names", "listeners", "rules")
)

# The terms on which Rspamd signs and seals, named here: it says OK to options that it does not know, and `configdump`
# repeats them, so a misspelt one would pass a comparison with the file. A list adds to the one that Rspamd ships.
SIGNING = {
    "use_domain": "header",
    "use_esld": False,
    "try_fallback": False,
    "sign_authenticated": True,
    "sign_local": False,
    "allow_username_mismatch": False,
    "allow_hdrfrom_mismatch": False,
    "allow_hdrfrom_multiple": False,
    "sign_networks": ["127.0.0.1", "::1", "127.2.4.7"],
}
SEALING = {
    "use_domain": "recipient",
    "use_esld": False,
    "try_fallback": False,
    "sign_inbound": True,
    "sign_authenticated": False,
    "sign_local": False,
    "allow_username_mismatch": True,
    "allow_hdrfrom_mismatch": True,
}

# postseal writes the mail's part of a zone; its owner has the rest.
ZONE_HEAD = "$TTL 3600\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 203.0.113.53\n"
# `-i full` would ask the real DNS for the MX hosts of other zones; `local` checks what the zone itself holds.
STRICT = ["-i", "local", "-k", "fail", "-n", "fail", "-m", "fail", "-M", "fail", "-S", "fail", "-r", "fail"]


@dataclass(frozen=True)
class Case:
    """One host of a golden case."""

    name: str
    host: str

    @property
    def public(self) -> Path:
        return GOLDEN / self.name / "golden" / self.host

    @property
    def manifest(self) -> list[Entry]:
        return read_manifest((self.public / "MANIFEST").read_text())

    @property
    def whole(self) -> dict[str, Any]:
        return tomllib.loads((GOLDEN / self.name / "postseal.toml").read_text())

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = next(host for host in self.whole["host"] if host["name"] == self.host)
        return found

    @property
    def dkim_keys(self) -> list[dict[str, Any]]:
        keys: list[dict[str, Any]] = tomllib.loads((GOLDEN / self.name / "postseal.lock").read_text())["dkim_key"]
        return keys

    @property
    def has_map(self) -> bool:
        return bool(self.whole.get("dkim", {}).get("signing") == "selector_map")

    @property
    def forwards(self) -> bool:
        return self.name in {"fifty-domains", "rotations", "selector-map", "two-domains"}

    @property
    def state(self) -> str:
        return "/var/rspamd" if self.is_openbsd else "/var/lib/rspamd"

    @property
    def is_openbsd(self) -> bool:
        return bool(self.settings["platform"] == "openbsd")


CASES = [Case(file.parents[2].name, file.parent.name) for file in sorted(GOLDEN.glob("*/golden/*/MANIFEST"))]
ZONES = sorted(GOLDEN.glob("*/golden/dns/*.zone"))


def furnish(host: Host, case: Case, ca: Identity) -> None:
    """What the administrator of that platform has before the tree comes."""
    host.add_user("vmail", "/var/vmail")
    if case.is_openbsd:
        for user in ("_smtpd", "_rspamd"):
            host.add_user(user, "/var/empty")
        host.run("groupadd", "--force", "wheel")
    server = server_certificate(case.host, ca)
    for setting in ("mx_certificate", "submission_certificate"):
        if isinstance(case.settings[setting], dict):
            files = case.settings[setting]["files"]
            host.write(files["certificate"], pem(server))
            host.write(files["key"], key_pem(server), mode=0o600)
    if case.name == "maildir-external-accounts":
        host.write("/etc/mail/creds", "")
        host.run("makemap", "-o", "/etc/mail/creds.db", "/etc/mail/creds")
    if case.name == "fragments":
        host.write("/etc/smtpd.conf", OWN_SMTPD_CONF)


def stand_in(entry: Entry, ca: Identity) -> bytes:
    """Something in place of a file that is not public: any key, a list of one CA, a table without lines."""
    if entry.path.endswith(".key"):
        return key_pem(ca)
    return pem(ca) if entry.path.endswith("/clients.pem") else b""


def complete(case: Case, ca: Identity, root: Path) -> Path:
    """The case's tree, with stand-ins for what its owner does not commit."""
    shutil.copytree(case.public / "root", root)
    for entry in case.manifest:
        if not entry.is_directory and entry.kind != "public":
            file = root / entry.path[1:]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(stand_in(entry, ca))
    return root


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case.name}-{case.host}")
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Case, Host]]:
    """A host with a case's files at their places; no daemon runs."""
    case, ca = request.param, authority()
    with Host(case.host) as host:
        furnish(host, case, ca)
        install(host, complete(case, ca, tmp_path_factory.mktemp("golden") / "root"), case.manifest)
        yield case, host


def effective(host: Host, section: str, *variables: str) -> dict[str, Any]:
    """What Rspamd makes of its files."""
    arguments = (*variables, "configdump", "-j", section)
    found: dict[str, Any] = json.loads(host.run("rspamadm", *arguments, user="_rspamd").stdout)
    return found


@pytest.fixture(scope="module")
def shipped(name_server: Host) -> dict[str, dict[str, Any]]:
    """What Rspamd makes of its package's files alone."""
    nowhere = "--var=LOCAL_CONFDIR=/nonexistent"
    return {section: effective(name_server, section, nowhere) for section in ("dkim_signing", "arc")}


def recorded(case: Case, algorithms: tuple[str, ...]) -> dict[str, list[tuple[str, str]]]:
    """Selectors and paths of the active keys in the case's postseal.lock, RSA first as in the zone; one that nobody wants any
    more is retiring."""
    wanted: dict[str, list[tuple[str, str]]] = {}
    for algorithm in algorithms:
        for key in case.dkim_keys:
            if (key["algorithm"], key["state"]) == (algorithm, "active"):
                path = f"{case.state}/dkim/{key['domain']}.{key['selector']}.key"
                wanted.setdefault(key["domain"], []).append((key["selector"], path))
    return wanted


def model(case: Case, terms: dict[str, Any], algorithms: tuple[str, ...]) -> dict[str, Any]:
    """The options that Rspamd must have: the terms, and a block for each domain with all its keys, or where the map is."""
    if case.has_map:
        places = {"selector_map": f"{case.state}/dkim/selectors.map", "path": f"{case.state}/dkim/$domain.$selector.key"}
        return {**terms, **places}
    keys = recorded(case, algorithms).items()
    blocks = {domain: [{"selector": selector, "path": path} for selector, path in named] for domain, named in keys}
    return {**terms, "domain": {domain: {"selectors": selectors} for domain, selectors in blocks.items()}}


def test_smtpd_calls_the_configuration_ok(installed: tuple[Case, Host]) -> None:
    case, host = installed
    conf = "/etc/mail/smtpd.conf" if case.is_openbsd else "/etc/smtpd.conf"
    assert "configuration OK" in host.run("smtpd", "-n", "-f", conf).stderr


def test_rspamd_calls_the_configuration_ok(installed: tuple[Case, Host]) -> None:
    _, host = installed
    assert "syntax OK" in host.run("rspamadm", "configtest", user="_rspamd").stdout


def test_rspamd_signs_with_the_active_keys_of_the_lock_and_on_no_other_terms(
    installed: tuple[Case, Host], shipped: dict[str, dict[str, Any]]
) -> None:
    case, host = installed
    wanted = {**shipped["dkim_signing"], **model(case, SIGNING, ("rsa", "ed25519"))}
    assert effective(host, "dkim_signing") == wanted


def test_rspamd_seals_with_the_active_rsa_keys_where_mail_is_forwarded(
    installed: tuple[Case, Host], shipped: dict[str, dict[str, Any]]
) -> None:
    case, host = installed
    wanted = {**shipped["arc"], **(model(case, SEALING, ("rsa",)) if case.forwards else {})}
    assert effective(host, "arc") == wanted


def test_a_map_names_the_active_keys_of_the_lock_and_rspamd_may_read_it(installed: tuple[Case, Host]) -> None:
    case, host = installed
    if not case.has_map:
        assert not host.path(f"{case.state}/dkim/selectors.map").exists()
        return
    lines = host.run("cat", f"{case.state}/dkim/selectors.map", user="_rspamd").stdout.splitlines()
    found = dict(line.split(" ") for line in lines if not line.startswith("#"))
    assert found == {domain: selector for domain, [(selector, _)] in recorded(case, ("rsa", "ed25519")).items()}


def test_every_key_that_signs_is_there_and_no_revoked_one(installed: tuple[Case, Host]) -> None:
    case, host = installed
    there = {file.name for file in host.path(f"{case.state}/dkim").glob("*.key")}
    states = {"active", "retiring"}
    assert there == {f"{key['domain']}.{key['selector']}.key" for key in case.dkim_keys if key["state"] in states}


@pytest.fixture(scope="module")
def name_server() -> Iterator[Host]:
    with Host("ns.example.net") as host:
        yield host


@pytest.mark.parametrize("file", ZONES, ids=lambda file: f"{file.parents[2].name}-{file.stem}")
def test_bind_loads_the_zone_without_a_remark(name_server: Host, file: Path) -> None:
    name_server.write("/root/zone", f"{ZONE_HEAD}{file.read_text()}")
    said = name_server.run("named-checkzone", *STRICT, file.stem, "/root/zone")
    assert said.stdout == f"zone {file.stem}/IN: loaded serial 1\nOK\n"
