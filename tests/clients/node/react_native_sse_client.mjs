// react-native-sse in Node.js, as the snippet of docs/clients.md uses it. With DEFAULTS without the snippet.

import { XMLHttpRequest, snippet } from "./react_native.mjs";

globalThis.XMLHttpRequest = XMLHttpRequest;
const { default: library } = await import("./react_native_sse.mjs");

const show = (line) => console.log(JSON.stringify(line));
const { URL: url, CLAIM: claim, DEFAULTS: defaults } = process.env;
const names = ["message", "candidate", "signal.begin", "signal.ready", "signal.ping", "signal.end"];
const headers = claim ? { "X-User-Claim": claim } : {};

function event(name, text, id) {
  // In an envelope the library does no harm to spaces.
  const enveloped = !defaults && url.includes("format=envelope") && !name.startsWith("signal.");
  show({ event: name, data: enveloped ? JSON.parse(text).data : text, id });
}

if (defaults) {
  const source = new library(url.replace("?format=envelope", ""), { headers });
  for (const name of names) source.addEventListener(name, ({ data, lastEventId }) => event(name, data, lastEventId));
  source.addEventListener("error", ({ xhrStatus, message }) => show({ error: true, code: xhrStatus ?? null, text: message ?? "" }));
} else {
  const { subscribe } = await snippet("react-native-sse", { "react-native-sse": import.meta.resolve("./react_native_sse.mjs") });
  subscribe(url, headers, names, event, (code, text) => show({ error: true, code, text }));
}
