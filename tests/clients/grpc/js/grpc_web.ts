// A client with Google's grpc-web, in text or binary mode. The messages come from protobuf-es, because no npm package has Google's
// own JavaScript generator.
import { fromBinary, fromJson, toBinary, toJson, type DescMessage, type JsonObject, type MessageShape } from "@bufbuild/protobuf";
import { GrpcWebClientBase, MethodDescriptor, type RpcError } from "grpc-web";
import { Signal } from "backend_signal/v1/signal_pb";
import { Health } from "health_pb";
import type { Call } from "./call";

type Message = MessageShape<DescMessage>;

export const grpcWeb = (format: "text" | "binary"): Call => (base, method, requests, metadata, emit) => new Promise((resolve) => {
  const [service, name] = method.split("/");
  const { methods } = [Signal, Health].find(({ typeName }) => typeName === service)!;
  const { input, output, methodKind } = methods.find((one) => one.name === name)!;
  const write = (message: Message) => toBinary(input, message);
  const read = (bytes: Uint8Array) => fromBinary(output, bytes);
  const kind = methodKind === "unary" ? "unary" : "server_streaming";
  const descriptor = new MethodDescriptor<Message, Message>(`/${method}`, kind, Object as any, Object as any, write, read);
  const client = new GrpcWebClientBase({ format });
  const request = fromJson(input, requests[0]!);
  const responded = (response: Message) => emit(toJson(output, response) as JsonObject);
  const failed = (error: RpcError) => resolve({ code: error.code, text: error.message });
  if (kind === "unary") {
    client.rpcCall(`${base}/${method}`, request, metadata, descriptor, (error, response) => {
      if (error) return failed(error);
      responded(response);
      resolve({ code: 0, text: "" });
    });
    return;
  }
  const stream = client.serverStreaming(`${base}/${method}`, request, metadata, descriptor);
  stream.on("data", responded).on("error", failed);
  stream.on("status", ({ code, details }) => { if (code === 0) resolve({ code, text: details ?? "" }); });
  stream.on("end", () => setTimeout(resolve, 0, { code: -1, text: "ended without a status" }));
});
