"""The installed files: their owners and modes, what the daemons' own checks say, and what Rspamd makes of them."""

from __future__ import annotations

import json
import re
import ssl
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from lab import DOMAIN, HOST, Entry, Host, Lab, Site

README = Path(__file__).parents[2] / "README.md"

SOA = (
    f"{DOMAIN}. 3600 IN SOA ns.{DOMAIN}. hostmaster.{DOMAIN}. 1 3600 600 86400 60\n{DOMAIN}. 3600 IN NS ns.{DOMAIN}.\n"
)


def code_block(word: str) -> str:
    """The block of README.md that contains a word."""
    blocks: list[str] = re.findall(r"```\w*\n(.*?)```", README.read_text(), re.DOTALL)
    [block] = [block for block in blocks if word in block]
    return block


@pytest.fixture(scope="module")
def installed(site: Site) -> Iterator[Host]:
    """A host where the site was installed by the commands of README.md, word for word; no daemon runs."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(site.directory / "out" / HOST, HOST)
    with Host(HOST) as host:
        host.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
        host.run("tar", "-x", "-C", "/tmp", input=archive.getvalue())
        commands = 'systemctl() { echo systemctl "$@"; }\n' + code_block("grep -v '^#' MANIFEST")
        assert "systemctl restart" in host.run("sh", "-ec", f"cd /tmp\n{commands}").stdout
        yield host


def owners(host: Host, manifest: list[Entry]) -> list[tuple[str, str, str, int]]:
    paths = [entry.path for entry in manifest]
    lines = host.run("stat", "-c", "%n %U %G %a", *paths).stdout.splitlines()
    return [(path, owner, group, int(mode, 8)) for path, owner, group, mode in map(str.split, lines)]


def wanted(manifest: list[Entry]) -> list[tuple[str, str, str, int]]:
    return [(entry.path, entry.owner, entry.group, entry.mode) for entry in manifest]


def files(site: Site) -> list[tuple[Entry, bytes]]:
    return [(entry, (site.root / entry.path[1:]).read_bytes()) for entry in site.manifest if not entry.is_directory]


def test_the_commands_of_the_readme_give_every_file_its_owner_and_mode(installed: Host, site: Site) -> None:
    assert owners(installed, site.manifest) == wanted(site.manifest)


def test_the_commands_of_the_readme_install_every_file_unchanged(installed: Host, site: Site) -> None:
    assert [entry.path for entry, content in files(site) if installed.path(entry.path).read_bytes() != content] == []


def test_the_commands_of_the_readme_keep_a_copy_of_a_replaced_file(installed: Host) -> None:
    assert "postseal" not in installed.path("/etc/smtpd.conf~").read_text()


def test_the_running_daemons_leave_every_file_as_it_was_installed(lab: Lab, site: Site) -> None:
    assert owners(lab.mx, site.manifest) == wanted(site.manifest)


def test_the_manifest_names_every_file_of_the_tree_and_no_other(site: Site) -> None:
    there = {f"/{file.relative_to(site.root)}" for file in site.root.rglob("*") if not file.is_dir()}
    assert there == {entry.path for entry in site.manifest if not entry.is_directory}


def test_every_file_that_holds_a_private_key_or_a_password_is_secret(site: Site) -> None:
    holding = {entry.path for entry, content in files(site) if b"PRIVATE KEY" in content or b"$2b$" in content}
    assert holding and holding == {entry.path for entry in site.manifest if entry.kind == "secret"} - dkim_ed25519(site)


def dkim_ed25519(site: Site) -> set[str]:
    """Rspamd reads an Ed25519 key as one line of base64, without a label to know it by."""
    return {entry.path for entry, content in files(site) if "/dkim/" in entry.path and b"PRIVATE KEY" not in content}


def test_no_secret_file_is_readable_by_others(lab: Lab, site: Site) -> None:
    secret = [entry.path for entry in site.manifest if entry.kind == "secret" and not entry.is_directory]
    assert secret and [path for path in secret if lab.mx.path(path).stat().st_mode & 0o007] == []


@pytest.mark.parametrize(
    ("user", "readable"),
    [
        ("nobody", set()),
        ("vmail", set()),
        ("opensmtpd", {"/etc/mail/postseal/credentials"}),
        ("_rspamd", {"dkim"}),
    ],
)
def test_each_daemon_reads_only_its_own_secrets(lab: Lab, site: Site, user: str, readable: set[str]) -> None:
    secret = [entry.path for entry in site.manifest if entry.kind == "secret" and not entry.is_directory]
    script = 'for file; do if [ -r "$file" ]; then echo "$file"; fi; done'
    said = set(lab.mx.run("sh", "-c", script, "sh", *secret, user=user).stdout.split())
    keys = {path for path in secret if "/dkim/" in path}
    assert said == (keys if readable == {"dkim"} else readable)


def test_the_sites_own_directory_shows_secrets_to_its_owner_only(site: Site) -> None:
    open_to_others = [
        path
        for part in ("state", "handout", "out")
        for path in [site.directory / part]
        if stat.S_IMODE(path.stat().st_mode) != 0o700
    ]
    assert open_to_others == []


def test_no_secret_of_the_sites_own_directory_is_readable_by_others(site: Site) -> None:
    inside = [file for part in ("state", "handout") for file in (site.directory / part).rglob("*") if file.is_file()]
    assert inside and [file for file in inside if file.stat().st_mode & 0o077] == []


def test_the_servers_key_fits_its_certificate(site: Site) -> None:
    # OpenSMTPD's own check says OK to a wrong key, and the first connection then ends the whole daemon.
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*site.server())


@pytest.mark.parametrize("address", ["alice@example.com", "bob@example.com", "carol@example.com"])
def test_a_users_key_fits_the_certificate(site: Site, address: str) -> None:
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(site.person(address).client.certificate)


def test_the_trust_list_holds_one_certificate_for_each_user_and_not_the_site_ca(site: Site) -> None:
    twins = x509.load_pem_x509_certificates(site.rendered("/etc/mail/postseal/clients.pem").encode())
    site_ca = x509.load_pem_x509_certificate(site.ca_certificate.read_bytes())
    assert len(twins) == 3 and site_ca.public_key() not in [twin.public_key() for twin in twins]


def test_opensmtpd_calls_the_configuration_ok(lab: Lab) -> None:
    done = lab.mx.run("smtpd", "-n")
    assert done.stdout + done.stderr == "configuration OK\n"


def test_rspamd_calls_the_configuration_ok_in_its_strictest_check(lab: Lab) -> None:
    assert lab.mx.run("rspamadm", "configtest", "-s", user="_rspamd").stdout == "syntax OK\n"


def effective(lab: Lab, section: str) -> dict[str, Any]:
    """What Rspamd makes of its shipped configuration and ours."""
    found: dict[str, Any] = json.loads(lab.mx.run("rspamadm", "configdump", "-j", section, user="_rspamd").stdout)
    return found


def test_rspamd_signs_for_the_sites_domain_with_both_keys_and_for_nothing_else(lab: Lab, site: Site) -> None:
    names = re.findall(rf"^(\S+)\._domainkey\.{DOMAIN}\.", site.zone, re.MULTILINE)
    keys = sorted(entry.path for entry in site.manifest if "/dkim/" in entry.path and not entry.is_directory)
    [domain] = effective(lab, "dkim_signing")["domain"].items()
    assert domain[0] == DOMAIN
    assert list(domain[1]) == ["selectors"]
    assert sorted(key["selector"] for key in domain[1]["selectors"]) == sorted(names) and len(names) == 2
    assert sorted(key["path"] for key in domain[1]["selectors"]) == keys


def test_rspamd_guesses_nothing_about_whom_it_signs_for(lab: Lab) -> None:
    expected = {
        "use_domain": "header",
        "use_esld": False,
        "try_fallback": False,
        "sign_authenticated": True,
        "sign_local": False,
        "sign_inbound": False,
        "allow_username_mismatch": False,
        "allow_hdrfrom_mismatch": False,
        "allow_hdrfrom_multiple": False,
        "use_redis": False,
    }
    found = effective(lab, "dkim_signing")
    assert {key: found.get(key, False) for key in expected} == expected
    assert not {"path", "selector", "path_map", "selector_map", "signing_table", "key_table"} & {
        key for key, value in found.items() if value and key not in ("selector", "path")
    }


@pytest.mark.parametrize(("section", "option"), [("options", "local_addrs"), ("dkim_signing", "sign_networks")])
def test_rspamd_trusts_no_network_but_the_loopback(lab: Lab, section: str, option: str) -> None:
    networks = [ip_network(network) for network in effective(lab, section)[option]]
    assert {4, 6} == {network.version for network in networks if network.is_loopback}
    assert [network for network in networks if not network.is_loopback] == []


def test_the_name_servers_strictest_check_accepts_the_zone(site: Site, tmp_path: Path) -> None:
    zone = tmp_path / "zone"
    zone.write_text(f"{SOA}ns.{DOMAIN}. 3600 IN A 198.51.100.53\n{site.zone}")
    strict = ["-i", "local", *[word for check in "k m M n r S W".split() for word in (f"-{check}", "fail")]]
    done = subprocess.run(
        ["named-checkzone", *strict, DOMAIN, zone],
        capture_output=True,
        check=False,
        text=True,
        env={"PATH": "/usr/bin:/usr/sbin"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (DOMAIN, "MX", ["10 mail.example.com."]),
        (HOST, "A", ["203.0.113.10"]),
        (HOST, "AAAA", ["2001:db8:113::10"]),
    ],
)
def test_the_name_server_answers_what_the_site_says(lab: Lab, name: str, kind: str, expected: list[str]) -> None:
    assert [str(record) for answer in lab.query(name, kind).answer for record in answer] == expected
