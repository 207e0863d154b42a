"""Runs postseal with a fault at one system call, and judges the site that it leaves.

strace counts, for each name of a system call, how often the program makes it; the n-th is then not made, and the program
is killed instead, or the call fails.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.serialization import pkcs12

from lab.site import PROGRAM

with warnings.catch_warnings():
    # Debian 12's Python has it; a later one needs another way to bcrypt.
    warnings.simplefilter("ignore", DeprecationWarning)
    import crypt

# What changes something on the disk, or tells somebody something.
CHANGING = (
    "chmod,fallocate,fchmod,fchmodat,fdatasync,fsync,ftruncate,link,linkat,mkdir,mkdirat,openat,pwrite64,rename,renameat,"
    "renameat2,rmdir,symlink,symlinkat,syncfs,truncate,unlink,unlinkat,write,writev"
)

ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    code: int
    out: str
    talk: str

    @property
    def says_how(self) -> bool:
        """Whether it refused with a way out, and did not fall over."""
        return "help: " in self.talk and "panicked" not in self.talk


def run(arguments: list[str], *, before: tuple[str, ...] = ()) -> Done:
    """Runs postseal, below another program if `before` names one."""
    return run_program([*before, str(PROGRAM), *arguments])


def run_program(command: list[str]) -> Done:
    done = subprocess.run(
        command,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Point:
    """The n-th call of that name, and how it looks in a trace."""

    call: str
    nth: int
    line: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.call} {self.nth}: {self.line[:160]}"


def points(arguments: list[str], log: Path) -> list[Point]:
    """Every point of a run at which it changes something. The program makes all of these calls in one thread; what other
    programs do that it runs is theirs."""
    traced = ("strace", "-f", "--seccomp-bpf", "-s", "24", "-o", str(log), "-e", f"trace={CHANGING}")
    assert run(arguments, before=traced).code in (0, 1)
    counts: Counter[str] = Counter()
    found = []
    first = None
    for line in log.read_text().splitlines():
        entered = re.match(r"(\d+) +(\w+)\(", line)
        if not entered:
            continue
        process, call = entered.groups()
        first = first or process
        if process != first:
            continue
        counts[call] += 1
        if call != "openat" or "O_CREAT" in line:
            found.append(Point(call, counts[call], line.split(" ", 1)[1].strip()))
    return found


def run_with_fault(arguments: list[str], point: Point, fault: str) -> Done:
    """`fault` is what strace injects: `signal=KILL`, `error=ENOSPC`. Only the program's first thread is traced."""
    inject = f"--inject={point.call}:{fault}:when={point.nth}"
    return run(arguments, before=("strace", "-o", "/dev/null", f"--trace={point.call}", inject))


# What a site must be


def files(directory: Path) -> Iterator[Path]:
    """Everything below a directory, links and directories too."""
    for place, directories, names in os.walk(directory):
        yield from (Path(place, name) for name in [*directories, *names])


def assert_whole(site: Path) -> None:
    """What must be true at every moment, whatever was killed: no half of a file, no secret that others may read."""
    lock = site / "postseal.lock"
    if lock.exists():
        tomllib.loads(lock.read_text())
    for path in files(site):
        below, mode = path.relative_to(site).parts[0], stat.S_IMODE(path.lstat().st_mode)
        if below in ("state", "handout"):
            assert mode == (0o700 if path.is_dir() else 0o600), f"{path} has the mode {mode:o}"
        elif path.is_file():
            content = path.read_bytes()
            secret = b"PRIVATE KEY-----" in content or b"$2b$" in content or path.name.endswith(".p12")
            assert not secret or mode == 0o600, f"{path}: a secret with the mode {mode:o}"
            kept_in = below == "out" or below.startswith(".postseal-")
            assert not secret or kept_in, f"{path}: a secret outside of state/, handout/ and out/"
    if (site / "out").exists():
        assert stat.S_IMODE((site / "out").stat().st_mode) == 0o700


def leftovers(directory: Path) -> list[Path]:
    return [path for path in files(directory) if path.name.startswith(".postseal-")]


@dataclass(frozen=True)
class Records:
    """What the ledger says."""

    accounts: dict[str, str | None]
    keys: dict[str, str]
    certificates: dict[str, tuple[str, str, str, str | None, str | None]]
    twins: list[str]
    # The serials of what has a successor.
    replaced: set[str]
    # Of the issuing CAs that are trusted.
    crls: list[str]
    # The serials of those whose handout is with the person.
    handed_over: set[str]
    # State and digest of every DKIM key, by its domain and selector.
    dkim: dict[tuple[str, str], tuple[str, str]]

    @classmethod
    def read(cls, site: Path) -> Records:
        with sqlite3.connect(site / "state/ledger.sqlite") as sql:
            assert sql.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert sql.execute("PRAGMA foreign_key_check").fetchall() == []
            accounts = dict(sql.execute("SELECT address, password_hash FROM account WHERE removed_at IS NULL"))
            keys = {key: f"{domain} {selector}" for key, domain, selector in
                    sql.execute("SELECT key, domain, selector FROM dkim_key")}  # fmt: skip
            # A key that waits becomes a server's.
            keys |= {key: "server" for (key,) in sql.execute("SELECT key FROM next_key")}
            rows = sql.execute("SELECT serial, kind, fingerprint, status, address, device, key FROM certificate")
            certificates = {}
            for serial, kind, fingerprint, status, address, device, key in rows:
                certificates[serial] = (kind, fingerprint, status, address, device)
                if key:
                    keys[key] = kind
            live = "SELECT twin FROM certificate WHERE status = 'live' AND twin IS NOT NULL ORDER BY serial"
            handed_over = {
                serial
                for (serial,) in sql.execute("SELECT serial FROM certificate WHERE handed_over IS NOT NULL")
            }
            twins = [twin for (twin,) in sql.execute(live)]
            replaced = {serial for (serial,) in sql.execute("SELECT serial FROM certificate WHERE superseded_by IS NOT NULL")}
            newest = "SELECT pem FROM crl JOIN certificate ON serial = crl.issuer WHERE status = 'live'"
            crls = [pem for (pem,) in sql.execute(newest)]
            states = sql.execute("SELECT domain, selector, state, key FROM dkim_key")
            dkim = {(domain, selector): (state, key) for domain, selector, state, key in states}
            lines = "SELECT domain, algorithm, sum(state = 'active') FROM dkim_key GROUP BY domain, algorithm"
            assert all(active == 1 for *_, active in sql.execute(lines)), "each line has one key that signs"
        sql.close()
        return cls(accounts, keys, certificates, twins, replaced, crls, handed_over, dkim)

    def assert_kept_in(self, later: Records) -> None:
        """Nothing that was recorded is lost; a certificate may have been revoked."""
        assert self.keys.items() <= later.keys.items()
        for serial, (kind, fingerprint, status, *whose) in self.certificates.items():
            now = later.certificates[serial]
            assert (now[0], now[1], *now[3:]) == (kind, fingerprint, *whose)
            assert status == "live" or now[2] == "revoked" or (status, now[2]) == ("held", "live")
        lives = ["generated", "published", "active", "retiring", "revoked", "destroyed"]
        for name, (state, key) in self.dkim.items():
            assert later.dkim[name][1] == key and lives.index(later.dkim[name][0]) >= lives.index(state), name


def assert_settled(site: Path, records: Records) -> None:
    """What must be true after the next command that writes: files and ledger say the same."""
    assert_whole(site)
    assert leftovers(site) == []
    assert not (site / "state/password.pending").exists()
    assert not (site / "state/handed-over.pending").exists()
    keys = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (site / "state/keys").iterdir()}
    destroyed = {key for state, key in records.dkim.values() if state == "destroyed"}
    assert keys == {f"{digest[:16]}.key": digest for digest in records.keys if digest not in destroyed}
    swept = {path.stem for path in (site / "state/swept").glob("keys/*")}
    assert not swept & {digest[:16] for digest in destroyed}, "what is destroyed is kept elsewhere"
    # Hosts get the private halves of what signs or did so lately; more of them would tell what is to come.
    wanted = {
        f"{domain}.{selector}.key" for (domain, selector), (state, _) in records.dkim.items() if state in ("active", "retiring")
    }
    for tree in site.glob("out/*"):
        installed = {path.name for path in tree.rglob("*.key") if "rspamd" in path.parts}
        assert not installed or installed == wanted, installed ^ wanted

    serials = {
        (address, device): serial
        for serial, (kind, _, status, address, device) in records.certificates.items()
        if kind == "client"
        and status in ("live", "held")
        and serial not in records.replaced
        and serial not in records.handed_over
    }
    devices = {(path.parent.name, path.name) for path in (site / "handout").glob("*/*")}
    assert devices == set(serials)
    assert {path.name for path in (site / "handout").iterdir()} == {address for address, _ in serials}
    passwords = {path for path in (site / "state/passwords").glob("*/*") if path.name != "password"}
    assert {(path.parent.name, path.name.removesuffix(".p12-password")) for path in passwords} == set(serials)
    for (address, device), serial in serials.items():
        password = (site / "state/passwords" / address / f"{device}.p12-password").read_bytes()
        for bundle in (site / "handout" / address / device).glob("*.p12"):
            assert opened(bundle.read_bytes(), password) == serial, f"{bundle} is not what was recorded"
    waiting = {address for address, _ in serials}
    for address, hashed in records.accounts.items():
        if address not in waiting and not (site / "state/passwords" / address / "password").exists():
            continue
        if hashed is None:
            assert not (site / "state/passwords" / address / "password").exists()
            continue
        text = (site / "state/passwords" / address / "password").read_text()
        assert hashed and hash_like(text, hashed) == hashed, f"the password of {address} is not the recorded one"
    [tables] = site.glob("out/*/root/etc/mail/postseal")
    listed = (tables / "clients.pem").read_text()
    assert all(twin.strip() in listed for twin in records.twins)
    assert listed.count("BEGIN CERTIFICATE") == max(1, len(records.twins))
    crl = tables / "clients.crl"
    assert sorted(records.crls) == sorted(sections(crl.read_text()) if crl.exists() else [])
    # What postseal itself offers to find out the same.
    checked = run(["fsck", "--site", str(site)])
    # Where a test put a certificate's end into the past, that is told.
    told = [line for line in checked.out.splitlines() if "than recorded" not in line]
    assert checked.code == 0 or len(told) == 1, checked


def sections(text: str) -> list[str]:
    """The sections of a PEM text."""
    return re.findall(r"-----BEGIN [^-]*-----\n[^-]*-----END [^-]*-----\n", text)


@cache
def opened(bundle: bytes, password: bytes) -> str:
    """The serial of a .p12 file's certificate."""
    _, certificate, _ = pkcs12.load_key_and_certificates(bundle, password)
    assert certificate
    return f"{certificate.serial_number:032x}"


@cache
def hash_like(password: str, hashed: str) -> str:
    return crypt.crypt(password, hashed)


def copy(site: Path, to: Path) -> Path:
    shutil.copytree(site, to, symlinks=True)
    return to
