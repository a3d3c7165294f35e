"""The scenarios for gRPC clients. Exceptions in `grpc_clients.py` use the names of these checks."""

import asyncio

from grpc_calls import HEALTH, UNAVAILABLE, Page, continuities, has, kind, kinds, reasons, seconds, texts

LARGE = "large " + "x" * 80_000 + " end"
EXACT = ["72°F ü€😀", "first line\nsecond line\r\nthird line\r\n\r\n", " \u0085\u2028\0 in between \ufeff", LARGE]

UNKNOWN_SYMBOL = 'Failed to resolve symbol "unknown.Symbol": Symbol not found: unknown.Symbol'
FORBIDDEN = (
    "A page of another site made the request, or may have made it. To allow that site, list its origin in --cors-origins. "
    "To open a stream with a cookie or a client certificate, send Accept: text/event-stream."
)


async def delivers(run):
    """No message is delivered before the first one is sent. Data arrives exactly, sent over HTTP or gRPC."""
    calls = await run.client.calls(run)
    stream = calls.subscribe("phone")
    await stream.until(has("ready"), "the first response")
    run.equal("nothing is delivered before a message", kinds(stream.lines), ["ready"])
    for data in EXACT:
        await run.daemon.send(run.user, "phone", data)
        sent = await calls.unary("Send", {"to": calls.to("phone"), "data": data, "event": "candidate"}, device="laptop")
        run.equal("a send says that the message was delivered", sent, ({"outcome": "OUTCOME_DELIVERED"}, 0, ""))
    await stream.until(has("message", 2 * len(EXACT)), "the last message")
    run.equal("data arrives exactly", texts(stream.lines), [data for data in EXACT for _ in range(2)])
    senders = [line["message"].get("sender") for line in stream.lines[1:]]
    run.equal("a message names its sender", senders, [None, calls.to("laptop")] * len(EXACT))
    listed = await calls.unary("ListDevices", {"user": run.user})
    run.equal("devices are listed", listed, ({"devices": ["phone"]}, 0, ""))


async def resumes(run):
    """Cuts before the first message, between messages, and inside a large one: nothing is lost, and nothing comes twice."""
    proxy = await run.proxy()
    calls = await run.client.calls(run, proxy)
    page = run.keep(Page(calls, "phone"))
    await page.until(has("ready"), "the first response")

    async def cut_and_send(text, times):
        proxy.hold()
        proxy.cut()
        await run.daemon.send(run.user, "phone", text)
        proxy.release()
        await page.until(lambda lines: has("ready", times)(lines) and text in texts(lines), f"`{text}` after a cut")

    await cut_and_send("sent while away, before any message", 2)
    await run.daemon.send(run.user, "phone", "live")
    await page.until(lambda lines: "live" in texts(lines), "a live message")
    await cut_and_send("sent while away", 3)
    proxy.cut_after(run.client.marker, 5_000)
    await run.daemon.send(run.user, "phone", LARGE)
    await proxy.was_cut()
    await run.daemon.send(run.user, "phone", "sent after the large one")
    proxy.release()
    await page.until(lambda lines: "sent after the large one" in texts(lines), "the message behind the one that was cut")
    expected = ["sent while away, before any message", "live", "sent while away", LARGE, "sent after the large one"]
    run.equal("nothing is lost and nothing comes twice over a cut", texts(page.lines), expected)
    run.equal("a cut stream says that it resumed", continuities(page.lines), ["new", "resumed", "resumed", "resumed"])
    run.equal("a cut is UNAVAILABLE", sorted({code for code, _ in page.ends}), [UNAVAILABLE])


async def is_superseded(run):
    """A newer page of the device connects: the older one is told, and cannot take the device back."""
    older, newer = await run.client.calls(run), await run.client.calls(run)
    page = run.keep(Page(older, "phone"))
    await page.until(has("ready"), "the first response")
    await run.daemon.send(run.user, "phone", "for the older page")
    await page.until(has("message"), "a message")
    cursor = page.lines[-1]["message"]["cursor"]
    stream = newer.subscribe("phone")
    await stream.until(has("ready"), "the first response of the newer page")
    await page.until(has("end"), "the end of the older page")
    run.equal("it learns that it was superseded", reasons(page.lines), ["superseded"])
    await page.until(lambda _: page.ended, "ABORTED for the older page")
    again = [await older.unary("Subscribe", {"cursor": cursor}, device="phone") for _ in range(3)]
    ends = [(None, *end) for end in page.ends] + again
    run.equal("a superseded page is ABORTED each time", [(line, code) for line, code, _ in ends], [(None, 10)] * 4)
    run.equal("ABORTED says what happened", all("newer stream" in (text or "") for *_, text in ends), True)
    await run.daemon.send(run.user, "phone", "for the newer page")
    await stream.until(has("message"), "a message for the newer page")
    run.equal("the newer page keeps the device", kinds(stream.lines), ["ready", "message"])


async def is_refused(run):
    """Errors have their code and a text that can be read, in a unary call and as the first answer of a stream."""
    calls = await run.client.calls(run)
    to, large = calls.to("absent"), "x" * 300_000
    await calls.subscribe("seen").until(has("ready"), "the first response")
    for _ in range(64):
        await run.daemon.send(run.user, "full", "x", ttl=60)
    bad = {"x-user-claim": "{"}
    full = {"to": calls.to("full"), "data": "x", "ttl": run.client.seconds(60)}
    for name, method, request, metadata, code, text in [
        ("Send: RESOURCE_EXHAUSTED", "Send", full, {}, 8, "Too many"),
        ("Send: UNAUTHENTICATED", "Send", {"to": to, "data": "x"}, bad, 16, "The identity is not valid."),
        ("Subscribe: UNAUTHENTICATED", "Subscribe", {}, {}, 16, "X-User-Claim"),
        ("WatchDevices: UNAUTHENTICATED", "WatchDevices", {"users": [run.user]}, bad, 16, "The identity is not valid."),
        ("Send: INVALID_ARGUMENT", "Send", {"to": to}, {}, 3, "The field data is required and must not be empty."),
        ("WatchDevices: INVALID_ARGUMENT", "WatchDevices", {}, {}, 3, "Name at least 1 user and at most 64."),
        ("Send: NOT_FOUND", "Send", {"to": to, "data": "x"}, {}, 5, "Not connected."),
        ("Send: OUT_OF_RANGE", "Send", {"to": to, "data": large}, {}, 11, "The request is larger than the limit"),
        ("Subscribe: OUT_OF_RANGE", "Subscribe", {"cursor": large}, calls.identity("phone"), 11, "The request is larger than"),
        ("Send, a little too large: OUT_OF_RANGE", "Send", {"to": to, "data": "x" * 103_000}, {}, 11, "The request is larger"),
    ]:
        response, seen, said = await calls.unary(method, request, metadata=metadata)
        run.equal(name, [response, seen], [None, code])
        run.equal("every error has its text", text in said and "%" not in said, True)
    listed = await calls.unary("ListDevices", {"user": run.user})
    run.equal("a refused call leaves the connection usable", listed, ({"devices": ["seen"]}, 0, ""))


async def is_forbidden(run):
    """A call whose `Origin` is not in `--cors-origins`."""
    run.daemon = await run.own_daemon("--cors-origins", "https://app.example.org")
    calls = await run.client.calls(run)
    other = {"origin": "https://other.example.org"}
    for name, method, request in [("Send: PERMISSION_DENIED", "Send", {"to": calls.to("phone"), "data": "x"}),
                                  ("Subscribe: PERMISSION_DENIED", "Subscribe", {})]:
        response, code, text = await calls.unary(method, request, device="phone", metadata=other)
        run.equal(name, [response, code, text], [None, 7, FORBIDDEN])


async def is_drained(run):
    """The daemon stops: every stream gets its end and OK. A page comes back to the next daemon, which says `broken`."""
    old = await run.own_daemon("--drain-window", "4")
    new = await run.own_daemon()
    proxy = await run.proxy()
    proxy.send_to(old.port)
    calls = await run.client.calls(run, proxy)
    page = run.keep(Page(calls, "page"))
    await page.until(has("ready"), "the first response")
    streams = [calls.subscribe(f"device{number}") for number in range(run.client.streams)]
    for stream in streams:
        await stream.until(has("ready"), "the first response")
    proxy.send_to(new.port)
    old.terminate()
    ends = [await stream.end() for stream in streams]
    run.equal("every stream of a drain gets its end", [reasons(stream.lines) for stream in streams], [["draining"]] * len(streams))
    run.equal("the status after a drain is OK", [code for code, _ in ends], [0] * len(streams))
    await page.until(has("ready", 2), "the first response of the next daemon")
    run.equal("a page of a drained daemon comes back", [reasons(page.lines), page.ends[0][0]], [["draining"], 0])
    run.equal("a restart is told as broken", continuities(page.lines), ["new", "broken"])
    await new.send(run.user, "page", "after the restart")
    await page.until(has("message"), "a message from the next daemon")


async def watches(run):
    """A watch begins with the list, and shows who comes."""
    calls = await run.client.calls(run)
    watch = calls.begin("WatchDevices", {"users": [run.user]})
    await watch.until(has("devices"), "the list")
    calls.subscribe("phone")
    await watch.until(has("online"), "the device that came")
    run.equal("a watch shows a device that came", watch.lines[-1]["online"], calls.to("phone"))


async def is_idle(run):
    """A stream without traffic gets pings at the heartbeat that the client asked for."""
    calls = await run.client.calls(run)
    stream = calls.subscribe("phone", heartbeat=run.client.seconds(4))
    await stream.until(lambda lines: any("ping" in line for line in lines), "a ping")
    run.equal("pings come as asked for", [kind(line) for line in stream.lines], ["ready", "ping"])
    run.equal("the heartbeat is the one asked for", seconds(stream.lines[0]["ready"]["heartbeat"]), 4)


async def sends_many(run):
    """SendStream: one answer for each request, in order."""
    calls = await run.client.calls(run)
    stream = calls.subscribe("phone")
    await stream.until(has("ready"), "the first response")
    requests = [{"send": {"to": calls.to("phone"), "data": data}} for data in ["one", "", "three"]]
    call = calls.begin("SendStream", *requests)
    code, text = await call.end()
    answers = [line.get("sent", {}).get("outcome") or line["error"]["code"] for line in call.lines]
    run.equal("SendStream answers each request", [answers, code], [["OUTCOME_DELIVERED", 3, "OUTCOME_DELIVERED"], 0])
    run.equal("SendStream ends with this text", text, "")


async def asks_for_health(run):
    """The health service: of this service, and of one that does not exist."""
    calls = await run.client.calls(run)
    for service, expected in [("", ({"status": "SERVING"}, 0, "")),
                              ("backend_signal.v1.Signal", ({"status": "SERVING"}, 0, "")),
                              ("unknown", (None, 5, "service not registered"))]:
        run.equal(f"health of `{service}`", await calls.unary(HEALTH + "Check", {"service": service}), expected)
    watch = calls.begin(HEALTH + "Watch", {"service": "unknown"})
    await watch.until(lambda lines: lines, "the status of an unknown service")
    run.equal("a watch of an unknown service goes on", [watch.lines, watch.ended], [[{"status": "SERVICE_UNKNOWN"}], False])


async def compresses(run):
    """A compressed request is refused, and says so."""
    calls = await run.client.calls(run)
    request = {"to": calls.to("phone"), "data": "x" * 2_000}
    response, code, text = await calls.unary("Send", request, compress=True)
    run.equal("a compressed request is UNIMPLEMENTED", [response, code, "gzip" in text], [None, 12, True])


async def delivers_while_open(run):
    """In binary mode grpc-web delivers the responses of a stream only after the call has ended."""
    calls = await run.client.calls(run)
    stream = calls.subscribe("phone")
    while await run.daemon.devices(run.user) != ["phone"]:
        await asyncio.sleep(0.05)
    await run.daemon.send(run.user, "phone", "text")
    run.equal("a message arrives while the stream is open", await stream.happens(has("message"), 3), True)


async def reflects(run):
    """Reflection: of a symbol, and of one that does not exist."""
    for symbol, expected in [("backend_signal.v1.Address", (0, "backend_signal.v1.Address is a message:")),
                             ("unknown.Symbol", (1, UNKNOWN_SYMBOL))]:
        program = await asyncio.create_subprocess_exec(
            "grpcurl", "-plaintext", f"127.0.0.1:{run.daemon.port}", "describe", symbol,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        said, _ = await program.communicate()
        run.equal(f"describes `{symbol}`", (program.returncode, said.decode().splitlines()[0]), expected)


# The code generator of grpc-web makes no method for SendStream.
GRPC_WEB = [delivers, resumes, is_superseded, is_refused, is_forbidden, is_drained, watches, is_idle, asks_for_health]
WEB = [*GRPC_WEB, sends_many]
NATIVE = [*WEB, compresses]
ALL = [*NATIVE, delivers_while_open, reflects]
