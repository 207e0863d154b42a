"""What the tests share: one site, made by `postseal init`, and one laboratory that runs it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from lab.host import ENVIRONMENT, Host
from lab.lab import Lab
from lab.site import PROGRAM, Person, Site

PROGRAMS = [
    *("caddy", "dnssec-signzone", "dovecot", "doveadm", "ip", "kzonecheck", "named", "named-checkzone", "nginx", "node", "nsd"),
    *("nsenter", "nsupdate", "openssl", "rspamadm", "rspamd", "smtpd", "unbound"),
]
FILTER = Path("/usr/libexec/opensmtpd/filter-rspamd")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: runs only with POSTSEAL_FULL=yes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a part of the laboratory the tests are skipped, or with INTEROP=require everything fails."""
    missing = what_is_missing()
    if missing and os.environ.get("INTEROP") == "require":
        pytest.exit(f"INTEROP=require, but {missing}", returncode=1)
    for item in items:
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))
        elif item.get_closest_marker("full") and os.environ.get("POSTSEAL_FULL") != "yes":
            item.add_marker(pytest.mark.skip(reason="runs with POSTSEAL_FULL=yes"))


def what_is_missing() -> str | None:
    if sys.platform != "linux" or os.geteuid() != 0:
        return "the laboratory needs root on Linux"
    absent = [program for program in PROGRAMS if not shutil.which(program, path=ENVIRONMENT["PATH"])]
    if absent or not FILTER.exists():
        return f"these are not installed (bash tests/install): {', '.join(absent or [str(FILTER)])}"
    if not PROGRAM.exists():
        return f"{PROGRAM} is not built (cargo build)"
    try:
        Host("probe").close()
    except OSError as error:
        return str(error)
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failing test shows the end of each daemon's log."""
    report = yield
    if report.failed and call.when != "teardown":
        for lab in {value for value in item.funcargs.values() if isinstance(value, Lab)}:
            report.sections += [(f"{daemon.name}, the end of its log", daemon.log_end(15)) for daemon in lab.daemons]
    return report


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site as `init` makes it with Alice, then Bob with both forms of .p12, and Carol, who also sends as sales@."""
    site = Site.init(tmp_path_factory.mktemp("site") / "example.com")
    site.run("user", "add", "bob@example.com", "--apple")
    site.run("user", "add", "carol@example.com", "--sender", "sales@example.com")
    return site


@pytest.fixture(scope="session")
def lab(site: Site) -> Iterator[Lab]:
    """The site, installed unmodified and running. Tests leave it as they found it."""
    with site.lab() as lab:
        lab.start()
        yield lab


@pytest.fixture(scope="session")
def alice(site: Site) -> Person:
    return site.person("alice@example.com")


@pytest.fixture(scope="session")
def bob(site: Site) -> Person:
    return site.person("bob@example.com")


@pytest.fixture(scope="session")
def carol(site: Site) -> Person:
    return site.person("carol@example.com")
