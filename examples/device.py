"""A device that answers the calls of pages, and sends back what comes on their data channels: the smallest peer of docs/calls.md.

    pip install aiortc grpcio-tools
    PYTHONPATH=proto python examples/device.py localhost:1837 robot arm    # in a page: signal.call("robot", "arm").channel("chat")
"""
import asyncio, itertools, json, secrets, sys
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp
from signaling import Device, grpc, pb
calls, count = {}, itertools.count(1)    # For each address of a page: its session, our session, our connection.

async def configuration(device):
    try: servers = (await device.signal.GetIceServers(pb.GetIceServersRequest(), metadata=device.identity)).ice_servers
    except grpc.aio.AioRpcError: servers = []    # NOT_FOUND: the daemon names none.
    return RTCConfiguration([RTCIceServer(list(server.urls), server.username, server.credential) for server in servers])

async def receive(device, incoming):
    message, page = json.loads(incoming.data) if incoming.event == "call" else {}, (incoming.sender.user, incoming.sender.device)
    if message.get("v") != 1 or not incoming.sender.device: return
    theirs, offer, (known, mine, pc) = message["session"], message.get("description"), calls.get(page, (None, None, None))
    if offer and (theirs != known or "peer" in message):
        if pc: await pc.close()
        calls[page] = theirs, mine, pc = theirs, secrets.token_hex(8), RTCPeerConnection(await configuration(device))
        gone = lambda: pc.connectionState in ("closed", "failed") and pc in calls.get(page, ())
        pc.on("connectionstatechange", lambda: calls.pop(page)[2].close() if gone() else None)
        pc.on("datachannel", lambda channel: channel.on("message", channel.send))
    if offer:
        reply = {"bye": "unknown_session"}    # `peer` is a session of before, or asks for an ICE restart, which aiortc cannot do.
        if "peer" not in message:
            await pc.setRemoteDescription(RTCSessionDescription(**offer))
            await pc.setLocalDescription(await pc.createAnswer())
            reply = {"description": {"type": "answer", "sdp": pc.localDescription.sdp}}
        await device.send(incoming.sender, "call", json.dumps({"v": 1, "session": mine, "seq": next(count), "peer": theirs, **reply}))
    elif theirs == known:
        for found in filter(lambda found: found["candidate"], message.get("candidates", [])):
            candidate = candidate_from_sdp(found["candidate"].removeprefix("candidate:"))
            candidate.sdpMid, candidate.sdpMLineIndex = found["sdpMid"], found["sdpMLineIndex"]
            await pc.addIceCandidate(candidate)
        if "bye" in message: await calls.pop(page)[2].close()
asyncio.run(Device(*sys.argv[1:]).run(receive))
