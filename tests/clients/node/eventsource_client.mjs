// The package `eventsource`: a browser's EventSource for Node.js.

import { EventSource } from "eventsource";

const show = (line) => console.log(JSON.stringify(line));
const { URL: url, CLAIM: claim, DEFAULTS: defaults } = process.env;
const source = new EventSource(url, {
  async fetch(input, init) {
    const response = await fetch(input, { ...init, headers: { ...init.headers, ...(claim && { "X-User-Claim": claim }) } });
    // The library reports only the status, so the text is read here.
    if (!response.ok) show({ error: true, code: response.status, text: await response.clone().text(), by_hand: true });
    return response;
  },
});
for (const name of ["message", "candidate", "signal.begin", "signal.ready", "signal.ping", "signal.end"]) {
  source.addEventListener(name, (event) => show({ event: event.type, data: event.data, id: event.lastEventId }));
}
source.onerror = (event) => show({ error: true, code: event.code ?? null, text: event.message ?? "" });
// The library's timer does not keep Node.js alive while it waits to come back.
if (!defaults) setInterval(() => {}, 60_000);
