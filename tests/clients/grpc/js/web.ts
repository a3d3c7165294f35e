// The gRPC-Web clients by name, for Node.js and for a page.
import { connectWeb } from "./connect_web";
import { grpcWeb } from "./grpc_web";
import { niceGrpcWeb } from "./nice_grpc_web";
import type { Call } from "./call";

export const CLIENTS: Record<string, Call> = {
  "connect-web": connectWeb,
  "grpc-web text": grpcWeb("text"),
  "grpc-web binary": grpcWeb("binary"),
  "nice-grpc-web": niceGrpcWeb,
};
