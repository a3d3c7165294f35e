"""The clients of event streams, and what each of them cannot do."""

import os
import sys

from driver import Client, KnownFault, main
from scenarios import HELPER, SCENARIOS
from web import CHROMIUM, FIREFOX, Browser

HERE = "tests/clients"
# Where tests/clients/run has built the programs.
TOOLS = os.environ["CLIENT_TOOLS"]
JAVA = ["java", "-Xmx64m", "-XX:TieredStopAtLevel=1", "-cp", f"{TOOLS}/java/*:{TOOLS}/java/classes"]
BROWSERS = chromium, firefox = Browser(CHROMIUM), Browser(FIREFOX)


def hides(why, *parts):
    """The exceptions of a library that hides parts of a refusal. The program can still read them with its own request."""
    seen = {"status": "None", "text": False}
    return {f"the library tells the {part} of {status}": KnownFault(seen[part], why) for part in parts for status in (401, 403)}


EVENT_SOURCE = hides("An EventSource tells neither the status nor the text of a refusal.", "status", "text")

CLIENTS = [
    Client("EventSource in Chromium", start=chromium.library("EventSource"), claim_from_proxy=True, exceptions=EVENT_SOURCE),
    Client("EventSource in Firefox", start=firefox.library("EventSource"), claim_from_proxy=True, exceptions=EVENT_SOURCE | {
        "it comes back after an attempt that failed":
            KnownFault(False, "It gives up for good when a connection is closed before an answer", sometimes=True),
    }),
    *(Client(f"client.js in {name}", start=browser.library("client.js"), claim_from_proxy=True, scenarios=HELPER, can_send=True, probes=1)
      for name, browser in [("Chromium", chromium), ("Firefox", firefox)]),
    Client("@microsoft/fetch-event-source", start=chromium.library("fetchEventSource"), claim_from_proxy=True, knows_defaults=True,
           exceptions={
        "with its defaults it comes back after a restart": KnownFault(False, "It does not come back after a clean end"),
        "with its defaults a refusal is final": KnownFault(False, "It repeats a refused request for ever"),
    }),
    Client("event-source-polyfill", start=chromium.library("EventSourcePolyfill"), claim_from_proxy=True,
           exceptions=hides("It tells the status of a refusal, but not its text.", "text")),
    Client("eventsource", ["node", f"{HERE}/node/eventsource_client.mjs"], knows_defaults=True,
           exceptions=hides("It tells the status of a refusal, but not its text.", "text") | {
        "with its defaults it comes back after a cut": KnownFault(False, "Its timer does not keep Node.js alive"),
        "with its defaults it comes back after a restart": KnownFault(False, "Its timer does not keep Node.js alive"),
    }),
    Client("httpx-sse", [sys.executable, f"{HERE}/python/httpx_sse_client.py"], query="?heartbeat=4", exceptions={
        "lives through 13 s of silence": KnownFault(False, "httpx gives up after 5 s of silence"),
    }),
    Client("requests", [sys.executable, f"{HERE}/python/requests_client.py"], knows_defaults=True, exceptions={
        "with its defaults odd line ends arrive": KnownFault(
            False, "`iter_lines(decode_unicode=True)` also splits at U+0085 and U+2028"),
    }),
    Client("sseclient-py", [sys.executable, f"{HERE}/python/sseclient_py_client.py"]),
    Client("okhttp-sse", [*JAVA, "OkHttpClientProgram"], query="?heartbeat=4", exceptions={
        "lives through 13 s of silence": KnownFault(False, "OkHttp gives up after 10 s of silence"),
        "quiet after it was superseded": KnownFault(1, "It does not hand over `retry`"),
    }),
    Client("react-native-sse", ["node", f"{HERE}/node/react_native_sse_client.mjs"], query="?format=envelope", knows_defaults=True, exceptions={
        "204 is final": KnownFault(False, "It takes 204 for a success and comes back"),
        "with its defaults spaces arrive": KnownFault(False, "It removes spaces at both ends of each line of data"),
        "with its defaults odd line ends arrive": KnownFault(False, "It removes spaces at both ends of each line of data"),
        "with its defaults a refusal is final": KnownFault(False, "It repeats a refused request for ever"),
    }),
    Client("expo/fetch", ["node", f"{HERE}/node/expo_fetch_client.mjs"]),
    Client("r3labs/sse", [f"{TOOLS}/go-client"], knows_defaults=True, exceptions={
        "the beginning of a message that was cut is not delivered": KnownFault(
            1, "It delivers the beginning of a message that was cut"),
        "with its defaults a message after a large one arrives": KnownFault(False, "It reads events of up to 64 KiB"),
        "with its defaults a refusal is final": KnownFault(False, "It repeats a refused request for ever"),
    }),
    Client("eventsource-client", [f"{TOOLS}/rust/debug/backend-signal-rust-client"], exceptions={
        "204 is final": KnownFault(False, "It takes 204 for a success and comes back"),
    }),
]

if __name__ == "__main__":
    main(CLIENTS, SCENARIOS, sys.argv[1:], BROWSERS)
