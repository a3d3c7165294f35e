// Sends: order, outcomes, what is tried again and what is not.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { World, pass, settle } from "./world.mjs";

let world;
let ana;
beforeEach(async () => {
  world = new World();
  ana = await world.connect("ana", "laptop");
});
afterEach(() => world.close());

/** Answers of the daemon to the next posts, one after the other; then its own. */
function answers(...list) {
  world.intercept = ({ method }) => method === "POST" ? list.shift() : undefined;
}

/** What a promise has become by now. */
function now(promise) {
  const state = { value: "pending" };
  promise.then((value) => { state.value = value; }, (error) => { state.value = error; });
  return state;
}

test("each answer is an outcome", async () => {
  const table = [[200, {}, "delivered"], [202, {}, "held"], [404, { code: "not_connected" }, "not_connected"], [500, {}, "unavailable"]];
  for (const [status, body, outcome] of table) {
    answers({ status, body });
    assert.equal(await ana.send("bob", "phone", null, "x"), outcome, `${status}`);
  }
});

for (const status of [400, 401, 403, 413, 415]) {
  test(`a send that is answered ${status} rejects, and the next one goes out`, async () => {
    answers({ status, body: { code: "some_code", detail: "why" } });
    await assert.rejects(ana.send("bob", "phone", null, "x"), { name: "SignalError", status, code: "some_code", message: "why" });
    assert.equal(await ana.send("bob", "phone", null, "y"), "not_connected");
  });
}

test("404 of a wrong address is no absent device", async () => {
  answers({ status: 404, body: { code: "no_route" } });
  await assert.rejects(ana.send("bob", "phone", null, "x"), { status: 404 });
});

test("the request names the target, the sender, the event and the time to hold", async () => {
  await ana.send("b/ob", "ph one", "invite", { room: 7 }, { ttl: 30 });
  const { path, query, headers, body } = world.requests.at(-1);
  assert.equal(path, "/user/b%2Fob/device/ph%20one");
  assert.deepEqual([query.get("user"), query.get("device"), headers.ttl, body], ["ana", "laptop", "30", { event: "invite", data: { room: 7 } }]);
});

test("sends to one device wait for each other, sends to another do not", async () => {
  let release;
  const slow = new Promise((resolve) => { release = resolve; });
  world.intercept = async ({ path, body }) => { if (path.includes("bob") && body.data === "one") await slow; };
  for (const data of ["one", "two", "three"]) ana.send("bob", "phone", null, data, { ttl: 9 });
  const other = now(ana.send("eve", "phone", null, "four", { ttl: 9 }));
  await settle();
  const bodies = () => world.requests.filter(({ method }) => method === "POST").map(({ body }) => body.data);
  assert.deepEqual(bodies(), ["one", "four"]);
  assert.equal(other.value, "held");
  release();
  await settle();
  assert.deepEqual(bodies(), ["one", "four", "two", "three"]);
});

test("429 and 503 are tried again after Retry-After, and the queue keeps its order", async () => {
  answers({ status: 503, headers: { "retry-after": "2" } }, { status: 429, headers: { "retry-after": "1" }, body: { code: "mailbox_full" } }, { status: 200 }, { status: 202 });
  const first = now(ana.send("bob", "phone", null, "one"));
  const second = now(ana.send("bob", "phone", null, "two"));
  await pass(1_900);
  assert.equal(world.requests.length, 1);
  await pass(200);
  assert.equal(world.requests.length, 2);
  await pass(1_100);
  assert.deepEqual([first.value, second.value], ["delivered", "held"]);
});

test("a wait that is too long is not waited: the outcome says why", async () => {
  answers({ status: 429, headers: { "retry-after": "60" }, body: { code: "rate_limited" } }, { status: 429, headers: { "retry-after": "60" }, body: { code: "mailbox_full" } }, { status: 503, headers: { "retry-after": "60" } });
  const outcomes = [];
  for (const data of ["a", "b", "c"]) outcomes.push(await ana.send("bob", "phone", null, data));
  assert.deepEqual(outcomes, ["limited", "full", "unavailable"]);
});

test("refusals without end are given up after 10 s", async () => {
  world.intercept = () => ({ status: 503 });
  const send = now(ana.send("bob", "phone", null, "one"));
  await pass(10_100);
  assert.equal(send.value, "unavailable");
  assert.ok(world.requests.length > 3);
});

/** Answers without an outcome: a cut connection, and three that a daemon or a proxy gives. */
function lost() {
  throw new TypeError("network");
}
const UNKNOWN = [lost, () => ({ status: 504 }), () => ({ status: 408 }), () => ({ status: 503 })];

test("a send without an answer is repeated with its key, and each send has a key of its own", async () => {
  for (const data of ["one", "two"]) {
    const faults = [...UNKNOWN, () => ({ status: 200 })];
    world.intercept = ({ method }) => method === "POST" ? faults.shift()() : undefined;
    const send = now(ana.send("bob", "phone", null, data));
    await pass(9_000);
    assert.equal(send.value, "delivered");
  }
  const keys = world.requests.filter(({ method }) => method === "POST").map(({ headers }) => headers["idempotency-key"]);
  assert.deepEqual(keys, [...Array(5).fill(keys[0]), ...Array(5).fill(keys[5])]);
  assert.notEqual(keys[0], keys[5]);
  assert.match(keys[0], /^[!-~]{16,64}$/);
});

for (const [index, fault] of UNKNOWN.slice(0, 3).entries()) {
  test(`a send that never has an answer is given up after 10 s, fault ${index}`, async () => {
    world.intercept = fault;
    const send = now(ana.send("bob", "phone", null, "one"));
    await pass(10_100);
    assert.equal(send.value, "unknown");
    assert.ok(world.requests.length > 3);
  });
}

test("a broadcast without an answer is unknown: it has no key and is not repeated", async () => {
  world.intercept = lost;
  assert.deepEqual(await ana.broadcast("bob", null, "one"), { outcome: "unknown", delivered: [] });
  const posts = world.requests.filter(({ method }) => method === "POST");
  assert.deepEqual(posts.map(({ headers }) => headers["idempotency-key"]), [undefined]);
});

test("more than 256 sends that wait for one device are full", async () => {
  world.intercept = () => new Promise(() => {});
  for (let n = 0; n < 256; n += 1) now(ana.send("bob", "phone", null, n));
  assert.equal(await ana.send("bob", "phone", null, "more"), "full");
  assert.equal(now(ana.send("eve", "phone", null, "other")).value, "pending");
});

test("an abort ends a wait, and the next send goes out", async () => {
  answers({ status: 503, headers: { "retry-after": "5" } });
  const controller = new AbortController();
  const send = now(ana.send("bob", "phone", null, "one", { signal: controller.signal }));
  await settle();
  controller.abort(new Error("enough"));
  await settle();
  assert.equal(send.value.message, "enough", "at once");
  assert.equal(await ana.send("bob", "phone", null, "two"), "not_connected");
});

test("a token goes with each request, and is renewed once when it is refused", async () => {
  let made = 0;
  world.intercept = ({ headers, path }) => {
    if (path === "/ticket") return { status: 200, body: { ticket: "t" } };
    return headers.authorization === "Bearer 1" && made === 1 && path.startsWith("/user") ? { status: 401 } : undefined;
  };
  const eve = await world.connect("eve", "tablet", { token: () => `${made += 1}` });
  assert.equal(await eve.send("ana", "laptop", null, "x"), "delivered");
  assert.equal(made, 2);
  world.intercept = ({ path }) => path.startsWith("/user") ? { status: 401, body: { code: "unauthenticated" } } : undefined;
  await assert.rejects(eve.send("ana", "laptop", null, "x"), { status: 401 });
  assert.equal(made, 3);
});

test("a broadcast says who has it, a list who is there", async () => {
  await world.connect("bob", "phone");
  await world.connect("bob", "laptop");
  assert.deepEqual(await ana.broadcast("bob", "news", "x"), { outcome: "delivered", delivered: ["laptop", "phone"] });
  assert.deepEqual(await ana.broadcast("nobody", "news", "x"), { outcome: "not_connected", delivered: [] });
  assert.deepEqual(await ana.devices("bob"), ["laptop", "phone"]);
  world.intercept = () => ({ status: 403, body: { code: "forbidden" } });
  await assert.rejects(ana.devices("bob"), { status: 403, code: "forbidden" });
});

test("sending and sent show each message, with its outcome", async () => {
  const seen = [];
  ana.on("sending", (message) => seen.push(message));
  ana.on("sent", (message) => seen.push(message));
  await ana.send("bob", "phone", "invite", { room: 7 });
  assert.equal(seen[0], seen[1]);
  assert.deepEqual(seen[1], { user: "bob", device: "phone", event: "invite", data: { room: 7 }, ttl: undefined, outcome: "not_connected", status: 404 });
});

test("a request that is never answered is given up", async () => {
  const timeout = mock.method(AbortSignal, "timeout", () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(new DOMException("late", "TimeoutError")), 10_000);
    return controller.signal;
  });
  world.intercept = (_, signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const send = now(ana.send("bob", "phone", null, "one"));
  await pass(9_900);
  assert.equal(send.value, "pending");
  await pass(300);
  assert.equal(send.value, "unknown");
  assert.equal(timeout.mock.calls[0].arguments[0], 10_000);
});
