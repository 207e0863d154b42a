"""The mail to users before their certificates end: read by Python's own parser, and carried by the real smtpd."""

from __future__ import annotations

import email
import email.policy
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from lab import Lab
from lab.site import Site

KEEP = """#!/bin/sh
cat >"{place}/mail-$$"
echo "$*" >"{place}/arguments-$$"
"""

GERMAN = """Guten Tag, »{{ address | text }}«,

das Zertifikat für »{{ device | text }}« läuft am {{ day | text }} ab (in {{ left | text }}). € 😀

.
From hier an hilft {{ from | text }}.
"""


@dataclass(frozen=True)
class Sent:
    """A mail as sendmail was given it."""

    raw: bytes
    arguments: list[str]

    @property
    def message(self) -> EmailMessage:
        return email.message_from_bytes(self.raw, policy=email.policy.strict.clone(linesep="\n", raise_on_defect=True))


def ticked(site: Site, place: Path, template: str | None = None) -> Sent:
    """What one `tick` sends to Alice, whose certificate ends in three days and a bit."""
    copy = site.copy(place / "site")
    sendmail = place / "sendmail"
    sendmail.write_text(KEEP.format(place=place))
    sendmail.chmod(0o755)
    settings = copy.directory / "postseal.toml"
    text = settings.read_text().replace("# notify.before", "notify.before")
    settings.write_text(text.replace('# notify.sendmail = "/usr/sbin/sendmail"', f'notify.sendmail = "{sendmail}"'))
    if template:
        (copy.directory / "templates/mail").mkdir(parents=True)
        (copy.directory / "templates/mail/expiry.txt").write_text(template)
    copy.run("render")
    with closing(sqlite3.connect(copy.directory / "state/ledger.sqlite")) as sql, sql:
        end = int(time.time()) + 3 * 86400 + 3600
        change = "UPDATE certificate SET not_before = ?1 - 31536000, not_after = ?1 WHERE address = 'alice@example.com'"
        assert sql.execute(change, (end,)).rowcount == 1
    assert "told 1 user by mail" in copy.run("tick")
    assert copy.run("tick") == "nothing is due\n"
    [mail], [arguments] = place.glob("mail-*"), place.glob("arguments-*")
    return Sent(mail.read_bytes(), arguments.read_text().split())


@pytest.mark.parametrize("template", [None, GERMAN], ids=["built-in", "own"])
def test_the_mail_is_one_that_a_strict_reader_takes(site: Site, tmp_path: Path, template: str | None) -> None:
    sent = ticked(site, tmp_path, template)
    assert sent.raw.isascii() and b"\r" not in sent.raw
    assert all(len(line) <= 78 for line in sent.raw.splitlines())
    message = sent.message
    assert message.defects == []
    assert (message["From"], message["To"]) == ("postmaster@example.com", "alice@example.com")
    assert message["Subject"].startswith("Your certificate for default ends on 20")
    assert abs(parsedate_to_datetime(message["Date"]).timestamp() - time.time()) < 120
    assert message["Auto-Submitted"] == "auto-generated"
    assert len(message.keys()) == len({name.lower() for name in message.keys()})
    assert message.get_content_type() == "text/plain" and message.get_content_charset() == "utf-8"
    body = message.get_content()
    assert "3 days" in body and "{" not in body
    if template:
        assert body.startswith("Guten Tag, »alice@example.com«,\n") and "€ 😀" in body and "\n.\nFrom hier an" in body


def test_smtpds_own_sendmail_takes_it_and_it_is_delivered(lab: Lab, site: Site, tmp_path: Path) -> None:
    sent = ticked(site, tmp_path)
    assert sent.arguments == ["-i", "-t", "-f", "postmaster@example.com"]
    lab.mx.run("sendmail", *sent.arguments, input=sent.raw)
    # Other tests' mail may lie there: it is known by its Message-ID.
    mail = lab.arrived("alice@example.com", sent.raw)
    delivered = email.message_from_bytes(mail, policy=email.policy.default)
    assert delivered["Return-Path"] in (None, "<postmaster@example.com>")
    assert isinstance(delivered, EmailMessage) and delivered.get_content().strip() == sent.message.get_content().strip()
