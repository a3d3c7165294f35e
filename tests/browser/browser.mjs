// What only a real browser proves: its EventSource, its CORS and its fetch against the daemon.
//
//   CHROMIUM=/usr/bin/chromium node browser.mjs http://127.0.0.1:1837
//
// The daemon runs with `--auth none`. The page comes from another origin. Between the browser and the daemon stands a relay where
// a scenario has to see the browser's headers or to end a stream. Exits with 1 at the first promise that does not hold.

import assert from "node:assert/strict";
import http from "node:http";
import { chromium } from "playwright-core";

const DAEMON = process.argv[2]?.replace(/\/$/, "");
/** How long a scenario waits for what must come; a browser comes back after at most 4 s, and after 60 s when it was superseded. */
const PATIENCE_MS = 100_000;
/** All scenarios together. */
const WHOLE_MS = 480_000;

const FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

const SCENARIOS = {
  "a stream opens, and its first event is signal.ready, with an id": opens,
  "onmessage gets the data of a post from another origin": onmessage,
  "a listener gets a named event, and onmessage does not": namedEvent,
  "data arrives exactly, in any script and over many lines": exactData,
  "an error can be read by the page": readableError,
  "a page that watches devices gets the whole list, then changes, and the whole list again when it comes back": watches,
  "gRPC-Web works from a page": grpcWeb,
  "the browser comes back by itself with Last-Event-ID and gets what it missed": resumes,
  "without a message the browser comes back with the id of signal.ready, again and again": idleCursor,
  "of two pages of one device the older one is quiet for 30 s, until it is reloaded": duel,
  "the newer page takes over, and the older one stops by itself": takenOver,
  "the older page comes back when the newer one has left": comesBack,
};

async function opens({ open, seen }) {
  await open("first", "/subscribe/ana/device/opens");
  await seen("first", "signal.ready");
  const { log, state } = await seen("first", "open");
  assert.deepEqual(log.map(({ type }) => type), ["open", "signal.ready"], "nothing but the ready event fires");
  assert.equal(state, 1, "the stream is open");
  const ready = log[1];
  assert.deepEqual(JSON.parse(ready.data),
    { user: "ana", device: "opens", continuity: "new", replayed: 0, heartbeat_ms: 15_000 });
  assert.notEqual(ready.id, "", "the first block has set the last event id");
}

async function onmessage({ open, seen, post }) {
  await open("phone", "/subscribe/ana/device/phone");
  await seen("phone", "signal.ready");
  // A form is a simple request for CORS, JSON needs a preflight.
  assert.deepEqual(await post("/user/ana/device/phone", { form: { data: "as a form" } }), { status: 200, body: "" });
  assert.deepEqual(await post("/user/ana/device/phone", { json: { data: "as JSON" } }), { status: 200, body: "" });
  assert.deepEqual(await post("/user/ana/device/phone", { json: { data: { sdp: "v=0" } } }), { status: 200, body: "" });
  const { messages } = await seen("phone", "message", 3);
  assert.deepEqual(messages.map(({ data }) => data), ["as a form", "as JSON", '{"sdp":"v=0"}']);
  assert.equal(new Set(messages.map(({ id }) => id)).size, 3, "each message has a cursor of its own");
}

async function namedEvent({ open, seen, post }) {
  await open("phone", "/subscribe/ana/device/named", ["candidate"]);
  await seen("phone", "signal.ready");
  await post("/user/ana/device/named", { json: { event: "candidate", data: "by name" } });
  await post("/user/ana/device/named", { json: { data: "without a name" } });
  const { log, messages } = await seen("phone", "message");
  assert.deepEqual(log.filter(({ type }) => type === "candidate").map(({ data }) => data), ["by name"]);
  assert.deepEqual(messages.map(({ data }) => data), ["without a name"]);
}

async function exactData({ open, seen, post }) {
  const exact = ["one\ntwo\n\nfour", "\n", "a\n", "\n\nid: x\n\ndata: y\n\n", " leading space", ":colon", "\uFEFFbyte order mark",
    "nul\0inside", "line\u2028and\u2029paragraph", "Grüße, 你好, שלום, 👩‍👩‍👧", "tab\tand trailing ", "event: signal.end", "x".repeat(100_000)];
  const normalised = { "a\r\nb\rc\r": "a\nb\nc\n" };
  await open("phone", "/subscribe/ana/device/exact");
  await seen("phone", "signal.ready");
  for (const data of [...exact, ...Object.keys(normalised)]) {
    const answer = await post("/user/ana/device/exact", { json: { data } });
    assert.equal(answer.status, 200, JSON.stringify(data).slice(0, 80));
  }
  const expected = [...exact, ...Object.values(normalised)];
  const { messages } = await seen("phone", "message", expected.length);
  assert.deepEqual(messages.map(({ data }) => data), expected);
  // Ids are ordinary text too, in a path that the browser has encoded.
  const path = `/device/${encodeURIComponent("ana's / phone: 👍")}`;
  await open("odd", `/subscribe/ana${path}`);
  await seen("odd", "signal.ready");
  assert.equal((await post(`/user/ana${path}`, { form: { data: "x&y=z+%41" } })).status, 200);
  assert.equal((await seen("odd", "message")).messages[0].data, "x&y=z+%41");
}

async function readableError({ page, post }) {
  const { status, body } = await post("/user/ana/device/nowhere", { json: { data: "anybody?" } });
  assert.deepEqual([status, JSON.parse(body).code], [404, "not_connected"]);
  const devices = await page.evaluate(async (url) => (await fetch(url)).json(), `${DAEMON}/user/nobody/devices`);
  assert.deepEqual(devices, []);
}

async function watches({ open, seen, close, relay }) {
  const events = ["signal.devices", "signal.online", "signal.offline"];
  const watched = ({ log }) => log.filter(({ type }) => events.includes(type)).map(({ type, data }) => [type, JSON.parse(data)]);
  await open("phone", "/subscribe/uma/device/phone");
  await seen("phone", "signal.ready");
  await open("watch", "/user/uma/devices", events, relay.url);
  await seen("watch", "signal.devices");
  await open("laptop", "/subscribe/uma/device/laptop");
  await seen("watch", "signal.online");
  await close("phone");
  const expected = [["signal.devices", ["phone"]], ["signal.online", { device: "laptop" }], ["signal.offline", { device: "phone" }]];
  assert.deepEqual(watched(await seen("watch", "signal.offline")), expected);
  relay.end();
  const whole = ["signal.devices", ["laptop"]];
  assert.deepEqual(watched(await seen("watch", "signal.devices", 2)), [...expected, whole]);
  assert.deepEqual(relay.requests().map(({ lastEventId }) => lastEventId), [undefined, undefined], "no cursor to come back with");
}

async function grpcWeb({ open, seen, page }) {
  await open("phone", "/subscribe/eve/device/phone");
  await seen("phone", "signal.ready");
  // ListDevicesRequest { user: "eve" } in its frame.
  const { message, trailers } = await call(page, "ListDevices", [0x0a, 3, ...Buffer.from("eve")]);
  // ListDevicesResponse { devices: ["phone"] }.
  assert.deepEqual(message, [0x0a, 5, ...Buffer.from("phone")]);
  assert.match(trailers, /grpc-status: ?0/);
  // ListDevicesRequest {}: INVALID_ARGUMENT.
  const refused = await call(page, "ListDevices", []);
  assert.match(refused.trailers, /grpc-status: ?3/);
}

/** Calls a method of the service from the page; gives the message of the answer, and its trailers wherever they stand. */
async function call(page, method, message) {
  const body = [0, 0, 0, 0, message.length, ...message];
  const answer = await page.evaluate(async ([url, body]) => {
    const headers = { "content-type": "application/grpc-web+proto", "x-grpc-web": "1" };
    const response = await fetch(url, { method: "POST", headers, body: new Uint8Array(body) });
    const status = response.headers.get("grpc-status");
    return { status, bytes: [...new Uint8Array(await response.arrayBuffer())] };
  }, [`${DAEMON}/backend_signal.v1.Signal/${method}`, body]);
  let bytes = Buffer.from(answer.bytes);
  const result = { message: null, trailers: answer.status === null ? "" : `grpc-status:${answer.status}` };
  while (bytes.length > 0) {
    const frame = bytes.subarray(5, 5 + bytes.readUInt32BE(1));
    if (bytes[0] & 0x80) result.trailers += frame.toString("ascii");
    else result.message = [...frame];
    bytes = bytes.subarray(5 + frame.length);
  }
  return result;
}

async function resumes({ open, seen, post, relay }) {
  await open("phone", "/subscribe/ana/device/resumes", [], relay.url);
  await seen("phone", "signal.ready");
  await post("/user/ana/device/resumes", { json: { data: "before" } });
  const before = (await seen("phone", "message")).messages[0];
  // The daemon hands over two messages that never reach the browser; then the stream ends as a server ends it.
  relay.swallow();
  for (const data of ["missed 1", "missed 2"]) {
    assert.equal((await post("/user/ana/device/resumes", { json: { data } })).status, 200);
  }
  relay.end();
  const { log } = await seen("phone", "signal.ready", 2);
  assert.deepEqual(log.filter(({ type }) => type === "error").map(({ state }) => state), [0], "the browser reconnects");
  const { continuity, replayed } = JSON.parse(log.findLast(({ type }) => type === "signal.ready").data);
  assert.deepEqual([continuity, replayed], ["resumed", 2]);
  await post("/user/ana/device/resumes", { json: { data: "after" } });
  const { messages } = await seen("phone", "message", 4);
  assert.deepEqual(messages.map(({ data }) => data), ["before", "missed 1", "missed 2", "after"], "nothing lost, nothing twice");
  const [first, second, ...more] = relay.requests();
  assert.deepEqual([first.lastEventId, second.lastEventId, more.length], [undefined, before.id, 0]);
  assert.equal(first.accept, "text/event-stream");
}

async function takenOver({ open, seen, post, relay }) {
  await open("older", "/subscribe/ana/device/shared", [], relay.url);
  const { log: [, ready] } = await seen("older", "signal.ready");
  await open("newer", "/subscribe/ana/device/shared");
  await seen("newer", "signal.ready");
  const ended = (await seen("older", "signal.end")).log.findLast(({ type }) => type === "signal.end");
  assert.deepEqual(JSON.parse(ended.data), { reason: "superseded" });
  // It comes back once, with its own cursor, and the answer is the polite stop.
  await until(async () => (await seen("older", "open")).state === 2, "the older page stops");
  assert.deepEqual(relay.requests().map(({ lastEventId, status }) => [lastEventId, status]), [[undefined, 200], [ready.id, 204]]);
  await post("/user/ana/device/shared", { json: { data: "for the newer" } });
  const { messages, state } = await seen("newer", "message");
  assert.deepEqual([messages.map(({ data }) => data), state], [["for the newer"], 1]);
}

async function comesBack({ open, seen, post, close, relay }) {
  await open("older", "/subscribe/ana/device/handed", [], relay.url);
  await seen("older", "signal.ready");
  await open("newer", "/subscribe/ana/device/handed");
  await seen("newer", "signal.ready");
  await close("newer");
  // The daemon itself has ended this stream; the browser comes back to a device that nobody holds.
  await seen("older", "signal.ready", 2);
  assert.deepEqual(relay.requests().map(({ status }) => status), [200, 200]);
  assert.equal((await post("/user/ana/device/handed", { json: { data: "here again" } })).status, 200);
  assert.deepEqual((await seen("older", "message")).messages.map(({ data }) => data), ["here again"]);
}

async function idleCursor({ open, seen, relay }) {
  // The first stream begins with a cursor that the page had from elsewhere; no message ever comes.
  await open("phone", "/subscribe/ana/device/idle?last_event_id=elsewhere", [], relay.url);
  const { log: [, { id }] } = await seen("phone", "signal.ready");
  for (const times of [2, 3]) {
    relay.end();
    await seen("phone", "signal.ready", times);
  }
  assert.notEqual(id, "");
  assert.deepEqual(relay.requests().map(({ lastEventId }) => lastEventId), [undefined, id, id]);
  const { log } = await seen("phone", "open", 3);
  const opening = ["open", "signal.ready"];
  assert.deepEqual(log.map(({ type }) => type), [...opening, "error", ...opening, "error", ...opening], "and fires nothing");
  const ready = log.filter(({ type }) => type === "signal.ready");
  assert.deepEqual(ready.map(({ data }) => JSON.parse(data).continuity), ["broken", "resumed", "resumed"]);
}

async function duel({ open, seen, post, relay, page, another }) {
  const path = "/subscribe/ana/device/duel";
  const newer = await another();
  await open("stream", path, [], relay.url);
  await seen("stream", "signal.ready");
  await newer.open("stream", path);
  await newer.seen("stream", "signal.ready");
  await until(async () => (await seen("stream", "signal.end")).state === 2, "the older page stops");
  const asked = () => relay.requests().map(({ status }) => status);
  assert.deepEqual(asked(), [200, 204]);
  // The time itself is what is proved: a browser that did come back would do so after 4 s at most.
  for (let second = 1; second <= 30; second += 1) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    assert.equal((await post(path.replace("subscribe", "user"), { json: { data: `${second} s` } })).status, 200);
    const { messages } = await newer.seen("stream", "message", second);
    assert.equal(messages[second - 1].data, `${second} s`, "the newer page goes on receiving");
  }
  assert.deepEqual(asked(), [200, 204], "the older page asks for nothing");
  const { messages, state } = await seen("stream", "open");
  assert.deepEqual([messages, state], [[], 2]);
  assert.equal((await newer.seen("stream", "open")).state, 1);
  await newer.page.close();
  await page.reload();
  await page.evaluate(inPage);
  await open("stream", path, [], relay.url);
  await seen("stream", "signal.ready");
  assert.equal((await post(path.replace("subscribe", "user"), { json: { data: "back" } })).status, 200);
  assert.deepEqual((await seen("stream", "message")).messages.map(({ data }) => data), ["back"]);
  assert.deepEqual(asked(), [200, 204, 200]);
}

/** What runs in the page: event sources by name, each with a log of everything that it fired. */
function inPage() {
  const sources = {};
  window.open_ = (name, url, events) => {
    const source = new EventSource(url);
    const log = [];
    const note = ({ type, data, lastEventId }) => log.push({ type, data, id: lastEventId, state: source.readyState });
    source.onopen = note;
    source.onerror = note;
    source.onmessage = note;
    for (const event of ["signal.ready", "signal.ping", "signal.end", ...events]) source.addEventListener(event, note);
    sources[name] = { source, log };
  };
  window.close_ = (name) => sources[name].source.close();
  window.closeAll_ = () => Object.keys(sources).forEach(window.close_);
  window.log_ = (name) => ({ log: sources[name].log, state: sources[name].source.readyState });
  window.post_ = async (url, { json, form }) => {
    const headers = json ? { "content-type": "application/json" } : {};
    const body = json ? JSON.stringify(json) : new URLSearchParams(form);
    const response = await fetch(url, { method: "POST", headers, body });
    return { status: response.status, body: await response.text() };
  };
}

/** What a scenario does with its page; `another` opens a second one beside it. */
function tools(page, relay, another) {
  const log = async (name) => {
    const seen = await page.evaluate((name) => window.log_(name), name);
    return { ...seen, messages: seen.log.filter(({ type }) => type === "message") };
  };
  return {
    page,
    relay,
    another,
    open: (name, path, events = [], base = DAEMON) => page.evaluate((args) => window.open_(...args), [name, base + path, events]),
    close: (name) => page.evaluate((name) => window.close_(name), name),
    post: (path, body) => page.evaluate((args) => window.post_(...args), [DAEMON + path, body]),
    /** Waits until a source has fired an event of the type so often; gives all that it has fired. */
    seen: async (name, type, times = 1) => {
      const enough = async () => (await log(name)).log.filter((event) => event.type === type).length >= times;
      await until(enough, () => `${times} × ${type} at "${name}"`, () => log(name));
      return log(name);
    },
  };
}

async function until(condition, what, evidence = () => "") {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    if (Date.now() > deadline) {
      const seen = JSON.stringify(await evidence()).slice(0, 2000);
      throw new Error(`did not come in time: ${typeof what === "function" ? what() : what}; seen: ${seen}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Stands before the daemon, writes down what the browser asks, and can end the last stream as a server does. */
class Relay {
  #requests = [];
  #server = http.createServer((request, response) => this.#pass(request, response));
  #last;

  async start() {
    this.url = await listen(this.#server);
    return this;
  }

  #pass(request, response) {
    const note = { lastEventId: request.headers["last-event-id"], accept: request.headers.accept };
    this.#requests.push(note);
    const outward = http.request(DAEMON + request.url, { method: request.method, headers: request.headers, agent: false });
    const exchange = { outward, response, swallowing: false };
    this.#last = exchange;
    outward.on("response", (answer) => {
      note.status = answer.statusCode;
      response.writeHead(answer.statusCode, answer.headers);
      response.flushHeaders();
      answer.on("data", (chunk) => exchange.swallowing || response.write(chunk));
      answer.on("end", () => response.end());
    });
    outward.on("error", () => response.destroy());
    response.on("close", () => outward.destroy());
    request.pipe(outward);
  }

  /** What the browser asked so far, and what the daemon answered. */
  requests() {
    return this.#requests;
  }

  /** From now on nothing of the last stream reaches the browser. */
  swallow() {
    this.#last.swallowing = true;
  }

  /** Ends the last stream cleanly on both sides. */
  end() {
    this.#last.response.end();
  }

  stop() {
    stop(this.#server);
  }
}

async function listen(server) {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}`;
}

function stop(server) {
  server.close();
  server.closeAllConnections();
}

async function main() {
  assert.match(DAEMON ?? "", /^http:\/\//, "usage: node browser.mjs http://HOST:PORT");
  const pages = http.createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end("<!doctype html><title>test</title>");
  });
  const origin = await listen(pages);
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, headless: true, chromiumSandbox: false, args: FLAGS });
  console.log(`Chromium ${browser.version()}`);
  try {
    // At the same time, because most of it is waiting. Each has a device and a profile of its own.
    await Promise.all(Object.entries(SCENARIOS).map(([name, scenario]) => run(name, scenario, browser, origin)));
  } finally {
    await browser.close();
    stop(pages);
  }
  console.log(`${Object.keys(SCENARIOS).length} passed, 0 failed`);
}

async function run(name, scenario, browser, origin) {
  const relay = await new Relay().start();
  const context = await browser.newContext();
  const open = async () => {
    const page = await context.newPage();
    await page.goto(origin);
    await page.evaluate(inPage);
    return tools(page, relay, open);
  };
  try {
    const first = await open();
    await scenario(first);
    await first.page.evaluate(() => window.closeAll_());
    console.log(`ok: ${name}`);
  } catch (error) {
    throw new Error(`failed: ${name}: ${error.message}`, { cause: error });
  } finally {
    await context.close();
    relay.stop();
  }
}

setTimeout(() => {
  console.error(`failed: not done within ${WHOLE_MS / 1000} s`);
  process.exit(1);
}, WHOLE_MS).unref();

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
