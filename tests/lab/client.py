"""The other end: a mail program that submits, or a stranger who tries to."""

from __future__ import annotations

import email.utils
import smtplib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


@dataclass(frozen=True)
class Client:
    """A client certificate and its key; `certificate` may hold the chain."""

    certificate: Path
    key: Path | None = None


@dataclass(frozen=True)
class Reply:
    """What became of an attempt: how far it came, and the server's last word or the error."""

    accepted: bool
    stage: str
    code: int | None
    text: str


def compose(
    sender: str, recipient: str, body: str = "Good morning.\r\n", *, subject: str = "test", extra: str = ""
) -> bytes:
    """A message as a mail program sends it. `sender` is the whole content of From:, `extra` is whole header lines."""
    return (
        f"From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\nDate: {email.utils.formatdate()}\r\n"
        f"Message-ID: {email.utils.make_msgid(domain='client.test')}\r\nMIME-Version: 1.0\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n{extra}\r\n{body}"
    ).encode()


class Connection(smtplib.SMTP):
    """A client's end of a connection, which tells why the server refused."""

    def send(self, s: str | Buffer) -> None:
        """As smtplib does; but when writing fails, the server's alert is still to be read, and that says why."""
        assert self.sock
        try:
            self.sock.sendall(s.encode() if isinstance(s, str) else s)
        except OSError:
            self.sock.recv(1)
            raise


def tls_context(
    client: Client | None = None, tls: ssl.TLSVersion | None = None, server_ca: Path | None = None
) -> ssl.SSLContext:
    """What a client agrees to: `tls` is the one version; without `server_ca` the server's certificate is unchecked."""
    context = ssl.create_default_context(cafile=str(server_ca) if server_ca else None)
    if not server_ca:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if tls:
        context.minimum_version = context.maximum_version = tls
        if tls < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if client:
        context.load_cert_chain(client.certificate, client.key)
    return context


def submit(
    address: tuple[str, int],
    source: str,
    sender: str,
    recipients: list[str],
    message: bytes,
    *,
    client: Client | None = None,
    login: tuple[str, str] | None = None,
    tls: ssl.TLSVersion | None = None,
    server_name: str = "",
    server_ca: Path | None = None,
    start_tls: bool = True,
) -> Reply:
    """Submits one message: 465 with TLS from the first byte, other ports by STARTTLS unless `start_tls` is false.

    `tls` admits exactly that version; without `server_ca` the server's certificate is not checked.
    """
    context = tls_context(client, tls, server_ca)
    smtp = Connection(local_hostname="client.far.test")

    def secure() -> None:
        assert smtp.sock
        smtp.sock = context.wrap_socket(smtp.sock, server_hostname=server_name or None)
        smtp.file = None

    stage = "connect"
    try:
        smtp.sock = socket.create_connection(address, 20, (source, 0))
        if address[1] == 465:
            stage = "tls"
            secure()
        _expect(smtp.getreply(), 220)
        if address[1] != 465 and start_tls:
            stage = "tls"
            smtp.ehlo()
            _expect(smtp.docmd("STARTTLS"), 220)
            secure()
        _expect(smtp.ehlo(), 250)
        if login:
            stage = "auth"
            smtp.login(*login)
        stage = "mail"
        _expect(smtp.mail(sender), 250)
        stage = "rcpt"
        for recipient in recipients:
            _expect(smtp.rcpt(recipient), 250)
        stage = "data"
        code, text = smtp.data(message)
        _expect((code, text), 250)
        smtp.quit()
        return Reply(True, stage, code, text.decode())
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error
        return Reply(False, stage, error.smtp_code, said.decode() if isinstance(said, bytes) else said)
    except (OSError, smtplib.SMTPException) as error:
        return Reply(False, stage, None, str(error))
    finally:
        smtp.close()


def _expect(reply: tuple[int, bytes], code: int) -> None:
    if reply[0] != code:
        raise smtplib.SMTPResponseException(*reply)
