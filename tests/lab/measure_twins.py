"""How OpenSMTPD and Dovecot bear long lists of twins: start-up, memory, handshake. No test: it prints a table.

    cd tests && ../target/lab-venv/bin/python -m lab.measure_twins [COUNT...]

As root, after `cargo build`. Each row is measured with the same daemon, configuration and client; only the list is longer. The
ratios are to the list of ten. docs/trust.md draws the conclusions.
"""

from __future__ import annotations

import secrets
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.client import Client, tls_context
from lab.forge import Identity, authority, client_certificate, client_of, key_pem, name, pem, server_certificate
from lab.host import Daemon, DaemonFailed, Host

COUNTS = [10, 1_000, 2_000, 2_100, 2_111, 2_112, 2_113, 2_114, 2_115, 3_000, 10_000]
HANDSHAKES = 40
SERVER, LIST = "/etc/ssl/measured.pem", "/etc/ssl/clients.pem"
PORT = {"smtpd": 465, "dovecot": 993, "dovecot-shared": 993}

SMTPD_CONF = f"""
pki "mail" cert "{SERVER}"
pki "mail" key "/etc/ssl/measured.key"
ca "clients" cert "{LIST}"
listen on 127.0.0.1 smtps verify pki "mail" ca "clients"
match from any for any reject
"""

DOVECOT_CONF = f"""
protocols = imap
log_path = /dev/stderr
mail_location = maildir:/tmp/mail
ssl = required
ssl_cert = <{SERVER}
ssl_key = </etc/ssl/measured.key
ssl_ca = <{LIST}
ssl_verify_client_cert = yes
auth_ssl_require_client_cert = yes
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/tmp/mail
}}
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
}}
"""

# Without it each connection has a process of its own, which reads the whole list.
SHARED = """
service imap-login {
  service_count = 0
  process_min_avail = 1
}
"""


@dataclass(frozen=True)
class Row:
    """What one list costs a daemon; with `failed` nobody gets in."""

    count: int
    start: float = 0
    memory: int = 0
    handshakes: tuple[float, float] = (0, 0)
    failed: str = ""


def measure(host: Host, kind: str, count: int, client: Client) -> Row:
    daemon = ("smtpd", "-d") if kind == "smtpd" else ("dovecot", "-F", "-c", f"/etc/dovecot/{kind}.conf")
    process = Daemon(host, f"{kind}-{count}", *daemon, ready=lambda: greet(host, kind, client))
    begun = time.monotonic()
    try:
        process.start(seconds=60)
        start = time.monotonic() - begun
        times = tuple(handshake(host, kind, client, version) for version in VERSIONS)
        return Row(count, start, memory(host, kind), times)
    except (DaemonFailed, OSError) as error:
        return Row(count, failed=why(str(error)) or why(refusal(host, kind, client)))
    finally:
        process.stop()
        time.sleep(0.3)


VERSIONS = (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2)


def greet(host: Host, kind: str, client: Client, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bool:
    """One whole connection: with TLS 1.3 a refusal comes only behind the handshake."""
    context = tls_context(client, version)
    with host.network():
        plain = socket.create_connection(("127.0.0.1", PORT[kind]), 10)
    with plain, context.wrap_socket(plain) as connection:
        return connection.recv(3) in (b"220", b"* O")


def handshake(host: Host, kind: str, client: Client, version: ssl.TLSVersion) -> float:
    times = []
    for _ in range(HANDSHAKES):
        begun = time.monotonic()
        assert greet(host, kind, client, version)
        times.append(time.monotonic() - begun)
    return statistics.median(times)


def memory(host: Host, kind: str) -> int:
    """The memory of all of the daemon's processes in KiB, what they share counted once."""
    total = 0
    for entry in Path(f"/proc/{host.pid}/root/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            names = ["smtpd"] if kind == "smtpd" else ["dovecot", "imap-login"]
            if any(name in words.decode(errors="replace") for name in names):
                rollup = (entry / "smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        except OSError:
            continue
    return total


def refusal(host: Host, kind: str, client: Client) -> str:
    """What a client is told, of each version of TLS."""
    said = []
    for version in VERSIONS:
        try:
            said.append(f"{version.name}: {'admitted' if greet(host, kind, client, version) else 'no greeting'}")
        except OSError as error:
            said.append(f"{version.name}: {error}")
    return "; ".join(said)


def why(text: str) -> str:
    return text.replace("\n", " | ")[-300:]


def make(count: int) -> list[Identity]:
    return [authority(name(secrets.token_hex(8))) for _ in range(count)]


def table(kind: str, rows: list[Row]) -> str:
    base = rows[0]
    lines = [f"{kind}: twins, then start-up, memory, TLS 1.3, TLS 1.2 (ratio to {base.count} twins)"]
    for row in rows:
        if row.failed:
            lines.append(f"{row.count:>7}  {row.failed}")
            continue
        cells = [
            (row.start * 1000, base.start * 1000, "ms"),
            (row.memory / 1024, base.memory / 1024, "MiB"),
            (row.handshakes[0] * 1000, base.handshakes[0] * 1000, "ms"),
            (row.handshakes[1] * 1000, base.handshakes[1] * 1000, "ms"),
        ]
        shown = (f"{value:8.1f} {unit} ({value / first:5.2f})" for value, first, unit in cells)
        lines.append(f"{row.count:>7}  {'  '.join(shown)}")
    return "\n".join(lines)


def main(counts: list[int], say: Callable[[str], object] = print) -> None:
    with tempfile.TemporaryDirectory() as directory, Host("measured.example.com") as host:
        site, client_ca = authority(name("Site")), authority()
        client = client_of(client_certificate("alice@example.com", client_ca), Path(directory))
        server = server_certificate("measured.example.com", site)
        host.write(SERVER, pem(server))
        host.write("/etc/ssl/measured.key", key_pem(server), mode=0o600)
        host.write("/etc/smtpd.conf", SMTPD_CONF)
        host.write("/etc/dovecot/dovecot.conf", DOVECOT_CONF)
        host.write("/etc/dovecot/dovecot-shared.conf", DOVECOT_CONF + SHARED)
        twins = [pem(twin) for twin in make(max(counts) - 1)]
        for kind in PORT:
            rows = []
            for count in counts:
                # The client's own is the last one: whoever searches the list has most to do.
                host.write(LIST, b"".join([*twins[: count - 1], pem(client_ca)]))
                rows.append(measure(host, kind, count, client))
            say(table(kind, rows))


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]] or COUNTS)
