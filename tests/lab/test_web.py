"""What is served by HTTPS, asked of real nginx and Caddy that were configured by `apply`.

OpenBSD's httpd runs on OpenBSD alone: its configuration is read by a parser in tests/web.rs.
"""

from __future__ import annotations

import http.client
import socket
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab import HOST, Host, Site
from lab.forge import Identity, authority, key_pem, pem, server_certificate
from lab.host import Daemon
from lab.test_apply import SITE, SMTPD_CONF, Machine, Said

ROOT, LIVE = "/var/www/postseal", "/etc/letsencrypt/live"
NAMES = ["autoconfig.example.com", "bimi.example.com", "mta-sts.example.com"]
# A name for which nginx has no room in its table of names.
LONG = f"{'long' * 10}.example.net"
POLICY, SETTINGS = "/.well-known/mta-sts.txt", "/mail/config-v1.1.xml"
EXPECTED = f"version: STSv1\r\nmode: enforce\r\nmx: {HOST}\r\nmax_age: 604800\r\n".encode()
LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 8 8">'
    '<title>Example</title><rect width="8" height="8" fill="#036"/></svg>\n'
)


@dataclass
class Web:
    """A machine with a site that has a web server, and the CA that its certificates come from."""

    machine: Machine
    site: Site
    ca: Identity

    @property
    def host(self) -> Host:
        return self.machine.host

    def certify(self, *names: str) -> None:
        """Puts a certificate where certbot does."""
        made = server_certificate(names[0], self.ca, *names[1:])
        self.host.write(f"{LIVE}/{names[0]}/fullchain.pem", pem(made))
        self.host.write(f"{LIVE}/{names[0]}/privkey.pem", key_pem(made), mode=0o600)

    def certify_all(self) -> None:
        self.certify(*NAMES)
        self.certify(f"autoconfig.{LONG}")

    def apply(self) -> Said:
        return self.machine.apply("--adopt", SMTPD_CONF)

    def furnished(self) -> None:
        """The site as it should be; the logo is put in place by hand if it is not rendered."""
        said = self.apply()
        assert (said.code, said.codes) == (0, []), said
        for name in ("logo.svg", "vmc.pem"):
            if not self.host.path(f"{ROOT}/bimi.example.com/{name}").exists():
                self.host.write(f"{ROOT}/bimi.example.com/{name}", LOGO)

    def get(self, name: str, path: str) -> tuple[HTTPResponse, bytes]:
        """Asks by HTTPS, and checks the certificate as a mail server does."""
        context = ssl.create_default_context(cadata=pem(self.ca).decode())
        with self.host.network(), socket.create_connection(("127.0.0.1", 443), 5) as plain:
            with context.wrap_socket(plain, server_hostname=name) as secured:
                return _ask(secured, name, path)

    def get_plain(self, name: str, path: str) -> tuple[HTTPResponse, bytes]:
        with self.host.network(), socket.create_connection(("127.0.0.1", 80), 5) as plain:
            return _ask(plain, name, path)

    def answers(self) -> bool:
        return self.get(NAMES[2], POLICY)[0].status > 0


def _ask(connected: socket.socket, name: str, path: str) -> tuple[HTTPResponse, bytes]:
    connected.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
    answer = http.client.HTTPResponse(connected)
    answer.begin()
    return answer, answer.read()


@pytest.fixture
def make(site: Site, tmp_path: Path) -> Iterator[Callable[[str], Web]]:
    """Makes a machine with the setting of a web server; example.com is where it enforces its MTA-STS policy."""
    hosts = []

    def make(setting: str) -> Web:
        own, ca = site.copy(tmp_path / "example.com"), authority()
        bimi = 'bimi.logo.file = "logo.svg"\ndmarc.policy = "reject"\n'
        (own.directory / "bimi").mkdir()
        (own.directory / "bimi/logo.svg").write_text(LOGO)
        settings = own.directory / "postseal.toml"
        text = settings.read_text().replace('platform = "debian"', f'{setting}\nplatform = "debian"')
        issued = 'mx_certificate = "issued"'
        files = 'mx_certificate.files = { certificate = "/etc/ssl/mx.pem", key = "/etc/ssl/mx.key" }'
        text = text.replace(issued, files).replace("dmarc.reports", f"{bimi}dmarc.reports")
        other = f'[[domain]]\nname = "{LONG}"\n\n[aliases]\n"postmaster@{LONG}" = "alice@example.com"\n'
        settings.write_text(text.replace("[aliases]\n", other))
        with sqlite3.connect(own.directory / "state/ledger.sqlite") as ledger:
            row = "VALUES ('example.com', 'mta_sts', 'enforce', 1795500000, 604800)"
            ledger.execute(f"INSERT INTO rollout (domain, track, stage, since, max_age) {row}")
            ledger.execute("INSERT INTO rollout_mx (domain, host, is_mx) VALUES (?, ?, 1)", ["example.com", HOST])
        ledger.close()
        own.run("render")
        host = Host(HOST)
        hosts.append(host)
        web = Web(Machine(host, own), own, ca)
        mx = server_certificate(HOST, ca)
        host.write("/etc/ssl/mx.pem", pem(mx))
        host.write("/etc/ssl/mx.key", key_pem(mx), mode=0o600)
        return web

    yield make
    for host in hosts:
        host.close()


def check_all(web: Web) -> None:
    """What every web server answers."""
    for name, path, media, content in (
        (NAMES[2], POLICY, "text/plain", EXPECTED),
        (NAMES[1], "/logo.svg", "image/svg+xml", LOGO.encode()),
        (NAMES[1], "/vmc.pem", "application/pem-certificate-chain", LOGO.encode()),
    ):
        answer, said = web.get(name, path)
        found = (answer.status, answer.getheader("Content-Type"), answer.getheader("X-Content-Type-Options"), said)
        assert found == (200, media, "nosniff", content), path
    for path in (SETTINGS, f"{SETTINGS}?emailaddress=alice%40example.com", f"/.well-known/autoconfig{SETTINGS}"):
        for name in (NAMES[0], f"autoconfig.{LONG}"):
            answer, said = web.get(name, path)
            assert (answer.status, answer.getheader("Content-Type")) == (200, "text/xml")
            domain = ElementTree.fromstring(said).findtext("emailProvider/domain")
            assert f"autoconfig.{domain}" == name
    other = {
        NAMES[0]: ["/", POLICY, "/mail", "/mail/", "/.well-known/", "/logo.svg", "/index.html"],
        NAMES[1]: ["/", "/logo", "/logo.svg/", "/.hidden.svg", f"/../{NAMES[0]}{SETTINGS}", f"/{NAMES[0]}{SETTINGS}"],
        NAMES[2]: ["/", "/.well-known", "/.well-known/", SETTINGS, f"{POLICY}/", "/.well-known/acme-challenge/token"],
    }
    for name, paths in other.items():
        for path in paths:
            status = web.get(name, path)[0].status
            # nginx calls a path that leads out of the root a bad request.
            assert status == 404 or (".." in path and status == 400), (name, path, status)
    for path in ("/", POLICY, SETTINGS, "/logo.svg"):
        for name in NAMES:
            assert web.get_plain(name, path)[0].status == 404, (name, path)


def test_nginx_serves_what_is_rendered_and_nothing_else(make: Callable[[str], Web]) -> None:
    web = make('web = "nginx"')
    web.certify_all()
    web.furnished()
    # A file that postseal stages, or that anybody hides.
    web.host.write(f"{ROOT}/bimi.example.com/.hidden.svg", LOGO)
    web.host.write(f"{ROOT}/acme/.well-known/acme-challenge/token", "answer")
    nginx = Daemon(web.host, "nginx", "nginx", "-g", "daemon off;", ready=web.answers)
    nginx.start()
    check_all(web)
    for name in [*NAMES, "autoconfig.not-yet.example"]:
        answer, said = web.get_plain(name, "/.well-known/acme-challenge/token")
        assert (answer.status, said) == (200, b"answer"), name
    nginx.stop()


def test_caddy_serves_what_is_rendered_and_nothing_else(make: Callable[[str], Web]) -> None:
    web = make(f'web.caddy.certificates = "{LIVE}"')
    web.certify_all()
    # Caddy is to ask nobody for certificates, and the last line is the one that is documented.
    web.host.write("/etc/caddy/Caddyfile", "{\n\tadmin off\n}\nimport /etc/caddy/postseal.caddy\n")
    web.furnished()
    web.host.write(f"{ROOT}/bimi.example.com/.hidden.svg", LOGO)
    caddy = Daemon(web.host, "caddy", "caddy", "run", "--config", "/etc/caddy/Caddyfile", ready=web.answers)
    caddy.start()
    check_all(web)
    caddy.stop()


def test_caddy_takes_a_configuration_by_which_it_gets_certificates(make: Callable[[str], Web]) -> None:
    web = make('web = "caddy"')
    web.host.write("/etc/caddy/Caddyfile", "import /etc/caddy/postseal.caddy\n")
    said = web.apply()
    assert (said.code, said.codes) == (0, [])
    assert "systemctl reload caddy" in said.told
    # The policy keeps its line ends in golden/, too, and what was blessed is no difference.
    web.site.run("bless")
    golden = web.site.directory / f"golden/{HOST}/root{ROOT}/{NAMES[2]}{POLICY}"
    assert golden.read_bytes() == EXPECTED
    assert "0 changed, 0 added, 0 missing" in web.site.run("diff")
    web.host.run("caddy", "validate", "--config", "/etc/caddy/Caddyfile")


def test_a_web_server_that_would_not_start_or_not_serve_is_told_of(make: Callable[[str], Web]) -> None:
    web = make('web = "nginx"')
    said = web.apply()
    assert (said.code, said.codes) == (1, ["web-certificate"]), said
    order = f"certbot certonly --webroot -w {ROOT}/acme --cert-name {NAMES[0]} -d {NAMES[0]} -d {NAMES[1]} -d {NAMES[2]}"
    assert order in said.errors
    assert not web.host.path("/etc/nginx/conf.d/postseal.conf").exists()

    web.certify_all()
    spoil = f"mkdir -p {SITE}/templates/web; echo 'no such directive;' >{SITE}/templates/web/nginx.conf"
    web.host.run("sh", "-c", spoil)
    said = web.apply()
    assert (said.code, said.codes) == (1, ["web-refuses"]), said
    assert 'unknown directive "no" in postseal.conf:1' in said.errors

    web.certify(*NAMES[:2])
    web.host.run("rm", "-r", f"{SITE}/templates/web")
    web.machine.edit("/etc/nginx/nginx.conf", "include /etc/nginx/conf.d/*.conf;", "")
    said = web.apply()
    assert (said.code, said.codes) == (0, ["web-certificate-name", "web-not-included"]), said
    assert f"is not for {NAMES[2]}" in said.errors
    assert "add to it: include /etc/nginx/conf.d/postseal.conf;" in said.errors
    assert "systemctl reload nginx" in said.told


def test_a_new_policy_needs_no_reload(make: Callable[[str], Web]) -> None:
    web = make('web = "nginx"')
    web.certify_all()
    web.furnished()
    statement = "UPDATE rollout SET stage = 'enforce-long', max_age = 31557600"
    script = "import sqlite3, sys; ledger = sqlite3.connect(sys.argv[1]); ledger.execute(sys.argv[2]); ledger.commit()"
    web.host.run("python3", "-c", script, f"{SITE}/state/ledger.sqlite", statement)
    assert web.machine.run("render").code == 0
    planned = web.machine.plan()
    assert planned.steps == {f"{ROOT}/{NAMES[2]}{POLICY}": "change"}
    assert planned.told == []
    assert "-max_age: 604800" in planned.out and "+max_age: 31557600" in planned.out
    assert web.machine.apply().told == []
    assert web.host.path(f"{ROOT}/{NAMES[2]}{POLICY}").read_bytes() == EXPECTED.replace(b"604800", b"31557600")
