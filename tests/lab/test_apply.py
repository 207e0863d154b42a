"""`plan` and `apply` on a host as Debian's packages leave it: what is installed, what is left alone, what is refused."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from lab import HOST, Host, Site
from lab.site import PROGRAM
from lab.test_installed import code_block

SMTPD_CONF, LOCAL_D, TABLES = "/etc/smtpd.conf", "/etc/rspamd/local.d", "/etc/mail/postseal"
SITE = "/srv/site/example.com"
# What an installation can touch.
PLACES = ["/etc/smtpd.conf", "/etc/mail", "/etc/rspamd", "/var/lib/rspamd"]


@dataclass(frozen=True)
class Said:
    """How a command of postseal's ended."""

    code: int
    out: str
    errors: str

    @property
    def codes(self) -> list[str]:
        """The codes of its diagnostics, in order."""
        return re.findall(r"^(?:error|warning)\[([a-z-]+)\]", self.errors, re.MULTILINE)

    @property
    def steps(self) -> dict[str, str]:
        """What was done or would be done to each path."""
        words = "create|change|repair|adopt|remove|keep|leave|not ours|blocked"
        return {path.rstrip("/"): word for word, path in re.findall(rf"^({words}) +(/\S+)", self.out, re.MULTILINE)}

    @property
    def told(self) -> list[str]:
        """What it says the daemons must be told."""
        return re.findall(r"^(?:now|then): (.*)$", self.out, re.MULTILINE)


class Machine:
    """A host with a site on it, and postseal."""

    def __init__(self, host: Host, site: Site) -> None:
        self.host = host
        archive = BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(site.directory, "example.com", filter=_as_root)
        host.directory("/srv/site", mode=0o755)
        host.run("tar", "-x", "-p", "-C", "/srv/site", input=archive.getvalue())
        self.program = str(PROGRAM)
        if not host.path(self.program).exists():
            # The program lies on a file system that the host does not see.
            self.program = "/usr/local/bin/postseal"
            host.write(self.program, PROGRAM.read_bytes(), mode=0o755)
        host.add_user("vmail", "/var/vmail")

    def run(self, *arguments: str, user: str | None = None) -> Said:
        command = [self.program, *arguments, "--site", SITE]
        done = self.host.run(*command, user=user, check=False)
        return Said(done.returncode, done.stdout, done.stderr)

    def apply(self, *arguments: str) -> Said:
        return self.run("apply", *arguments)

    def plan(self, *arguments: str) -> Said:
        return self.run("plan", *arguments)

    def installed(self) -> Machine:
        """The same host, with the site installed."""
        said = self.apply("--adopt", SMTPD_CONF)
        assert said.code == 0, said
        return self

    def edit(self, path: str, old: str, new: str) -> None:
        """Changes a file's text in place."""
        file = self.host.path(path)
        text = file.read_text()
        assert text.count(old) == 1, text
        file.write_text(text.replace(old, new))

    def state(self) -> str:
        """Every path that an installation can touch, with owner, mode and a digest of its content.

        Rspamd's cache of compiled expressions, which rspamadm writes too, is left out.
        """
        list_them = 'find "$@" ! -name "*.hs*"'
        script = f'{list_them} -printf "%p %u:%g %m %l\\n" | sort; {list_them} -type f | sort | xargs -d "\\n" sha256sum'
        return self.host.run("sh", "-c", script, "sh", *PLACES).stdout


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


@pytest.fixture
def fresh(site: Site) -> Iterator[Machine]:
    """A host as its packages leave it."""
    with Host(HOST) as host:
        yield Machine(host, site)


@pytest.fixture
def machine(fresh: Machine) -> Machine:
    """A host where the site is installed."""
    return fresh.installed()


def test_a_file_of_a_package_is_not_replaced_unasked(fresh: Machine) -> None:
    before = fresh.state()
    said = fresh.apply()
    assert (said.code, said.codes) == (1, ["not-ours"])
    assert f"--adopt {SMTPD_CONF}" in said.errors
    assert fresh.state() == before


def test_what_is_adopted_is_kept_in_the_site(fresh: Machine) -> None:
    before = fresh.host.path(SMTPD_CONF).read_text()
    said = fresh.apply("--adopt", SMTPD_CONF)
    [kept] = re.findall(rf"^kept what {SMTPD_CONF} held in (\S+)$", said.out, re.MULTILINE)
    assert fresh.host.path(kept).read_text() == before
    assert fresh.host.run("stat", "-c", "%a", kept).stdout == "600\n"


def test_every_file_has_content_owner_and_mode_of_the_rendering(machine: Machine, site: Site) -> None:
    host = machine.host
    for entry in site.manifest:
        said = host.run("stat", "-c", "%U %G %a", entry.path).stdout.split()
        assert said == [entry.owner, entry.group, f"{entry.mode:o}"], entry.path
        if not entry.is_directory:
            assert host.path(entry.path).read_bytes() == (site.root / entry.path[1:]).read_bytes(), entry.path


def test_the_daemons_own_checks_pass_and_nothing_else_is_left(machine: Machine) -> None:
    assert machine.host.run("smtpd", "-n").stderr == "configuration OK\n"
    assert machine.host.run("rspamadm", "configtest", user="_rspamd").stdout == "syntax OK\n"
    assert ".postseal" not in machine.state()


def test_a_second_apply_does_nothing(machine: Machine) -> None:
    before = machine.state()
    inodes = machine.host.run("stat", "-c", "%i", SMTPD_CONF, f"{TABLES}/credentials").stdout
    said = machine.apply()
    assert (said.code, said.steps, said.told) == (0, {}, [])
    assert machine.state() == before
    assert machine.host.run("stat", "-c", "%i", SMTPD_CONF, f"{TABLES}/credentials").stdout == inodes
    assert machine.plan().code == 0


def test_apply_does_what_plan_printed(machine: Machine) -> None:
    machine.run("user", "add", "dora@example.com")
    planned, done = machine.plan(), machine.apply()
    assert (planned.code, done.code) == (1, 0)
    assert planned.steps == done.steps
    assert planned.told == done.told == ["systemctl restart opensmtpd"]
    changed = {f"{TABLES}/{name}" for name in ("clients.pem", "credentials", "mailboxes", "senders")}
    assert done.steps == dict.fromkeys(changed, "change")
    assert machine.plan().code == 0


def test_plan_tells_what_an_interrupted_apply_left_to_be_told(machine: Machine) -> None:
    # What one that was killed between its last change and its report leaves.
    told = ["smtpctl update table credentials"]
    statement = f"INSERT INTO due VALUES ('{HOST}', '/', 'update credentials')"
    script = f"import sqlite3; sqlite3.connect('{SITE}/state/ledger.sqlite', isolation_level=None).execute({statement!r})"
    machine.host.run("/usr/bin/python3", "-c", script)
    planned = machine.plan()
    assert (planned.code, planned.steps, planned.told) == (1, {}, told)
    assert machine.apply().told == told
    assert (machine.plan().code, machine.plan().told) == (0, [])


def test_where_the_report_of_apply_is_lost_its_message_says_what_to_restart(machine: Machine) -> None:
    machine.run("user", "add", "dora@example.com")
    done = machine.host.run("sh", "-c", f"{machine.program} apply --site {SITE} >/dev/full", check=False)
    assert done.returncode == 3
    assert f"{HOST} is installed on /; now: systemctl restart opensmtpd" in done.stderr


def test_plan_fails_as_apply_does_where_a_package_is_missing(fresh: Machine) -> None:
    fresh.host.run("rm", "-r", "/var/lib/rspamd")
    planned, done = fresh.plan("--adopt", SMTPD_CONF), fresh.apply("--adopt", SMTPD_CONF)
    assert (planned.code, planned.codes) == (done.code, done.codes) == (3, ["not-installed"])


def test_plan_writes_nothing_and_shows_no_secret(machine: Machine) -> None:
    machine.run("user", "passwd", "alice@example.com")
    before = machine.state()
    said = machine.plan()
    assert said.steps == {f"{TABLES}/credentials": "change"}
    assert said.told == ["smtpctl update table credentials"]
    assert "$2b$" not in said.out + said.errors
    assert machine.state() == before


def test_a_file_changed_by_hand_is_kept_until_the_administrator_decides(machine: Machine) -> None:
    path = f"{LOCAL_D}/dmarc.conf"
    machine.host.path(path).write_text("# mine\n")
    machine.run("user", "passwd", "alice@example.com")
    before = machine.state()
    said = machine.apply()
    assert (said.code, said.codes) == (1, ["not-ours"])
    assert machine.state() == before
    assert "-# mine\n" in machine.plan().out
    kept = machine.apply("--keep", path)
    assert (kept.code, kept.steps) == (0, {path: "keep", f"{TABLES}/credentials": "change"})
    assert machine.host.path(path).read_text() == "# mine\n"


def test_owner_and_mode_are_put_right(machine: Machine) -> None:
    before = machine.state()
    credentials, keys = f"{TABLES}/credentials", "/var/lib/rspamd/dkim"
    machine.host.run("chmod", "0644", credentials)
    machine.host.run("chmod", "0777", keys)
    machine.host.run("chown", "vmail", f"{LOCAL_D}/dkim.conf")
    said = machine.apply()
    assert said.steps == dict.fromkeys([credentials, keys, f"{LOCAL_D}/dkim.conf"], "repair")
    assert machine.state() == before


def test_what_is_no_longer_rendered_is_removed_unless_it_was_changed(machine: Machine) -> None:
    settings = machine.host.path(f"{SITE}/postseal.toml")
    text = settings.read_text()
    settings.write_text(text.replace("[aliases]", '[[domain]]\nname = "example.org"\n\n[aliases]\n"postmaster@example.org" = "alice@example.com"'))
    assert machine.run("render").code == 0
    assert machine.apply().code == 0
    keys = sorted(str(path) for path in Path("/").joinpath(machine.host.path("/var/lib/rspamd/dkim")).glob("example.org.*"))
    assert len(keys) == 2
    settings.write_text(text)
    changed, gone = (f"/var/lib/rspamd/dkim/{Path(key).name}" for key in keys)
    machine.host.path(changed).write_text("by hand\n")
    said = machine.apply()
    assert (said.code, said.steps[gone], said.steps[changed]) == (0, "remove", "leave")
    assert not machine.host.path(gone).exists()
    assert machine.host.path(changed).read_text() == "by hand\n"


def test_a_key_that_was_deleted_is_made_anew_and_read(machine: Machine) -> None:
    machine.host.run("sh", "-c", "rm /var/lib/rspamd/dkim/*r.key")
    # Rspamd looks for it at the next mail: nothing needs to be told.
    assert machine.apply().told == []
    machine.host.run("sh", "-c", "test -s /var/lib/rspamd/dkim/*r.key")
    machine.host.run("sh", "-c", f"rm {TABLES}/tls/*.key")
    assert machine.apply().told == ["systemctl restart opensmtpd"]


def test_the_mend_of_a_hostile_file_name_can_be_typed_into_a_shell(machine: Machine) -> None:
    machine.host.run("sh", "-ec", f"mkdir {SITE}/templates && touch {SITE}/templates/'x; touch y' && chmod a+w {SITE}/templates/x*")
    said = machine.plan()
    assert said.codes == ["site-of-others"]
    assert f"chown root '{SITE}/templates/x; touch y'" in said.errors


def test_only_root_applies(machine: Machine) -> None:
    machine.host.run("chown", "-R", "vmail", SITE)
    said = machine.run("apply", user="vmail")
    assert (said.code, said.codes) == (3, ["not-root"])


@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_root_takes_no_orders_from_a_site_that_others_can_write(machine: Machine, verb: str) -> None:
    before = machine.state()
    for do, undo in [
        ("chown vmail postseal.toml", "chown root postseal.toml"),
        ("chmod g+w .", "chmod g-w ."),
        ("mkdir -m 0777 templates", "rmdir templates"),
        ("chmod o+w /srv/site", "chmod o-w /srv/site"),
        ("chown -R vmail state", "chown -R root state"),
    ]:
        machine.host.run("sh", "-ec", f"cd {SITE} && {do}")
        said = machine.run(verb)
        assert (said.code, said.codes) == (2, ["site-of-others"]), do
        machine.host.run("sh", "-ec", f"cd {SITE} && {undo}")
    assert machine.run(verb).code == 0
    assert machine.state() == before


def test_a_state_on_another_disk_is_reached_through_a_link_of_roots(machine: Machine) -> None:
    machine.host.run("sh", "-ec", f"mkdir /srv/crypt && mv {SITE}/state /srv/crypt && ln -s /srv/crypt/state {SITE}/state")
    assert machine.run("plan").code == 0
    machine.host.run("chown", "vmail", "/srv/crypt")
    said = machine.run("plan")
    assert (said.code, said.codes) == (2, ["site-of-others"])
    assert "`/srv/crypt` belongs to the user" in said.errors


def test_a_site_is_not_reached_through_a_link_that_others_can_turn(machine: Machine) -> None:
    machine.host.run("sh", "-ec", f"mkdir /srv/home && ln -s {SITE} /srv/home/site && ln -s /srv/home/site /srv/link")
    for site in ("/srv/home/site", "/srv/link"):
        machine.host.run("chown", "root", "/srv/home")
        assert machine.host.run(machine.program, "plan", "--site", site, check=False).returncode == 0
        machine.host.run("chown", "vmail", "/srv/home")
        done = machine.host.run(machine.program, "plan", "--site", site, check=False)
        assert (done.returncode, "site-of-others" in done.stderr) == (2, True), site


def test_whoever_became_root_by_sudo_is_trusted_with_the_own_site(machine: Machine) -> None:
    machine.host.run("chown", "-R", "vmail", SITE)
    number = machine.host.run("id", "-u", "vmail").stdout.strip()
    done = machine.host.run("env", f"SUDO_UID={number}", machine.program, "plan", "--site", SITE)
    assert done.returncode == 0


# What hinders an installation: the commands that prepare it, and the code that tells.
FAULTS = {
    "no filter": ("rm /usr/libexec/opensmtpd/filter-rspamd", "filter-missing"),
    "no authorities": ("rm /etc/ssl/certs/ca-certificates.crt", "system-ca-missing"),
    "no owner of mailboxes": ("userdel vmail", "account-missing"),
    "tables out of reach": ("chmod 0700 /etc/mail", "directory-closed"),
    "keys out of reach": ("chown root /var/lib/rspamd && chmod 0700 /var/lib/rspamd", "directory-closed"),
    "another file signs nothing": ("echo 'enabled = false;' >/etc/rspamd/override.d/dkim_signing.conf", "unsigned"),
    "another file signs otherwise": (
        "echo 'domain { \"example.com\" { selectors [ { selector = \"x\"; path = \"/x\"; } ] } }' >/etc/rspamd/override.d/dkim_signing.conf",
        "unsigned",
    ),
    "another file moves the socket": (
        "echo 'bind_socket = \"localhost:11333\";' >/etc/rspamd/override.d/worker-normal.inc",
        "rspamd-socket",
    ),
    "another file is broken": ("echo 'x = [' >/etc/rspamd/local.d/greylist.conf", "rspamd-refuses"),
    "a template is broken": (
        f"mkdir {SITE}/templates && echo 'listen on nowhere at all' >{SITE}/templates/smtpd.conf",
        "smtpd-refuses",
    ),
    "no Rspamd": ("mv /usr/bin/rspamadm /usr/bin/x", "not-installed"),
    "no OpenSMTPD": ("mv /usr/sbin/smtpd /usr/sbin/x", "not-installed"),
    "a link in the way": ("mv /etc/mail /srv/mail && ln -s /srv/mail /etc/mail", "in-the-way"),
    "a directory in the way": (f"rm {LOCAL_D}/dkim.conf && mkdir {LOCAL_D}/dkim.conf", "in-the-way"),
    "a key of any size": ("for key in /var/lib/rspamd/dkim/*; do truncate -s 1M $key; done", "in-the-way"),
    "an alien key": (
        "for key in /var/lib/rspamd/dkim/*; do echo x >$key; done",
        "not-ours",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_installed_where_it_would_not_work(machine: Machine, fault: str) -> None:
    command, code = FAULTS[fault]
    machine.run("user", "passwd", "alice@example.com")
    machine.host.run("sh", "-ec", command)
    before = machine.state()
    said = machine.apply()
    assert (said.code, set(said.codes)) == (1, {code}), said
    assert machine.state() == before


def test_a_file_saved_while_its_replacement_is_checked_is_kept(machine: Machine) -> None:
    machine.edit(f"{SITE}/postseal.toml", 'platform = "debian"', 'listen = ["0.0.0.0"]\nplatform = "debian"')
    # An editor that saves just when smtpd is asked.
    machine.host.run("mv", "/usr/sbin/smtpd", "/usr/sbin/smtpd.real")
    script = f"#!/bin/sh\necho '# mine' >>{SMTPD_CONF}\nexec /usr/sbin/smtpd.real \"$@\"\n"
    machine.host.write("/usr/sbin/smtpd", script, mode=0o755)
    said = machine.apply()
    assert (said.code, said.codes) == (1, ["changed-meanwhile"])
    assert machine.host.path(SMTPD_CONF).read_text().endswith("# mine\n")


@pytest.mark.parametrize(("error", "mend"), [("EROFS", "mount it for writing"), ("EPERM", "lsattr")])
def test_what_the_hosts_disk_refuses_is_not_blamed_on_the_site(machine: Machine, error: str, mend: str) -> None:
    machine.run("user", "passwd", "alice@example.com")
    inject = f"inject=fchown:error={error}"
    strace = ["strace", "-f", "-o", "/dev/null", "-e", inject, machine.program, "apply", "--site", SITE]
    done = machine.host.run(*strace, check=False)
    assert (done.returncode, mend in done.stderr, "--site" in done.stderr) == (3, True, False), done.stderr


def test_a_switch_that_fails_half_way_says_so_and_is_completed(machine: Machine) -> None:
    machine.run("user", "add", "dora@example.com")
    inject = "inject=renameat:error=EIO:when=5"
    strace = ["strace", "-f", "-o", "/dev/null", "-e", inject, machine.program, "apply", "--site", SITE]
    done = machine.host.run(*strace, check=False)
    assert done.returncode == 3
    assert "some files are in place and some are not" in done.stderr
    assert ".postseal" not in machine.state()
    assert (machine.apply().code, machine.plan().code) == (0, 0)


def test_one_installation_at_a_time_works_on_a_host(machine: Machine) -> None:
    machine.host.directory("/srv/other", mode=0o755)
    machine.host.run("cp", "-a", SITE, "/srv/other/example.com")
    apply = [machine.program, "apply", "--site", "/srv/other/example.com"]
    done = machine.host.run("flock", "-n", "/", *apply, check=False)
    assert done.returncode == 3 and "another postseal installs below" in done.stderr, done
    # The copy of the site knows what the site installed.
    assert machine.host.run(*apply).stdout.startswith("/ is as it should be\n")


def test_a_finding_of_smtpd_names_the_file_and_line_as_they_will_be(machine: Machine) -> None:
    machine.host.directory(f"{SITE}/templates", mode=0o755)
    machine.host.write(f"{SITE}/templates/smtpd.conf", "\nlisten on nowhere at all\n")
    assert f"{SMTPD_CONF}:2: syntax error" in machine.apply().errors


def test_certificates_of_an_acme_client_must_fit_their_keys(fresh: Machine) -> None:
    host = fresh.host
    for name in ("one", "two"):
        request = "openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=mail.example.com"
        host.run("sh", "-ec", f"cd /etc/ssl && {request} -keyout {name}.key -out {name}.pem && chmod 0600 {name}.key")
    old = 'mx_certificate = "issued"'
    fresh.edit(f"{SITE}/postseal.toml", old, 'mx_certificate.files = { certificate = "/etc/ssl/one.pem", key = "/etc/ssl/two.key" }')
    assert fresh.apply("--adopt", SMTPD_CONF).codes == ["certificate-mismatch"]
    fresh.edit(f"{SITE}/postseal.toml", "two.key", "one.key")
    host.run("chmod", "0644", "/etc/ssl/one.key")
    assert fresh.apply("--adopt", SMTPD_CONF).codes == ["certificate-owner"]
    host.run("chmod", "0600", "/etc/ssl/one.key")
    assert fresh.apply("--adopt", SMTPD_CONF).code == 0


def test_what_is_wrong_with_an_acme_clients_files_is_told_apart(fresh: Machine) -> None:
    host, settings = fresh.host, f"{SITE}/postseal.toml"
    files = 'mx_certificate.files = { certificate = "/etc/ssl/one.pem", key = "/etc/ssl/one.key" }'
    fresh.edit(settings, 'mx_certificate = "issued"', files)

    def said(kind: str, then: str = "true") -> list[str]:
        make = f"openssl req -x509 -newkey {kind} -nodes -days 90 -subj /CN=mail.example.com -keyout one.key -out one.pem"
        host.run("sh", "-ec", f"cd /etc/ssl && rm -rf one.key one.pem && umask 077 && {make} && {then}")
        return fresh.plan("--adopt", SMTPD_CONF).codes

    assert fresh.plan("--adopt", SMTPD_CONF).codes == ["certificate-file"]
    assert said("rsa:2048") == []
    assert said("rsa:2048", then="echo nothing >one.pem") == ["certificate-file"]
    assert said("rsa:2048", then="openssl x509 -in one.pem -signkey one.key -days -1 -out one.pem") == ["certificate-expired"]
    assert said("ed25519") == ["certificate-key"]
    # A pipe would be waited for, a file of any size would fill the memory.
    assert said("rsa:2048", then="rm one.pem && mkfifo one.pem") == ["certificate-file"]
    assert said("rsa:2048", then="truncate -s 64G one.key") == ["certificate-file"]
    assert said("rsa:2048", then="rm one.key && mkdir one.key") == ["certificate-file"]
    sec1 = "openssl ec -in one.key -out old.key && mv old.key one.key"
    assert said("ec -pkeyopt ec_paramgen_curve:P-256", then=sec1) == []
    assert said("ec -pkeyopt ec_paramgen_curve:P-384", then=sec1) == ["certificate-unjudged"]


def test_an_option_must_name_a_file_of_the_rendering(machine: Machine) -> None:
    said = machine.plan("--adopt", "/etc/smtp.conf")
    assert (said.code, said.codes) == (2, ["path-unknown"])
    assert f"did you mean `{SMTPD_CONF}`?" in said.errors


def test_who_is_not_root_is_told_what_cannot_be_read(machine: Machine) -> None:
    machine.host.run("chown", "-R", "vmail", SITE)
    said = machine.run("plan", user="vmail")
    assert (said.code, set(said.codes)) == (1, {"unreadable"})
    assert said.steps[f"{TABLES}/credentials"] == "blocked"


def test_a_domain_without_its_keys_is_not_installed(machine: Machine) -> None:
    domain = '[[domain]]\nname = "example.org"\n\n[aliases]\n"postmaster@example.org" = "alice@example.com"'
    machine.edit(f"{SITE}/postseal.toml", "[aliases]", domain)
    said = machine.apply()
    assert (said.code, said.codes) == (1, ["dkim-key-missing", "dkim-key-missing"])


def test_a_ledger_that_was_tampered_with_installs_nothing(machine: Machine) -> None:
    before = machine.state()

    def tamper(*statements: str) -> None:
        script = f"import sqlite3; sqlite3.connect('{SITE}/state/ledger.sqlite').executescript({';'.join(statements)!r})"
        machine.host.run("/usr/bin/python3", "-c", script)

    tamper("DROP TRIGGER dkim_key_stays_what_it_is", "UPDATE dkim_key SET public = 'AAAA'")
    machine.host.run("sh", "-c", "rm /var/lib/rspamd/dkim/*")
    said = machine.apply()
    assert (said.code, set(said.codes)) == (1, {"dkim-key-mismatch"})
    ca = "(SELECT certificate FROM certificate WHERE kind = 'site_ca')"
    tamper(f"UPDATE certificate SET twin = {ca} WHERE address = 'alice@example.com'")
    assert "trust-list" in machine.apply().codes
    assert machine.state() == "\n".join(line for line in before.split("\n") if "/rspamd/dkim/" not in line)


def test_an_empty_directory_is_filled_and_judged_by_the_programs_here(fresh: Machine) -> None:
    fresh.host.directory("/srv/root")
    before = fresh.state()
    said = fresh.apply("--root", "/srv/root")
    assert (said.code, set(said.steps.values())) == (0, {"create"})
    assert fresh.state() == before
    assert fresh.plan("--root", "/srv/root").code == 0
    assert fresh.host.path("/srv/root/etc/smtpd.conf").exists()


def test_json_says_the_same_as_the_text(machine: Machine) -> None:
    machine.run("user", "passwd", "alice@example.com")
    text = machine.plan()
    found: dict[str, Any] = json.loads(machine.plan("--format", "json").out)
    steps = {step["path"]: step["action"] for step in found["steps"] if step["action"] != "same"}
    assert (steps, found["then"]) == (text.steps, text.told)
    assert text.steps and text.told


def test_json_tells_where_what_was_replaced_is_kept(fresh: Machine) -> None:
    before = fresh.host.path(SMTPD_CONF).read_text()
    found: dict[str, Any] = json.loads(fresh.apply("--adopt", SMTPD_CONF, "--format", "json").out)
    [kept] = found["kept"]
    assert (kept["path"], fresh.host.path(kept["kept"]).read_text(), found["notes"]) == (SMTPD_CONF, before, [])


def test_fragments_are_installed_for_the_administrators_own_file(fresh: Machine) -> None:
    own = "".join(f'include "{TABLES}/conf.d/{name}.conf"\n' for name in ("names", "listeners", "rules"))
    fresh.edit(f"{SITE}/postseal.toml", 'platform = "debian"', 'platform = "debian"\nsmtpd_conf = "fragments"')
    stock = fresh.host.path(SMTPD_CONF).read_text()
    fresh.host.write(SMTPD_CONF, f"# mine\n{own}")
    first = fresh.apply()
    assert (first.code, first.codes) == (0, [])
    assert fresh.host.path(SMTPD_CONF).read_text() == f"# mine\n{own}"
    assert fresh.host.run("smtpd", "-n").stderr == "configuration OK\n"
    fresh.host.write(SMTPD_CONF, f"# mine\n{own}no such directive\n")
    fresh.run("user", "passwd", "alice@example.com")
    assert fresh.apply().codes == ["smtpd-refuses"]
    fresh.host.write(SMTPD_CONF, own.replace("include", "#include", 1))
    assert fresh.apply().codes == ["smtpd-refuses"]
    fresh.host.write(SMTPD_CONF, stock)
    said = fresh.apply()
    assert (said.code, said.codes) == (0, ["no-smtpd-conf"])
    assert "does not include" in said.errors
    fresh.host.run("rm", SMTPD_CONF)
    fresh.run("user", "passwd", "alice@example.com")
    said = fresh.apply()
    assert (said.code, said.codes) == (0, ["no-smtpd-conf"])


def test_a_site_that_turns_to_fragments_leaves_an_smtpd_conf_with_which_smtpd_starts(machine: Machine) -> None:
    machine.edit(f"{SITE}/postseal.toml", 'platform = "debian"', 'platform = "debian"\nsmtpd_conf = "fragments"')
    before = machine.host.path(SMTPD_CONF).read_text()
    planned, done = machine.plan(), machine.apply()
    assert (planned.steps[SMTPD_CONF], done.steps[SMTPD_CONF], done.code) == ("leave", "leave", 0)
    assert machine.host.path(SMTPD_CONF).read_text() == before
    assert machine.host.run("smtpd", "-n").stderr == "configuration OK\n"


def test_what_the_administrators_smtpd_conf_names_is_not_removed(machine: Machine) -> None:
    machine.edit(f"{SITE}/postseal.toml", 'platform = "debian"', 'platform = "debian"\nsmtpd_conf = "fragments"')
    assert machine.apply().code == 0
    # The rendered configuration of before, now the administrator's, names the certificate.
    for use in ("mx", "submission"):
        files = f'{use}_certificate.files = {{ certificate = "/etc/ssl/one.pem", key = "/etc/ssl/one.key" }}'
        machine.edit(f"{SITE}/postseal.toml", f'{use}_certificate = "issued"', files)
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=mail.example.com"
    machine.host.run("sh", "-ec", f"cd /etc/ssl && umask 077 && {request} -keyout one.key -out one.pem")
    before = machine.state()
    said = machine.apply()
    assert (said.code, said.codes) == (1, ["smtpd-refuses"]), said
    assert f"without `{TABLES}/tls/{HOST}-" in said.errors
    assert machine.state() == before


def test_what_is_no_longer_rendered_stays_where_the_administrator_says_so(machine: Machine) -> None:
    settings = machine.host.path(f"{SITE}/postseal.toml")
    text = settings.read_text()
    domain = '[[domain]]\nname = "example.org"\n\n[aliases]\n"postmaster@example.org" = "alice@example.com"'
    settings.write_text(text.replace("[aliases]", domain))
    assert machine.run("render").code == 0
    assert machine.apply().code == 0
    settings.write_text(text)
    keys = sorted(path for path in machine.plan().steps if "example.org" in path)
    said = machine.apply("--keep", keys[0])
    assert (said.code, said.steps[keys[0]], said.steps[keys[1]]) == (0, "leave", "remove")
    assert machine.host.path(keys[0]).exists()


def test_the_commands_of_the_readme_install_the_site(fresh: Machine, site: Site) -> None:
    commands = code_block("postseal apply")
    stubs = f'postseal() {{ "{fresh.program}" "$@"; }}\nsystemctl() {{ echo systemctl "$@"; }}\n'
    done = fresh.host.run("sh", "-ec", f"cd {SITE}\n{stubs}{commands}")
    assert "systemctl restart opensmtpd" in done.stdout.splitlines()
    assert fresh.plan().code == 0
