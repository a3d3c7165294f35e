"""A shell around grpcio. It reads one call a line from standard input:

    {"id": 1, "base": "http://127.0.0.1:1837", "method": "backend_signal.v1.Signal/Send", "requests": [{...}], "metadata": {...}}

`"compress": true`: compress the requests. It writes `{"id": 1, "message": {...}}` for each response, `{"id": 1, "code": 0, "text": ""}` at the end.
The clients in other languages read and write the same lines.
"""

import asyncio
import json
import sys

import grpc
from google.protobuf import json_format, message_factory

import health_pb2
import health_pb2_grpc
from backend_signal.v1 import signal_pb2, signal_pb2_grpc

STUBS = {"backend_signal.v1.Signal": signal_pb2_grpc.SignalStub, "grpc.health.v1.Health": health_pb2_grpc.HealthStub}
FILES = {"backend_signal.v1.Signal": signal_pb2, "grpc.health.v1.Health": health_pb2}


def emit(**line):
    print(json.dumps(line), flush=True)


async def call(channel, id, method, requests, metadata, compress=False):
    service, name = method.split("/")
    kind = FILES[service].DESCRIPTOR.services_by_name[service.split(".")[-1]].methods_by_name[name]
    request_class = message_factory.GetMessageClass(kind.input_type)
    requests = [json_format.ParseDict(request, request_class()) for request in requests]
    options = {"metadata": list(metadata.items())}
    if compress:
        options["compression"] = grpc.Compression.Gzip
    running = getattr(STUBS[service](channel), name)(iter(requests) if kind.client_streaming else requests[0], **options)
    try:
        if kind.server_streaming:
            async for response in running:
                emit(id=id, message=json_format.MessageToDict(response))
        else:
            emit(id=id, message=json_format.MessageToDict(await running))
        emit(id=id, code=0, text=await running.details() or "")
    except grpc.aio.AioRpcError as error:
        emit(id=id, code=error.code().value[0], text=error.details())


async def main():
    channels, running = {}, set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        base = order.pop("base").removeprefix("http://")
        if base not in channels:
            channels[base] = grpc.aio.insecure_channel(base)
        running.add(asyncio.create_task(call(channels[base], **order)))


asyncio.run(main())
