"""A map that names the keys that sign: what Rspamd signs and seals with changes by one rename, without a reload."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import dkim as dkimpy  # type: ignore[import-untyped]
import pytest

from lab import DOMAIN, Lab, Site, Txt, compose, verify, wait_until
from lab.lab import CLIENT4

ALICE, STRANGER, FAR = "alice@example.com", "eve@far.test", "dave@far.test"
KEYS = "/var/lib/rspamd/dkim"
MAP = f"{KEYS}/selectors.map"


class Mapped:
    """A running laboratory whose Rspamd asks a map, and whose site forwards mail."""

    def __init__(self, lab: Lab, site: Site) -> None:
        self.lab, self.site, self.alice = lab, site, site.person(ALICE)
        self.workers = self._workers()

    def _workers(self) -> set[str]:
        return set(self.lab.mx.run("pgrep", "-u", "_rspamd").stdout.split())

    def assert_not_reloaded(self) -> None:
        # A reload starts new workers.
        assert len(self.workers) > 1 and self._workers() == self.workers

    def switch(self) -> None:
        """The next key signs at once, as if the present one were in wrong hands; first its file, then the map by rename."""
        self.site.run("dkim", "rotate", DOMAIN)
        self.site.run("dkim", "revoke", f"{self.selector}._domainkey.{DOMAIN}")
        self.lab.publish({DOMAIN: self.site.zone})
        for key in (self.site.root / KEYS[1:]).glob("*.key"):
            self.lab.mx.write(f"{KEYS}/{key.name}", key.read_bytes(), "root", "_rspamd", 0o640)
        self.replace(self.site.rendered(MAP))

    def replace(self, text: str) -> None:
        self.lab.mx.write(f"{KEYS}/.new", text)
        os.rename(self.lab.mx.path(f"{KEYS}/.new"), self.lab.mx.path(MAP))

    @property
    def selector(self) -> str:
        """The one that the rendered map names."""
        [line] = [line for line in self.site.rendered(MAP).splitlines() if line.startswith(f"{DOMAIN} ")]
        return line.split(" ")[1]

    def signatures(self) -> list[tuple[str, str, bool]]:
        """Of a mail that Alice sends."""
        message = compose(ALICE, FAR)
        assert self.alice.send(self.lab, FAR, message).accepted
        found = verify(self.lab.arrived(FAR, message), self.lab.live_txt)
        return [(one.selector, one.algorithm, one.valid) for one in found]

    def seal(self) -> tuple[str, bytes]:
        """Selector and verdict of the seal on a stranger's mail, asked of Rspamd as filter-rspamd does."""
        message = compose(STRANGER, "friend@example.com")
        head = f"POST /checkv2 HTTP/1.0\r\nContent-Length: {len(message)}\r\nFrom: {STRANGER}\r\nIp: {CLIENT4}\r\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.lab.mx.path("/run/rspamd/normal.sock")))
            connection.sendall(f"{head}Rcpt: friend@example.com\r\n\r\n".encode() + message)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        added = json.loads(answer.partition(b"\r\n\r\n")[2])["milter"]["add_headers"]
        fields = {name: field["value"] for name, field in added.items() if name.startswith("ARC-")}
        sealed = "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode() + message
        verdict, _, _ = dkimpy.arc_verify(sealed, dnsfunc=asked(self.lab.live_txt))
        tags = dkimpy.util.parse_tag_value(fields["ARC-Seal"].encode())
        return tags[b"s"].decode(), verdict


def asked(txt: Txt) -> Callable[..., bytes | None]:
    return lambda name, timeout=5: txt(name.decode().rstrip("."))


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapped]:
    site = Site.init(tmp_path_factory.mktemp("mapped") / "site")
    settings = site.directory / "postseal.toml"
    [shown] = [line for line in settings.read_text().splitlines() if line.startswith("# dkim.signing")]
    site.set(shown, 'dkim.signing = "selector_map"')
    site.set("[aliases]\n", f'[aliases]\n"friend@example.com" = "{FAR}"\n')
    with site.lab() as lab:
        lab.start()
        yield Mapped(lab, site)


def test_a_renamed_map_switches_signature_and_seal_without_a_reload(mapped: Mapped) -> None:
    first = mapped.selector
    assert mapped.signatures() == [(first, "rsa-sha256", True)]
    assert mapped.seal() == (first, b"pass")
    mapped.switch()
    second = mapped.selector
    assert second != first
    wait_until(lambda: mapped.signatures() == [(second, "rsa-sha256", True)], "the new selector", 10)
    wait_until(lambda: mapped.seal() == (second, b"pass"), "the new seal", 10)
    mapped.assert_not_reloaded()


def test_a_domain_that_the_map_leaves_out_is_not_signed_with_a_guess(mapped: Mapped) -> None:
    text = mapped.site.rendered(MAP)
    mapped.replace("".join(line for line in text.splitlines(keepends=True) if not line.startswith(DOMAIN)))
    wait_until(lambda: mapped.signatures() == [], "no signature", 10)
    mapped.replace(text)
    wait_until(lambda: mapped.signatures() != [], "the signature again", 10)


def test_every_field_that_the_filter_admits_is_read_back_from_the_map(mapped: Mapped) -> None:
    """The longest, and those that other syntaxes take for numbers, sizes or dates."""
    text = mapped.site.rendered(MAP)
    odd = ["1e5", "null", "2026d", "a" * 63]
    key = mapped.site.root / KEYS[1:] / f"{DOMAIN}.{mapped.selector}.key"
    for selector in odd:
        mapped.lab.mx.write(f"{KEYS}/{DOMAIN}.{selector}.key", key.read_bytes(), "root", "_rspamd", 0o640)
        mapped.replace(f"{'b' * 60}.example x\n{DOMAIN} {selector}\n")
        wait_until(lambda wanted=selector: [one[0] for one in mapped.signatures()] == [wanted], selector, 10)
    mapped.replace(text)
