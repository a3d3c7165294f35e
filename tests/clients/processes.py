"""Processes of a run: the daemon, and clients whose lines are waited for."""

import asyncio
import json
import os
import re
import shutil
import signal
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# How long a scenario waits for an event before it fails. No check measures this time.
PATIENCE = 90


class Failed(Exception):
    """Something that a scenario waited for did not come, or was not as it should be."""


class Reader:
    """What a client has printed, and ways to wait for it."""

    def __init__(self):
        self.lines = []
        self.ended = False
        self.changed = asyncio.Condition()

    async def add(self, line):
        async with self.changed:
            if line is None:
                self.ended = True
            else:
                self.lines.append(line)
            self.changed.notify_all()

    async def happens(self, test, seconds):
        """Whether `test` of the lines becomes true in this time."""
        async def wait():
            async with self.changed:
                await self.changed.wait_for(lambda: test(self.lines))
        try:
            await asyncio.wait_for(wait(), seconds)
            return True
        except asyncio.TimeoutError:
            return False

    async def until(self, test, what):
        if not await self.happens(lambda lines: test(lines) or self.ended, PATIENCE) or not test(self.lines):
            state = "the client has ended" if self.ended else "the client runs"
            raise Failed(f"{what} did not come ({state}); its last lines: {shorten(self.lines[-8:])}")


class Program(Reader):
    """A client in a process of its own."""

    @classmethod
    async def start(cls, command, variables, stdin=asyncio.subprocess.DEVNULL):
        self = cls()
        environment = {**os.environ, **variables, "PYTHONUNBUFFERED": "1"}
        pipe, limit = asyncio.subprocess.PIPE, 1 << 24
        self.process = await asyncio.create_subprocess_exec(
            *command, env=environment, cwd=ROOT, stdin=stdin, stdout=pipe, stderr=pipe, limit=limit)
        self.complaints = b""
        self.tasks = [asyncio.create_task(self.read()), asyncio.create_task(self.read_complaints())]
        return self

    async def read(self):
        while line := await self.process.stdout.readline():
            try:
                await self.add(json.loads(line))
            except ValueError:
                await self.add({"error": True, "code": "not JSON", "text": line.decode(errors="replace")})
        await self.add(None)

    async def read_complaints(self):
        while piece := await self.process.stderr.read(1 << 16):
            self.complaints = (self.complaints + piece)[-4000:]

    async def stop(self):
        if self.process.returncode is None:
            try:
                self.process.kill()
            except ProcessLookupError:
                pass
        await self.process.wait()
        await asyncio.gather(*self.tasks)


class Daemon:
    """The daemon in a process of its own, on a free port."""

    @classmethod
    async def start(cls, *options):
        self = cls()
        self.executable = os.environ.get("DAEMON", str(ROOT / "target/debug/backend-signal"))
        self.process = await asyncio.create_subprocess_exec(
            self.executable, "--host", "127.0.0.1", "--port", "0", *options, env={}, stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE)
        self.log = []
        while "listening on " not in (self.log or [""])[-1]:
            line = await asyncio.wait_for(self.process.stderr.readline(), PATIENCE)
            if not line:
                raise Failed(f"the daemon has ended before it listened: {self.log}")
            self.log.append(line.decode())
        self.port = int(self.log[-1].rsplit(":", 1)[1])
        self.task = asyncio.create_task(self.read())
        return self

    async def read(self):
        while line := await self.process.stderr.readline():
            self.log.append(line.decode())

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    async def stop(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self.task

    async def send(self, user, device, data, event=None, ttl=30):
        """Posts a message, and demands that it is accepted: delivered, or held while the device is away."""
        body = json.dumps({"data": data} | ({"event": event} if event else {})).encode()
        headers = {"content-type": "application/json", "ttl": str(ttl)}
        status, answer = await request(self.port, "POST", f"/user/{user}/device/{device}", headers, body)
        if status not in (200, 202):
            raise Failed(f"POST to {user}/{device}: {status} {answer}")
        return status

    async def devices(self, user):
        return json.loads((await request(self.port, "GET", f"/user/{user}/devices"))[1])


class Nodes(Daemon):
    """Several nodes with one Redis, behind an nginx that sends each request to a random one. Needs both programs."""

    @classmethod
    async def start(cls, count):
        self = cls()
        self.folder = tempfile.mkdtemp()
        redis = f"{self.folder}/redis.sock"
        quiet = {"stdin": asyncio.subprocess.DEVNULL, "stdout": asyncio.subprocess.DEVNULL}
        self.redis = await asyncio.create_subprocess_exec(
            "redis-server", "--port", "0", "--unixsocket", redis, "--save", "", "--appendonly", "no", **quiet)
        await exists(redis)
        self.nodes = [await Daemon.start("--redis", f"unix://{redis}") for _ in range(count)]
        for node in self.nodes:
            # Before that, a device may be on a node that is not known yet.
            while (await request(node.port, "GET", "/user/nobody/devices"))[0] != 200:
                await asyncio.sleep(0.05)
        configuration = NGINX.replace("FOLDER", self.folder)
        servers = " ".join(f"server 127.0.0.1:{node.port} max_fails=0;" for node in self.nodes)
        Path(f"{self.folder}/nginx.conf").write_text(configuration.replace("SERVERS", servers))
        self.nginx = await asyncio.create_subprocess_exec(
            "nginx", "-p", self.folder, "-e", "stderr", "-c", f"{self.folder}/nginx.conf", **quiet)
        await exists(f"{self.folder}/http2")
        self.front = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.front.sockets[0].getsockname()[1]
        return self

    async def serve(self, reader, writer):
        """nginx has a socket for each version of HTTP, and the daemon only one."""
        try:
            first = await reader.read(1 << 16)
            source, upstream = await asyncio.open_unix_connection(
                f"{self.folder}/{'http2' if first.startswith(b'PRI') else 'http1'}")
            upstream.write(first)
            ways = [asyncio.create_task(copy(reader, upstream)), asyncio.create_task(copy(source, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            upstream.close()
        except OSError:
            pass
        finally:
            writer.close()

    async def stop(self):
        self.front.close()
        for node in self.nodes:
            await node.stop()
        for process in (self.nginx, self.redis):
            process.kill()
            await process.wait()
        shutil.rmtree(self.folder)


NGINX = """
daemon off; master_process off; pid FOLDER/pid; error_log stderr crit; events { worker_connections 4096; }
http {
    access_log off; client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy; fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
    upstream nodes { random; SERVERS }
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; proxy_buffering off;
    proxy_read_timeout 1h; grpc_read_timeout 1h; grpc_send_timeout 1h; client_max_body_size 1m; client_body_timeout 1h;
    server { listen unix:FOLDER/http1; location / { proxy_pass http://nodes; } }
    server {
        listen unix:FOLDER/http2 http2;
        location / { proxy_pass http://nodes; }
        location @web { proxy_pass http://nodes; }
        location ~ ^/(backend_signal|grpc) {
            error_page 418 = @web;
            if ($content_type ~ "^application/grpc-web") { return 418; }
            if ($request_method = OPTIONS) { return 418; }
            grpc_pass grpc://nodes;
        }
    }
}
"""


# How many nodes there are. Several have an nginx in front.
NODES = int(os.environ.get("NODES", "1"))


async def start():
    """The daemon for all scenarios; with NODES=2 in the environment, two nodes."""
    return await (Nodes.start(NODES) if NODES > 1 else Daemon.start())


async def exists(path):
    for _ in range(PATIENCE * 50):
        if os.path.exists(path):
            return
        await asyncio.sleep(0.02)
    raise Failed(f"{path} did not come")


async def copy(source, target):
    while piece := await source.read(1 << 16):
        target.write(piece)
        await target.drain()


async def request(port, method, path, headers=None, body=b""):
    """One request on a connection of its own: status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = {"host": f"127.0.0.1:{port}", "connection": "close", "content-length": str(len(body)), **(headers or {})}
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    writer.write(head.encode() + body)
    answer = await asyncio.wait_for(reader.read(-1), PATIENCE)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body.decode()


def shorten(value):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return re.sub(r"(.)\1{40,}", lambda same: f"{same[1]}...({len(same[0])})", text)[:1500]
