// A gRPC-Web client in Node.js: `node node.js CLIENT BUNDLE`.
import { serve } from "./shell.js";

const [client, bundle] = process.argv.slice(2);
const { CLIENTS } = await import(bundle);
serve(CLIENTS[client]);
