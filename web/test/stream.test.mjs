// The stream: states, reconnects, tickets, refusals, takeover, and what a page is told.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { World, pass, settle } from "./world.mjs";

let world;
beforeEach(() => { world = new World(); });
afterEach(() => world.close());

/** The states of a signal from now on. */
function states(signal) {
  const seen = [];
  signal.on("state", (state) => seen.push(state));
  return seen;
}

test("connect resolves at the first ready, and knows who it is", async () => {
  const signal = await world.connect("ana", "laptop");
  assert.deepEqual([signal.state, signal.user, signal.device], ["live", "ana", "laptop"]);
  assert.equal(world.sources[0].query.get("format"), "envelope");
  assert.equal(world.sources[0].withCredentials, false);
});

test("credentials, heartbeat and a base without a slash go into the requests", async () => {
  await world.connect("ana", "laptop", { url: "http://daemon.test/signal", credentials: "include", heartbeat: 5 });
  assert.equal(world.sources[0].withCredentials, true);
  assert.equal(world.sources[0].query.get("heartbeat"), "5");
  assert.ok(world.sources[0].url.startsWith("http://daemon.test/signal/subscribe?"));
});

test("a cut stream comes back with its cursor", async () => {
  const signal = await world.connect("ana", "laptop");
  const seen = states(signal);
  world.deliver(null, "ana", "laptop", { data: "one" });
  await settle();
  world.stream("ana", "laptop").fail();
  await settle();
  assert.equal(signal.state, "reconnecting");
  await pass(4_100);
  assert.deepEqual(seen, ["reconnecting", "live"]);
  assert.equal(world.sources.at(-1).query.get("last_event_id"), "1.1");
});

test("a message that came while the stream was away is given once, and none twice", async () => {
  const signal = await world.connect("ana", "laptop");
  const texts = [];
  signal.on("message", ({ data }) => texts.push(data));
  world.deliver(null, "ana", "laptop", { data: "one" });
  await settle();
  world.stream("ana", "laptop").fail();
  world.deliver(null, "ana", "laptop", { data: "two" }, 30);
  await pass(4_100);
  assert.deepEqual(texts, ["one", "two"]);
});

test("each failure doubles the range of the wait, up to 30 s, and it is random from the whole range", async () => {
  await world.connect("ana", "laptop");
  world.refuse = () => "cut";
  mock.method(Math, "random", () => 0.5);
  world.stream("ana", "laptop").fail();
  const tries = [];
  for (let tick = 0; tick < 600; tick += 1) {
    const before = world.sources.length;
    await pass(100);
    if (world.sources.length > before) tries.push(tick);
  }
  const gaps = tries.map((tick, index) => (tick - (tries[index - 1] ?? -1)) * 100);
  assert.deepEqual(gaps.map((gap) => Math.round(gap / 1_000)), [2, 4, 8, 15, 15, 15].slice(0, gaps.length));
  assert.ok(gaps.length >= 4);
});

test("a stream that is silent for longer than its heartbeat is opened again", async () => {
  world.heartbeat = 4_000;
  const signal = await world.connect("ana", "laptop");
  await pass(7_000);
  assert.equal(signal.state, "live");
  world.stream("ana", "laptop").fire("signal.ping", "1");
  await pass(7_000);
  assert.equal(world.sources.length, 1, "a ping shows that it lives");
  await pass(5_200);
  assert.equal(world.sources.length, 2);
  assert.equal(world.sources[0].readyState, 2, "the silent one is closed");
});

test("a stream that does not open is given up and opened again", async () => {
  world.refuse = () => "silence";
  world.load().connect({ url: "http://daemon.test/", user: "ana", device: "laptop" }).catch(() => {});
  await pass(19_500);
  assert.equal(world.sources.length, 2);
});

test("the end of an older page is superseded: it does not come back until it takes over", async () => {
  const first = await world.connect("ana", "laptop");
  const seen = states(first);
  const second = await world.connect("ana", "laptop");
  await pass(60_000);
  assert.deepEqual(seen, ["superseded"]);
  assert.equal(second.state, "live");
  first.takeOver();
  await settle();
  assert.deepEqual(seen, ["superseded", "reconnecting", "live"]);
  assert.equal(second.state, "superseded");
  assert.equal(world.sources.at(-1).query.get("last_event_id"), null, "without a cursor");
});

for (const [status, state] of [[401, "unauthorised"], [403, "unauthorised"], [204, "superseded"]]) {
  test(`a stream that comes back and is refused with ${status} is ${state}`, async () => {
    const signal = await world.connect("ana", "laptop");
    world.refuse = () => status;
    world.intercept = ({ path }) => path === "/subscribe" ? { status } : undefined;
    world.stream("ana", "laptop").fail();
    await pass(4_100);
    assert.equal(signal.state, state);
    const { length } = world.requests;
    await pass(60_000);
    assert.equal(world.requests.length, length, "and it asks no more");
  });
}

for (const status of [404, 429, 502]) test(`${status} for a while is no end of a stream that was live`, async () => {
  const signal = await world.connect("ana", "laptop");
  world.refuse = () => status;
  world.intercept = ({ path }) => path === "/subscribe" ? { status } : undefined;
  world.stream("ana", "laptop").fail();
  await pass(30_000);
  assert.equal(signal.state, "reconnecting");
  world.refuse = world.intercept = () => undefined;
  const seen = states(signal);
  await pass(31_000);
  assert.equal(seen[0], "live");
});

test("connect rejects with the answer when the first stream is refused", async () => {
  world.refuse = () => 400;
  world.intercept = () => ({ status: 400, body: { code: "invalid_device", detail: "The device is not valid." } });
  await assert.rejects(world.connect("ana", "x"), { name: "SignalError", status: 400, code: "invalid_device", message: "The device is not valid." });
});

test("an abort before ready rejects, one after it closes", async () => {
  world.refuse = () => "silence";
  const early = new AbortController();
  const connecting = world.load().connect({ url: "http://daemon.test/", user: "ana", device: "x", signal: early.signal });
  connecting.catch(() => {});
  await settle();
  early.abort();
  await assert.rejects(connecting, { name: "AbortError" });
  world.refuse = () => undefined;
  const late = new AbortController();
  const signal = await world.connect("ana", "y", { signal: late.signal });
  late.abort();
  assert.equal(signal.state, "closed");
  assert.equal(world.stream("ana", "y"), undefined);
});

test("with a token each stream has a ticket of its own", async () => {
  let tickets = 0;
  world.intercept = ({ path, headers }) => {
    if (path !== "/ticket") return undefined;
    assert.equal(headers.authorization, "Bearer secret");
    return { status: 200, body: { ticket: `t${tickets += 1}`, expires_in: 30 } };
  };
  await world.connect(undefined, "laptop", { token: "secret" });
  world.sources[0].fail();
  await pass(4_100);
  assert.deepEqual(world.sources.map(({ query }) => query.get("ticket")), ["t1", "t2"]);
  assert.equal(world.sources[1].query.get("last_event_id"), "1.0");
  assert.ok(world.sources.every(({ url }) => !url.includes("secret")));
});

test("a token that is refused is renewed once, then the page is unauthorised", async () => {
  const tokens = [];
  const token = async () => tokens[tokens.push(`token ${tokens.length + 1}`) - 1];
  let good = "token 2";
  world.intercept = ({ path, headers }) => {
    if (path !== "/ticket") return undefined;
    return headers.authorization === `Bearer ${good}` ? { status: 200, body: { ticket: "t" } } : { status: 401, body: { code: "unauthenticated" } };
  };
  const signal = await world.connect(undefined, "laptop", { token });
  assert.deepEqual(tokens, ["token 1", "token 2"]);
  good = "none";
  world.sources.at(-1).fire("signal.end", JSON.stringify({ reason: "expired" }));
  await pass(4_100);
  assert.equal(signal.state, "unauthorised");
  assert.ok(tokens.length <= 5, `${tokens}`);
});

test("a stream whose token has expired comes back with a new one and its cursor", async () => {
  let made = 0;
  world.intercept = ({ path, headers }) => path === "/ticket" ? { status: 200, body: { ticket: headers.authorization } } : undefined;
  const signal = await world.connect(undefined, "laptop", { token: () => `${made += 1}` });
  world.sources[0].fire("signal.end", JSON.stringify({ reason: "expired" }));
  await pass(4_100);
  assert.equal(signal.state, "live");
  assert.deepEqual(world.sources.map(({ query }) => query.get("ticket")), ["Bearer 1", "Bearer 2"]);
});

test("without a device of its own the page leaves it to the identity", async () => {
  world.refuse = ({ query }) => query.get("device") === null ? undefined : 403;
  world.intercept = ({ path }) => path === "/subscribe" ? { status: 403, body: { code: "forbidden", detail: "another device" } } : undefined;
  await assert.rejects(world.connect("ana", undefined), { status: 403, message: "another device" });
  await world.connect("ana", null);
  assert.equal(world.sources.at(-1).query.get("device"), null);
});

test("the page is back: a stream that waits opens at once, and a sound one stays", async () => {
  const window = new EventTarget();
  const signal = await world.connect("ana", "laptop", {}, { globalThis: window });
  const fire = async (name) => {
    window.dispatchEvent(new Event(name));
    await settle();
  };
  await fire("pageshow");
  assert.equal(world.sources.length, 1);
  world.stream("ana", "laptop").fail();
  await fire("online");
  assert.equal(signal.state, "live");
  await fire("pagehide");
  assert.equal(world.stream("ana", "laptop"), undefined, "a page in the back/forward cache holds no stream");
  await fire("pageshow");
  assert.equal(signal.state, "live");
  assert.equal(world.sources.at(-1).query.get("last_event_id"), "1.0");
  signal.close();
  const { length } = world.sources;
  await fire("online");
  assert.equal(world.sources.length, length);
});

test("named messages go to their listeners, as text and as JSON, with their sender", async () => {
  const signal = await world.connect("ana", "laptop", { on: { "message:early": ({ data }) => seen.push(["early", data]) } });
  const seen = [];
  signal.on("message", ({ event, data }) => seen.push([event, data]));
  const off = signal.on("message:state", (message) => seen.push([message.event, message.json(), message.from]));
  const from = { user: "bob", device: null };
  world.deliver(from, "ana", "laptop", { event: "state", data: { room: 7 } });
  world.deliver(from, "ana", "laptop", { data: "plain" });
  world.deliver(from, "ana", "laptop", { event: "early", data: "x" });
  await settle();
  off();
  world.deliver(from, "ana", "laptop", { event: "state", data: "gone" });
  await settle();
  assert.deepEqual(seen, [["state", { room: 7 }, from], [null, "plain"], ["early", "x"]]);
  assert.equal(signal.state, "live");
});

test("a listener that throws harms no other", async () => {
  const complained = mock.method(console, "error", () => {});
  const signal = await world.connect("ana", "laptop");
  const seen = [];
  signal.on("message", () => { throw new Error("mine"); });
  signal.on("message", ({ data }) => seen.push(data));
  world.deliver(null, "ana", "laptop", { data: "one" });
  world.deliver(null, "ana", "laptop", { data: "two" });
  await settle();
  assert.deepEqual(seen, ["one", "two"]);
  assert.equal(complained.mock.callCount(), 2);
});

test("all watches share one stream, and each gets its own users", async () => {
  const signal = await world.connect("ana", "laptop");
  const seen = [];
  const note = (name) => (event) => (value) => seen.push([name, event, value.user, value.device ?? value.devices]);
  for (const [name, users] of [["one", ["bob", "eve"]], ["two", "bob"]]) {
    const watch = signal.watch(users);
    for (const event of ["devices", "online", "offline"]) watch.on(event, note(name)(event));
  }
  await settle();
  assert.equal(world.sources.filter(({ path, readyState }) => path === "/devices" && readyState === 1).length, 1);
  assert.deepEqual(seen.map(([name, , user]) => `${name} ${user}`).sort(), ["one bob", "one eve", "two bob"]);
  seen.length = 0;
  const bob = await world.connect("bob", "phone");
  await settle();
  bob.close();
  await settle();
  assert.deepEqual(seen, [["one", "online", "bob", "phone"], ["two", "online", "bob", "phone"], ["one", "offline", "bob", "phone"], ["two", "offline", "bob", "phone"]]);
  const opened = world.sources.length;
  const late = [];
  signal.watch("eve").on("devices", (list) => late.push(list));
  signal.watch("bob").on("devices", (list) => late.push(list));
  await settle();
  assert.deepEqual(late, [{ user: "eve", devices: [] }, { user: "bob", devices: [] }]);
  assert.equal(world.sources.length, opened, "the stream stays when its users stay");
  assert.throws(() => signal.watch(Array.from({ length: 65 }, (_, n) => `u${n}`)), RangeError);
});

test("a watch that the server refuses says so", async () => {
  const signal = await world.connect("ana", "laptop");
  world.refuse = ({ path }) => path === "/devices" ? 403 : undefined;
  world.intercept = ({ path }) => path === "/devices" ? { status: 403, body: { code: "forbidden" } } : undefined;
  const seen = [];
  signal.watch("bob").on("error", ({ status, code }) => seen.push([status, code]));
  await pass(5_000);
  assert.deepEqual(seen, [[403, "forbidden"]]);
  assert.equal(signal.state, "live");
});

test("frames show every event of both streams as it came", async () => {
  const frames = [];
  const signal = await world.connect("ana", "laptop", { on: { frame: (frame) => frames.push(frame) } });
  signal.watch("bob");
  await settle();
  assert.deepEqual(frames.map(({ stream, event }) => `${stream} ${event}`), ["subscribe signal.ready", "devices signal.devices"]);
  assert.equal(JSON.parse(frames[0].data).continuity, "new");
  assert.equal(frames[0].id, "1.0");
});

test("a closed signal leaves nothing behind", async () => {
  const signal = await world.connect("ana", "laptop");
  signal.watch("bob");
  const call = signal.call("bob", "phone");
  call.channel("chat");
  await settle();
  signal.close();
  assert.equal(call.state, "closed");
  await pass(500);
  const before = [world.sources.length, world.requests.length];
  await pass(120_000);
  assert.deepEqual([world.sources.length, world.requests.length], before);
  assert.ok(world.sources.every(({ readyState }) => readyState === 2));
  assert.equal(signal.state, "closed");
});

test("the first answer after a failure of the network ends the wait of a stream, but not within a second of its failure", async () => {
  const signal = await world.connect("ana", "laptop");
  mock.method(Math, "random", () => 0.99);
  world.stream("ana", "laptop").fail();
  const seen = world.sources.length;
  world.intercept = () => { throw new TypeError("no network"); };
  assert.equal((await signal.broadcast("bob", "text", "one")).outcome, "unknown");
  world.intercept = () => undefined;
  await signal.send("bob", "phone", "text", "two");
  await pass(900);
  assert.equal(world.sources.length, seen, "too soon");
  await pass(1_100);
  assert.deepEqual([world.sources.length, signal.state], [seen + 1, "live"]);
});
