// What others do wrong: tokens that do not come, a wrong address, strangers that ring, peers that begin anew without end.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { FakePeerConnection, connections } from "./rtc.mjs";
import { World, pass, settle } from "./world.mjs";

let world;
beforeEach(() => { world = new World(); });
afterEach(() => world.close());

const EVE = { user: "eve", device: "pc" };
const OFFER = { type: "offer", sdp: "by hand", of: -1, ufrag: 1, data: true, tracks: 0 };
const TICKET = ({ path }) => path === "/ticket" ? { status: 200, body: { ticket: "t" } } : undefined;

/** A call message of a stranger, as it comes to ana's laptop. */
const say = (message, from = EVE) => world.deliver(from, "ana", "laptop", { event: "call", data: { v: 1, seq: 1, ...message } });

/** Ana's page, and the calls that ring there. */
async function ana(options, more) {
  const rings = [];
  const signal = await world.connect("ana", "laptop", options, more);
  signal.on("call", (call) => rings.push(call));
  return { signal, rings };
}

/** Bob's page accepts at once. */
async function bob() {
  const signal = await world.connect("bob", "phone");
  const side = { signal, texts: [] };
  signal.on("call", (call) => {
    call.accept();
    side.call = call;
    call.channel("chat").onmessage = ({ data }) => side.texts.push(data);
  });
  return side;
}

function log(call) {
  const lines = [];
  for (const name of ["error", "bye"]) call.on(name, (value) => lines.push(`${name} ${value.message ?? value}`));
  return lines;
}

test("tickets that are answered do not end the backoff of streams that are cut", async () => {
  world.intercept = TICKET;
  const signal = await world.connect("ana", "laptop", { token: "t" });
  signal.watch(["bob"]);
  await pass(1_000);
  world.refuse = () => "cut";
  for (const source of [...world.sources]) if (source.readyState === 1) source.fail();
  await pass(60_000);
  const before = world.sources.length;
  await pass(300_000, 500);
  const opened = world.sources.length - before;
  assert.ok(opened < 80, `two streams, each 15 s after its failure on average: ${opened}`);
});

test("a token() that rejects with a status is asked again, and connect goes on", async () => {
  world.heartbeat = 1e6;
  world.intercept = TICKET;
  let asked = 0;
  const token = async () => {
    asked += 1;
    if (asked < 3) throw Object.assign(new Error("login server"), { status: 401 });
    return "token";
  };
  let signal;
  world.load().connect({ url: "http://daemon.test/", device: "laptop", token }).then((it) => { signal = it; }, (error) => { signal = error; });
  await pass(20_000);
  assert.deepEqual([signal?.state, asked], ["live", 3]);
});

test("a token() that rejects with a status ends no call", async () => {
  world.intercept = TICKET;
  let broken = false;
  const token = async () => {
    if (broken) throw Object.assign(new Error("login server"), { status: 403 });
    return "token";
  };
  await bob();
  const { signal } = await ana({ token });
  broken = true;
  world.intercept = (request) => TICKET(request) ?? (broken && request.body ? { status: 401 } : undefined);
  const call = signal.call("bob", "phone");
  const lines = log(call);
  call.channel("chat");
  await pass(2_000);
  assert.deepEqual([call.state, lines], ["connecting", []]);
  broken = false;
  await pass(15_000);
  assert.equal(call.state, "connected");
});

test("a token() that hangs is asked again", async () => {
  world.heartbeat = 1e6;
  world.intercept = TICKET;
  let asked = 0;
  const signal = await world.connect(undefined, "laptop", { token: () => (asked += 1) === 2 ? new Promise(() => {}) : `t${asked}` });
  world.sources.at(-1).fire("signal.end", JSON.stringify({ reason: "expired" }));
  await pass(40_000);
  assert.deepEqual([signal.state, asked], ["live", 3]);
});

test("a connect that rejects leaves nothing behind", async () => {
  world.refuse = () => 401;
  world.intercept = ({ path }) => path === "/subscribe" ? { status: 401 } : undefined;
  const window = new EventTarget();
  const states = [];
  await assert.rejects(world.connect("ana", "laptop", { on: { state: (state) => states.push(state) } }, { globalThis: window }), { status: 401 });
  assert.deepEqual(states, ["unauthorised"], "the last state says why");
  const { length } = world.requests;
  window.dispatchEvent(new Event("online"));
  await pass(60_000);
  assert.equal(world.requests.length, length);
});

test("an address where another server answers each path with a page is said at once", async () => {
  world.refuse = () => 200;
  world.intercept = () => ({ status: 200, headers: { "content-type": "text/html" } });
  await assert.rejects(world.connect("ana", "laptop"), { message: "no daemon at http://daemon.test/" });
});

test("a peer that begins anew without end costs three connections, then one a second", async () => {
  const { rings } = await ana();
  say({ session: "s", description: OFFER });
  await settle();
  rings[0].accept();
  await settle();
  const before = connections().length;
  for (let n = 0; n < 1_000; n += 1) say({ session: `s${n}`, description: { ...OFFER, of: -n } });
  await pass(10_000);
  const made = connections().length - before;
  assert.ok(made >= 8 && made <= 13, `${made}`);
  await pass(450_000, 1_000);
  assert.ok(connections().length - before < 350, "no more than 256 of its messages wait");
});

test("a call whose connection cannot be made fails, and a new one can follow", async () => {
  let broken = true;
  class Limited extends FakePeerConnection {
    constructor(configuration) {
      if (broken) throw new DOMException("too many", "UnknownError");
      super(configuration);
    }
  }
  await bob();
  const { signal } = await ana({}, { RTCPeerConnection: Limited });
  const call = signal.call("bob", "phone");
  const lines = log(call);
  await settle();
  assert.deepEqual([call.state, lines], ["closed", ["error too many", "bye failed"]]);
  broken = false;
  const next = signal.call("bob", "phone");
  next.channel("chat");
  await pass(2_000);
  assert.equal(next.state, "connected");
  broken = true;
  const then = log(next);
  next._restart(true);
  await pass(100);
  assert.deepEqual([next.state, then], ["closed", ["error too many", "bye failed"]]);
});

const ICE = (answer) => ({ path }) => path === "/ice" ? answer() : undefined;

test("ICE servers that were not refreshed once are refreshed later", async () => {
  let asked = 0;
  let down = false;
  world.intercept = ICE(() => {
    asked += 1;
    if (down) throw new TypeError("no network");
    return { status: 200, body: { iceServers: [{ urls: "turn:x" }], expires_in: 600 } };
  });
  const { signal } = await ana();
  signal.call("bob", "phone").channel("chat");
  await pass(530_000, 1_000);
  assert.equal(asked, 1);
  down = true;
  await pass(20_000);
  down = false;
  const before = asked;
  await pass(60_000);
  assert.equal(asked, before + 1);
});

test("ICE servers that have expired while the machine slept are fetched before a restart", async () => {
  const asked = [];
  world.intercept = ICE(() => ({ status: 200, body: { iceServers: [{ urls: `turn:${asked.push(connections().length)}` }], expires_in: 600 } }));
  await bob();
  const { signal } = await ana();
  const call = signal.call("bob", "phone");
  call.channel("chat");
  await pass(2_000);
  const before = asked.length;
  const now = Date.now();
  mock.method(Date, "now", () => now + 700_000);
  call._restart(false);
  await pass(200);
  assert.equal(asked.length, before + 1);
  assert.deepEqual(call.pc.configurations.at(-1).iceServers, [{ urls: `turn:${before + 1}` }]);
});

for (const [what, body] of [["no list", {}], ["no time", { iceServers: [] }], ["a time in the past", { iceServers: [], expires_in: -5 }]]) {
  test(`ICE servers with ${what} are asked for again, without haste`, async () => {
    let asked = 0;
    world.intercept = ICE(() => ({ status: 200, body: (asked += 1) && body }));
    const { signal } = await ana();
    signal.call("bob", "phone");
    await pass(61_000);
    assert.ok(asked >= 2 && asked <= 6, `${asked}`);
  });
}

test("a list of ICE servers that the browser refuses ends no call that there is", async () => {
  await bob();
  const { signal } = await ana();
  const call = signal.call("bob", "phone");
  const lines = log(call);
  call.channel("chat");
  world.intercept = ICE(() => ({ status: 200, body: { iceServers: [{ urls: "turn:x" }], expires_in: 600 } }));
  mock.method(FakePeerConnection.prototype, "setConfiguration", () => { throw new DOMException("no credential", "InvalidAccessError"); });
  await pass(2_000);
  call._restart(false);
  await pass(2_000);
  assert.deepEqual([call.state, lines], ["connected", []]);
});

test("a ring ends 45 s after the last word of its caller", async () => {
  world.heartbeat = 1e6;
  const { signal, rings } = await ana();
  const caller = await world.connect("bob", "phone");
  caller.call("ana", "laptop").channel("chat");
  await pass(100_000);
  assert.equal(rings[0].state, "ringing", "a caller who is there repeats its offer");
  const lines = log(rings[0]);
  world.leave(caller);
  await pass(46_000);
  assert.deepEqual([rings.length, rings[0].state, lines], [1, "closed", ["bye lost"]]);
  (await world.connect("bob", "phone")).call("ana", "laptop").channel("chat");
  await pass(500);
  assert.equal(rings.length, 2);
  rings[1].accept();
  await pass(500);
  assert.equal(rings[1].state, "connected");
  await pass(60_000);
  assert.equal(rings[1].state, "connected", "a call that was accepted stays");
  signal.close();
});

test("a repeated offer that crosses the rejection does not ring again", async () => {
  const { rings } = await ana();
  say({ session: "s", description: OFFER });
  await settle();
  rings[0].reject();
  say({ session: "s", seq: 2, description: OFFER });
  await settle();
  assert.equal(rings.length, 1);
  say({ session: "next", description: OFFER });
  await settle();
  assert.equal(rings.length, 2, "a new call does");
});

test("one user's devices do not keep the calls of others away", async () => {
  const { rings } = await ana();
  for (let n = 0; n < 100; n += 1) say({ session: "s", description: OFFER }, { user: "eve", device: `d${n}` });
  say({ session: "s", description: OFFER }, { user: "bob", device: "phone" });
  await settle();
  assert.deepEqual(rings.map(({ peer }) => peer.user), [...Array(8).fill("eve"), "bob"]);
});

test("a message that is too long for a channel does no harm to those behind it", async () => {
  const complained = mock.method(console, "error", () => {});
  const { create } = { create: FakePeerConnection.prototype.createDataChannel };
  mock.method(FakePeerConnection.prototype, "createDataChannel", function (label) {
    const channel = create.call(this, label);
    const { send } = channel;
    channel.send = (data) => { if (data.length > 1_000) throw new TypeError("too long"); send.call(channel, data); };
    return channel;
  });
  const { signal } = await ana();
  const side = await bob();
  const chat = signal.call("bob", "phone").channel("chat");
  let opened = 0;
  chat.onopen = () => { opened += 1; };
  for (const text of ["one", "x".repeat(1_001), "two"]) chat.send(text);
  await pass(2_000);
  assert.deepEqual([chat.readyState, chat.bufferedAmount, opened, side.texts], ["open", 0, 1, ["one", "two"]]);
  assert.equal(complained.mock.callCount(), 1);
});

for (const status of [404, 405, 408, 421, 425]) test(`a call goes on after ${status} of a proxy`, async () => {
  await bob();
  const { signal } = await ana();
  const call = signal.call("bob", "phone");
  call.channel("chat");
  await pass(2_000);
  let times = 0;
  world.intercept = ({ body }) => body?.event === "call" && (times += 1) === 1 ? { status } : undefined;
  call.pc.restartIce();
  await pass(10_000);
  assert.equal(call.state, "connected");
  assert.ok(times > 1);
});

test("a stranger makes a page send one bye in four seconds", async () => {
  await ana();
  for (let n = 0; n < 100; n += 1) say({ session: `s${n}`, peer: "gone", description: OFFER });
  await pass(100);
  assert.equal(world.calls().length, 1);
  await pass(4_000);
  say({ session: "s", peer: "gone", description: OFFER });
  await pass(100);
  assert.equal(world.calls().length, 2);
});

test("a call that rings keeps 256 KiB of its caller, and a call has 64 channels of its peer", async () => {
  const { rings } = await ana();
  say({ session: "s", description: OFFER });
  for (let seq = 2; seq < 20; seq += 1) say({ session: "s", seq, candidates: [{ candidate: `${seq}${"x".repeat(90_000)}` }] });
  await settle();
  rings[0].accept();
  await settle();
  assert.equal(rings[0].pc.candidates.length, 3);
  for (let n = 0; n < 100; n += 1) {
    const channel = Object.assign(new EventTarget(), { label: `c${n}`, readyState: "open", close() {} });
    rings[0].pc.dispatchEvent(Object.assign(new Event("datachannel"), { channel }));
  }
  let made = 0;
  rings[0].on("channel", () => { made += 1; });
  rings[0].pc.dispatchEvent(Object.assign(new Event("datachannel"), { channel: Object.assign(new EventTarget(), { label: "more", close: () => { made -= 1; } }) }));
  assert.equal(made, -1, "one more is closed");
});

test("a Retry-After of years is a wait of ten minutes", async () => {
  world.heartbeat = 1e6;
  const signal = await world.connect("ana", "laptop");
  world.refuse = () => 503;
  world.intercept = ({ path }) => path === "/subscribe" ? { status: 503, headers: { "retry-after": "9999999999" } } : undefined;
  world.stream("ana", "laptop").fail();
  await pass(5_000);
  const before = world.requests.length;
  await pass(590_000, 1_000);
  assert.equal(world.requests.length, before);
  world.refuse = world.intercept = () => undefined;
  await pass(20_000, 1_000);
  assert.equal(signal.state, "live");
});

test("a Retry-After below zero is none, and the waits grow", async () => {
  const signal = await world.connect("ana", "laptop");
  world.intercept = ({ body }) => body ? { status: 429, headers: { "retry-after": "-5" } } : undefined;
  const sending = signal.send("bob", "phone", "text", "one");
  await pass(10_500);
  assert.equal(await sending, "limited");
  assert.ok(world.posts("text").length < 30, `${world.posts("text").length}`);
});

test("a call without a device, or of a closed signal, throws and does nothing", async () => {
  const { signal } = await ana();
  assert.throws(() => signal.call("bob"), TypeError);
  signal.close();
  const { length } = world.requests;
  assert.throws(() => signal.call("bob", "phone"), TypeError);
  await pass(60_000);
  assert.deepEqual([world.requests.length, connections().length], [length, 0]);
});

test("a bye or a session that is no short text is ignored", async () => {
  const { signal, rings } = await ana();
  const heard = [];
  signal.on("message:call", ({ data }) => heard.push(data));
  say({ session: "s".repeat(65), description: OFFER });
  say({ session: "s", description: OFFER });
  say({ session: "s", seq: 2, bye: { toString: 1 } });
  await settle();
  assert.deepEqual([rings.length, rings[0].state, heard.length], [1, "ringing", 3]);
});
