"""A daemon for one check, and what its clients need."""

import base64
import contextlib
import hashlib
import hmac
import json
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

DAEMON = Path(__file__).parents[2] / "target/debug/backend-signal"
SECRET = "a secret of the tests, long enough"
# The longest wait for the daemon, in seconds.
PATIENCE = 60


@contextlib.contextmanager
def daemon(*options):
    """Starts a daemon, and gives its URL and its process. An option `SECRET` is a file with the secret."""
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write(SECRET)
        secret.flush()
        options = [secret.name if option == "SECRET" else option for option in options]
        command = [DAEMON, "--port", "0", "--host", "127.0.0.1", *options]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            line = next(line for line in process.stderr if "listening on " in line)
            # Reads the rest, because a full pipe would hold up the log.
            threading.Thread(target=process.stderr.read).start()
            yield f"http://{line.split()[-1]}", process
        finally:
            process.terminate()
            process.wait(PATIENCE)


def token(seconds=3600, **claims):
    """A token that `--jwt-secret-file SECRET` accepts."""
    parts = [{"alg": "HS256", "typ": "JWT"}, {"exp": int(time.time()) + seconds, **claims}]
    text = ".".join(encode(json.dumps(part).encode()) for part in parts)
    return f"{text}.{encode(hmac.digest(SECRET.encode(), text.encode(), hashlib.sha256))}"


def encode(part):
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def call(url, headers=None, data=None):
    """The answer to a GET, or to a POST of a form. Raises when the answer is an error."""
    data = None if data is None else urllib.parse.urlencode(data).encode()
    return urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=PATIENCE)


def stay_connected(url, headers, until):
    """A device that subscribes again whenever its stream ends, such as when a test takes it over."""

    def subscribe():
        while not until.is_set():
            with contextlib.suppress(OSError):
                for _ in call(url, headers):
                    pass

    threading.Thread(target=subscribe, daemon=True).start()
