"""Several commands at once on one site."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

from lab.faults import ENVIRONMENT, Records, assert_settled
from lab.site import PROGRAM, Site

WAITING = "postseal: waiting for another postseal that works on this site\n"


def test_eight_user_adds_and_a_render_at_once_lose_nothing_and_whoever_waits_says_so(tmp_path: Path) -> None:
    site = Site.init(tmp_path / "site").directory
    added = [f"user{number}@example.com" for number in range(8)]
    commands = [["user", "add", address] for address in added] + [["render"]]
    with (site / "state/lock").open("r+") as lock:
        # Held until all of them wait, so that none can slip by.
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = [
            subprocess.Popen(
                [PROGRAM, *command, "--site", site],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for command in commands
        ]
        for process in running:
            assert process.stderr and process.stderr.readline() == WAITING
    ends = [(process.communicate(timeout=120), process.returncode) for process in running]
    assert [(talk, code) for (_, talk), code in ends] == [("", 0)] * 9, ends

    records = Records.read(site)
    assert records.accounts.keys() == {"alice@example.com", *added}
    clients = [whose for kind, _, _, whose, _ in records.certificates.values() if kind == "client"]
    assert sorted(clients) == sorted(["alice@example.com", *added])
    assert len(set(records.twins)) == 9
    assert_settled(site, records)
