"""Looks for secrets in the memory of the program at its end: the real program, stopped before it exits.

The last thing that a Rust program does before it ends is to give back the stack for signals; `main` has returned then, and
all that is dropped is dropped. strace stops the process there, and its memory is read from outside.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from lab.faults import ENVIRONMENT, files
from lab.host import wait_until
from lab.site import PROGRAM

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def memory_at_the_end(arguments: list[str]) -> bytes:
    """Everything writable in the program's memory when it has done its work. Fails unless it did it."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "trace"
        log.touch()
        # The first call asks, the second one sets the stack up, the third one, at the end, takes it down.
        stop = ["--trace=sigaltstack", "--inject=sigaltstack:signal=STOP:when=3"]
        # Not the programs that it runs: rspamadm would take a minute under strace.
        with subprocess.Popen(
            ["strace", "-o", log, *stop, PROGRAM, *arguments],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            try:
                wait_until(lambda: process.poll() is not None or b"stopped by" in log.read_bytes(), "its end", 60)
                text = log.read_bytes()
                assert b"stopped by SIGSTOP" in text and b"sigaltstack({ss_sp=NULL, ss_flags=SS_DISABLE" in text, text
                # Only now: at its start strace has children of its own, to try what the system can do.
                return _memory(int(children.read_text()))
            finally:
                with contextlib.suppress(OSError):
                    for child in children.read_text().split():
                        os.kill(int(child), signal.SIGKILL)
                _, talk = process.communicate()
                assert b"error" not in talk, talk


def _memory(pid: int) -> bytes:
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(number, 16) for number in span.split("-"))
                memory.seek(start)
                with contextlib.suppress(OSError):
                    found.append(memory.read(end - start))
    return b"".join(found)


def secrets_of(site: Path) -> dict[str, bytes]:
    """Every secret of a site, in every form in which it could lie about, by what it is."""
    found: dict[str, bytes] = {}
    passphrase = (site / "state/ca.passphrase").read_bytes()
    found["CA passphrase"] = passphrase
    for path in (site / "state/keys").iterdir():
        text = path.read_bytes()
        if b"-----" in text:
            encrypted = b"ENCRYPTED" in text
            key = load_pem_private_key(text, passphrase if encrypted else None)
            what = f"CA key {path.name}" if encrypted else f"key {path.name}"
        else:
            key = ed25519.Ed25519PrivateKey.from_private_bytes(base64.b64decode(text))
            found[f"DKIM seed {path.name} in base64"] = text.strip()
            what = f"DKIM seed {path.name}"
        assert isinstance(key, Key)
        found |= {f"{what}, {form}": octets for form, octets in forms(key)}
    for path in files(site / "state/passwords"):
        if path.is_file():
            found[f"password {path.parent.name}/{path.name}"] = path.read_bytes()
    for path in (site / "handout").glob("*/*/*.p12"):
        device = path.parent
        password = (site / f"state/passwords/{device.parent.name}/{device.name}.p12-password").read_bytes()
        key, _, _ = pkcs12.load_key_and_certificates(path.read_bytes(), password)
        assert isinstance(key, Key)
        found |= {f"key of {device.parent.name}/{device.name}, {form}": octets for form, octets in forms(key)}
    for line in next(site.glob("out/*/root/etc/mail/postseal/credentials")).read_bytes().splitlines():
        address, hashed = line.split(b":")
        found[f"hash of {address.decode()}"] = hashed
    return found


def forms(key: Key) -> Iterator[tuple[str, bytes]]:
    """The private numbers of a key as octets in either order, and the middle of its PEM text."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        yield "seed", key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).splitlines()
    # Of a key on a curve the first line is the same for all up to the private number.
    yield "PEM", pem[1][48:] if isinstance(key, ec.EllipticCurvePrivateKey) else pem[5]
    numbers = key.private_numbers()
    named = {"d": numbers.private_value} if isinstance(numbers, ec.EllipticCurvePrivateNumbers) else {
        "p": numbers.p, "q": numbers.q, "d": numbers.d, "dp": numbers.dmp1, "dq": numbers.dmq1, "qinv": numbers.iqmp,
    }  # fmt: skip
    for name, number in named.items():
        octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
        # A part of it is enough to be found, wherever it was cut.
        yield f"{name} big-endian", octets[:16]
        yield f"{name} little-endian", octets[::-1][:16]


def found_in(memory: bytes, secrets: dict[str, bytes]) -> dict[str, int]:
    """How often each secret is there."""
    counts = {what: memory.count(octets) for what, octets in secrets.items()}
    return {what: count for what, count in counts.items() if count}
