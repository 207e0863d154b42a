"""The test laboratory: a rendered tree, run by the real daemons on a small network of its own.

    from lab import Lab, Client

    with Lab(out / "mx.example.com/root", out / "mx.example.com/MANIFEST",
             zones={"example.com": zone_text}, mailboxes=["alice@example.com"]) as lab:
        lab.start()
        reply = lab.submit("alice@example.com", "bob@far.test", compose("alice@example.com", "bob@far.test"),
                           client=Client(pem), login=("alice@example.com", "password"))
        [delivered] = lab.delivered("bob@far.test")
        assert all(signature.valid for signature in verify(delivered, lab.live_txt))

It needs root, Linux, and the packages of tests/install. See `lab.lab.Lab` for the network.
"""

from lab.client import Client, Reply, compose
from lab.dkim import Signature, Txt, verdicts, verify, zone_txt
from lab.host import Daemon, DaemonFailed, Host, wait_until
from lab.lab import Lab
from lab.manifest import Entry, read_manifest
from lab.site import DOMAIN, HOST, SIGNED, Person, Site

__all__ = [
    "DOMAIN",
    "HOST",
    "SIGNED",
    "Client",
    "Daemon",
    "DaemonFailed",
    "Entry",
    "Host",
    "Lab",
    "Person",
    "Reply",
    "Signature",
    "Site",
    "Txt",
    "compose",
    "read_manifest",
    "verdicts",
    "verify",
    "wait_until",
    "zone_txt",
]
