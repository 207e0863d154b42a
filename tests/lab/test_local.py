"""The host's own mail, and what others on the host can reach."""

from __future__ import annotations

import re

import pytest

from lab import SIGNED, Lab, compose, verdicts

SOCKETS = ["/run/rspamd/normal.sock", "/run/rspamd/controller.sock"]

CONNECT = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect(sys.argv[1])
except OSError as error:
    print(type(error).__name__)
else:
    print("connected")
"""

RELAY = """
import smtplib, sys
with smtplib.SMTP(sys.argv[1], 25, "localhost", timeout=20) as smtp:
    smtp.ehlo()
    print(smtp.mail("alice@example.com")[0], smtp.rcpt(sys.argv[2])[0])
"""


def unix_lines(message: bytes) -> bytes:
    """A message as programs hand it to sendmail."""
    return message.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("user", [None, "nobody"], ids=["root", "nobody"])
def test_a_program_that_calls_sendmail_reaches_the_world_with_valid_signatures(lab: Lab, user: str | None) -> None:
    message = compose("alice@example.com", "erin@far.test")
    lab.mx.run("sendmail", "-f", "alice@example.com", "erin@far.test", input=unix_lines(message), user=user)
    assert verdicts(lab.arrived("erin@far.test", message), lab.live_txt) == SIGNED


@pytest.mark.parametrize("recipient", ["root", "root@localhost", "www-data"])
def test_crons_mail_reaches_the_postmaster(lab: Lab, recipient: str) -> None:
    message = compose("root (Cron Daemon)", recipient, "cron said something\r\n")
    lab.mx.run("sendmail", "-i", "-FCronDaemon", "-B8BITMIME", "-oem", recipient, input=unix_lines(message))
    assert b"cron said something" in lab.arrived("alice@example.com", message)


def test_a_program_that_calls_sendmail_reaches_a_mailbox_of_the_site(lab: Lab) -> None:
    message = compose("alice@example.com", "bob@example.com")
    lab.mx.run("sendmail", "-f", "alice@example.com", "bob@example.com", input=unix_lines(message))
    assert lab.arrived("bob@example.com", message)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_port_25_of_the_loopback_relays_nothing(lab: Lab, address: str) -> None:
    assert lab.mx.run("python3", "-c", RELAY, address, "erin@far.test").stdout == "250 550\n"


@pytest.mark.parametrize("socket", SOCKETS)
@pytest.mark.parametrize("user", ["nobody", "opensmtpd", "vmail"])
def test_no_other_user_can_open_rspamds_sockets(lab: Lab, user: str, socket: str) -> None:
    """Whoever opens them can name any login, and have mail of any domain signed."""
    assert lab.mx.run("python3", "-c", CONNECT, socket, user=user).stdout == "PermissionError\n"


@pytest.mark.parametrize("socket", SOCKETS)
def test_rspamds_own_user_can_open_its_sockets(lab: Lab, socket: str) -> None:
    assert lab.mx.run("python3", "-c", CONNECT, socket, user="_rspamd").stdout == "connected\n"


def test_the_filter_runs_as_the_mail_daemons_user_with_rspamds_group(lab: Lab) -> None:
    lines = lab.mx.run("ps", "-eo", "user:20,group:20,supgrp:40,args").stdout.splitlines()
    [line] = [line for line in lines if "filter-rspamd" in line and "/bin/sh" not in line]
    assert line.split()[:3] == ["opensmtpd", "_rspamd", "_rspamd"]


def test_only_the_three_mail_ports_listen(lab: Lab) -> None:
    listening = lab.mx.run("ss", "-Hltnu").stdout.splitlines()
    assert {line.split()[4].rpartition(":")[2] for line in listening} == {"25", "465", "587"}


@pytest.mark.parametrize("port", [11332, 11333, 11334])
def test_rspamds_usual_ports_are_closed(lab: Lab, port: int) -> None:
    assert not re.search(rf":{port}\b", lab.mx.run("ss", "-Hltn").stdout)
