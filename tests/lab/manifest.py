"""The MANIFEST of a rendered tree: who owns each file, and who may read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.host import Host


@dataclass(frozen=True)
class Entry:
    """One line, `PATH OWNER GROUP MODE CLASS`; the path of a directory ends in `/`."""

    path: str
    owner: str
    group: str
    mode: int
    kind: str

    @property
    def is_directory(self) -> bool:
        return self.path.endswith("/")


def read_manifest(text: str) -> list[Entry]:
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split()
        if len(fields) != 5:
            raise ValueError(f"MANIFEST:{number}: not `PATH OWNER GROUP MODE CLASS`: {line}")
        path, owner, group, mode, kind = fields
        entries.append(Entry(path if path.startswith("/") else f"/{path}", owner, group, int(mode, 8), kind))
    return entries


def install(host: Host, root: Path, manifest: list[Entry]) -> None:
    """Installs a tree unmodified, directories first; a file of the tree that the manifest does not name is an error."""
    named = {entry.path for entry in manifest}
    stray = [file for file in root.rglob("*") if not file.is_dir() and f"/{file.relative_to(root)}" not in named]
    if stray:
        raise ValueError(f"not in the manifest: {', '.join(map(str, sorted(stray)))}")
    for entry in sorted(manifest, key=lambda entry: (not entry.is_directory, entry.path)):
        if entry.is_directory:
            host.directory(entry.path.rstrip("/"), entry.owner, entry.group, entry.mode)
        else:
            host.write(entry.path, (root / entry.path[1:]).read_bytes(), entry.owner, entry.group, entry.mode)
