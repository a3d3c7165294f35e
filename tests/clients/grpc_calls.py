"""Makes calls through the clients in `grpc/`. Each client is a program that can run many calls at once."""

import asyncio
import json
import os
import re

from processes import PATIENCE, Failed, Program, Reader

TOOLS = os.environ["CLIENT_TOOLS"] + "/grpc"
SIGNAL = "backend_signal.v1.Signal/"
HEALTH = "grpc.health.v1.Health/"
OK, NOT_FOUND, ABORTED, UNAVAILABLE = 0, 5, 10, 14


class Call(Reader):
    """One call. Its lines are the responses."""

    code = text = None

    async def end(self):
        """Waits for the end: its code and its text."""
        if not await self.happens(lambda _: self.ended, PATIENCE):
            raise Failed(f"a call did not end; its responses: {self.lines[-8:]}")
        return self.code, self.text


class Shell(Program):
    """A running client."""

    def __init__(self):
        super().__init__()
        self.calls = []

    @classmethod
    async def start(cls, command):
        variables = {"PYTHONPATH": f"{TOOLS}/python:{TOOLS}/generated/python"}
        return await super().start(command, variables, stdin=asyncio.subprocess.PIPE)

    async def add(self, line):
        if line is None:
            for call in self.calls:
                await call.add(None)
        elif "id" not in line:
            raise Failed(f"a client wrote {line}")
        elif "message" in line:
            await self.calls[line["id"]].add(line["message"])
        else:
            call = self.calls[line["id"]]
            call.code, call.text = line["code"], line["text"]
            await call.add(None)

    def call(self, base, method, *requests, metadata=None, **more):
        call = Call()
        order = {"id": len(self.calls), "base": base, "method": method, "requests": requests, "metadata": metadata or {}, **more}
        self.calls.append(call)
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        return call

    async def stop(self):
        # A client exits at the end of its input, and closes its browser.
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), PATIENCE)
        await super().stop()


class Calls:
    """The calls of one scenario."""

    def __init__(self, run, shell, base):
        self.run, self.shell, self.base = run, shell, base

    def identity(self, device):
        return {"x-user-claim": self.run.claim(device)}

    def to(self, device):
        return {"user": self.run.user, "device": device}

    def begin(self, method, *requests, device=None, metadata=None, **more):
        metadata = {**(self.identity(device) if device else {}), **(metadata or {})}
        return self.shell.call(self.base, method if "/" in method else SIGNAL + method, *requests, metadata=metadata, **more)

    def subscribe(self, device, **request):
        return self.begin("Subscribe", request, device=device)

    async def unary(self, method, request, **more):
        """One call to its end: the response, the code and the text."""
        call = self.begin(method, request, **more)
        code, text = await call.end()
        return (call.lines or [None])[0], code, text


class Page(Reader):
    """A device's stream that reconnects with its last cursor after an error and after a drain, as docs/clients.md recommends."""

    def __init__(self, calls, device):
        super().__init__()
        self.ends = []
        self.task = asyncio.create_task(self.follow(calls, device))

    async def follow(self, calls, device):
        cursor = ""
        while True:
            call, read = calls.subscribe(device, cursor=cursor), 0
            while await call.happens(lambda lines: len(lines) > read or call.ended, PATIENCE) and len(call.lines) > read:
                line = call.lines[read]
                read += 1
                cursor = line.get("ready", line.get("message", {})).get("cursor", cursor)
                await self.add(line)
            self.ends.append(await call.end())
            if self.ends[-1][0] == ABORTED:
                return await self.add(None)
            await asyncio.sleep(0.2)

    async def stop(self):
        self.task.cancel()


def kind(line):
    return next(name for name in ("ready", "message", "ping", "end", "devices", "online", "offline") if line.get(name) is not None)


def kinds(lines):
    return [kind(line) for line in lines if kind(line) != "ping"]


def texts(lines):
    return [line["message"]["data"] for line in lines if kind(line) == "message"]


def continuities(lines):
    return [re.sub("CONTINUITY_", "", line["ready"]["continuity"]).lower() for line in lines if kind(line) == "ready"]


def reasons(lines):
    return [re.sub("END_REASON_", "", line["end"]["reason"]).lower() for line in lines if kind(line) == "end"]


def seconds(duration):
    """The whole seconds of a Duration, which each client prints in its own form."""
    while isinstance(duration, dict):
        duration = duration.get("seconds", duration.get("low"))
    return int(str(duration).removesuffix("s"))


def has(name, times=1):
    return lambda lines: kinds(lines).count(name) >= times
