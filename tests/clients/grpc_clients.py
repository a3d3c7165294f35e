"""The clients of gRPC and gRPC-Web, and what each of them cannot do."""

import asyncio
import ssl
import sys
from dataclasses import dataclass

import grpc_scenarios as scenarios
from driver import Client, KnownFault, main
from grpc_calls import TOOLS, Calls, Shell
from processes import NODES

HERE = "tests/clients/grpc"
GRPC_JS = ["node", f"{HERE}/js/grpc_js.js", f"proto:{HERE}"]


@dataclass
class GrpcClient(Client):
    # How many streams are open in the drain scenario. Over HTTP/1.1 a browser has six connections to a host, one for each stream.
    streams: int = 16
    # The bytes after which the proxy cuts a large message. In text mode they are base64.
    marker: bytes = b"xxxxxxxxx"
    # The client takes a Duration as `{"seconds": 4}`, not as `"4s"`.
    duration_fields: bool = False
    http1: bool = False
    shell: asyncio.Task | None = None

    def seconds(self, count):
        return {"seconds": count} if self.duration_fields else f"{count}s"

    async def calls(self, run, proxy=None):
        """The calls of a scenario. All scenarios share one process, because a browser is slow to start."""
        proxy = proxy or await run.proxy()
        if self.shell is None:
            self.shell = asyncio.create_task(Shell.start(self.command))
        return Calls(run, await self.shell, proxy.base)

    async def stop(self):
        if self.shell is not None:
            await (await self.shell).stop()


def node(client):
    return ["node", f"{HERE}/js/node.js", client, f"{TOOLS}/web.cjs"]


def chromium(client):
    return ["node", f"{HERE}/js/chromium.js", client, f"{TOOLS}/web.js"]


def http2():
    """TLS with ALPN, so that a browser uses HTTP/2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{TOOLS}/tls.pem")
    context.set_alpn_protocols(["h2"])
    return context


def forbidden_page(text):
    """The exceptions of a client in a page that `--cors-origins` does not list."""
    exception = KnownFault([None, 2, text], "A page that is not allowed sees no code: the browser keeps the answer from it")
    return {name: exception for name in ("Send: PERMISSION_DENIED", "Subscribe: PERMISSION_DENIED")}


def no_send_stream(text, why):
    return {"SendStream answers each request": KnownFault([[], 2], why), "SendStream ends with this text": KnownFault(text, why)}


def unknown_cut(*codes):
    return {"a cut is UNAVAILABLE": KnownFault([*codes], CUTS[codes])}


# For each set of codes that a client reports, the sentence in docs/clients.md.
CUTS = {
    (2,): "A connection that is cut is UNKNOWN",
    (2, 3): "A connection that is cut is UNKNOWN, and INVALID_ARGUMENT inside a message",
}
NO_FETCH = "The fetch API does not support streaming request bodies"
CONNECT = no_send_stream(NO_FETCH, "connect-web has no client streaming: use `Send`")
OVER_HTTP1 = no_send_stream("Transport error: Failed to fetch", "Chromium streams a request only over HTTP/2: use `Send`, or TLS")

CLIENTS = [
    GrpcClient("grpcio", [sys.executable, f"{HERE}/python/client.py"], scenarios=scenarios.NATIVE),
    GrpcClient("grpc-go", [f"{TOOLS}/bin/grpc_go"], scenarios=scenarios.NATIVE),
    GrpcClient("grpc-js", GRPC_JS, scenarios=scenarios.NATIVE, duration_fields=True),
    GrpcClient("grpc-js with keep-alive", [*GRPC_JS, "1000"], scenarios=[scenarios.is_drained]),
    Client("grpcurl", scenarios=[scenarios.reflects]),
    # The chunks of nginx are others: no cut falls inside a message of which a part was read.
    GrpcClient("connect-web in Node.js", node("connect-web"), scenarios=scenarios.WEB,
               exceptions={**CONNECT, **(unknown_cut(2) if NODES > 1 else unknown_cut(2, 3))}),
    GrpcClient("connect-web", chromium("connect-web"), scenarios=scenarios.WEB, streams=4,
               exceptions={**CONNECT, **unknown_cut(2), **forbidden_page("Failed to fetch")}),
    GrpcClient("connect-web over HTTP/2", chromium("connect-web"), scenarios=scenarios.WEB, tls=http2(),
               exceptions={**CONNECT, **unknown_cut(2), **forbidden_page("Failed to fetch")}),
    GrpcClient("grpc-web in text mode", chromium("grpc-web text"), scenarios=scenarios.GRPC_WEB, streams=4, marker=b"eHh4" * 3,
               exceptions={**unknown_cut(2), **forbidden_page("Http response at 400 or 500 level, http status code: 0")}),
    GrpcClient("grpc-web in binary mode", chromium("grpc-web binary"), scenarios=[scenarios.delivers_while_open], exceptions={
        "a message arrives while the stream is open": KnownFault(False, "a stream gives nothing before the call has ended"),
    }),
    GrpcClient("nice-grpc-web in Node.js", node("nice-grpc-web"), scenarios=scenarios.WEB, duration_fields=True,
               exceptions=unknown_cut(2)),
    GrpcClient("nice-grpc-web", chromium("nice-grpc-web"), scenarios=scenarios.WEB, streams=4, duration_fields=True,
               exceptions={**OVER_HTTP1, **unknown_cut(2), **forbidden_page("Transport error: Failed to fetch")}),
    GrpcClient("nice-grpc-web over HTTP/2", chromium("nice-grpc-web"), scenarios=scenarios.WEB, tls=http2(), duration_fields=True,
               exceptions={**unknown_cut(2), **forbidden_page("Transport error: Failed to fetch")}),
]

if __name__ == "__main__":
    main(CLIENTS, scenarios.ALL, sys.argv[1:])
