"""Exercises the built daemon with schemathesis by its own description: with each kind of identity, and as lists and as streams.

Arguments: how many examples for each operation; `random`, or `same` for the same examples each time; perhaps modes of `--auth`.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from daemon import call, daemon, stay_connected, token

HERE = Path(__file__).parent

# The identity of a request, and the options that it needs. Every request needs one in `claim` and `jwt`.
MODES = {
    "none": ({}, ["--dev"]),
    "claim": ({"X-User-Claim": '{"userid":"bob"}'}, ["--auth", "claim", "--require-claim", "all", "--console"]),
    "jwt": ({"Authorization": f"Bearer {token(sub='bob')}"}, ["--auth", "jwt", "--jwt-secret-file", "SECRET", "--console"]),
}

# STUN and TURN have an answer. The limits for which a client would have to wait are off.
OPTIONS = ["--stun", "stun:stun.example.org", "--turn", "turn:turn.example.org", "--turn-secret-file", "SECRET"]
OPTIONS += ["--send-rate", "0", "--anonymous-send-rate", "0", "--identity-failures", "0", "--caller-watches", "0"]
OPTIONS += ["--user-devices", "0", "--user-held-devices", "0"]

STREAMS = "^/(subscribe.*|devices|user/[^/]*/devices)$"


def main(examples, choice, *modes):
    failed = []
    for mode in modes or MODES:
        identity, options = MODES[mode]
        with daemon(*OPTIONS, *options) as (base, _process), tempfile.TemporaryDirectory() as folder:
            description = Path(folder, "openapi.json")
            description.write_text(json.dumps(of_mode(json.load(call(f"{base}/openapi.json")), mode)))
            ended = threading.Event()
            stay_connected(f"{base}/subscribe/bob/device/tablet", identity, ended)
            for accept in ["*/*", "text/event-stream"]:
                command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
                command += ["--config-file", HERE / "schemathesis.toml", "run", description, "--url", base]
                command += ["--phases", "examples,coverage,fuzzing", "--max-examples", examples, "--warnings", "off"]
                command += ["--generation-deterministic"] if choice == "same" else []
                command += ["--include-path-regex", STREAMS] if accept != "*/*" else []
                for name, value in {"Accept": accept, **identity}.items():
                    command += ["--header", f"{name}: {value}"]
                print(f"-- --auth {mode}, accept: {accept}", flush=True)
                environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py"), "NO_COLOR": "1"}
                if subprocess.run(command, cwd=folder, env=environment, timeout=1800).returncode != 0:
                    failed.append(f"--auth {mode}, accept: {accept}")
            ended.set()
    sys.exit(f"schemathesis found something: {failed}" if failed else 0)


def of_mode(document, mode):
    """The description without what holds only in other modes: an element names its modes in `x-auth`."""
    components = document["components"]

    def holds(element):
        return mode in element.get("x-auth", [mode])

    def is_possible(alternative):
        # Where every request needs an identity, none is no alternative.
        return all(holds(components["securitySchemes"][name]) for name in alternative) and (alternative or mode == "none")

    for operation in (operation for item in document["paths"].values() for operation in item.values()):
        operation["security"] = [alternative for alternative in operation["security"] if is_possible(alternative)]
        references = operation.get("parameters", [])
        names = [reference["$ref"].removeprefix("#/components/parameters/") for reference in references]
        operation["parameters"] = [ref for ref, name in zip(references, names) if holds(components["parameters"][name])]
    return document


main(*sys.argv[1:])
