"""httpx-sse with a loop that reconnects, as its documentation shows."""

import json
import os
import time

import httpx
from httpx_sse import connect_sse


def show(**line):
    print(json.dumps(line), flush=True)


headers = {"X-User-Claim": os.environ["CLAIM"]} if os.environ["CLAIM"] else {}
cursor, delay = "", 1.0
with httpx.Client() as client:
    while True:
        resume = {"Last-Event-ID": cursor} if cursor else {}
        try:
            with connect_sse(client, "GET", os.environ["URL"], headers=headers | resume) as source:
                if source.response.status_code == 204:
                    show(error=True, code=204, text="")
                    break
                if source.response.is_error:
                    show(error=True, code=source.response.status_code, text=source.response.read().decode())
                    break
                for event in source.iter_sse():
                    cursor = event.id
                    delay = event.retry / 1000 if event.retry is not None else delay
                    show(event=event.event, data=event.data, id=event.id)
        except httpx.TransportError as error:
            show(error=True, code=None, text=repr(error))
        time.sleep(delay)
