"""sseclient-py over requests, with a loop that comes back."""

import json
import os
import time

import requests
import sseclient


def show(**line):
    print(json.dumps(line), flush=True)


headers = {"Accept": "text/event-stream"} | ({"X-User-Claim": os.environ["CLAIM"]} if os.environ["CLAIM"] else {})
delay = 1.0
while True:
    try:
        with requests.get(os.environ["URL"], headers=headers, stream=True, timeout=(5, 30)) as response:
            if response.status_code != 200:
                show(error=True, code=response.status_code, text=response.text)
                break
            for event in sseclient.SSEClient(response).events():
                delay = int(event.retry) / 1000 if event.retry else delay
                if event.id:
                    headers["Last-Event-ID"] = event.id
                show(event=event.event, data=event.data, id=event.id or "")
    except requests.RequestException as error:
        show(error=True, code=None, text=repr(error))
    time.sleep(delay)
