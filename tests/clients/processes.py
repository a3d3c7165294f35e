"""Processes of a run: the daemon, and clients whose lines are waited for."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# How long a scenario waits for an event before it fails. No check measures this time.
PATIENCE = 90


class Failed(Exception):
    """Something that a scenario waited for did not come, or was not as it should be."""


class Reader:
    """What a client has printed, and ways to wait for it."""

    def __init__(self):
        self.lines = []
        self.ended = False
        self.changed = asyncio.Condition()

    async def add(self, line):
        async with self.changed:
            if line is None:
                self.ended = True
            else:
                self.lines.append(line)
            self.changed.notify_all()

    async def happens(self, test, seconds):
        """Whether `test` of the lines becomes true in this time."""
        async def wait():
            async with self.changed:
                await self.changed.wait_for(lambda: test(self.lines))
        try:
            await asyncio.wait_for(wait(), seconds)
            return True
        except asyncio.TimeoutError:
            return False

    async def until(self, test, what):
        if not await self.happens(lambda lines: test(lines) or self.ended, PATIENCE) or not test(self.lines):
            state = "the client has ended" if self.ended else "the client runs"
            raise Failed(f"{what} did not come ({state}); its last lines: {shorten(self.lines[-8:])}")


class Program(Reader):
    """A client in a process of its own."""

    @classmethod
    async def start(cls, command, variables, stdin=asyncio.subprocess.DEVNULL):
        self = cls()
        environment = {**os.environ, **variables, "PYTHONUNBUFFERED": "1"}
        pipe, limit = asyncio.subprocess.PIPE, 1 << 24
        self.process = await asyncio.create_subprocess_exec(
            *command, env=environment, cwd=ROOT, stdin=stdin, stdout=pipe, stderr=pipe, limit=limit)
        self.complaints = b""
        self.tasks = [asyncio.create_task(self.read()), asyncio.create_task(self.read_complaints())]
        return self

    async def read(self):
        while line := await self.process.stdout.readline():
            try:
                await self.add(json.loads(line))
            except ValueError:
                await self.add({"error": True, "code": "not JSON", "text": line.decode(errors="replace")})
        await self.add(None)

    async def read_complaints(self):
        while piece := await self.process.stderr.read(1 << 16):
            self.complaints = (self.complaints + piece)[-4000:]

    async def stop(self):
        if self.process.returncode is None:
            try:
                self.process.kill()
            except ProcessLookupError:
                pass
        await self.process.wait()
        await asyncio.gather(*self.tasks)


class Daemon:
    """The daemon in a process of its own, on a free port."""

    @classmethod
    async def start(cls, *options):
        self = cls()
        self.executable = os.environ.get("DAEMON", str(ROOT / "target/debug/backend-signal"))
        self.process = await asyncio.create_subprocess_exec(
            self.executable, "--host", "127.0.0.1", "--port", "0", *options, env={}, stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE)
        self.log = []
        while "listening on " not in (self.log or [""])[-1]:
            line = await asyncio.wait_for(self.process.stderr.readline(), PATIENCE)
            if not line:
                raise Failed(f"the daemon has ended before it listened: {self.log}")
            self.log.append(line.decode())
        self.port = int(self.log[-1].rsplit(":", 1)[1])
        self.task = asyncio.create_task(self.read())
        return self

    async def read(self):
        while line := await self.process.stderr.readline():
            self.log.append(line.decode())

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    async def stop(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self.task

    async def send(self, user, device, data, event=None, ttl=30):
        """Posts a message, and demands that it is accepted: delivered, or held while the device is away."""
        body = json.dumps({"data": data} | ({"event": event} if event else {})).encode()
        headers = {"content-type": "application/json", "ttl": str(ttl)}
        status, answer = await request(self.port, "POST", f"/user/{user}/device/{device}", headers, body)
        if status not in (200, 202):
            raise Failed(f"POST to {user}/{device}: {status} {answer}")
        return status

    async def devices(self, user):
        return json.loads((await request(self.port, "GET", f"/user/{user}/devices"))[1])


async def request(port, method, path, headers=None, body=b""):
    """One request on a connection of its own: status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = {"host": f"127.0.0.1:{port}", "connection": "close", "content-length": str(len(body)), **(headers or {})}
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    writer.write(head.encode() + body)
    answer = await asyncio.wait_for(reader.read(-1), PATIENCE)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body.decode()


def shorten(value):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return re.sub(r"(.)\1{40,}", lambda same: f"{same[1]}...({len(same[0])})", text)[:1500]
