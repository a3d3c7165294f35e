"""The clients of event streams, and what each of them cannot do."""

import sys

from driver import Client, Exception_, main
from scenarios import SCENARIOS

PYTHON = [sys.executable]

CLIENTS = [
    Client("httpx-sse", [*PYTHON, "tests/clients/python/httpx_sse_client.py"], query="?heartbeat=4", exceptions={
        "lives through 13 s of silence": Exception_(True, "httpx gives up after 5 s of silence, and the loop connects again."),
    }),
]

if __name__ == "__main__":
    main(CLIENTS, SCENARIOS, sys.argv[1:])
