// The snippet of docs/clients.md for `expo/fetch`, with the `fetch` of Node.js in its place.

import { snippet } from "./react_native.mjs";

const show = (line) => console.log(JSON.stringify(line));
const { URL: url, CLAIM: claim } = process.env;
const { subscribe } = await snippet("expo/fetch", {
  "expo/fetch": "data:text/javascript,export const fetch = globalThis.fetch;",
  "eventsource-parser": import.meta.resolve("eventsource-parser"),
});
subscribe(url, claim ? { "X-User-Claim": claim } : {}, (event, data, id) => show({ event, data, id }),
  (code, text) => show({ error: true, code, text }));
