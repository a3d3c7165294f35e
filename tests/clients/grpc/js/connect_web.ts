// A client with connect-web over gRPC-Web.
import { create, fromJson, toJson, type JsonObject } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { MessageSchema, ReadySchema, Signal } from "backend_signal/v1/signal_pb";
import { Health } from "health_pb";
import type { Call } from "./call";

const ready = create(ReadySchema, { address: { user: "bob", device: "phone" } });
if (create(MessageSchema, { sender: ready.address }).sender?.user !== "bob") throw new Error("other names");

export const connectWeb: Call = async (base, method, requests, metadata, emit) => {
  const transport = createGrpcWebTransport({ baseUrl: base });
  const [service, name] = method.split("/");
  const kind = [Signal, Health].find(({ typeName }) => typeName === service)!;
  const { input, output, localName, methodKind } = kind.methods.find((one) => one.name === name)!;
  const messages = requests.map((request) => fromJson(input, request));
  const client = createClient(kind, transport) as any;
  try {
    const argument = methodKind === "bidi_streaming" ? (async function* () { yield* messages; })() : messages[0];
    const result = client[localName](argument, { headers: metadata });
    if (methodKind === "unary") emit(toJson(output, await result) as JsonObject);
    else for await (const response of result) emit(toJson(output, response) as JsonObject);
    return { code: 0, text: "" };
  } catch (error) {
    const { code, rawMessage } = ConnectError.from(error, Code.Unknown);
    return { code, text: rawMessage };
  }
};
