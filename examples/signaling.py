"""A device over gRPC. It gets each message once and in order, also when its connection is cut.

    pip install grpcio-tools
    PYTHONPATH=proto python examples/signaling.py localhost:1837 bob phone    # prints what comes to Bob's phone
"""
import asyncio, json, logging, sys
import grpc

pb, services = grpc.protos_and_services("backend_signal/v1/signal.proto")
FINAL = ("ABORTED", "INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED")    # ABORTED: another program is this device now.

class Device:
    def __init__(self, server, user, device):
        # Believed with --dev. With tokens: [("authorization", f"Bearer {token}"), ("x-signal-device", device)].
        self.identity = [("x-user-claim", json.dumps({"userid": user, "clientid": device}))]
        self.server = server

    async def run(self, receive):
        options, cursor = [("grpc.keepalive_time_ms", 20_000), ("grpc.max_reconnect_backoff_ms", 5_000)], ""
        self.signal = services.SignalStub(grpc.aio.insecure_channel(self.server, options))
        while True:
            try:
                async for event in self.signal.Subscribe(pb.SubscribeRequest(cursor=cursor), metadata=self.identity):
                    cursor = event.ready.cursor or event.message.cursor or cursor
                    if event.HasField("message"):
                        try: await receive(self, event.message)
                        except Exception: logging.exception("a message that this program cannot take")
            except grpc.aio.AioRpcError as error:
                if error.code().name in FINAL: raise
            await asyncio.sleep(1)

    async def send(self, to, event, data):    # A device that is away gets the message if it comes back within 30 s.
        await self.signal.Send(pb.SendRequest(to=to, event=event, data=data, ttl={"seconds": 30}), metadata=self.identity)

async def show(_, message):
    print(json.dumps([message.sender.user, message.sender.device, message.event, message.data]), flush=True)

if __name__ == "__main__":
    asyncio.run(Device(*sys.argv[1:]).run(show))
