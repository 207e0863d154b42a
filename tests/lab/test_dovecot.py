"""Debian's Dovecot with what README.md tells the administrator to add to it, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import Lab, Person, Site, compose, wait_until
from lab.test_installed import code_block


# There is no syslog here, and nobody waits for the delays that slow a guesser down.
FOR_THE_TEST = """
log_path = /dev/stderr
auth_failure_delay = 0
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
"""

# README.md has this line taken out, for it would ask PAM first.
AUTH_CONF, PAM = "/etc/dovecot/conf.d/10-auth.conf", "!include auth-system.conf.ext"


@pytest.fixture(scope="module")
def dovecot_lab(site: Site) -> Iterator[Lab]:
    """A laboratory of this module's own, whose Dovecot has Debian's configuration and the block of README.md."""
    with site.lab() as lab:
        with_pam = lab.mx.path(AUTH_CONF).read_text()
        assert PAM in with_pam.splitlines()
        lab.mx.write(AUTH_CONF, with_pam.replace(PAM, f"#{PAM}"))
        lab.mx.write("/etc/dovecot/local.conf", FOR_THE_TEST + code_block("service lmtp"))
        lab.dovecot.command = ("dovecot", "-F")
        lab.start()
        yield lab


@pytest.mark.parametrize("address", ["alice@example.com", "Bob@Example.com"])
def test_dovecot_takes_the_password_that_opensmtpd_takes(dovecot_lab: Lab, site: Site, address: str) -> None:
    password = site.person(address.lower()).login[1]
    assert "auth succeeded" in dovecot_lab.mx.run("doveadm", "auth", "test", address, password).stdout


@pytest.mark.parametrize("address", ["alice@example.com", "nobody@example.com", "alice", "root"])
def test_dovecot_refuses_a_wrong_password(dovecot_lab: Lab, address: str) -> None:
    done = dovecot_lab.mx.run("doveadm", "auth", "test", address, "wrong", check=False)
    assert done.returncode != 0 and "auth failed" in done.stdout


def test_dovecot_refuses_a_colleagues_password(dovecot_lab: Lab, bob: Person) -> None:
    done = dovecot_lab.mx.run("doveadm", "auth", "test", "alice@example.com", bob.login[1], check=False)
    assert done.returncode != 0 and "auth failed" in done.stdout


def test_mail_reaches_the_mailbox(dovecot_lab: Lab) -> None:
    message = compose("dave@far.test", "alice@example.com")
    reply = dovecot_lab.submit("dave@far.test", "alice@example.com", message, port=25)
    assert reply.accepted, reply
    wait_until(lambda: fetched(dovecot_lab, "alice@example.com"), "the mail in Dovecot's mailbox")


def fetched(lab: Lab, address: str) -> str:
    """The subjects in a person's mailbox, as Dovecot itself tells them."""
    return lab.mx.run("doveadm", "fetch", "-u", address, "hdr.subject", "mailbox", "INBOX", check=False).stdout
