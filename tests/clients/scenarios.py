"""The scenarios for every event stream client. Exceptions in `event_streams.py` use the names of these checks."""

import asyncio
import json

from processes import PATIENCE

UNICODE = "U+0085 \u0085 and U+2028 \u2028"
LARGE = "large " + "x" * 80_000 + " end"
EXACT = ["72°F ü€😀", "first line\nsecond line\n\nfourth line", " leading space", UNICODE, LARGE]


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


def streams(proxy):
    """How often the client asked for the stream. The `fetch` with which a page reads the reason of a refusal does not count."""
    return sum("text/event-stream" in head for head in proxy.requests)


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

    async def cut_and_send(text, times, reset):
        proxy.hold()
        proxy.cut(reset)
        await run.daemon.send(run.user, "phone", text)
        proxy.release()
        await reader.until(lambda lines: is_ready(times)(lines) and text in texts(lines), f"`{text}` after a cut")

    await cut_and_send("sent while away, before any message", 2, reset=False)
    await run.daemon.send(run.user, "phone", "live")
    await reader.until(lambda lines: "live" in texts(lines), "a live message")
    await cut_and_send("sent while away", 3, reset=True)
    proxy.cut_after(b"large xxx", 40_000)
    await run.daemon.send(run.user, "phone", LARGE)
    await proxy.was_cut()
    await run.daemon.send(run.user, "phone", "sent after the large one")
    proxy.release()
    await reader.until(lambda lines: "sent after the large one" in texts(lines), "the message behind the one that was cut")
    await run.daemon.send(run.user, "phone", "last")
    await reader.until(lambda lines: "last" in texts(lines), "the last message")
    expected = ["sent while away, before any message", "live", "sent while away", LARGE, "sent after the large one", "last"]
    beginnings = [text for text in texts(reader.lines) if text != LARGE and LARGE.startswith(text)]
    run.equal("the beginning of a message that was cut is not delivered", len(beginnings), 0)
    whole = [text for text in texts(reader.lines) if text not in beginnings]
    run.equal("nothing is lost and nothing comes twice over a cut", whole, expected)
    first = {line["id"]: line["data"] for line in reversed(reader.lines) if not is_control(line)}
    run.equal("each message has an id of its own", list(reversed(first.values())), expected)
    run.equal("a cut stream says that it resumed", continuities(reader.lines), ["new", "resumed", "resumed", "resumed"])


async def is_superseded(run):
    """A newer page connects. The older one waits (`retry` is 60 s). The newer one keeps the device, even after a cut."""
    older_proxy, newer_proxy = await run.proxy(), await run.proxy()
    older = await run.start(older_proxy, "phone")
    await older.until(is_ready(1), "signal.ready")
    newer = await run.start(newer_proxy, "phone")
    await older.until(lambda lines: controls(lines, "signal.end"), "signal.end")
    run.equal("it learns that it was superseded", controls(older.lines, "signal.end"), [{"reason": "superseded"}])
    before = streams(older_proxy)
    await asyncio.sleep(12)
    run.equal("quiet after it was superseded", streams(older_proxy) - before, 0)
    newer_proxy.cut()
    await newer.until(is_ready(2), "signal.ready of the newer page after a cut")
    await run.daemon.send(run.user, "phone", "for the newer page")
    await newer.until(lambda lines: "for the newer page" in texts(lines), "a message for the newer page")
    run.equal("the older page never has the device again", continuities(older.lines), ["new"])
    run.equal("the newer page keeps the device", continuities(newer.lines), ["new", "resumed"])
    run.equal("only the newer page gets messages", [texts(newer.lines), texts(older.lines)], [["for the newer page"], []])


async def meets_204(run):
    """A superseded client reconnects and gets 204. The cursor is in the query, because some clients cannot set a header."""
    older, writer = await open_page(run, "phone")
    cursor = (await asyncio.wait_for(older.readuntil(b"\n\n"), PATIENCE)).split(b"id: ")[1].strip().decode()
    newer, newer_writer = await open_page(run, "phone")
    try:
        proxy = await run.proxy()
        query = run.client.query + ("&" if run.client.query else "?") + f"lastEventId={cursor}"
        reader = await run.start(proxy, "phone", query=query)
        await reader.happens(lambda lines: proxy.requests, PATIENCE)
        await asyncio.sleep(12)
        run.equal("204 is final", streams(proxy) == 1, True)
        await run.daemon.send(run.user, "phone", "for the newer page")
        await asyncio.wait_for(newer.readuntil(b"for the newer page"), PATIENCE)
        run.equal("a client that meets 204 gets nothing", [line for line in reader.lines if not is_control(line)], [])
    finally:
        writer.close()
        newer_writer.close()


async def open_page(run, device):
    """Opens a stream without a client library, and reads up to `signal.ready`. The caller may read on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", run.daemon.port)
    writer.write(f"GET /subscribe HTTP/1.1\r\nhost: localhost\r\nx-user-claim: {run.claim(device)}\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"signal.ready"), PATIENCE)
    return reader, writer


async def is_refused(run):
    """The program learns the status of a 401 or 403 and the code of its problem document."""
    for status, code, path, claim in [(401, "unauthenticated", "/subscribe", ""),
                                      (403, "forbidden", "/subscribe/somebody/device/else", None)]:
        proxy = await run.proxy()
        reader = await run.start(proxy, "phone", path=path, claim=claim)
        await reader.until(errors, f"an error for {status}")
        await asyncio.sleep(6)
        run.equal(f"{status} is final", streams(proxy) == 1 + run.client.probes, True)
        own = [line for line in errors(reader.lines) if not line.get("by_hand")][0]
        run.equal(f"the library tells the status of {status}", str(own["code"]), str(status))
        run.equal(f"the library tells the text of {status}", code in str(own["text"]), True)
        told = [[str(line["code"]), code in str(line["text"])] for line in errors(reader.lines)]
        run.equal(f"the program can read {status}", [str(status), True] in told, True)


async def is_drained(run):
    """The daemon restarts. The client is told why, comes back to the new one, and is told that messages may be missing."""
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
    await reader.until(is_ready(2), "signal.ready of the new daemon")
    await new.send(run.user, "phone", "after the restart")
    await reader.until(lambda lines: "after the restart" in texts(lines), "a message from the new daemon")
    run.equal("it comes back after a restart, which is told as broken", continuities(reader.lines), ["new", "broken"])


async def finds_nobody(run):
    """The daemon dies, and before there is a new one the proxy closes a connection without an answer, as proxies for TCP do."""
    old, proxy = await run.own_daemon(), await run.proxy()
    proxy.send_to(old.port)
    reader = await run.start(proxy, "phone")
    await reader.until(is_ready(1), "signal.ready")
    await old.stop()
    before, deadline = proxy.connections, asyncio.get_running_loop().time() + PATIENCE
    while proxy.connections == before and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.1)
    new = await run.own_daemon()
    proxy.send_to(new.port)
    run.equal("it comes back after an attempt that failed", await reader.happens(is_ready(2), 40), True)


async def is_idle(run):
    """A stream without traffic lives until its first ping, and with the recommended query also until the second."""
    async def lives(query, times):
        proxy = await run.proxy()
        reader = await run.start(proxy, "idle" + str(times), query=query)
        pinged = lambda lines: len(controls(lines, "signal.ping")) >= times
        await reader.until(lambda lines: pinged(lines) or is_ready(2)(lines), "a ping or a new stream")
        return streams(proxy) == 1

    as_it_is, as_recommended = await asyncio.gather(lives("", 1), lives(None, 2))
    run.equal("lives through 13 s of silence", as_it_is, True)
    run.equal("lives with the recommended heartbeat", as_recommended, True)


async def runs_with_defaults(run):
    """What happens without the settings that docs/clients.md recommends."""
    if not run.client.knows_defaults:
        return

    async def data():
        reader = await run.start(await run.proxy(), "data", defaults=True)
        await reader.until(is_ready(1), "signal.ready")
        for text in [*EXACT, "last"]:
            await run.daemon.send(run.user, "data", text)
        large = await reader.happens(lambda lines: "last" in texts(lines), 20)
        run.equal("with its defaults a message after a large one arrives", large, True)
        run.equal("with its defaults text is read as UTF-8", EXACT[0] in texts(reader.lines), True)
        run.equal("with its defaults spaces arrive", " leading space" in texts(reader.lines), True)
        run.equal("with its defaults odd line ends arrive", UNICODE in texts(reader.lines), True)

    async def a_cut():
        proxy = await run.proxy()
        reader = await run.start(proxy, "cut", defaults=True)
        await reader.until(is_ready(1), "signal.ready")
        proxy.cut()
        run.equal("with its defaults it comes back after a cut", await reader.happens(is_ready(2), 20), True)

    async def a_refusal():
        proxy = await run.proxy()
        reader = await run.start(proxy, "refused", claim="", defaults=True)
        await reader.until(errors, "an error")
        await asyncio.sleep(6)
        run.equal("with its defaults a refusal is final", streams(proxy) == 1, True)

    async def a_restart():
        old, proxy = await run.own_daemon(), await run.proxy()
        proxy.send_to(old.port)
        reader = await run.start(proxy, "restart", defaults=True)
        await reader.until(is_ready(1), "signal.ready")
        proxy.send_to(run.daemon.port)
        old.terminate()
        await asyncio.wait_for(old.process.wait(), PATIENCE)
        run.equal("with its defaults it comes back after a restart", await reader.happens(is_ready(2), 20), True)

    await asyncio.gather(data(), a_cut(), a_refusal(), a_restart())


async def sends(run):
    """What client.js sends, also while its network is away, is delivered once and in order, and each send has its outcome."""
    if not run.client.can_send:
        return
    proxy = await run.proxy()
    page, other = await run.start(proxy, "phone"), await run.start(await run.proxy(), "tablet")
    for reader in (page, other):
        await reader.until(is_ready(1), "signal.ready")

    async def send(first, until):
        for text in map(str, range(first, until)):
            code = f"""const outcome = await signal.send({json.dumps(run.user)}, "tablet", "candidate", {json.dumps(text)});
                show({{ event: "signal.outcome", data: JSON.stringify(outcome) }});"""
            await page.run(code)

    async def outcomes(count):
        await page.until(lambda lines: len(controls(lines, "signal.outcome")) >= count, f"{count} outcomes")

    await send(0, 10)
    await outcomes(10)
    proxy.hold()
    proxy.cut()
    await send(10, 20)
    proxy.release()
    await outcomes(20)
    await send(20, 21)
    await outcomes(21)
    run.equal("each send is delivered", controls(page.lines, "signal.outcome"), ["delivered"] * 21)
    await other.until(lambda lines: "20" in texts(lines), "the last message")
    run.equal("what is sent arrives once and in order", texts(other.lines), [str(number) for number in range(21)])


SCENARIOS = [delivers, resumes, is_superseded, meets_204, is_refused, is_drained, finds_nobody, is_idle, runs_with_defaults, sends]
# client.js begins anew with each page, so no page of it has a cursor from outside.
HELPER = [scenario for scenario in SCENARIOS if scenario != meets_204]
