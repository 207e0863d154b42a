"""Whatever stops a command half-way, no file is half-written, no record is lost, and a later run works or says how.

Every system call by which a command changes something is a point: the program is killed before it, or it fails as on a
full or a read-only disk. POSTSEAL_FULL=yes takes every point at which it is killed and each third at which a call fails;
else a sample is taken.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.faults import (
    ENVIRONMENT,
    Done,
    Records,
    assert_settled,
    assert_whole,
    copy,
    files,
    leftovers,
    points,
    run,
    run_program,
    run_with_fault,
)
from lab.site import DOMAIN, PROGRAM, Site

FULL = os.environ.get("POSTSEAL_FULL") == "yes"
# Of how many points one is taken, and the first one: primes, so that a loop in the program does not hide from the sample.
FAULTS = {
    "signal=KILL": (1, 0) if FULL else (37, 5),
    "error=ENOSPC": (3, 0) if FULL else (113, 11),
    "error=EROFS": (3, 1) if FULL else (113, 31),
}


# A key pair for these tests alone.
KEY = "AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0SWRYDWG"
RECIPIENT = "age13aqvttdk3ujkyjh9kg2w5an6dmy5mq5a84a4uxk3hfhnugfc9p0sy5p2wh"


def nothing(_site: Path) -> None:
    pass


def new_domain(site: Path) -> None:
    """Gives `render` and `bless` DKIM keys to make."""
    with (site / "postseal.toml").open("a") as settings:
        settings.write('\n[[domain]]\nname = "example.net"\n')


def never_blessed(site: Path) -> None:
    shutil.rmtree(site / "golden")
    new_domain(site)


def one_ca(site: Path) -> None:
    """Bob's tablet has a certificate of the issuing CA for all."""
    settings = site / "postseal.toml"
    settings.write_text(settings.read_text().replace('# clients.trust = "pinned"', 'clients.trust = "ca"'))
    for command in ["user add bob@example.com --device tablet", "bless"]:
        done = run([*command.split(), "--site", str(site)])
        assert done.code == 0, done


def back_to_pinned(site: Path) -> None:
    one_ca(site)
    settings = site / "postseal.toml"
    settings.write_text(settings.read_text().replace('clients.trust = "ca"', 'clients.trust = "pinned"'))


def a_list(site: Path) -> None:
    """Bob has what he needs, Carol and Dave have nothing."""
    lines = ["address,device,password", "bob@example.com,default,", "carol@example.com,,correct horse", "dave@example.com,phone,"]
    (site.parent / "users.csv").write_text("\n".join(lines))


def a_key(site: Path) -> None:
    """An Ed25519 key from elsewhere (RFC 8032, section 7.1)."""
    key = site.parent / "old.key"
    key.write_text("nWGxne/9WmC6hEr0kuwsxERJxXN7MmkZcDusAxyuf2A=\n")
    key.chmod(0o600)


def a_report(site: Path) -> None:
    """A DMARC report of Google's, by itself."""
    seed = Path(__file__).parents[2] / "fuzz/seeds/report/google.xml"
    end = int(time.time()) - 3600
    text = seed.read_text().replace("1795392000", str(end - 86400)).replace("1795478399", str(end))
    (site.parent / "report.xml").write_text(text)


def ended(site: Path) -> None:
    """Bob's certificate has ended, Alice's ends in three days, and she is to be told."""
    settings = site / "postseal.toml"
    text = settings.read_text().replace("# notify.before", "notify.before")
    settings.write_text(text.replace('# notify.sendmail = "/usr/sbin/sendmail"', 'notify.sendmail = "/usr/bin/true"'))
    with closing(sqlite3.connect(site / "state/ledger.sqlite")) as sql, sql:
        end = "UPDATE certificate SET not_before = ?1 - 31536000, not_after = ?1 WHERE kind = 'client' AND address = ?2"
        for days, address in [(-1, "bob@example.com"), (3, "alice@example.com")]:
            assert sql.execute(end, (int(time.time()) + days * 86400, address)).rowcount == 1


def no_site(site: Path) -> None:
    shutil.rmtree(site)


def repository(site: Path) -> None:
    """A directory that the administrator made, with something of theirs in it."""
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir()
    (site / "NOTES").write_text("mine\n")


def backed_up(site: Path) -> None:
    """A backup beside the place of the site, and the host that had it, where Bob was revoked since; no site any more."""
    (site.parent / "identity").write_text(KEY)
    backup = site.parent / "site.age"
    backup.unlink(missing_ok=True)
    assert run(["backup", str(backup), "--recipient", RECIPIENT, "--site", str(site)]).code == 0
    assert run(["user", "remove", "bob@example.com", "--site", str(site)]).code == 0
    shutil.copytree(next(site.glob("out/*/root")), site.parent / "host")
    no_site(site)


def backed_up_here(site: Path) -> None:
    """The same, and a directory that the administrator made."""
    backed_up(site)
    repository(site)


def held(site: Path) -> None:
    """Everybody is held, as after a restore."""
    with sqlite3.connect(site / "state/ledger.sqlite") as sql:
        sql.execute("UPDATE certificate SET status = 'held' WHERE kind = 'client'")
    sql.close()
    assert run(["render", "--site", str(site)]).code == 0


MONTH = time.strftime("%Y%m", time.gmtime())
# Nobody answers there: what these tests need of name servers, an administrator confirms.
NOBODY = "--resolver 127.0.0.1:1"


def dkim(site: Path, *commands: str) -> None:
    for command in commands:
        done = run(["dkim", *command.split(), "--site", str(site)])
        assert done.code == 0, done


def let_pass(site: Path, days: int) -> None:
    """Lets time pass for DKIM keys: what they wait for was seen, and is unused, that much longer."""
    with closing(sqlite3.connect(site / "state/ledger.sqlite")) as sql, sql:
        passed = f"seen = seen - {days * 86400}, unused = unused - {days * 86400}, look_at = look_at - {days * 86400}"
        assert sql.execute(f"UPDATE dkim_key SET {passed}").rowcount


def rotating(site: Path) -> None:
    dkim(site, f"rotate {NOBODY}")


def ready(site: Path) -> None:
    """The successors have had their wait."""
    rotating(site)
    dkim(site, f"confirm {MONTH}r2 {MONTH}e2")
    let_pass(site, 1)


def switched(site: Path) -> None:
    ready(site)
    dkim(site, f"advance {NOBODY}")


def served(site: Path) -> None:
    """The predecessors have been published long enough."""
    switched(site)
    dkim(site, "confirm --in-force")
    let_pass(site, 10)


def ending(site: Path) -> None:
    """Their revocation was seen and the old record forgotten."""
    served(site)
    dkim(site, f"advance {NOBODY}", f"confirm {MONTH}r {MONTH}e")
    let_pass(site, 10)


def watched(site: Path) -> None:
    """DMARC has been watched for its month."""
    with closing(sqlite3.connect(site / "state/ledger.sqlite")) as sql, sql:
        seen = int(time.time()) - 31 * 86400
        columns = "(domain, track, stage, since, seen)"
        sql.execute(f"INSERT INTO rollout {columns} VALUES (?, 'dmarc', 'none', ?, ?)", (DOMAIN, seen, seen))


ANYWAY = f"rollout advance {DOMAIN} --anyway --reason watched {NOBODY}"


def quarantined(site: Path) -> None:
    watched(site)
    assert run([*ANYWAY.split(), "--site", str(site)]).code == 0


@dataclass(frozen=True)
class Command:
    """A command, and what is done to a site with Alice and Bob before."""

    name: str
    arguments: str
    prepare: Callable[[Path], None] = nothing
    # Exit codes of a run without a fault.
    fine: tuple[int, ...] = (0,)
    # A command that asks the daemons' programs takes its time: of its points fewer are taken.
    sparse: int = 1
    # What fails of it stops nothing else, and is named with exit code 1.
    in_parts: bool = False

    def on(self, site: Path) -> list[str]:
        beside = {"ROOT": "root", "LIST": "users.csv", "ARCHIVE": "users.tar", "KEY": "old.key", "REPORT": "report.xml"}
        words = [str(site.parent / beside[word]) if word in beside else word for word in self.arguments.split()]
        return [*(word.replace("AROUND", str(site.parent)) for word in words), "--site", str(site)]

    @property
    def makes_a_site(self) -> bool:
        return self.arguments.startswith(("init", "restore"))


INIT = f"init {DOMAIN} --user alice@example.com"

RESTORE = "restore AROUND/site.age --identity AROUND/identity"

# A further command is one more row.
COMMANDS = [
    Command("init", INIT, no_site),
    Command("init-here", INIT, repository),
    Command("user-add", "user add carol@example.com --apple --sender sales@example.com"),
    Command("user-add-device", "user add bob@example.com --device phone"),
    Command("user-passwd", "user passwd bob@example.com"),
    Command("user-import", "user import LIST --archive ARCHIVE --with-passwords", a_list),
    Command("user-remove", "user remove bob@example.com"),
    Command("user-renew", "user renew bob@example.com --overlap 7d"),
    Command("user-renew-same-key", "user renew --all --same-key"),
    Command("user-revoke", "user revoke bob@example.com --reason lost"),
    Command("user-add-one-ca", "user add bob@example.com --device tv", one_ca),
    Command("user-remove-one-ca", "user remove bob@example.com", one_ca),
    Command("ca-crl", "ca crl --refresh", one_ca),
    Command("ca-renew-clients", "ca renew --clients", one_ca),
    Command("ca-renew-clients-now", "ca renew --clients --now", one_ca),
    Command("ca-retire", "ca retire --force", back_to_pinned),
    Command("dkim-import", "dkim import example.com old KEY", a_key),
    Command("reports-import", "reports import REPORT", a_report, sparse=3),
    Command("tick", "tick", ended, in_parts=True),
    Command("render", "render", new_domain),
    Command("bless", "bless", new_domain),
    Command("bless-first", "bless", never_blessed),
    Command("diff", "diff", new_domain, fine=(1,)),
    Command("dns-output", "dns --format octodns --output AROUND/dns"),
    Command("ca-renew", "ca renew"),
    Command("server-renew", "server renew"),
    Command("apply", "apply --root ROOT", sparse=3),
    Command("fsck", "fsck"),
    Command("backup", f"backup AROUND/site.age --recipient {RECIPIENT}"),
    Command("restore", RESTORE, backed_up),
    Command("restore-here", RESTORE, backed_up_here),
    Command("restore-from-host", f"{RESTORE} --root AROUND/host", backed_up),
    Command("user-confirm", "user confirm --all", held),
    Command("user-handout-done", "user handout bob@example.com --done"),
    Command("dkim-rotate", f"dkim rotate {NOBODY}", sparse=3),
    Command("dkim-confirm", f"dkim confirm {MONTH}r2 {MONTH}e2", rotating, sparse=3),
    Command("dkim-confirm-in-force", "dkim confirm --in-force", switched, sparse=3),
    Command("dkim-advance-switches", f"dkim advance {NOBODY}", ready, sparse=3),
    Command("dkim-advance-retires", f"dkim advance {NOBODY}", served, sparse=3),
    Command("dkim-advance-destroys", f"dkim advance {NOBODY}", ending, sparse=3),
    Command("dkim-revoke", f"dkim revoke {MONTH}r", sparse=3),
    Command("rollout-advance", ANYWAY, watched, sparse=3),
    Command("rollout-back", f"rollout back {DOMAIN} --track dmarc", quarantined, sparse=3),
]


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A directory in memory: there, fsync costs nothing."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def base(memory: Path) -> Path:
    """A site with Alice and Bob, blessed."""
    site = Site.init(memory / "base")
    site.run("user", "add", "bob@example.com")
    site.run("bless")
    # No name server is asked for these any more.
    site.run("dkim", "confirm", f"{MONTH}r", f"{MONTH}e")
    return site.directory


@pytest.fixture(params=COMMANDS, ids=lambda command: command.name)
def command(request: pytest.FixtureRequest) -> Command:
    assert isinstance(request.param, Command)
    return request.param


@pytest.fixture
def prepared(command: Command, base: Path, memory: Path) -> Iterator[Path]:
    """The site before the command, in an otherwise empty directory."""
    around = memory / "work"
    around.mkdir()
    site = copy(base, around / "prepared")
    command.prepare(site)
    yield site
    shutil.rmtree(around)


def fresh(prepared: Path, name: str) -> Path:
    """A copy of the prepared site in a directory of its own, for `init` works beside its place."""
    around = prepared.parent / name
    around.mkdir()
    # What `apply` fills.
    (around / "root").mkdir()
    if (prepared.parent / "users.csv").exists():
        shutil.copy(prepared.parent / "users.csv", around)
    for name in ("site.age", "identity", "old.key", "report.xml"):
        if (prepared.parent / name).exists():
            shutil.copy(prepared.parent / name, around / name)
    if (prepared.parent / "host").exists():
        shutil.copytree(prepared.parent / "host", around / "host")
    site = around / "site"
    return copy(prepared, site) if prepared.exists() else site


@pytest.mark.parametrize("fault", FAULTS)
def test_a_command_is_stopped_anywhere(command: Command, fault: str, base: Path, prepared: Path, tmp_path: Path) -> None:
    traced = fresh(prepared, "traced")
    all_points = points(command.on(traced), tmp_path / "trace")
    records = None if command.makes_a_site else Records.read(base)

    def attempt(number: int) -> str | None:
        point = all_points[number]
        site = fresh(prepared, f"at-{number}")
        try:
            stopped = run_with_fault(command.on(site), point, fault)
            assert_stopped(command, fault, stopped)
            assert_recovers(command, site, records, render_first=number % 2 == 1)
        except (AssertionError, OSError, LookupError, ValueError) as error:
            return f"{point}\n  {type(error).__name__}: {error}"
        shutil.rmtree(site.parent)
        return None

    step, first = FAULTS[fault]
    step *= command.sparse
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = [problem for problem in pool.map(attempt, range(first % len(all_points), len(all_points), step)) if problem]
    assert not wrong, f"{len(wrong)} of {len(all_points)} points:\n" + "\n".join(wrong)


def assert_stopped(command: Command, fault: str, stopped: Done) -> None:
    if fault == "signal=KILL":
        assert stopped.code == -9, stopped
        return
    # That a temporary file could not be removed, say, is no failure: the next command removes it.
    assert stopped.code in ((1, 3) if command.in_parts else (3,)) + command.fine, stopped
    assert stopped.code in command.fine or stopped.says_how or not stopped.talk, stopped


def assert_recovers(command: Command, site: Path, before: Records | None, *, render_first: bool) -> None:
    if site.exists():
        assert_whole(site)
    if command.makes_a_site:
        age_stages(site)
        again = run(command.on(site))
        assert again.code == 0 or (again.code == 2 and again.says_how), again
        assert (site / "NOTES").exists() == (command.prepare in (repository, backed_up_here))
    installed = contents(site.parent / "root")
    listed = run(["user", "list", "--site", str(site)])
    assert listed.code == 0 and "alice@example.com" in listed.out, listed
    steps = [["render", "--site", str(site)], command.on(site)]
    for arguments in steps if render_first else reversed(steps):
        done = run(arguments)
        assert done.code in (0, *command.fine) or (done.code == 2 and done.says_how), (arguments, done)
        # What refuses writes nothing, and clears nothing away.
        if arguments[0] not in ("diff", "fsck") and done.code != 2:
            now = Records.read(site)
            assert_settled(site, now)
            if before:
                before.assert_kept_in(now)
    if not command.makes_a_site:
        assert_done(command, site)
    elif command.arguments.startswith("restore"):
        assert_nothing_came_back(command, site)
    assert installed.items() <= contents(site.parent / "root").items(), "what was in place was not whole"
    assert leftovers(site.parent) == []


def contents(root: Path) -> dict[Path, tuple[int, int, bytes]]:
    """The files in their places below a host's root, with group and mode."""
    found = [path for path in files(root) if path.is_file() and not path.name.startswith(".postseal-")]
    places = [path for path in found if ".postseal-check" not in path.parts]
    return {path.relative_to(root): (path.stat().st_gid, path.stat().st_mode, path.read_bytes()) for path in places}


def age_stages(site: Path) -> None:
    """Lets the minute pass after which a stage without a lock is known to be dead."""
    for stage in [*site.parent.glob(".postseal-*.tmp"), *site.glob(".postseal-*.tmp")]:
        os.utime(stage, (0, 0))


def assert_done(command: Command, site: Path) -> None:
    """After the command was repeated, what it is for is there once."""
    records = Records.read(site)
    expected = {"alice@example.com", "bob@example.com"}
    if command.name in ("user-add", "user-import"):
        expected.add("carol@example.com")
    if command.name == "user-import":
        expected.add("dave@example.com")
        assert (site.parent / "users.tar").stat().st_mode & 0o777 == 0o600
        owners = [tuple(whose) for kind, _, _, *whose in records.certificates.values() if kind == "client"]
        assert len(owners) == len(set(owners)), "issued twice"
    if command.name.startswith("user-remove"):
        expected.discard("bob@example.com")
    assert records.accounts.keys() == expected
    phones = [whose for *_, status, _, whose in records.certificates.values() if whose == "phone" and status == "live"]
    assert len(phones) == (command.name in ("user-add-device", "user-import"))
    assert all(status != "held" for *_, status, _, _ in records.certificates.values())
    if command.name == "user-handout-done":
        assert not list((site / "handout").glob("bob*")) and not list((site / "state/passwords").glob("bob*/*"))
    if command.name == "apply":
        planned = run(["plan", "--root", str(site.parent / "root"), "--site", str(site)])
        assert planned.code == 0, planned
    if command.name == "tick":
        ends = {address: status for kind, _, status, address, _ in records.certificates.values() if kind == "client"}
        assert ends == {"alice@example.com": "live", "bob@example.com": "expired"}
        with closing(sqlite3.connect(site / "state/ledger.sqlite")) as sql:
            assert sql.execute("SELECT days FROM notice ORDER BY days").fetchall() == [(7,), (30,)]
    if command.name in LIVES:
        assert_lives(command, site)
    compared = run(["diff", "--site", str(site)])
    if command.name.startswith("rollout"):
        with closing(sqlite3.connect(site / "state/ledger.sqlite")) as sql:
            stage = sql.execute("SELECT stage FROM rollout WHERE track = 'dmarc'").fetchone()
            assert stage == ("quarantine" if command.name == "rollout-advance" else "none",)
            assert not sql.execute("SELECT count(*) FROM stale_derived").fetchone()[0]
    changed = ("ca-retire", "diff", "render", "rollout-advance", "server-renew")
    assert compared.code == (1 if command.name in changed or command.name.startswith("dkim") else 0), compared


# What became of the first key of an algorithm, and of its successor.
LIVES = {
    "dkim-rotate": ("active", "generated"),
    "dkim-confirm": ("active", "published"),
    "dkim-confirm-in-force": ("retiring", "active"),
    "dkim-advance-switches": ("retiring", "active"),
    "dkim-advance-retires": ("revoked", "active"),
    "dkim-advance-destroys": ("destroyed", "active"),
    "dkim-revoke": ("revoked", "active"),
}


def assert_lives(command: Command, site: Path) -> None:
    """Done once and no more: a repeated command makes no further keys."""
    with closing(sqlite3.connect(site / "state/ledger.sqlite")) as sql:
        states = dict(sql.execute("SELECT selector, state FROM dkim_key WHERE domain = ?", (DOMAIN,)))
        unused = sql.execute("SELECT count(*) FROM dkim_key WHERE unused IS NOT NULL").fetchone()[0]
        stale = sql.execute("SELECT count(*) FROM stale_derived").fetchone()[0]
    first, second = LIVES[command.name]
    expected = {f"{MONTH}r": first, f"{MONTH}r2": second}
    if command.name == "dkim-revoke":
        expected |= {f"{MONTH}e": "active"}
    else:
        expected |= {f"{MONTH}e": first, f"{MONTH}e2": second}
    assert states == expected
    used_no_more = ("dkim-confirm-in-force", "dkim-advance-retires", "dkim-advance-destroys")
    assert unused == (2 if command.name in used_no_more else 0)
    assert not stale


def assert_nothing_came_back(command: Command, site: Path) -> None:
    """Bob was revoked after the backup was made; whether Alice was, only the host tells."""
    standings = {address: status for *_, status, address, _ in Records.read(site).certificates.values() if address}
    assert standings == {
        "alice@example.com": "live" if command.name == "restore-from-host" else "held",
        "bob@example.com": "held",
    }


# A small disk of memory with little room; what is on it afterwards is copied out to be judged.
FULL_DISK = """
mount -t tmpfs -o size=32m disk /mnt
test ! -e "$1" || cp -a "$1" /mnt/site
mkdir /mnt/root
cat /dev/zero >/mnt/fill 2>/dev/null || :
truncate -s "-$2" /mnt/fill
code=0
"$3" $4 --site /mnt/site || code=$?
rm /mnt/fill
rm -rf "$1"
test ! -e /mnt/site || cp -a /mnt/site "$1"
find /mnt -maxdepth 1 -name '.postseal-*' -printf 'left behind: %p\n' >&2
exit $code
"""

READ_ONLY = """
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
exec "$2" $3
"""


def in_own_mounts(script: str, *arguments: str) -> Done:
    return run_program(["unshare", "--mount", "sh", "-ceu", script, "sh", *arguments])


@pytest.mark.parametrize("room", [0, 1, 3, 8, 16, 31, 60, 99] if FULL else [0, 31])
def test_the_disk_is_really_full(command: Command, room: int, base: Path, prepared: Path) -> None:
    site = fresh(prepared, "full")
    around = "/mnt" if command.name == "backup" else str(site.parent)
    arguments = command.arguments.replace("ROOT", "/mnt/root").replace("AROUND", around)
    arguments = arguments.replace("REPORT", str(site.parent / "report.xml")).replace("KEY", str(site.parent / "old.key")).replace("LIST", str(site.parent / "users.csv")).replace("ARCHIVE", "/mnt/users.tar")
    stopped = in_own_mounts(FULL_DISK, str(site), str(room * 4096), str(PROGRAM), arguments)
    assert stopped.code in ((1, 3) if command.in_parts else (3,)) + command.fine, stopped
    assert stopped.code in command.fine or stopped.says_how, stopped
    assert "left behind" not in stopped.talk, stopped
    assert_recovers(command, site, None if command.makes_a_site else Records.read(base), render_first=room % 2 == 1)


# What writes nothing into a site, and what makes one of a file that is not in these tests' directory.
READS = ("diff", "dns", "fsck", "restore")


@pytest.mark.parametrize("writer", [command for command in COMMANDS if not command.name.startswith(READS)], ids=lambda row: row.name)
def test_on_a_read_only_disk_a_writer_says_so(writer: Command, base: Path, memory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=memory) as around:
        site = copy(base, Path(around) / "site")
        a_list(site)
        a_key(site)
        a_report(site)
        place = site / "new" if writer.makes_a_site else site
        (site.parent / "root").mkdir()
        arguments = " ".join(writer.on(place))
        stopped = in_own_mounts(READ_ONLY, str(site), str(PROGRAM), arguments)
        assert stopped.code == 3 and stopped.says_how and "read-only" in stopped.talk, stopped
        assert sorted(path.relative_to(site) for path in files(site)) == sorted(
            path.relative_to(base) for path in files(base)
        )


READERS = [
    "user list",
    "user show alice@example.com",
    "user handout alice@example.com",
    "status",
    "tick --dry-run",
    "diff",
    "dns",
    "dkim list",
    "reports show",
    "reports show example.com",
    "ca show",
    "server list",
    "fsck",
    "export --index",
]


@pytest.mark.parametrize("reader", READERS)
def test_on_a_read_only_disk_readers_work(reader: str, base: Path) -> None:
    read = in_own_mounts(READ_ONLY, str(base), str(PROGRAM), f"{reader} --site {base}")
    assert read.code == 0 and read.out, read
    assert read == run([*reader.split(), "--site", str(base)])


def test_a_reader_on_a_read_only_disk_does_not_overlook_what_a_killed_run_recorded(
    base: Path, memory: Path, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir=memory) as around:
        add = COMMANDS[2]
        traced, site = (copy(base, Path(around) / name) for name in ("traced", "site"))
        after_commit = next(point for point in points(add.on(traced), tmp_path / "trace") if "postseal-out" in point.line)
        assert run_with_fault(add.on(site), after_commit, "signal=KILL").code == -9
        (site / "state/ledger.sqlite-shm").unlink()
        read = in_own_mounts(READ_ONLY, str(site), str(PROGRAM), f"user list --site {site}")
        assert (read.code == 0 and "carol@example.com" in read.out) or (read.code == 3 and read.says_how), read
        assert "carol@example.com" in run(["user", "list", "--site", str(site)]).out


@pytest.mark.parametrize("arguments", ["user add carol@example.com", "user remove bob@example.com", "render"])
def test_where_only_the_report_is_lost_the_message_says_so(arguments: str, base: Path, memory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=memory) as around, Path("/dev/full").open("w") as full:
        site = copy(base, Path(around) / "site")
        command = [str(PROGRAM), *arguments.split(), "--site", str(site)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, text=True, env=ENVIRONMENT)
        assert done.returncode == 3 and "only the report of it is lost" in done.stderr, done
        assert_settled(site, Records.read(site))
