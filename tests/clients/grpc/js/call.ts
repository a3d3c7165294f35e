// The type of the function that each gRPC-Web client exports.
import type { JsonObject } from "@bufbuild/protobuf";

/** Makes one call, gives each response to `emit`, and returns how the call ended. */
export type Call = (
  base: string,
  method: string,
  requests: JsonObject[],
  metadata: Record<string, string>,
  emit: (response: JsonObject) => void,
) => Promise<{ code: number; text: string }>;
