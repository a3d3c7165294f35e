// A small world for the tests of client.js: a daemon in memory, and the parts of a browser that client.js uses. Time is mocked: it
// moves only in `pass`. Each `connect` is a page of its own, with its own copy of client.js, and `leave` ends a page without a word.

import fs from "node:fs";
import { mock } from "node:test";
import { FakePeerConnection } from "./rtc.mjs";

const BASE = "http://daemon.test/";
/** client.js as the body of a function whose parameters are a page's globals. */
const CODE = fs.readFileSync(new URL("../client.js", import.meta.url), "utf8")
  .replace("export const connect", "const connect").replaceAll("import.meta.url", JSON.stringify(`${BASE}client.js`));

/** Lets everything happen that waits for no time. */
export async function settle() {
  for (let turn = 0; turn < 30; turn += 1) await new Promise(setImmediate);
}

/** Moves time on, in steps, so that what one timer starts gets its own timers. */
export async function pass(ms, step = 100) {
  await settle();
  for (let left = ms; left > 0; left -= step) {
    mock.timers.tick(Math.min(step, left));
    await settle();
  }
}

export class World {
  /** Every request, as `{ method, path, query, headers, body }`. */
  requests = [];
  /** Every EventSource that was made. */
  sources = [];
  /** Before the daemon answers: may give `{ status, body, headers }`, or throw as a broken network does. */
  intercept = () => undefined;
  /** Before the daemon takes a stream: may give a status that refuses it, or "silence" or "cut". */
  refuse = () => undefined;
  /** Whether a device that comes back gets what it missed. */
  remembers = true;
  heartbeat = 15_000;
  #mailboxes = new Map();
  #page = 0;
  #ends = new WeakMap();

  constructor() {
    mock.timers.enable({ apis: ["setTimeout", "Date"] });
    globalThis.location = { href: "http://page.test/" };
    FakePeerConnection.reset();
  }

  close() {
    mock.timers.reset();
    mock.restoreAll();
  }

  /** Loads client.js as a page does. `more` are other globals of this page. */
  load(more = {}) {
    const world = this;
    const page = { alive: true, ends: [] };
    const globals = {
      fetch: (url, init = {}) => page.alive ? this.#fetch(new URL(url), init) : new Promise(() => {}),
      // As in a browser: 32 bits, and none for what is no number.
      setTimeout: (act, ms) => setTimeout(() => page.alive && act(), Math.max(ms | 0, 0)),
      EventSource: class extends FakeEventSource {
        constructor(url, options) {
          super(url, options);
          page.ends.push(() => this.close());
          world.sources.push(this);
          queueMicrotask(() => world.#subscribe(this));
        }
      },
      RTCPeerConnection: class extends FakePeerConnection {
        constructor(configuration) {
          super(configuration);
          page.ends.push(() => this.close());
        }
      },
      ...more,
    };
    const { connect } = new Function(...Object.keys(globals), `${CODE}\nreturn { connect };`)(...Object.values(globals));
    const end = () => {
      page.alive = false;
      for (const end of page.ends) end();
    };
    return { connect, end };
  }

  async connect(user, device, options = {}, more = {}) {
    const { connect, end } = this.load(more);
    const connecting = connect({ url: BASE, user, device, ...options });
    connecting.then((signal) => { this.#ends.set(signal, end); }, () => {});
    await settle();
    return connecting;
  }

  /** The browser ends a page without a word: its streams and its calls are gone. */
  leave(signal) {
    this.#ends.get(signal)();
  }

  /** The stream of a device that is open now. */
  stream(user, device) {
    return this.sources.findLast((source) => source.path === "/subscribe" && source.query.get("user") === user &&
      source.query.get("device") === device && source.readyState !== 2);
  }

  posts(event) {
    return this.requests.filter(({ method, body }) => method === "POST" && body?.event === event);
  }

  /** The call messages that were posted, without what is random. */
  calls() {
    return this.posts("call").map(({ body }) => body.data);
  }

  mailbox(user, device) {
    const key = `${user}/${device}`;
    if (!this.#mailboxes.has(key)) this.#mailboxes.set(key, { log: [], source: undefined, page: 0, handed: 0 });
    return this.#mailboxes.get(key);
  }

  /** Every stream ends without a word, and every mailbox is lost, as after `kill -9`. */
  restart() {
    const open = this.sources.filter(({ readyState }) => readyState === 1);
    this.#mailboxes.clear();
    this.#page += 1_000;
    for (const source of open) source.fail();
  }

  /** Takes a message for a device, as the daemon does. */
  deliver(from, user, device, { event, data }, ttl) {
    const box = this.mailbox(user, device);
    if (!box.source && !ttl) return 404;
    box.log.push({ event: event ?? "message", data: JSON.stringify({ from, data: typeof data === "string" ? data : JSON.stringify(data), sent_at: "2026-01-01T00:00:00.000Z" }) });
    this.#hand(box);
    return box.source ? 200 : 202;
  }

  #hand(box) {
    if (!box.source) return;
    for (; box.handed < box.log.length; box.handed += 1) {
      const { event, data } = box.log[box.handed];
      box.source.fire(event, data, `${box.page}.${box.handed + 1}`);
    }
  }

  async #fetch(url, { method = "GET", headers = {}, body, signal }) {
    headers = Object.fromEntries(new Headers(headers));
    const request = { method, path: url.pathname, query: url.searchParams, headers, body: body && JSON.parse(body) };
    this.requests.push(request);
    await null;
    signal?.throwIfAborted();
    const answer = (await this.intercept(request, signal)) ?? this.#answer(request);
    return new Response(answer.status === 204 ? null : JSON.stringify(answer.body ?? {}), { status: answer.status, headers: answer.headers });
  }

  #answer({ method, path, query, headers, body }) {
    const parts = path.split("/").map(decodeURIComponent);
    if (method === "POST" && parts[3] === "device") {
      const from = { user: query.get("user"), device: query.get("device") };
      const status = this.deliver(from, parts[2], parts[4], body, Number(headers.ttl));
      return { status, body: status === 404 ? { code: "not_connected" } : {} };
    }
    if (method === "POST" && parts[3] === "devices") {
      const delivered = this.#devices(parts[2]);
      for (const device of delivered) this.deliver(null, parts[2], device, body);
      return { status: delivered.length ? 200 : 404, body: delivered.length ? { delivered } : { code: "not_connected" } };
    }
    if (path === "/subscribe") return { status: 200, headers: { "content-type": "text/event-stream" } };
    if (parts[3] === "devices") return { status: 200, body: this.#devices(parts[2]) };
    return { status: 404, body: { code: "no_route" } };
  }

  #devices(user) {
    return [...this.#mailboxes].filter(([key, { source }]) => source && key.startsWith(`${user}/`)).map(([key]) => key.split("/")[1]).sort();
  }

  #subscribe(source) {
    if (source.readyState === 2) return;
    const refused = this.refuse(source);
    if (refused === "silence") return;
    if (refused === "cut") return source.fail();
    if (refused) return source.fail(true);
    source.readyState = 1;
    if (source.path === "/devices") return this.#watch(source);
    const [user, device] = [source.query.get("user"), source.query.get("device")];
    const cursor = source.query.get("last_event_id");
    const box = this.mailbox(user, device);
    const old = box.source;
    const known = cursor !== null && this.remembers && Number(cursor.split(".")[0]) === box.page && box.page > 0;
    if (!known) box.page = this.#page += 1;
    if (known) box.handed = Number(cursor.split(".")[1]);
    box.source = source;
    if (old && old !== source && !known) old.fire("signal.end", JSON.stringify({ reason: "superseded" }));
    const continuity = cursor === null ? "new" : known ? "resumed" : "broken";
    source.fire("signal.ready", JSON.stringify({ user, device, continuity, replayed: 0, heartbeat_ms: this.heartbeat }), `${box.page}.${box.handed}`);
    this.#hand(box);
    source.closed = () => {
      source.closed = () => {};
      if (box.source === source) box.source = undefined;
      if (!box.source) this.#tell("signal.offline", user, device);
    };
    if (!known) this.#tell("signal.online", user, device);
  }

  #watch(source) {
    for (const user of source.query.getAll("user")) {
      source.fire("signal.devices", JSON.stringify({ user, devices: this.#devices(user) }));
    }
  }

  #tell(event, user, device) {
    for (const source of this.sources) {
      if (source.path === "/devices" && source.readyState === 1 && source.query.getAll("user").includes(user)) {
        source.fire(event, JSON.stringify({ user, device }));
      }
    }
  }
}

class FakeEventSource extends EventTarget {
  readyState = 0;
  onerror = null;
  closed = () => {};

  constructor(url, { withCredentials = false } = {}) {
    super();
    const { pathname, searchParams } = new URL(url);
    Object.assign(this, { url, path: pathname, query: searchParams, withCredentials, lastId: "" });
  }

  /** An event of the stream. Each is a task of its own, as in a browser. */
  fire(type, data, id) {
    if (id) this.lastId = id;
    const lastEventId = this.lastId;
    setImmediate(() => {
      if (this.readyState !== 2) this.dispatchEvent(Object.assign(new Event(type), { data, lastEventId }));
    });
  }

  /** The connection is gone. `final`: the browser does not come back. */
  fail(final = false) {
    this.readyState = final ? 2 : 0;
    const event = Object.assign(new Event("error"));
    this.closed();
    this.dispatchEvent(event);
    Object.defineProperty(event, "target", { value: this });
    this.onerror?.(event);
  }

  close() {
    if (this.readyState === 2) return;
    this.readyState = 2;
    this.closed();
  }
}
