"""Compares docs/asyncapi.yaml with the streams of the built daemon: each event fits its schema, and each example is a real event."""

import json
import re
import signal
import sys
import time
from pathlib import Path

import jsonschema
import yaml

from daemon import PATIENCE, call, daemon, token

PAGE = yaml.safe_load((Path(__file__).parents[2] / "docs/asyncapi.yaml").read_text())
EVENTS = {"Accept": "text/event-stream"}
ANA = {"X-User-Claim": '{"userid":"ana","clientid":"laptop"}'}
FORM, NAMED = {"data": "an offer"}, {"data": '{"sdpMid":"0"}', "event": "candidate"}


class Stream:
    """The events of a stream, each kept with the place in the page that describes it."""

    seen = []

    def __init__(self, channel, url, headers=None, form="plain"):
        self.channel, self.form = channel, form
        self.response = call(url, {**EVENTS, **(headers or {})})

    def next(self):
        """The fields of the next block, without comments."""
        fields, data = {}, []
        for line in self.response:
            line = line.decode().removesuffix("\n")
            if line == "" and (fields or data):
                break
            name, _, value = line.partition(": ")
            if name == "data":
                data.append(value)
            elif line and not line.startswith(":"):
                fields[name] = int(value) if name == "retry" else value
        assert fields or data, "the stream ended"
        self.seen.append((self.channel, self.form, fields, "\n".join(data) if data else None))
        return fields.get("event")

    def until(self, event):
        """Reads to this event."""
        deadline = time.monotonic() + PATIENCE
        while self.next() != event:
            assert time.monotonic() < deadline, f"no {event}"

    def cursor(self):
        return next(fields["id"] for *_, fields, _ in reversed(self.seen) if "id" in fields)

    def close(self):
        self.response.close()


def messages(base):
    """Every event of a device's stream, but for an end that needs other options."""
    phone, to_phone = f"{base}/subscribe/bob/device/phone", f"{base}/user/bob/device/phone"
    first = Stream("subscribeAs", f"{phone}?heartbeat=15")
    first.until("signal.ready")
    call(to_phone, ANA, FORM)
    first.next()
    call(to_phone, ANA, NAMED)
    first.next()
    cursor = first.cursor()
    first.close()
    call(to_phone, {"TTL": "60"}, FORM)
    resumed = Stream("subscribeAs", phone, {"Last-Event-ID": cursor})
    assert resumed.next() == "signal.begin"
    resumed.until("signal.ready")
    resumed.next()
    newer = Stream("subscribe", f"{base}/subscribe?user=bob&device=phone&format=envelope", form="envelope")
    newer.until("signal.ready")
    resumed.until("signal.end")
    for sender, message in [(ANA, NAMED), ({"X-User-Claim": '{"userid":"ana"}'}, FORM), ({}, FORM)]:
        call(to_phone, sender, message)
        newer.next()
    newer.close()
    broken = Stream("subscribeAs", phone, {"Last-Event-ID": "0123456789abcdef.1.2"})
    broken.until("signal.ready")
    broken.close()
    old = Stream("subscribeAs", f"{phone}?format=legacy", form="legacy")
    for sender, message in [(ANA, NAMED), ({}, FORM)]:
        call(to_phone, {"TTL": "60", **sender}, message)
        old.next()
    old.close()


def watches(base):
    """Every event of a watch, but for an end."""
    devices = {device: Stream("subscribeAs", f"{base}/subscribe/bob/device/{device}?heartbeat=4") for device in ["laptop", "phone"]}
    for stream in devices.values():
        stream.next()
    watches = [Stream("watch", f"{base}/user/bob/devices?heartbeat=4"), Stream("watchUsers", f"{base}/devices?user=bob&user=carol")]
    for watch, lists in zip(watches, [1, 2]):
        for _ in range(lists):
            watch.until("signal.devices")
    tablet = Stream("subscribeAs", f"{base}/subscribe/bob/device/tablet")
    tablet.next()
    for watch in watches:
        watch.until("signal.online")
    tablet.close()
    for watch in watches:
        watch.until("signal.offline")
    for stream in [devices["phone"], watches[0]]:
        stream.until("signal.ping")
    return [*devices.values(), *watches]


def ends():
    """The ends of a stream."""
    with daemon("--dev") as (base, process):
        messages(base)
        open_streams = watches(base)
        process.send_signal(signal.SIGTERM)
        for stream in open_streams:
            stream.until("signal.end")
    with daemon("--dev", "--user-devices", "1") as (base, _):
        Stream("subscribeAs", f"{base}/subscribe/bob/device/phone").next()
        assert Stream("subscribeAs", f"{base}/subscribe/bob/device/tablet").next() == "signal.end"
    with daemon("--auth", "jwt", "--jwt-secret-file", "SECRET") as (base, _):
        identity = {"Authorization": f"Bearer {token(3, sub='bob', clientid='phone')}"}
        Stream("subscribe", f"{base}/subscribe", identity).until("signal.end")


def resolved(value):
    """A part of the page, with what its references name in their place."""
    if isinstance(value, list):
        return [resolved(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" not in value:
        return {name: resolved(item) for name, item in value.items()}
    target = PAGE
    for name in value["$ref"].removeprefix("#/").split("/"):
        target = target[name]
    return resolved(target)


def comparable(value, name=None):
    """An event or an example without what differs each time: cursors, times, and a `retry` that is random."""
    if isinstance(value, dict):
        return {name: comparable(item, name) for name, item in value.items()}
    if name == "retry":
        return value if value == 60000 else "random"
    if name == "id" and re.fullmatch(r"[0-9a-f]+\.\d+\.\d+", str(value)):
        return "cursor"
    return "time" if name in ["sent_at", "ping"] else value


def described(message, fields, payload):
    ping = "ping" if message["name"] == "signal.ping" else None
    return json.dumps([message["summary"], comparable(fields), comparable(payload, ping)], sort_keys=True)


def main():
    ends()
    real, faults = set(), []
    for channel, form, fields, data in Stream.seen:
        named = resolved(PAGE["channels"][channel]["messages"]).values()
        name = fields.get("event", "")
        wanted = name if name.startswith("signal.") else "message"
        found = [one for one in named if one["name"] == wanted and one.get("x-format", form) == form]
        if len(found) != 1:
            faults.append(f"{channel}: {name!r} is described by {len(found)} messages")
            continue
        [message] = found
        is_text = data is None or message.get("contentType") == "text/plain"
        payload = data if is_text else json.loads(data)
        for schema, value in [(message["headers"], fields), (message["payload"], payload)]:
            faults += [f"{channel}: {name!r}: {fault.message}" for fault in jsonschema.Draft7Validator(schema).iter_errors(value)]
        real.add(described(message, fields, payload))
    examples = {}
    for name, message in resolved(PAGE["components"]["messages"]).items():
        for example in message["examples"]:
            examples[f"{name}/{example['name']}"] = described(message, example["headers"], example["payload"])
    faults += [f"{name}: no event of the daemon is like this example: {text}" for name, text in examples.items() if text not in real]
    if faults:
        sys.exit("\n".join(faults))
    print(f"{len(Stream.seen)} events fit docs/asyncapi.yaml, and its {len(examples)} examples are among them")


main()
