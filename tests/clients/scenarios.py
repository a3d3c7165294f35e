"""What every client goes through. The names of the checks are those of the exceptions in the tables of clients."""

import asyncio
import json

from processes import PATIENCE

LARGE = "large " + "x" * 80_000 + " end"
EXACT = ["72°F ü€😀", "first line\nsecond line\n\nfourth line", " leading space", LARGE]


def messages(lines):
    """Data and name of what a page would treat as a message."""
    return [[line.get("event") or "message", line["data"]] for line in lines if not is_control(line)]


def is_control(line):
    return line.get("error") or (line.get("event") or "").startswith("signal.")


def texts(lines):
    return [data for _, data in messages(lines)]


def controls(lines, name):
    return [json.loads(line["data"]) for line in lines if line.get("event") == name]


def continuities(lines):
    return [ready["continuity"] for ready in controls(lines, "signal.ready")]


def errors(lines):
    return [line for line in lines if line.get("error")]


def is_ready(times):
    return lambda lines: len(controls(lines, "signal.ready")) >= times


async def delivers(run):
    """Nothing is a message before the first message, and data arrives exactly."""
    proxy = await run.proxy()
    reader = await run.start(proxy, "phone")
    await reader.until(is_ready(1), "signal.ready")
    run.equal("nothing is delivered before a message", messages(reader.lines), [])
    for data in EXACT:
        await run.daemon.send(run.user, "phone", data)
    await run.daemon.send(run.user, "phone", "by name", event="candidate")
    await reader.until(lambda lines: ["candidate", "by name"] in messages(lines), "the last message")
    run.equal("data arrives exactly", messages(reader.lines), [["message", data] for data in EXACT] + [["candidate", "by name"]])
    ids = [line["id"] for line in reader.lines if not is_control(line)]
    run.equal("every message has an id", [len(set(ids)), "" in ids], [len(EXACT) + 1, False])


async def resumes(run):
    """Cuts before the first message, between messages, and inside a large one: nothing is lost, and nothing comes twice."""
    proxy = await run.proxy()
    reader = await run.start(proxy, "phone")
    await reader.until(is_ready(1), "signal.ready")

    async def cut_and_send(text, times):
        proxy.hold()
        proxy.cut()
        await run.daemon.send(run.user, "phone", text)
        proxy.release()
        await reader.until(lambda lines: is_ready(times)(lines) and text in texts(lines), f"`{text}` after a cut")

    await cut_and_send("sent while away, before any message", 2)
    await run.daemon.send(run.user, "phone", "live")
    await reader.until(lambda lines: "live" in texts(lines), "a live message")
    await cut_and_send("sent while away", 3)
    proxy.cut_after(b"large xxx", 40_000)
    await run.daemon.send(run.user, "phone", LARGE)
    await proxy.was_cut()
    await run.daemon.send(run.user, "phone", "sent after the large one")
    proxy.release()
    await reader.until(lambda lines: "sent after the large one" in texts(lines), "the message behind the one that was cut")
    await run.daemon.send(run.user, "phone", "last")
    await reader.until(lambda lines: "last" in texts(lines), "the last message")
    expected = ["sent while away, before any message", "live", "sent while away", LARGE, "sent after the large one", "last"]
    run.equal("nothing is lost and nothing comes twice over a cut", texts(reader.lines), expected)
    run.equal("a cut stream says that it resumed", continuities(reader.lines), ["new", "resumed", "resumed", "resumed"])


async def is_superseded(run):
    """A newer page of the device came. The older client asks again after 60 s at the earliest, and never takes the device back."""
    proxy = await run.proxy()
    older = await run.start(proxy, "phone")
    await older.until(is_ready(1), "signal.ready")
    newer, writer = await open_page(run, "phone")
    try:
        await older.until(lambda lines: controls(lines, "signal.end"), "signal.end")
        run.equal("it learns that it was superseded", controls(older.lines, "signal.end"), [{"reason": "superseded"}])
        before = len(proxy.requests)
        await asyncio.sleep(10)
        run.equal("quiet for the first 10 s after it was superseded", len(proxy.requests) - before, 0)
        # `retry` is 60 s. A client that takes 204 for the end asks once; another one goes on, once a minute.
        await asyncio.sleep(57)
        run.equal("asks once after 60 s", len(proxy.requests) - before, 1)
        await run.daemon.send(run.user, "phone", "for the newer page")
        await asyncio.wait_for(newer.readuntil(b"for the newer page"), PATIENCE)
        run.equal("the newer page keeps the device", [texts(older.lines), len(controls(older.lines, "signal.ready"))], [[], 1])
    finally:
        writer.close()


async def open_page(run, device):
    """The newer page: reads signal.ready, and goes on reading."""
    reader, writer = await asyncio.open_connection("127.0.0.1", run.daemon.port)
    writer.write(f"GET /subscribe HTTP/1.1\r\nhost: localhost\r\nx-user-claim: {run.claim(device)}\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"signal.ready"), PATIENCE)
    return reader, writer


async def is_refused(run):
    """401 and 403 reach the caller with their status and the code of the problem."""
    for status, code, path, claim in [(401, "unauthenticated", "/subscribe", ""),
                                      (403, "forbidden", "/subscribe/somebody/device/else", None)]:
        proxy = await run.proxy()
        reader = await run.start(proxy, "phone", path=path, claim=claim)
        await reader.until(errors, f"an error for {status}")
        error = errors(reader.lines)[0]
        run.equal(f"{status} arrives with its status", str(error["code"]), str(status))
        run.equal(f"{status} arrives with its text", code in str(error["text"]), True)
        await asyncio.sleep(6)
        run.equal(f"{status} is final", len(proxy.requests), 1)


async def is_drained(run):
    """The daemon restarts. The client is told, comes back by itself to the new one, and is told that messages may be missing."""
    old = await run.own_daemon()
    proxy = await run.proxy()
    proxy.send_to(old.port)
    reader = await run.start(proxy, "phone")
    await reader.until(is_ready(1), "signal.ready")
    new = await run.own_daemon()
    proxy.send_to(new.port)
    old.terminate()
    await reader.until(lambda lines: controls(lines, "signal.end"), "signal.end")
    run.equal("it learns that the daemon drains", controls(reader.lines, "signal.end"), [{"reason": "draining"}])
    await asyncio.wait_for(old.process.wait(), PATIENCE)
    back = await reader.happens(is_ready(2), 20)
    run.equal("comes back by itself after a restart", back, True)
    if back:
        await new.send(run.user, "phone", "after the restart")
        await reader.until(lambda lines: "after the restart" in texts(lines), "a message from the new daemon")
        run.equal("a restart is told as broken", continuities(reader.lines), ["new", "broken"])


async def is_idle(run):
    """A stream without traffic lives until its heartbeat, and with the recommended query for ever."""
    async def connections(query):
        proxy = await run.proxy()
        reader = await run.start(proxy, "idle" + str(query is None), query=query)
        await reader.until(is_ready(1), "signal.ready")
        await asyncio.sleep(13)
        return len(proxy.requests)

    as_it_is, as_recommended = await asyncio.gather(connections(""), connections(None))
    run.equal("lives through 13 s of silence", as_it_is > 1, False)
    run.equal("lives with the recommended heartbeat", as_recommended, 1)


SCENARIOS = [delivers, resumes, is_superseded, is_refused, is_drained, is_idle]
