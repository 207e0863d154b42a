"""The laboratory as a whole: the host under test, and the world that it talks to."""

from __future__ import annotations

import contextlib
import shutil
import signal
import smtplib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

from lab import client as mail_client
from lab.client import Client, Reply
from lab.dkim import Txt
from lab.host import Daemon, DaemonFailed, Host, add_address, connect, wait_until
from lab.manifest import Entry, install, read_manifest

MX4, MX6 = "203.0.113.10", "2001:db8:113::10"
NAME_SERVER, CLIENT4, CLIENT6, FAR = "198.51.100.53", "198.51.100.20", "2001:db8:51::20", "198.51.100.25"

CACHE = Path(__file__).parents[2] / "target/lab-cache"

NAMED_CONF = """
options {{ directory "/run/named"; pid-file none; listen-on {{ {address}; }}; listen-on-v6 {{ none; }};
          recursion no; dnssec-validation no; notify no; allow-transfer {{ any; }}; }};
controls {{ }};
"""

# The far server keeps mail for any name, except that its own people's mail to example.com goes where MX says.
FAR_CONF = f"""
table far {{ "@" = vmail }}
listen on {FAR} port 25 hostname mx.far.test
action sink maildir "/var/vmail/%{{rcpt.domain:lowercase}}/%{{rcpt.user:lowercase}}" virtual <far>
action out relay
match from socket for domain "example.com" action out
match from any for any action sink
"""

FAR_ZONES = {
    "far.test": f"@ MX 10 mx.far.test.\nmx A {FAR}\nclient A {CLIENT4}\nns A {NAME_SERVER}\n",
    "100.51.198.in-addr.arpa": "20 PTR client.far.test.\n25 PTR mx.far.test.\n",
    # Rspamd calls its configuration wrong if it cannot resolve these.
    "rspamd.com": f"fuzzy1 A {NAME_SERVER}\nfuzzy2 A {NAME_SERVER}\n",
    ".": f"ns.far.test. A {NAME_SERVER}\n",
}

# The administrator's part, which is not rendered: a mail store that takes every mailbox of a list by LMTP.
DOVECOT_CONF = """
protocols = lmtp
log_path = /dev/stderr
ssl = no
mail_location = maildir:/var/vmail/%Ld/%Ln
recipient_delimiter = +
first_valid_uid = 1
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = passwd-file
  args = username_format=%Lu /etc/dovecot/lab-users
  default_fields = uid=vmail gid=vmail home=/var/vmail/%Ld/%Ln
}
service lmtp {
  unix_listener lmtp {
    user = vmail
    group = opensmtpd
    mode = 0660
  }
}
"""


class Lab:
    """A host under test at 203.0.113.10 / 2001:db8:113::10, and a world of one host with

    * the name server 198.51.100.53: BIND, authoritative for everything; what it does not know does not exist;
    * a far mail server mx.far.test, 198.51.100.25: OpenSMTPD, whose mail is read with `lab.delivered("bob@far.test")`;
    * the client's addresses 198.51.100.20 and 2001:db8:51::20.

    `root` and `manifest` are a rendered tree, installed unmodified. `zones` are fragments without SOA and NS.
    `mailboxes` are the addresses that Dovecot delivers to.
    """

    def __init__(
        self,
        root: Path,
        manifest: Path | list[Entry],
        zones: dict[str, str],
        mailboxes: list[str],
        *,
        host_name: str = "mx.example.com",
        server_name: str = "",
        server_ca: Path | None = None,
        rspamd_socket: str = "/run/rspamd/normal.sock",
    ) -> None:
        self._tree = root, manifest
        self._mailboxes = mailboxes
        self._serial = 0
        self._rspamd_socket = rspamd_socket
        self.host_name, self.server_name, self.server_ca = host_name, server_name or host_name, server_ca
        self.zones = {**FAR_ZONES, "113.0.203.in-addr.arpa": f"10 PTR {host_name}.\n", **zones}

    def __enter__(self) -> Lab:
        with contextlib.ExitStack() as stack:
            self.mx = stack.enter_context(Host(self.host_name))
            self.far = stack.enter_context(Host("mx.far.test"))
            self._wire()
            self._furnish()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        try:
            if error and not isinstance(error, DaemonFailed):
                for daemon in self.daemons:
                    error.add_note(f"{daemon.name}, the end of its log:\n{daemon.log_end(15)}")
            self._keep_cache()
        finally:
            self._stack.close()

    def _wire(self) -> None:
        connect(self.mx, self.far)
        for address in (f"{MX4}/32", f"{MX6}/128"):
            add_address(self.mx, address)
        for address in (f"{CLIENT4}/32", f"{NAME_SERVER}/32", f"{FAR}/32", f"{CLIENT6}/128"):
            add_address(self.far, address)

    def _furnish(self) -> None:
        """What an administrator does before the tree is installed, and the installation."""
        for host in (self.mx, self.far):
            host.write("/etc/resolv.conf", f"nameserver {NAME_SERVER}\noptions timeout:1\n")
            host.add_user("vmail", "/var/vmail")
            host.directory("/var/vmail", "vmail", "vmail", 0o750)
        self.far.write("/etc/smtpd.conf", FAR_CONF)
        self.far.directory("/run/named", "bind", "bind", 0o755)
        self.mx.directory("/run/rspamd", "_rspamd", "_rspamd", 0o755)
        self.mx.write("/etc/dovecot/lab.conf", DOVECOT_CONF)
        self.mx.write("/etc/dovecot/lab-users", "".join(f"{address}:::::::\n" for address in self._mailboxes))
        self.install(*self._tree)

        self.named = Daemon(
            self.far, "named", "named", "-g", "-u", "bind", "-c", "/etc/bind/lab.conf", ready=self._zones_live
        )
        self.far_smtpd = Daemon(self.far, "far-smtpd", "smtpd", "-d", ready=lambda: self._greets(FAR))
        self.rspamd = Daemon(
            self.mx,
            "rspamd",
            "rspamd",
            "-f",
            "-c",
            "/etc/rspamd/rspamd.conf",
            user="_rspamd",
            ready=self._rspamd_answers,
            own_log="/var/log/rspamd/rspamd.log",
        )
        self.dovecot = Daemon(
            self.mx, "dovecot", "dovecot", "-F", "-c", "/etc/dovecot/lab.conf", ready=self._lmtp_answers
        )
        self.smtpd = Daemon(self.mx, "smtpd", "smtpd", "-d", ready=lambda: self._greets(MX4))
        self.daemons: tuple[Daemon, ...] = (self.named, self.far_smtpd, self.rspamd, self.dovecot, self.smtpd)

    def install(self, root: Path, manifest: Path | list[Entry]) -> None:
        """Installs a rendered tree over the one that is there, and restarts nothing."""
        install(self.mx, root, manifest if isinstance(manifest, list) else read_manifest(manifest.read_text()))

    def start(self) -> None:
        """Starts everything, the host's smtpd last, as an administrator does."""
        self._write_zones()
        self._use_cache()
        for daemon in self.daemons:
            # Without its cache, on a busy machine, Rspamd needs most of a minute.
            daemon.start(seconds=180 if daemon is self.rspamd else 30)

    # The name server

    def publish(self, zones: dict[str, str]) -> None:
        """Replaces zones; returns when BIND serves them."""
        self.zones.update(zones)
        self._write_zones()
        self.named.signal(signal.SIGHUP)
        wait_until(self._zones_live, "the new zones")

    def _write_zones(self) -> None:
        self._serial += 1
        conf = NAMED_CONF.format(address=NAME_SERVER)
        for name, text in self.zones.items():
            origin = name.rstrip(".") + "."
            file = f"/run/named/zone-{name}"
            soa = f"@ SOA ns.far.test. hostmaster.far.test. {self._serial} 3600 600 86400 60\n@ NS ns.far.test.\n"
            self.far.write(file, f"$ORIGIN {origin}\n$TTL 300\n{soa}$ORIGIN {origin}\n{text}\n")
            conf += f'zone "{origin}" {{ type primary; file "{file}"; }};\n'
        self.far.write("/etc/bind/lab.conf", conf)

    def _zones_live(self) -> bool:
        for name in self.zones:
            answer = self.query(name, "SOA").answer
            if not answer or answer[0][0].serial != self._serial:
                return False
        return True

    def query(self, name: str, kind: str) -> dns.message.Message:
        """Asks the name server; by TCP, which tells at once when nobody serves."""
        try:
            with self.far.network():
                return dns.query.tcp(dns.message.make_query(name, kind), NAME_SERVER, timeout=5)
        except dns.exception.DNSException as error:
            raise OSError(str(error)) from error

    @property
    def live_txt(self) -> Txt:
        """TXT answers of the running name server."""

        def txt(name: str) -> bytes | None:
            for found in self.query(name, "TXT").answer:
                if found.rdtype == dns.rdatatype.TXT:
                    return b"".join(found[0].strings)
            return None

        return txt

    # Mail

    def submit(
        self,
        sender: str,
        recipients: str | list[str],
        message: bytes,
        *,
        port: int = 465,
        client: Client | None = None,
        login: tuple[str, str] | None = None,
        tls: ssl.TLSVersion | None = None,
        start_tls: bool = True,
        ipv6: bool = False,
    ) -> Reply:
        """Submits a message from the client's address, as `lab.client.submit` says."""
        with self.far.network():
            return mail_client.submit(
                (MX6 if ipv6 else MX4, port),
                CLIENT6 if ipv6 else CLIENT4,
                sender,
                [recipients] if isinstance(recipients, str) else recipients,
                message,
                client=client,
                login=login,
                tls=tls,
                start_tls=start_tls,
                server_name=self.server_name,
                server_ca=self.server_ca,
            )

    @contextlib.contextmanager
    def session(
        self, port: int, *, client: Client | None = None, start_tls: bool = False, ipv6: bool = False
    ) -> Iterator[smtplib.SMTP]:
        """A connection from the client's address to say single commands on; 465 has TLS from the first byte."""
        context = mail_client.tls_context(client, server_ca=self.server_ca)
        smtp = mail_client.Connection(local_hostname="client.far.test")
        with self.far.network():
            plain = socket.create_connection((MX6 if ipv6 else MX4, port), 20, (CLIENT6 if ipv6 else CLIENT4, 0))
        try:
            smtp.sock = context.wrap_socket(plain, server_hostname=self.server_name) if port == 465 else plain
            assert smtp.getreply()[0] == 220
            smtp.ehlo()
            if start_tls:
                assert smtp.docmd("STARTTLS")[0] == 220
                smtp.sock, smtp.file = context.wrap_socket(plain, server_hostname=self.server_name), None
                smtp.ehlo()
            yield smtp
        finally:
            smtp.close()

    def inbox(self, address: str) -> list[bytes]:
        """The messages in a mailbox: of the far server for far.test, else of the host under test."""
        return [file.read_bytes() for file in self._home(address).inbox(address)]

    def delivered(self, address: str, count: int = 1, seconds: float = 15) -> list[bytes]:
        """Waits until a mailbox holds `count` messages, and takes all that it holds."""
        host = self._home(address)
        wait_until(lambda: len(host.inbox(address)) >= count, f"{count} message(s) for {address}", seconds)
        files = host.inbox(address)
        messages = [file.read_bytes() for file in files]
        for file in files:
            file.unlink()
        return messages

    def arrived(self, address: str, message: bytes, seconds: float = 15) -> bytes:
        """Waits for one message, known by its Message-ID, and takes it out of the mailbox."""
        [identity] = [line for line in message.splitlines() if line.lower().startswith(b"message-id:")]
        found: list[Path] = []

        def look() -> bool:
            found.extend(file for file in self._home(address).inbox(address) if identity in file.read_bytes())
            return bool(found)

        wait_until(look, f"a message for {address}", seconds)
        mail = found[0].read_bytes()
        found[0].unlink()
        return mail

    def _home(self, address: str) -> Host:
        return self.far if address.endswith("@far.test") else self.mx

    # When a daemon serves

    def _greets(self, address: str) -> bool:
        with self.far.network(), smtplib.SMTP(address, 25, "client.far.test", timeout=5, source_address=(CLIENT4, 0)):
            return True

    def _rspamd_answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.mx.path(self._rspamd_socket)))
            connection.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
            return b"pong" in connection.recv(4096)

    def _lmtp_answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.mx.path("/run/dovecot/lmtp")))
            return connection.recv(4096).startswith(b"220")

    # Rspamd compiles its expressions for eight seconds at a first start; what it made is kept from one run to the next.

    def _use_cache(self) -> None:
        for file in CACHE.glob("*.hs*"):
            self.mx.write(f"/var/lib/rspamd/{file.name}", file.read_bytes(), "_rspamd", "_rspamd")

    def _keep_cache(self) -> None:
        if not self.rspamd.running:
            return
        CACHE.mkdir(parents=True, exist_ok=True)
        for file in self.mx.path("/var/lib/rspamd").glob("*.hs*"):
            if not file.name.endswith(".new") and not (CACHE / file.name).exists():
                partial = CACHE / f"{file.name}.part"
                shutil.copyfile(file, partial)
                partial.rename(CACHE / file.name)
