"""A real browser with one page, which runs the event stream clients for browsers."""

import asyncio
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

from processes import Reader

HERE = Path(__file__).resolve().parent
MODULES = HERE / "node/node_modules"

CHROMIUM = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--user-data-dir={profile}", "{page}"]
FIREFOX = ["firefox-esr", "--headless", "--no-remote", "--profile", "{profile}", "{page}"]
# Without these, Firefox opens its own pages and contacts Mozilla.
FIREFOX_PREFERENCES = """
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("app.normandy.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
"""


class Browser:
    """Starts the browser for the first stream. The page asks `/next` what to do, and posts what its clients deliver to `/lines`."""

    def __init__(self, command):
        self.command, self.process, self.server, self.pages = command, None, None, []
        self.orders, self.starting = asyncio.Queue(), asyncio.Lock()

    def library(self, name):
        """The function that starts a stream with one library, for `Client.start`. `options` are those of client.js."""
        async def start(url, defaults=False, **options):
            async with self.starting:
                if not self.process:
                    await self.launch()
            page = Page(self, len(self.pages))
            self.pages.append(page)
            await self.orders.put({"open": page.number, "library": name, "url": url, "defaults": defaults, "options": options})
            return page
        return start

    async def launch(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 24)
        self.profile = tempfile.mkdtemp()
        Path(self.profile, "user.js").write_text(FIREFOX_PREFERENCES)
        page = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/page.html"
        command = [word.format(profile=self.profile, page=page) for word in self.command]
        self.process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, "HOME": self.profile}, start_new_session=True, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)

    async def stop(self):
        if self.process:
            # The browser's own processes are in its group.
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            await self.process.wait()
            self.server.close()
            shutil.rmtree(self.profile, ignore_errors=True)

    async def serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = head.partition("content-length: ")[2].partition("\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            kind, answer = await self.answer(head.split(" ")[1], body)
            head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(answer)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def answer(self, path, body):
        if path == "/next":
            return "application/json", json.dumps(await self.orders.get()).encode()
        if path == "/lines":
            for number, line in json.loads(body):
                await self.pages[number].add(line)
            return "text/plain", b""
        if path.startswith("/fetch-event-source"):
            # Its modules import each other without a suffix.
            name = path.rsplit("/", 1)[1].removesuffix(".js") + ".js"
            return "text/javascript", (MODULES / "@microsoft/fetch-event-source/lib/esm" / name).read_bytes()
        if path == "/polyfill.js":
            return "text/javascript", (MODULES / "event-source-polyfill/src/eventsource.min.js").read_bytes()
        if path == "/page.html":
            return "text/html; charset=utf-8", (HERE / "web/page.html").read_bytes()
        return "text/plain", b""


class Page(Reader):
    """One stream in the page of a browser."""

    def __init__(self, browser, number):
        super().__init__()
        self.browser, self.number = browser, number

    async def run(self, code):
        """Runs JavaScript in the page of a client.js, with `signal`, `show(line)` and `kept`, an object for what later code needs."""
        await self.browser.orders.put({"run": self.number, "code": code})

    async def stop(self):
        await self.browser.orders.put({"close": self.number})
