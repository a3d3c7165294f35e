// A client with nice-grpc-web and code from ts-proto.
import { ClientError, createChannel, createClientFactory, Metadata } from "nice-grpc-web";
import { SignalDefinition } from "ts_proto/backend_signal/v1/signal";
import { HealthDefinition } from "ts_proto/health";
import type { Call } from "./call";

const SERVICES = { "backend_signal.v1.Signal": SignalDefinition, "grpc.health.v1.Health": HealthDefinition };

export const niceGrpcWeb: Call = async (base, method, requests, metadata, emit) => {
  const [service, name] = method.split("/") as [keyof typeof SERVICES, string];
  const definition = SERVICES[service];
  const key = name[0]!.toLowerCase() + name.slice(1);
  const { requestType, requestStream, responseType, responseStream } = (definition.methods as any)[key];
  const messages = requests.map((request) => requestType.fromJSON(request));
  const client = createClientFactory().create(definition as any, createChannel(base)) as any;
  try {
    const argument = requestStream ? (async function* () { yield* messages; })() : messages[0];
    const result = client[key](argument, { metadata: new Metadata(metadata) });
    if (!responseStream) emit(responseType.toJSON(await result));
    else for await (const response of result) emit(responseType.toJSON(response));
    return { code: 0, text: "" };
  } catch (error) {
    if (error instanceof ClientError) return { code: error.code, text: error.details };
    return { code: 2, text: String(error) };
  }
};
