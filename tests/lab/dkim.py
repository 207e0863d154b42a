"""Verifies DKIM signatures with dkimpy, which shares no code with what signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import dkim as dkimpy  # type: ignore[import-untyped]
import dns.rdatatype
import dns.zone

Txt = Callable[[str], bytes | None]
"""Answers a TXT query: the joined strings of the record at a name, or None."""


@dataclass(frozen=True)
class Signature:
    domain: str
    selector: str
    algorithm: str
    valid: bool
    problem: str = ""


def verify(message: bytes, txt: Txt) -> list[Signature]:
    """Every DKIM-Signature of a message, from the top, with the verdict on it."""
    message = message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    fields = [value for name, value in dkimpy.DKIM(message).headers if name.lower() == b"dkim-signature"]
    result = []
    for index, value in enumerate(fields):
        tags = dkimpy.util.parse_tag_value(value)
        problem = ""
        try:
            valid = dkimpy.DKIM(message).verify(index, dnsfunc=lambda name, timeout=5: txt(name.decode().rstrip(".")))
        except dkimpy.DKIMException as error:
            valid, problem = False, str(error)
        result.append(Signature(tags[b"d"].decode(), tags[b"s"].decode(), tags[b"a"].decode(), valid, problem))
    return result


def zone_txt(text: str, origin: str) -> Txt:
    """TXT answers out of the text of a zone, which may lack SOA and NS."""
    zone = dns.zone.from_text(f"$TTL 300\n{text}", f"{origin}.", relativize=False, check_origin=False)

    def txt(name: str) -> bytes | None:
        found = zone.get_rdataset(f"{name}.", dns.rdatatype.TXT)
        return b"".join(next(iter(found)).strings) if found else None

    return txt


def verdicts(message: bytes, txt: Txt) -> list[tuple[str, str, str]]:
    """Domain, algorithm and `valid` or the problem of each signature, sorted."""
    return sorted((one.domain, one.algorithm, "valid" if one.valid else one.problem) for one in verify(message, txt))
