"""A renewed .p12 comes into a NSS database that holds the old one, as Thunderbird's does: both work, and are told apart."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Site
from lab.host import wait_until

WHO = "alice@example.com"
LIBRARIES = [None, os.environ.get("POSTSEAL_THUNDERBIRD_LIB")]


class Database:
    """A person's NSS database."""

    def __init__(self, directory: Path, library: str | None) -> None:
        self.directory = directory
        self.environment = {"PATH": os.environ["PATH"]} | ({"LD_LIBRARY_PATH": library} if library else {})
        (directory / "empty").write_text("\n")
        self.run("certutil", "-N", "--empty-password")

    def run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [program, *arguments, "-d", f"sql:{self.directory}"]
        done = subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done

    def take(self, site: Site) -> None:
        """Imports what lies in the handout now."""
        (self.directory / "password").write_bytes(
            (site.directory / "state/passwords" / WHO / "default.p12-password").read_bytes()
        )
        bundle = str(site.directory / "handout" / WHO / "default" / f"{WHO}.p12")
        passwords = ["-w", str(self.directory / "password"), "-k", str(self.directory / "empty")]
        self.run("pk12util", "-i", bundle, *passwords)

    @property
    def own(self) -> list[str]:
        """The nicknames of the certificates whose key is there."""
        lines = self.run("certutil", "-L").stdout.splitlines()
        return [line.rstrip().removesuffix("u,u,u").strip() for line in lines if line.rstrip().endswith("u,u,u")]


@pytest.fixture(params=LIBRARIES, ids=["system", "Thunderbird"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param is None and request.param_index:
        pytest.skip("POSTSEAL_THUNDERBIRD_LIB does not name Thunderbird's libraries")
    directory = tmp_path / "nss"
    directory.mkdir()
    return Database(directory, request.param)


@pytest.fixture
def own_site(site: Site, tmp_path: Path) -> Site:
    return site.copy(tmp_path / "site")


def renew(site: Site, database: Database, overlap: str) -> list[str]:
    """Alice imports her certificate, has it renewed, and imports the new one. Returns the nicknames, the old one first."""
    database.take(site)
    old = database.own
    site.run("user", "renew", WHO, "--overlap", overlap)
    database.take(site)
    return old + [name for name in database.own if name not in old]


@contextlib.contextmanager
def serving(renewed: Site) -> Iterator[int]:
    """The port of a server that admits whom the rendered trust list does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    certificate, key = renewed.server()
    trusted = renewed.root / "etc/mail/postseal/clients.pem"
    options = ["-Verify", "3", "-verify_return_error", "-quiet", "-CAfile", str(trusted), "-no_tls1_3"]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(certificate), "-key", str(key)]
    with subprocess.Popen([*command, *options], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: listens(port), "the server")
        yield port
        process.kill()


def listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def is_admitted(database: Database, nickname: str, port: int) -> bool:
    said = database.run("tstclnt", "-h", "127.0.0.1", "-p", str(port), "-n", nickname, "-o", "-Q", check=False)
    return said.returncode == 0


def test_the_new_certificate_has_a_name_of_its_own(own_site: Site, database: Database) -> None:
    names = renew(own_site, database, "30d")
    assert len(names) == 2 and len(set(names)) == 2, names


def test_both_are_admitted_during_the_overlap(own_site: Site, database: Database) -> None:
    names = renew(own_site, database, "30d")
    with serving(own_site) as port:
        assert [is_admitted(database, name, port) for name in names] == [True, True]


def test_without_an_overlap_only_the_new_one_is_admitted(own_site: Site, database: Database) -> None:
    names = renew(own_site, database, "0d")
    with serving(own_site) as port:
        assert [is_admitted(database, name, port) for name in names] == [False, True]
