"""A backend in Python 3 that sends a message to a device. It needs no package.

    python examples/backend.py bob phone 'hello'

SIGNAL_URL is the address of the daemon. SIGNAL_TOKEN is a token of the backend; a daemon with --dev needs none.
"""

import json
import os
import sys
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen


def send(user, device, event, data):
    """Gives "delivered", or "held" when the device is away: it gets the message if it connects within 30 s."""
    server = os.environ.get("SIGNAL_URL", "http://localhost:1837")
    headers = {"content-type": "application/json", "ttl": "30"}
    if token := os.environ.get("SIGNAL_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    url = f"{server}/user/{quote(user, safe='')}/device/{quote(device, safe='')}"
    body = json.dumps({"event": event, "data": data}).encode()
    try:
        with urlopen(Request(url, body, headers), timeout=10) as answer:
            return {200: "delivered", 202: "held"}[answer.status]
    except HTTPError as error:
        # After 429 and 503 it is worth trying again, in as many seconds as the header Retry-After says.
        raise RuntimeError(f"{error.code}: {error.read().decode()}") from None


user, device, text = sys.argv[1:]
print(send(user, device, "greeting", text))
