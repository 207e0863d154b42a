"""A host of the laboratory: its own network, processes and view of the file system, all gone when it is closed.

A host is one process in new namespaces, rooted in an overlay over the real `/` whose upper layer is a tmpfs. Nothing
has a name outside: if the tests are killed, the pipe to that process closes, it ends, and the kernel takes the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

CLONE_NEWNET = 0x40000000

PROJECT = Path(__file__).parents[2]

NEW_NAMESPACES = ["unshare", "--mount", "--net", "--pid", "--uts", "--fork", "--kill-child"]

# The first process of a host. It says "ready" and then lives until its standard input closes.
INIT = """
mount -t tmpfs -o mode=0755 lab /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work lab /mnt/root
cd /mnt/root
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs -o mode=0755 run run
mount -t tmpfs -o mode=1777 tmp tmp
# A project that lies there keeps its place, for what it built runs on the host.
case $2 in
    /run/*|/tmp/*) mkdir -p ".$2"; mount --bind "$2" ".$2"; mount -o remount,bind,ro ".$2" ;;
esac
hostname "$1"
ip link set lo up
echo ready
exec chroot . sh -c 'exec cat >/dev/null'
"""

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class DaemonFailed(Exception):
    """A daemon did not start, or ended; the message holds the end of its log."""


def wait_until(met: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Waits until `met()` is true."""
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


class Host:
    """One machine. Use as a context manager, or call `close`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._init = subprocess.Popen(
            [*NEW_NAMESPACES, "sh", "-ceu", INIT, "init", name, str(PROJECT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._init.stdout and self._init.stderr
        if self._init.stdout.readline() != b"ready\n":
            self._init.wait()
            raise OSError(f"cannot make the host {name}: {self._init.stderr.read().decode().strip()}")
        self.pid = _only_child(self._init.pid)
        self._spawned: list[subprocess.Popen[bytes]] = []
        # "ready" is said before the change of root.
        wait_until(
            lambda: os.readlink(f"/proc/{self.pid}/root") == "/mnt/root" or self._init.poll() is not None, "chroot", 5
        )
        self.write("/etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n")

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes of the host; its network and files vanish with them."""
        if self._init.stdin and not self._init.stdin.closed:
            self._init.stdin.close()
            for process in (self._init, *self._spawned):
                process.wait()
            for pipe in (self._init.stdout, self._init.stderr):
                if pipe:
                    pipe.close()

    # Files

    def path(self, path: str) -> Path:
        """Where an absolute path of the host is to be found from outside.

        A symbolic link on the way is refused: it would lead to the real machine.
        """
        if not path.startswith("/"):
            raise ValueError(f"not an absolute path: {path}")
        root = Path(f"/proc/{self.pid}/root")
        for parent in Path(path).parents:
            if parent != Path("/") and (root / parent.relative_to("/")).is_symlink():
                raise ValueError(f"{path} on {self.name} goes through the symbolic link {parent}")
        return root / path[1:]

    def write(
        self, path: str, content: str | bytes, owner: str = "root", group: str = "root", mode: int = 0o644
    ) -> None:
        """Writes a file as `install -o OWNER -g GROUP -m MODE` does, its missing parents included."""
        place = self.path(path)
        self.directory(str(Path(path).parent))
        place.unlink(missing_ok=True)
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        self.own(path, owner, group, mode)

    def directory(self, path: str, owner: str = "root", group: str = "root", mode: int | None = None) -> None:
        """Makes a directory and its parents; an existing one is changed only if a mode is given."""
        place = self.path(path)
        if not place.is_dir():
            if path != "/":
                self.directory(str(Path(path).parent))
            place.mkdir()
            mode = 0o755 if mode is None else mode
        if mode is not None:
            self.own(path, owner, group, mode)

    def own(self, path: str, owner: str, group: str, mode: int) -> None:
        """Sets owner, group and mode; the names are those of the host's own passwd and group files."""
        place = self.path(path)
        os.chown(place, int(self._line("passwd", owner)[2]), int(self._line("group", group)[2]), follow_symlinks=False)
        os.chmod(place, mode)

    def _line(self, table: str, name: str) -> list[str]:
        for line in self.path(f"/etc/{table}").read_text().splitlines():
            fields = line.split(":")
            if fields[0] == name:
                return fields
        raise LookupError(f"{self.name} has no {name} in /etc/{table}")

    def add_user(self, name: str, home: str) -> None:
        """A system user and its group, as a guide tells an administrator to make."""
        if any(line.startswith(f"{name}:") for line in self.path("/etc/passwd").read_text().splitlines()):
            return
        self.run("useradd", "--system", "--user-group", "--home-dir", home, "--shell", "/usr/sbin/nologin", name)

    def inbox(self, address: str) -> list[Path]:
        """The message files in the Maildir /var/vmail/DOMAIN/LOCAL-PART, oldest first."""
        local, _, domain = address.rpartition("@")
        new = self.path(f"/var/vmail/{domain}/{local}/new")
        return sorted(new.iterdir(), key=lambda file: file.stat().st_mtime_ns) if new.is_dir() else []

    # Processes

    def _inside(self, command: Sequence[str], user: str | None) -> list[str]:
        drop = []
        if user:
            group = self._line("passwd", user)[3]
            drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups", "--"]
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--uts", "--root", "--wd", "--"]
        return [*enter, *drop, *command]

    def run(
        self, *command: str, user: str | None = None, input: str | bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on the host; its output is text. A failure raises with what the command said."""
        done = subprocess.run(
            self._inside(command, user),
            env=ENVIRONMENT,
            capture_output=True,
            check=False,
            input=input.encode() if isinstance(input, str) else input or b"",
        )
        result = subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())
        if check and result.returncode:
            raise OSError(f"{self.name}: {' '.join(command)}: exit {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    def spawn(self, *command: str, user: str | None, log: str) -> subprocess.Popen[bytes]:
        """Starts a command on the host, with its output appended to a file there."""
        with open(self.path(log), "ab") as file:
            process = subprocess.Popen(
                self._inside(command, user),
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._spawned.append(process)
        return process

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Sockets that this thread opens within are sockets of the host."""
        with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{self.pid}/ns/net") as theirs:
            _setns(theirs.fileno())
            try:
                yield
            finally:
                _setns(ours.fileno())


class Daemon:
    """A daemon in the foreground on a host, with its log and a probe that tells when it serves."""

    def __init__(
        self,
        host: Host,
        name: str,
        *command: str,
        ready: Callable[[], object],
        user: str | None = None,
        own_log: str | None = None,
    ) -> None:
        self.host, self.name, self.command, self.user = host, name, command, user
        self._ready = ready
        self._output = f"/run/lab-{name}.log"
        self._own_log = own_log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 30) -> None:
        """Starts it and returns when it serves; raises `DaemonFailed` if it ends or takes too long."""
        self._process = self.host.spawn(*self.command, user=self.user, log=self._output)
        deadline = time.monotonic() + seconds
        while not self._probe():
            if not self.running:
                raise DaemonFailed(f"{self.name} ended at its start:\n{self.log_end()}")
            if time.monotonic() > deadline:
                raise DaemonFailed(f"{self.name} does not serve after {seconds} s:\n{self.log_end()}")
            time.sleep(0.02)

    def _probe(self) -> bool:
        try:
            return bool(self._ready())
        except (OSError, EOFError):
            return False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Signals the daemon's main process."""
        if not self.running:
            raise DaemonFailed(f"{self.name} is not running:\n{self.log_end()}")
        assert self._process
        os.kill(_only_child(self._process.pid), number)

    def stop(self, seconds: float = 10) -> None:
        """Ends it as an init system does."""
        if self.running:
            assert self._process
            self.signal(signal.SIGTERM)
            self._process.wait(seconds)

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        """All that it has logged since the host began."""
        places = [self.host.path(path) for path in (self._output, self._own_log) if path]
        return "".join(place.read_text(errors="replace") for place in places if place.exists())

    def log_end(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])


def connect(*hosts: Host) -> None:
    """Puts two hosts on one wire, called eth0 on both."""
    first, second = hosts
    subprocess.run(
        [
            "nsenter",
            f"--target={first.pid}",
            "--net",
            "ip",
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            str(second.pid),
        ],
        check=True,
    )
    for host in hosts:
        # Without link-local addresses: smtpd would bind one that is not usable yet, and end.
        host.run("ip", "link", "set", "eth0", "addrgenmode", "none", "up")
        for family in ("-4", "-6"):
            host.run("ip", family, "route", "add", "default", "dev", "eth0")


def add_address(host: Host, address: str) -> None:
    host.run("ip", "address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))


def _only_child(pid: int) -> int:
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
