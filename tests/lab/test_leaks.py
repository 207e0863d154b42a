"""No secret is anywhere but where it belongs: not in a public file, not in what is said, not in memory at the end."""

from __future__ import annotations

import base64
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.faults import files, run
from lab.memory import found_in, memory_at_the_end, secrets_of

CHOSEN = "correct horse battery"
# A key pair of age for these tests alone.
IDENTITY = "AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0SWRYDWG"
RECIPIENT = "age13aqvttdk3ujkyjh9kg2w5an6dmy5mq5a84a4uxk3hfhnugfc9p0sy5p2wh"

LIST = f"""address,name,device,password
dora@example.com,Dora,phone,
emil@example.com,"Emil, E",,"{CHOSEN}"
bob@example.com,Bob,tablet,
emil@example.com,Emil,My Phone,{CHOSEN}
"""

MONTH = time.strftime("%Y%m", time.gmtime())
# Nobody answers there.
NOBODY = "--resolver 127.0.0.1:1"

# Everything that the program does, in this order on one site; `{own}` is a directory of the administrator's.
COMMANDS = [
    "init example.com --user alice@example.com",
    "bless",
    "user add bob@example.com --apple",
    "user add carol@example.com --key rsa2048 --password-file {own}/password",
    "user passwd bob@example.com",
    "user import {own}/users.csv --archive {own}/users.tar --with-passwords",
    "ca show",
    "dkim import example.com old {own}/old.key",
    "reports import {own}/reports",
    "reports show",
    "reports show example.com",
    "dkim list",
    f"dkim confirm {MONTH}r old",
    f"dkim rotate {NOBODY}",
    f"dkim confirm {MONTH}e2",
    f"dkim advance {NOBODY}",
    f"dkim revoke {MONTH}r",
    "dkim confirm --in-force",
    f"rollout advance {NOBODY}",
    "rollout list",
    "dns",
    "dns --output {own}/dns",
    "render",
    "diff",
    "user list",
    "server list",
    "status",
    "status --all",
    "tick --dry-run",
    "tick",
    "ca renew",
    "ca export {own}/ca",
    "server renew",
    "server renew --same-key",
    "plan --root {own}/root",
    "apply --root {own}/root",
    "user handout carol@example.com",
    "fsck",
    "export --index",
    "backup {own}/by-passphrase.age --passphrase-file {own}/password",
    "backup {own}/by-key.age --recipient " + RECIPIENT,
    "restore {own}/by-key.age --identity {own}/identity",
    "user remove bob@example.com",
    "user confirm --all",
    "plan --root {own}/root",
    "render --help",
    "user add erin@example.com",
    "user add frank@example.com",
    "user remove frank@example.com",
    "ca crl --refresh",
    "ca renew --clients --overlap 1d",
    "ca retire",
    "user list",
]

# From the first of these on, and before the last one, there is one CA for all.
FIRST_WITH_ONE_CA, LAST = "user add erin@example.com", len(COMMANDS) - 1


def trust(site: Path, word: str) -> None:
    """Writes into the settings whom the daemons trust."""
    settings = site / "postseal.toml"
    text, changed = re.subn(r"(# )?clients\.trust = .*", f'clients.trust = "{word}"', settings.read_text())
    assert changed == 1
    settings.write_text(text)


# Which secret may be in which file, below the site.
BELONGS = {
    "CA passphrase": "state/ca.passphrase",
    "age identity": "(nowhere here)",
    "backup passphrase": r"state/passwords/(carol|emil)@example.com/password",
    "key of ": "(nowhere readable)",
    "CA key": "(nowhere readable)",
    "DKIM seed ": r"state/keys/\w+\.key|out/[^/]+/root/var/lib/rspamd/.*",
    "hash of ": r"state/ledger\.sqlite|out/[^/]+/root/etc/mail/postseal/credentials",
    "key ": r"state/keys/\w+\.key|out/[^/]+/root/(etc/mail/postseal/tls/.*\.key|var/lib/rspamd/.*)",
    "password ": r"state/passwords/.*",
}


@dataclass
class Story:
    """What was said while the commands ran, and every secret that there ever was."""

    site: Path
    said: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        own = Path(directory)
        (own / "password").write_text(CHOSEN)
        (own / "users.csv").write_text(LIST)
        (own / "identity").write_text(IDENTITY)
        (own / "old.key").write_text("nWGxne/9WmC6hEr0kuwsxERJxXN7MmkZcDusAxyuf2A=\n")
        (own / "root").mkdir()
        shutil.copytree(Path(__file__).parents[2] / "fuzz/seeds/report", own / "reports")
        story = Story(own / "site")
        for number, command in enumerate(COMMANDS):
            if command == FIRST_WITH_ONE_CA or number == LAST:
                trust(story.site, "pinned" if number == LAST else "ca")
            format = ["--format", "json" if number % 2 else "human"]
            place = own / "again" if command.startswith("restore") else story.site
            arguments = [*command.format(own=own).split(), *format, "--site", str(place)]
            # What execve is given is what /proc/PID/cmdline and environ show.
            log = own / "trace"
            done = run(arguments, before=("strace", "-f", "--seccomp-bpf", "-v", "-s", "99999", "-o", str(log), "-e", "trace=execve"))
            assert done.code in (0, 1), done
            story.said[command] = log.read_bytes() + done.out.encode() + done.talk.encode()
            now = secrets_of(story.site) | {"age identity": IDENTITY.encode(), "backup passphrase": CHOSEN.encode()}
            # A password that was replaced is a secret still.
            story.secrets |= {f"{what} after {number}" if story.secrets.get(what, octets) != octets else what: octets
                              for what, octets in now.items()}  # fmt: skip
        for backup in own.glob("*.age"):
            found = found_in(backup.read_bytes(), story.secrets)
            assert not found, f"{found} in {backup}"
        yield story


def test_nothing_that_is_said_and_no_argument_holds_a_secret(story: Story) -> None:
    wrong = {command: found for command, said in story.said.items() if (found := found_in(said, story.secrets))}
    assert not wrong


def test_every_secret_lies_where_it_belongs_only(story: Story) -> None:
    wrong = []
    for path in files(story.site):
        name = path.relative_to(story.site).as_posix()
        for what in found_in(path.read_bytes(), story.secrets) if path.is_file() else ():
            belongs = next(place for start, place in BELONGS.items() if what.startswith(start))
            if not re.fullmatch(belongs, name):
                wrong.append(f"{what} is in {name}")
    assert not wrong, wrong


def test_of_who_was_removed_nothing_stays(story: Story) -> None:
    bobs = {what: octets for what, octets in story.secrets.items() if "bob@example.com" in what}
    assert len(bobs) > 3
    found = {path: kinds for path in files(story.site) if path.is_file() and (kinds := found_in(path.read_bytes(), bobs))}
    assert not found


# SQLite frees its pages without wiping them, and offers no way to; a hash is as long in the memory of OpenSMTPD.
LEFT_BY_SQLITE = "hash of "


ONE_CA = [
    "user add dave@example.com --device under-one-ca",
    "user remove erin@example.com",
    "ca crl --refresh",
    "ca renew --clients",
    "ca renew --clients --now",
]


@pytest.mark.parametrize(
    "command",
    [
        "user add dave@example.com --apple",
        "user add dave@example.com --key rsa2048 --password-file {own}/password",
        "user import {own}/users.csv --archive {own}/users.tar --with-passwords",
        "user passwd alice@example.com",
        "user remove alice@example.com",
        "user renew alice@example.com --apple",
        "user revoke alice@example.com --reason lost",
        "user show alice@example.com",
        "status",
        "tick",
        "user list",
        "server renew",
        "ca renew",
        f"dkim rotate --all {NOBODY}",
        f"dkim advance {NOBODY}",
        f"dkim revoke {MONTH}e._domainkey.example.net",
        "render",
        "bless",
        "diff",
        "plan --root {own}/root",
        "apply --root {own}/root",
        *ONE_CA,
        "fsck",
        "backup {own}/new.age --passphrase-file {own}/password",
        "backup {own}/new.age --recipient " + RECIPIENT,
        "restore {own}/site.age --passphrase-file {own}/password",
        "restore {own}/site.age --passphrase-file {own}/password --root {own}/root",
        "user handout alice@example.com --done",
        "init example.com --user alice@example.com",
        "init example.com --ca-key rsa2048 --ca-passphrase-file {own}/password --user alice@example.com",
    ],
)
def test_in_memory_no_secret_outlives_its_use(command: str, story: Story) -> None:
    with tempfile.TemporaryDirectory(dir=story.site.parent) as directory:
        own = Path(directory)
        (own / "password").write_text(CHOSEN)
        (own / "users.csv").write_text(LIST.replace("My Phone", "phone"))
        (own / "root").mkdir()
        site = own / "site"
        secrets = {"a chosen password": CHOSEN.encode()}
        if not command.startswith("init"):
            shutil.copytree(story.site, site)
            if command in ONE_CA:
                trust(site, "ca")
            with (site / "postseal.toml").open("a") as settings:
                settings.write('\n[[domain]]\nname = "example.net"\n')
            assert run(["render", "--site", str(site)]).code == 0
            run(["bless", "--site", str(site)])
            secrets |= secrets_of(site)
        if command.startswith("restore"):
            backup = ["backup", str(own / "site.age"), "--passphrase-file", str(own / "password"), "--site", str(site)]
            assert run(backup).code == 0
            (own / "root").rmdir()
            shutil.copytree(next(site.glob("out/*/root")), own / "root")
            site = own / "again"
        memory = memory_at_the_end([*command.format(own=own).split(), "--site", str(site)])
        if (site / "state/ca.passphrase").exists():
            secrets |= secrets_of(site)
        # The search would find them: what is no secret is there.
        assert str(site).encode() in memory
        left = {what for what in found_in(memory, secrets) if not what.startswith(LEFT_BY_SQLITE)}
        assert not left


def test_the_forms_that_are_looked_for_are_those_that_keys_have(story: Story) -> None:
    for path in (story.site / "state/keys").iterdir():
        text = path.read_bytes()
        if b"BEGIN PRIVATE KEY" in text:
            octets = base64.b64decode(b"".join(text.splitlines()[1:-1]))
            wanted = {what: octets for what, octets in story.secrets.items() if path.name in what and "little" not in what}
            assert wanted and found_in(text + octets, wanted).keys() == wanted.keys()
