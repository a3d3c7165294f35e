// Reads calls from standard input and writes their responses. ../python/client.py documents the format.
import { createInterface } from "node:readline";

/**
 * `call(base, method, requests, metadata, emit, compress)` makes one call, gives each response to `emit`, and returns
 * `{ code, text }`.
 */
export function serve(call, stop = () => {}) {
  const write = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
  const lines = createInterface({ input: process.stdin });
  lines.on("line", async (line) => {
    const { id, base, method, requests, metadata, compress } = JSON.parse(line);
    const end = await call(base, method, requests, metadata, (message) => write({ id, message }), compress);
    write({ id, ...end });
  });
  lines.on("close", async () => {
    await stop();
    process.exit();
  });
}
