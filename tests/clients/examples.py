"""Runs the programs in the folder `examples`, each by the command in its own comment."""

import asyncio
import os
import shlex
import subprocess
import sys
from pathlib import Path

from driver import Client, main
from processes import PATIENCE, ROOT, Failed

TEXT = "it's \"72°F\" & 50% + more\nsecond line"
LINES = 40


class Example(Client):
    """A file whose comment has the command that starts it."""

    def __init__(self, name, scenarios):
        super().__init__(name, scenarios=[is_short, *scenarios])
        self.text = (ROOT / name).read_text()

    def started(self, *arguments):
        """The command with these arguments in place of its own, and the variables that it sets."""
        lines = [line.strip(" \t/") for line in self.text.splitlines()]
        words = next(shlex.split(line, comments=True) for line in lines if f" {self.name} " in line)
        command = words[:words.index(self.name) + 1]
        variables = {}
        while "=" in command[0]:
            name, _, value = command.pop(0).partition("=")
            # Here and not in the user's own folder are the packages that `pip install` brings.
            variables[name] = os.pathsep.join([value, os.environ.get(name, "")])
        return [sys.executable if word == "python" else word for word in command] + list(arguments), variables

    async def run_to_end(self, *arguments, **variables):
        """The exit code, and what it has written."""
        command, more = self.started(*arguments)
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **more, **variables}, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        out, complaint = await asyncio.wait_for(process.communicate(), PATIENCE)
        return process.returncode, out.decode().strip(), complaint.decode()


async def is_short(run):
    run.equal(f"has at most {LINES} lines", len(run.client.text.splitlines()) <= LINES, True)


class Inbox:
    """The event stream of one device, read without a library."""

    @classmethod
    async def open(cls, port, query, claim):
        self = cls()
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.writer.write(f"GET /subscribe{query} HTTP/1.0\r\nhost: localhost\r\nx-user-claim: {claim}\r\n\r\n".encode())
        await self.next()
        return self

    async def next(self):
        """Name and data of the next event that is no ping."""
        try:
            return await asyncio.wait_for(self.read(), PATIENCE)
        except asyncio.TimeoutError:
            raise Failed("no event came to the device") from None

    async def read(self):
        while True:
            lines = (await self.reader.readuntil(b"\n\n")).decode().split("\n")
            name = next((line[7:] for line in lines if line.startswith("event: ")), None)
            if name != "signal.ping":
                return name, "\n".join(line[6:] for line in lines if line.startswith("data: "))

    async def stop(self):
        self.writer.close()


async def sends(run):
    """To a device that is there, and to one that is away. Names and text come as they are, whatever is in them."""
    url = {"SIGNAL_URL": f"http://127.0.0.1:{run.daemon.port}"}
    run.user += " é/+%?"
    inbox = run.keep(await Inbox.open(run.daemon.port, "", run.claim("phone #1")))
    code, said, _ = await run.client.run_to_end(run.user, "phone #1", TEXT, **url)
    run.equal("says that a device that is there has it", [code, said], [0, "delivered"])
    run.equal("the text arrives exactly", await inbox.next(), ("greeting", TEXT))
    code, said, _ = await run.client.run_to_end(run.user, "tablet", TEXT, **url)
    run.equal("says that it is held for a device that is away", [code, said], [0, "held"])
    inbox = run.keep(await Inbox.open(run.daemon.port, "", run.claim("tablet")))
    run.equal("a device that was away gets it", await inbox.next(), ("greeting", TEXT))


async def is_known(run):
    """With tokens: the receiver learns who has sent, and a wrong token is refused in the daemon's own words."""
    secret = ROOT / "target" / f"{run.name}-{os.getpid()}-{id(run)}"
    secret.write_text("a secret of at least 32 bytes for this test")
    try:
        daemon = await run.own_daemon("--auth", "jwt", "--jwt-secret-file", str(secret))
        token = lambda user: subprocess.check_output(
            [daemon.executable, "token", "--secret-file", secret, "--as", user], text=True).strip()
        url = {"SIGNAL_URL": f"http://127.0.0.1:{daemon.port}"}
        inbox = run.keep(await Inbox.open(daemon.port, f"?format=envelope&token={token('bob/phone')}", ""))
        code, said, _ = await run.client.run_to_end("bob", "phone", "hello", SIGNAL_TOKEN=token("shop"), **url)
        run.equal("a token is taken", [code, said], [0, "delivered"])
        sender = '"from":{"user":"shop","device":null}'
        run.equal("the receiver learns who has sent", sender in (await inbox.next())[1], True)
        code, said, complaint = await run.client.run_to_end("bob", "phone", "hello", SIGNAL_TOKEN="wrong", **url)
        run.equal("a refusal is no success", [code == 0, said], [False, ""])
        told = [part in complaint for part in ("401", "unauthenticated", "The token is not valid")]
        run.equal("a refusal is told in the daemon's words", told, [True] * 3)
    finally:
        secret.unlink()


BACKEND = [sends, is_known]
CLIENTS = [
    Example("examples/backend.mjs", BACKEND),
    Example("examples/backend.go", BACKEND),
    Example("examples/backend.py", BACKEND),
    Example("examples/Backend.java", BACKEND),
]
SCENARIOS = [is_short, *BACKEND]

if __name__ == "__main__":
    main(CLIENTS, SCENARIOS, sys.argv[1:])
