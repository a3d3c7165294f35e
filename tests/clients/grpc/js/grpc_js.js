// A client with @grpc/grpc-js: `node grpc_js.js PROTOS KEEPALIVE`. KEEPALIVE in milliseconds; absent: no keep-alive.
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { serve } from "./shell.js";

const [protos, keepalive] = process.argv.slice(2);
const includeDirs = protos.split(":");
const services = loader.loadSync(["backend_signal/v1/signal.proto", "health.proto"], { includeDirs, enums: String });
const packages = grpc.loadPackageDefinition(services);
const time = Number(keepalive);
const options = keepalive ? { "grpc.keepalive_time_ms": time, "grpc.keepalive_timeout_ms": time } : {};
const clients = {};

function client(base, service, compress) {
  const Client = service.split(".").reduce((found, part) => found[part], packages);
  const more = compress ? { "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip } : {};
  const create = () => new Client(new URL(base).host, grpc.credentials.createInsecure(), { ...options, ...more });
  return (clients[`${base} ${service} ${compress}`] ??= create());
}

serve((base, method, requests, metadata, emit, compress) => new Promise((resolve) => {
  const [service, name] = method.split("/");
  const { requestStream, responseStream } = services[service][name];
  const headers = new grpc.Metadata();
  for (const [key, value] of Object.entries(metadata)) headers.set(key, value);
  const arguments_ = requestStream ? [headers] : [requests[0], headers];
  if (!responseStream) arguments_.push((_, response) => { if (response) emit(response); });
  const call = client(base, service, compress)[name](...arguments_);
  call.on("data", emit).on("error", () => {}).on("status", ({ code, details }) => resolve({ code, text: details }));
  if (requestStream) {
    requests.forEach((request) => call.write(request));
    call.end();
  }
}));
