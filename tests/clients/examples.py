"""Runs the programs in the folder `examples`, each by the command in its own comment."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from driver import Client, main
from processes import PATIENCE, ROOT, Failed, Program
from web import CHROMIUM, FIREFOX, Browser

TEXT = "it's \"72°F\" & 50% + more\nsecond line"
LINES = 40
BROWSERS = {"chromium": Browser(CHROMIUM), "firefox": Browser(FIREFOX)}


class Example(Client):
    """A file whose comment has the command that starts it."""

    def __init__(self, name, scenarios):
        super().__init__(name, scenarios=[is_short, *scenarios], http1=False)
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
        claim = f"x-user-claim: {claim}\r\n" if claim else ""
        self.writer.write(f"GET /subscribe{query} HTTP/1.0\r\nhost: localhost\r\n{claim}\r\n".encode())
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


# What a page does for the scenarios of a call.
CALL = """
    const call = kept.call = signal.call("robot", "arm");
    call.on("state", (state) => show({ event: "state", data: state }));
    call.on("restart", (why) => show({ event: "restart", data: why }));
    const chat = kept.chat = call.channel("chat");
    chat.onmessage = ({ data }) => show({ event: "echo", data: data.byteLength ?? data });
    chat.onopen = () => show({ event: "open", data: "" });
"""


def told(name, *data):
    """Whether the page has told this so often, or with these data in this order."""
    return lambda lines: [line["data"] for line in lines if line.get("event") == name][-len(data):] == list(data)


class Robot:
    """examples/device.py, and a page in each browser that calls it."""

    @classmethod
    async def start(cls, run, daemon):
        self = cls()
        self.run, self.proxy, self.url = run, await run.proxy(), f"http://127.0.0.1:{daemon.port}/"
        self.proxy.send_to(daemon.port)
        await self.begin()
        return self

    async def begin(self):
        command, variables = self.run.client.started(self.proxy.base.removeprefix("http://"), "robot", "arm")
        self.program = self.run.keep(await Program.start(command, variables))

    async def page(self, browser, user):
        page = self.run.keep(await browser.library("client.js")(self.url, user=user, device="page"))
        await page.run(CALL)
        return page

    async def echoes(self, page, *texts):
        """What the page says comes back, in order."""
        for text in texts:
            await page.run(f"kept.chat.send({json.dumps(text)})")
        await page.until(told("echo", *texts), f"the echo of {texts}")


async def in_each_browser(robot, scenario):
    await asyncio.gather(*(scenario(browser, name) for name, browser in BROWSERS.items()))


async def answers(run):
    """Pages of two browsers at the same time: text and bytes come back, also after an ICE restart, a reload, and a new call."""
    robot = await Robot.start(run, await run.own_daemon("--dev"))

    async def calls(browser, name):
        page = await robot.page(browser, name)
        await robot.echoes(page, f"hello from {name}", *map(str, range(10)))
        await page.run("kept.chat.send(new Uint8Array(3000))")
        await page.until(told("echo", 3000), "the echo of bytes")
        states = [line["data"] for line in page.lines if line.get("event") in ("state", "restart")]
        run.equal("a call connects at once", [state for state in states if state not in ("waiting", "connecting")], ["connected"])
        # Its own device is superseded by the page that is loaded anew.
        again = await robot.page(browser, name)
        await robot.echoes(again, "after a reload")
        await again.run("kept.call.pc.restartIce()")
        await again.until(told("restart", "peer_reloaded"), "the call begins anew, because aiortc cannot restart ICE")
        await again.until(told("open", "", ""), "the channel opens once more")
        await robot.echoes(again, "after an ICE restart")
        await again.run("kept.call.close()")
        await again.until(told("state", "closed"), "the call ends")
        await again.run(CALL)
        await robot.echoes(again, "after a new call")

    await in_each_browser(robot, calls)


async def comes_back(run):
    """The device's connection is cut, and the device is started anew. The calls go on."""
    robot = await Robot.start(run, await run.own_daemon("--dev"))
    pages = [await robot.page(browser, name) for name, browser in BROWSERS.items()]
    for page in pages:
        await robot.echoes(page, "at first")
    robot.proxy.cut()
    for page in pages:
        await robot.echoes(page, "while its stream is cut")
        # The offer waits for the device, which resumes.
        await page.run("kept.call.pc.restartIce()")
        await page.until(told("open", "", ""), "the channel opens once more")
        await robot.echoes(page, "after a cut")
    await robot.program.stop()
    await robot.begin()
    for page in pages:
        await page.until(told("open", "", "", ""), "the channel opens with the device that was started anew")
        await robot.echoes(page, "after a new start")


class Caller:
    """A caller that is no page: it can say anything."""

    @classmethod
    async def start(cls, run, daemon):
        from aiortc import RTCConfiguration, RTCPeerConnection

        self = cls()
        self.daemon, self.me = daemon, "user=tess&device=one"
        self.inbox = run.keep(await Inbox.open(daemon.port, f"?format=envelope&{self.me}", ""))
        self.connection = run.keep(RTCPeerConnection(RTCConfiguration([])))
        self.connection.stop = self.connection.close
        self.channel = self.connection.createDataChannel("chat")
        await self.connection.setLocalDescription(await self.connection.createOffer())
        self.offer = {"type": "offer", "sdp": self.connection.localDescription.sdp}
        return self

    async def say(self, message, me=None):
        await self.daemon.send("robot", "arm?" + (self.me if me is None else me), message, event="call")

    async def hear(self):
        return json.loads(json.loads((await self.inbox.next())[1])["data"])


class Stun(asyncio.DatagramProtocol):
    """Counts what comes, and does not reply."""

    count = 0

    def datagram_received(self, data, address):
        self.count += 1


async def keeps_the_rules(run):
    """A repeated offer gets the same answer, an offer for a session of before `unknown_session`, and a bad message nothing."""
    # A STUN server that does not reply: the answer takes 5 s.
    stun, asked = await asyncio.get_running_loop().create_datagram_endpoint(Stun, local_addr=("127.0.0.1", 0))
    daemon = await run.own_daemon("--dev", "--stun", f"stun:127.0.0.1:{stun.get_extra_info('sockname')[1]}")
    await Robot.start(run, daemon)
    caller = await Caller.start(run, daemon)
    s1, offer = {"v": 1, "session": "s1", "seq": 1}, caller.offer
    for bad in ["no object", {"v": 1}, {**s1, "v": 2, "description": offer}, {**s1, "bye": "closed"},
                {**s1, "candidates": [{"candidate": "candidate:no"}]}, {**s1, "description": {"type": "offer"}}]:
        await caller.say(bad)
    await caller.say({**s1, "description": offer}, me="")
    for session, seq, more in [("s2", 1, {}), ("s2", 2, {}), ("s2", 3, {"peer": "of before"}), ("s3", 1, {})]:
        await caller.say({"v": 1, "session": session, "seq": seq, "description": offer, **more})
    first, second, third, fourth = [await caller.hear() for _ in range(4)]
    stun.close()
    # All but `o=`, which has the time.
    own = lambda answer: [line for line in answer["description"]["sdp"].split("\r\n") if not line.startswith("o=")]
    run.equal("an offer gets an answer", [first["peer"], first["v"], first["description"]["type"]], ["s2", 1, "answer"])
    same = [second["session"] == first["session"], second["peer"], own(second) == own(first), second["seq"] > first["seq"]]
    run.equal("a repeated offer gets the same answer", same, [True, "s2", True, True])
    run.equal("an offer for a session of before", [third.get("bye"), third["peer"]], ["unknown_session", "s2"])
    run.equal("a new session gets a new one", [fourth["session"] in (first["session"], third["session"]), fourth["peer"]], [False, "s3"])
    run.equal("it asks the STUN server that the daemon names", asked.count > 0, True)


async def forgets(run):
    """The caller goes without a word: no socket stays open, and an offer of the same session is a new call."""
    from aiortc import RTCSessionDescription

    daemon = await run.own_daemon("--dev")
    robot = await Robot.start(run, daemon)
    caller = await Caller.start(run, daemon)
    folder = Path(f"/proc/{robot.program.process.pid}/fd")
    sockets = lambda: sum(os.readlink(file).startswith("socket:") for file in folder.iterdir())
    echo = asyncio.Event()
    caller.channel.on("open", lambda: caller.channel.send("hello"))
    caller.channel.on("message", lambda text: echo.set() if text == "hello" else None)
    await caller.say({"v": 1, "session": "s1", "seq": 1, "description": caller.offer})
    answer = await caller.hear()
    await caller.connection.setRemoteDescription(RTCSessionDescription(**answer["description"]))
    await asyncio.wait_for(echo.wait(), PATIENCE)
    during, deadline = sockets(), asyncio.get_running_loop().time() + PATIENCE
    await caller.connection.close()
    while sockets() >= during and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)
    run.equal("a connection that has ended keeps no socket", sockets() < during, True)
    await caller.say({"v": 1, "session": "s1", "seq": 2, "description": caller.offer})
    again = await caller.hear()
    run.equal("a call that has ended is forgotten", ["description" in again, again["session"] == answer["session"]], [True, False])


async def receives(run):
    """Messages come once and in order over a cut. Another program with the same device ends this one."""
    proxy = await run.proxy()
    command, variables = run.client.started(proxy.base.removeprefix("http://"), run.user, "phone")
    program = run.keep(await Program.start(command, variables))
    sent = [["", "", "text", data] for data in (TEXT, "live", "while away", "and back")]

    async def send(message):
        await run.daemon.send(run.user, "phone", message[3], event="text")

    for message in sent[:2]:
        await send(message)
        await program.until(lambda lines: message in lines, "a message")
    proxy.hold()
    proxy.cut()
    await send(sent[2])
    proxy.release()
    await program.until(lambda lines: sent[2] in lines, "a message after a cut")
    await send(sent[3])
    await program.until(lambda lines: sent[3] in lines, "a live message after a cut")
    run.equal("each message comes once and in order", program.lines, sent)
    run.keep(await Inbox.open(run.daemon.port, "", run.claim("phone")))
    await program.happens(lambda _: program.ended, PATIENCE)
    await program.process.wait()
    run.equal("it ends when another program is this device", [program.process.returncode, b"ABORTED" in program.complaints], [1, True])


BACKEND = [sends, is_known]
DEVICE = [answers, comes_back, keeps_the_rules, forgets]
CLIENTS = [
    Example("examples/backend.mjs", BACKEND),
    Example("examples/backend.go", BACKEND),
    Example("examples/backend.py", BACKEND),
    Example("examples/Backend.java", BACKEND),
    Example("examples/signaling.py", [receives]),
    Example("examples/device.py", DEVICE),
]
SCENARIOS = [is_short, receives, *BACKEND, *DEVICE]

if __name__ == "__main__":
    main(CLIENTS, SCENARIOS, sys.argv[1:], BROWSERS.values())
