"""A TCP proxy between one client and the daemon. It can cut connections at a chosen byte."""

import asyncio
import re
import socket
import struct

from processes import PATIENCE


class Proxy:
    """Keeps the heads of the client's requests, and cuts its connections."""

    @classmethod
    async def start(cls, port, http1=True, claim=None, tls=None):
        self = cls()
        self.target, self.http1, self.claim = port, http1, claim
        self.requests, self.connections, self.writers = [], 0, set()
        self.may_pass = asyncio.Event()
        self.may_pass.set()
        self.cut_is_due, self.marker, self.after = asyncio.Event(), None, 0
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 20, ssl=tls)
        self.base = f"http{'s' if tls else ''}://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    def hold(self):
        """Accepts new connections but does not forward them until `release`, as if the client were away."""
        self.may_pass.clear()

    def release(self):
        self.may_pass.set()

    def send_to(self, port):
        """New connections go to another daemon."""
        self.target = port

    def cut(self, reset=False):
        """Closes or resets every TCP connection, without an end in HTTP."""
        for writer in list(self.writers):
            if reset:
                # Closing a socket that lingers for 0 s sends RST.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()

    def cut_after(self, marker, count):
        """Cuts `count` bytes after the daemon next writes `marker`, then holds the client. Wait for it with `was_cut`."""
        self.cut_is_due, self.marker, self.after = asyncio.Event(), marker, count

    async def was_cut(self):
        await asyncio.wait_for(self.cut_is_due.wait(), PATIENCE)

    async def serve(self, reader, writer):
        self.connections += 1
        upstream = None
        self.writers.add(writer)
        try:
            first = await reader.read(1 << 16)
            await self.may_pass.wait()
            source, upstream = await asyncio.open_connection("127.0.0.1", self.target)
            self.writers.add(upstream)
            there = asyncio.create_task(self.to_daemon(first, reader, upstream))
            back = asyncio.create_task(self.to_client(source, writer))
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            there.cancel(), back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in filter(None, (writer, upstream)):
                self.writers.discard(end)
                end.close()

    async def to_daemon(self, piece, reader, upstream):
        rest, body = b"", 0
        while piece:
            if not self.http1:
                upstream.write(piece)
            else:
                rest += piece
                while body or b"\r\n\r\n" in rest:
                    if body:
                        if not rest:
                            break
                        upstream.write(rest[:body])
                        rest, body = rest[body:], max(0, body - len(rest))
                        continue
                    head, _, rest = rest.partition(b"\r\n\r\n")
                    # Not CORS preflights (OPTIONS).
                    if head.startswith(b"GET "):
                        self.requests.append(head.decode())
                    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                    body = int(length[1]) if length else 0
                    claim = f"\r\nx-user-claim: {self.claim}".encode() if self.claim else b""
                    upstream.write(head + claim + b"\r\n\r\n")
            await upstream.drain()
            piece = await reader.read(1 << 16)

    async def to_client(self, source, writer):
        seen = b""
        while piece := await source.read(1 << 16):
            seen = (seen if self.marker else b"") + piece
            place = seen.find(self.marker) if self.marker else -1
            if place >= 0:
                end = place + len(self.marker) + self.after
                if len(seen) >= end:
                    piece = piece[:end - (len(seen) - len(piece))]
                    self.marker = None
                    self.hold()
                    writer.write(piece)
                    await writer.drain()
                    self.cut_is_due.set()
                    return
            writer.write(piece)
            await writer.drain()
