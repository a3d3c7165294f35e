"""Runs clients that other people wrote against the built daemon, each through a proxy that can cut its connection.

A client of event streams is a small program, or code in the page of a browser (`web/page.html`). Environment variables tell it what to do:

    BASE      the address of its proxy: http://127.0.0.1:PORT
    URL       the whole address of its event stream
    CLAIM     the value of the header X-User-Claim; empty: it sends none
    DEFAULTS  `1`: do not apply what docs/clients.md recommends (only for a client with `knows_defaults`)

It subscribes, reconnects as its library does or as docs/clients.md recommends, and prints one line of JSON for each event that the
library delivers: `{"event": NAME or null, "data": TEXT, "id": CURSOR}`, and for each error `{"error": true, "code": …, "text": …}`, with
`"by_hand": true` if the library hides the error and the program found it with its own request. It runs until it is killed, or until its
library gives up.

A client of gRPC makes the calls that it reads from standard input (`grpc_calls.py`, `grpc/python/client.py`).

A table of clients (`event_streams.py`, `grpc_clients.py`) is a list of `Client`; `main` runs every scenario for each of them:

    async def scenario(run):                       # `run` is a Run
        proxy = await run.proxy()                  # Proxy: requests, hold(), release(), cut(), cut_after(), send_to()
        reader = await run.start(proxy, "phone")   # Program or anything else with `lines`, `until`, `happens`, `ended`, `stop`
        await reader.until(lambda lines: ..., "what is waited for")
        await run.daemon.send(run.user, "phone", "text")
        run.equal("name of the check", seen, expected)

If a client cannot pass a check, it has an `KnownFault` under the check's name: what is seen instead, and why. The run fails if anything
else is seen, so an exception cannot go stale (but for a fault that a client has only sometimes). The same reason must be in docs/clients.md, under the heading with the client's
name.
"""

import asyncio
import json
import re
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

from processes import ROOT, Daemon, Failed, Program, shorten, start
from proxy import Proxy

@dataclass
class KnownFault:
    """What one client does instead of what a check demands, and why."""

    seen: Any
    why: str
    # The fault depends on a race in the client: it may also do what the check demands.
    sometimes: bool = False


@dataclass
class Client:
    name: str
    command: list[str] | None = None
    # Added to the address of every stream: what docs/clients.md recommends for this client.
    query: str = ""
    exceptions: dict[str, KnownFault] = field(default_factory=dict)
    # Starts a client that is no program, such as a page of a browser: `await start(url, defaults)`.
    start: Any = None
    # The proxy adds the claim, for clients that cannot set a header. That is how a forward-auth proxy works.
    claim_from_proxy: bool = False
    # When DEFAULTS is set, the program leaves out the settings and the code that docs/clients.md recommends.
    knows_defaults: bool = False
    # How often the library itself asks once more for a stream that was refused, to learn why.
    probes: int = 0
    # The client can also send: client.js.
    can_send: bool = False
    # False: the proxy passes bytes through without reading HTTP (for HTTP/2).
    http1: bool = True
    # The proxy speaks TLS with the client: an `SSLContext`.
    tls: Any = None
    # `None`: all scenarios of the table.
    scenarios: list | None = None

    async def stop(self):
        """Called after the scenarios."""


class Run:
    """One scenario of one client."""

    def __init__(self, client, daemon, name):
        self.client, self.daemon, self.name = client, daemon, name
        # A user of its own for each client and scenario: all of them run at the same time.
        self.user = re.sub("[^a-z0-9]", "", client.name.lower()) + "-" + name
        self.things, self.checked, self.faults = [], set(), []

    def claim(self, device):
        return json.dumps({"userid": self.user, "clientid": device}, separators=(",", ":"))

    async def own_daemon(self, *options):
        return self.keep(await Daemon.start(*options))

    async def proxy(self, claim=None):
        """A proxy to the shared daemon. It adds `claim` for a client that cannot set headers."""
        claim = claim if self.client.claim_from_proxy else None
        proxy = await Proxy.start(self.daemon.port, self.client.http1, claim, self.client.tls)
        self.things.append(proxy)
        return proxy

    async def start(self, proxy, device, path="/subscribe", query=None, claim=None, defaults=False):
        """Starts the client. `query` replaces the recommended query, and `claim` the default identity."""
        claim = self.claim(device) if claim is None else claim
        url = proxy.base + path + (self.client.query if query is None else query)
        if self.client.claim_from_proxy:
            proxy.claim = claim
        if self.client.start:
            return self.keep(await self.client.start(url, defaults))
        variables = {"BASE": proxy.base, "URL": url, "CLAIM": claim, "DEFAULTS": "1" if defaults else ""}
        return self.keep(await Program.start(self.client.command, variables))

    def keep(self, thing):
        self.things.append(thing)
        return thing

    def equal(self, name, seen, expected):
        """A check: `seen` must be `expected`, or exactly what the client's exception for this name says."""
        self.checked.add(name)
        exception = self.client.exceptions.get(name)
        if exception and seen == expected:
            if exception.sometimes:
                return
            self.faults.append(f"{name}: the exception is stale, the client does what it should: {shorten(seen)}")
        elif seen != (exception.seen if exception else expected):
            wanted = exception.seen if exception else expected
            self.faults.append(f"{name}: saw {shorten(seen)}, expected {shorten(wanted)}")

    async def close(self):
        for thing in reversed(self.things):
            if isinstance(thing, Proxy):
                thing.server.close()
                thing.cut()
            else:
                await thing.stop()
                if self.faults and getattr(thing, "complaints", b""):
                    self.faults.append("stderr: " + thing.complaints.decode(errors="replace")[-1500:])


async def run_scenario(client, daemon, scenario):
    run = Run(client, daemon, scenario.__name__.replace("_", "-"))
    try:
        await scenario(run)
    except Failed as failed:
        run.faults.append(str(failed))
    except Exception:
        run.faults.append(traceback.format_exc())
    finally:
        await run.close()
    return run


def missing_documentation(client):
    """What is missing in docs/clients.md: the heading of the client, or the reason of an exception in its section. Of an example the
    link to it."""
    page = (ROOT / "docs/clients.md").read_text()
    if client.name.startswith("examples/"):
        return [] if f"(../{client.name})" in page else [f"docs/clients.md has no link to {client.name}"]
    sections = re.split(r"^#+ ", page, flags=re.MULTILINE)
    section = next((part for part in sections if part.split("\n")[0].strip() == client.name), None)
    if section is None:
        return [f"docs/clients.md has no heading `{client.name}`"]
    words = " ".join(section.split())
    missing = [exception.why for exception in client.exceptions.values() if exception.why not in words]
    return [f"docs/clients.md does not say below `{client.name}`: {why}" for why in missing]


async def run_client(client, daemon, scenarios, whole):
    chosen = [scenario for scenario in client.scenarios or scenarios if scenario in scenarios]
    runs = await asyncio.gather(*(run_scenario(client, daemon, scenario) for scenario in chosen))
    await client.stop()
    faults = [f"{run.name}: {fault}" for run in runs for fault in run.faults] + missing_documentation(client)
    checked = set().union(*(run.checked for run in runs))
    if whole:
        faults += [f"exception for a check that was not made: {name}" for name in client.exceptions if name not in checked]
    exceptions = [name for name in client.exceptions if name in checked]
    exceptions = f" (but: {', '.join(exceptions)})" if exceptions else ""
    print(f"{client.name}: {len(checked)} checks{exceptions}" if not faults else f"{client.name}: FAILED", flush=True)
    for fault in faults:
        print(f"  {fault}", flush=True)
    return not faults


async def run_all(clients, scenarios, whole, things):
    daemon = await start()
    try:
        return all(await asyncio.gather(*(run_client(client, daemon, scenarios, whole) for client in clients)))
    finally:
        for thing in [daemon, *things]:
            await thing.stop()


def main(clients, scenarios, arguments, things=()):
    """Runs all clients and scenarios, or only those that the arguments name. `things` are stopped at
    the end. Exits with 1 after a fault."""
    chosen = [scenario for scenario in scenarios if scenario.__name__ in arguments] or scenarios
    names = set(arguments) - {scenario.__name__ for scenario in scenarios}
    named = [client for client in clients if not names or client.name in names]
    began = time.monotonic()
    passed = asyncio.run(run_all(named, chosen, chosen == scenarios, things))
    print(f"{len(named)} clients in {time.monotonic() - began:.0f} s")
    sys.exit(0 if passed else 1)
