// Calls: who offers, glare, candidates, channels, and what happens after reloads, lost messages and failed ICE.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { FakePeerConnection, connections } from "./rtc.mjs";
import { World, pass, settle } from "./world.mjs";

let world;
beforeEach(() => { world = new World(); });
afterEach(() => world.close());

const PEERS = { ana: ["bob", "phone"], bob: ["ana", "laptop"] };
const DEVICES = { ana: "laptop", bob: "phone" };

/** A page of one side, as the ten lines make it: it calls, or it accepts. */
async function page(user, calls, options = {}) {
  const signal = await world.connect(user, DEVICES[user], options);
  const side = { signal, texts: [], log: [], user };
  const use = (call) => {
    side.call = call;
    for (const name of ["state", "restart", "bye", "error"]) call.on(name, (value) => side.log.push(`${name} ${value?.message ?? value}`));
    side.chat = call.channel("chat");
    side.chat.onmessage = ({ data }) => side.texts.push(data);
  };
  signal.on("call", (call) => { call.accept(); use(call); });
  if (calls) use(signal.call(...PEERS[user]));
  return side;
}

const leave = (side) => world.leave(side.signal);

async function connected(...sides) {
  for (let turn = 0; turn < 600; turn += 1) {
    await pass(100);
    if (sides.every(({ call }) => call?.state === "connected")) return;
  }
  assert.fail(sides.map(({ user, call, log }) => `${user}: ${call?.state}, ${log}`).join("\n"));
}

let nonce = 0;
async function talk(one, other) {
  const texts = [`n${nonce += 1}`, `n${nonce += 1}`];
  one.chat.send(texts[0]);
  other.chat.send(texts[1]);
  await pass(300);
  assert.equal(other.texts.filter((text) => text === texts[0]).length, 1, "exactly once");
  assert.equal(one.texts.filter((text) => text === texts[1]).length, 1, "exactly once");
}

async function inACall() {
  const bob = await page("bob", false);
  const ana = await page("ana", true);
  await connected(ana, bob);
  await talk(ana, bob);
  return [ana, bob];
}

test("a call connects, and both sides that ask for a channel have the same one", async () => {
  const [ana, bob] = await inACall();
  assert.deepEqual(ana.call.peer, { user: "bob", device: "phone" });
  assert.deepEqual(bob.call.from, { user: "ana", device: "laptop" });
  assert.equal(ana.call.channel("chat"), ana.chat);
  assert.deepEqual(ana.log.filter((line) => line.startsWith("restart")), []);
  assert.equal(connections().length, 2, "one connection on each side");
  const types = world.posts("call").map(({ query, body }) => `${query.get("user")} ${body.data.description?.type}`);
  assert.equal(types.filter((type) => type === "bob answer").length, 1);
  assert.ok(!types.includes("bob offer"), "the answer has served for the callee's channel too");
});

test("an answer that serves for a channel of the callee too is followed by no offer", async () => {
  world.intercept = async ({ path }) => {
    if (path === "/ice") await new Promise((resolve) => { setImmediate(() => setImmediate(resolve)); });
  };
  await inACall();
  const types = world.posts("call").map(({ query, body }) => `${query.get("user")} ${body.data.description?.type}`);
  assert.ok(!types.includes("bob offer"), `${types}`);
});

test("a call message that the network lost is sent again at once", async () => {
  const bob = await page("bob", false);
  let lost = 0;
  world.intercept = ({ body }) => {
    if (body?.event === "call" && body.data.description && lost < 2) throw new TypeError(`lost ${lost += 1}`);
  };
  const ana = await page("ana", true);
  await pass(2_500);
  assert.deepEqual([ana.call.state, bob.call.state, lost], ["connected", "connected", 2]);
  const offers = world.calls().filter(({ description }) => description?.type === "offer");
  assert.equal(new Set(offers.map(({ seq }) => seq)).size, 1, "the same message");
});

test("messages are {v, session, seq} with one of description, candidates, bye, and count from 1", async () => {
  const [ana] = await inACall();
  ana.call.close();
  await settle();
  const mine = world.posts("call").filter(({ query }) => query.get("user") === "ana").map(({ body }) => body.data);
  assert.deepEqual(mine.map(({ seq }) => seq), mine.map((_, index) => index + 1));
  for (const message of mine) {
    assert.equal(message.v, 1);
    assert.equal(message.session, mine[0].session);
    assert.equal(["description", "candidates", "bye"].filter((key) => key in message).length, 1);
  }
  assert.equal(mine[0].peer, undefined, "a first offer is for any page");
  assert.ok(mine.at(-1).peer, "later messages name the peer's session");
});

test("candidates that come together share one message", async () => {
  await inACall();
  const lists = world.calls().filter(({ candidates }) => candidates).map(({ candidates }) => candidates.length);
  assert.deepEqual(lists, lists.map(() => 2));
});

test("both call each other at the same time: one call, by the offer of the higher address", async () => {
  const [ana, bob] = await Promise.all([page("ana", true), page("bob", true)]);
  await connected(ana, bob);
  await talk(ana, bob);
  assert.deepEqual([...ana.log, ...bob.log].filter((line) => line.startsWith("error")), []);
});

test("a call that nobody has accepted rings, and connects when it is accepted", async () => {
  const bob = await world.connect("bob", "phone");
  const rings = [];
  bob.on("call", (call) => rings.push(call));
  const ana = await page("ana", true);
  await pass(40_000);
  assert.equal(rings.length, 1, "an offer that is repeated rings once");
  assert.equal(world.calls().filter(({ description }) => description).length, 4, "at 0, 5, 15 and 35 s");
  assert.equal(rings[0].state, "ringing");
  assert.ok(["connecting", "waiting"].includes(ana.call.state));
  const chat = rings[0].channel("chat");
  rings[0].accept();
  await connected(ana, { call: rings[0], log: [], user: "bob" });
  assert.equal(chat.readyState, "open");
  assert.equal(world.calls().filter(({ description }) => description?.type === "answer").length, 1, "only the last offer is answered");
});

test("an offer that is refused in glare has ours as its answer, once more", async () => {
  const ana = await world.connect("ana", "laptop");
  ana.call("aaa", "pc").channel("chat");
  await pass(200);
  const peer = byHand("aaa", "pc");
  const [{ session }] = peer.heard();
  peer.say("new page", { description: OFFER });
  await pass(200);
  const offers = peer.heard().filter(({ description }) => description);
  assert.deepEqual(offers.map(({ session, description }) => [session, description.type]), [[session, "offer"], [session, "offer"]]);
});

test("a side that has nothing to offer asks its peer to begin anew", async () => {
  const bob = await world.connect("bob", "phone");
  bob.on("call", (call) => call.accept());
  const ana = await world.connect("ana", "laptop");
  const restarts = [];
  const call = ana.call("bob", "phone");
  call.on("restart", (why) => restarts.push(why));
  call.addTrack({ kind: "audio" });
  await pass(1_000);
  bob.call("ana", "laptop")._restart(true);
  await pass(1_000);
  assert.deepEqual(restarts, ["peer_reloaded"]);
  assert.equal(call.state, "connected");
});

test("a call that comes before anybody listens is given to the first listener", async () => {
  const bob = await world.connect("bob", "phone");
  await page("ana", true);
  await pass(500);
  const rings = [];
  bob.on("call", (call) => rings.push(call));
  await settle();
  assert.equal(rings.length, 1);
  bob.on("call", (call) => rings.push(call));
  await settle();
  assert.equal(rings.length, 1);
});

test("a rejected call tells its caller", async () => {
  const bob = await world.connect("bob", "phone");
  bob.on("call", (call) => call.reject());
  const ana = await page("ana", true);
  await pass(500);
  assert.deepEqual(ana.log.slice(-2), ["state closed", "bye rejected"]);
  assert.equal(ana.chat.readyState, "closed");
  await pass(60_000);
  assert.equal(world.calls().filter(({ bye }) => bye).length, 1);
});

test("a caller who gives up ends the ringing", async () => {
  const bob = await world.connect("bob", "phone");
  const states = [];
  bob.on("call", (call) => call.on("state", (state) => states.push(state)));
  const ana = await page("ana", true);
  await pass(500);
  ana.call.close();
  await pass(500);
  assert.deepEqual(states, ["closed"]);
});

test("close ends the call on both sides, and a new call begins anew", async () => {
  const [ana, bob] = await inACall();
  bob.call.close();
  await pass(500);
  assert.deepEqual(ana.log.slice(-2), ["state closed", "bye closed"]);
  assert.deepEqual([ana.chat.readyState, bob.chat.readyState], ["closed", "closed"]);
  const again = ana.signal.call("bob", "phone");
  assert.notEqual(again, ana.call);
  again.channel("chat");
  await connected({ call: again, log: [], user: "ana" }, bob);
});

test("a device that is not there: the call waits, and connects when it comes", async () => {
  const ana = await page("ana", true);
  await pass(45_000);
  assert.equal(ana.call.state, "waiting");
  const bob = await page("bob", false);
  await connected(ana, bob);
  await talk(ana, bob);
});

for (const who of ["callee", "caller", "both"]) {
  test(`the ${who} reloaded: the call and its channel come back`, async () => {
    let [ana, bob] = await inACall();
    const { chat } = ana;
    if (who !== "callee") leave(ana);
    if (who !== "caller") leave(bob);
    if (who !== "callee") ana = await page("ana", true);
    if (who !== "caller") bob = await page("bob", false);
    await pass(500);
    await connected(ana, bob);
    await talk(ana, bob);
    assert.deepEqual([...ana.log, ...bob.log].filter((line) => line.startsWith("error")), []);
    if (who === "callee") {
      assert.equal(ana.chat, chat);
      assert.deepEqual(ana.log.filter((line) => line.startsWith("restart")), ["restart peer_reloaded"]);
    }
  });
}

test("the callee reloaded, and only the caller had made channels: the call comes back", async () => {
  const bob = await world.connect("bob", "phone");
  bob.on("call", (call) => call.accept());
  const ana = await page("ana", true);
  await connected(ana);
  world.leave(bob);
  const texts = [];
  const again = await world.connect("bob", "phone");
  again.on("call", (call) => {
    call.accept();
    call.on("channel", (channel) => channel.addEventListener("message", ({ data }) => texts.push(data)));
  });
  await pass(2_000);
  ana.chat.send("after");
  await pass(30_000);
  assert.deepEqual(texts, ["after"]);
});

test("what is sent while a channel is down waits, in order, and goes when it is open", async () => {
  const ana = await page("ana", true);
  ana.chat.send("one");
  ana.chat.send("two");
  assert.equal(ana.chat.readyState, "connecting");
  assert.equal(ana.chat.bufferedAmount, 6);
  assert.throws(() => ana.chat.send("x".repeat(1 << 20)), { name: "OperationError" });
  const bob = await page("bob", false);
  await connected(ana, bob);
  await pass(100);
  assert.deepEqual(bob.texts, ["one", "two"]);
  assert.equal(ana.chat.bufferedAmount, 0);
  ana.chat.close();
  assert.throws(() => ana.chat.send("x"), { name: "InvalidStateError" });
});

test("the daemon has lost its messages: an ICE restart in the same session, and the channel stays", async () => {
  const [ana, bob] = await inACall();
  world.restart();
  await pass(9_000);
  assert.deepEqual([ana, bob].flatMap(({ log }) => log.filter((line) => line.startsWith("restart"))), ["restart messages_lost", "restart messages_lost"]);
  await connected(ana, bob);
  await talk(ana, bob);
  assert.equal(connections().length, 2, "no new connection");
});

test("a stream that comes back with nothing missing negotiates nothing", async () => {
  const [ana, bob] = await inACall();
  const { length } = world.calls();
  world.stream("ana", "laptop").fail();
  await pass(6_000);
  assert.equal(ana.signal.state, "live");
  assert.equal(world.calls().length, length);
  await talk(ana, bob);
});

test("another page of the device has the call, is closed, and the first takes it back", async () => {
  const [ana, bob] = await inACall();
  const second = await page("bob", false);
  await pass(1_000);
  await connected(ana, second);
  await talk(ana, second);
  assert.equal(bob.signal.state, "superseded");
  leave(second);
  bob.signal.takeOver();
  await pass(1_000);
  await connected(ana, bob);
  await talk(ana, bob);
});

test("a superseded page sends no call messages", async () => {
  const [, bob] = await inACall();
  const { session } = world.calls().find(({ description }) => description?.type === "answer");
  await world.connect("bob", "phone");
  await settle();
  const { length } = world.calls();
  bob.call.pc.become("failed");
  bob.call.addTrack({ kind: "audio" });
  await pass(60_000);
  assert.deepEqual(world.calls().slice(length).filter((message) => message.session === session), []);
});

test("failed ICE is restarted in the session, and after that anew", async () => {
  const [ana, bob] = await inACall();
  FakePeerConnection.blocked = true;
  ana.call.pc.become("failed");
  bob.call.pc.become("failed");
  await pass(1_000);
  assert.ok(ana.log.includes("restart ice_failed"));
  assert.equal(connections().length, 2, "an ICE restart first");
  await pass(60_000);
  assert.ok(connections().length > 2, "then a new connection");
  FakePeerConnection.blocked = false;
  await connected(ana, bob);
  await talk(ana, bob);
  assert.equal(connections().filter(({ signalingState }) => signalingState !== "closed").length, 2);
});

test("an offer without an answer is repeated", async () => {
  const bob = await page("bob", false);
  let lost = 0;
  world.intercept = ({ body }) => {
    if (body?.event !== "call" || !body.data.description || lost > 1) return undefined;
    lost += 1;
    return { status: 200 };
  };
  const ana = await page("ana", true);
  await connected(ana, bob);
  assert.equal(lost, 2);
  await talk(ana, bob);
});

test("a call message without an answer is repeated with its seq, and the repeat is ignored", async () => {
  const bob = await page("bob", false);
  let taken = 0;
  world.intercept = ({ path, query, body }) => {
    if (body?.event !== "call" || taken > 2) return undefined;
    taken += 1;
    const [, , user, , device] = path.split("/");
    world.deliver({ user: query.get("user"), device: query.get("device") }, user, device, body, 30);
    throw new TypeError("the answer is lost");
  };
  const ana = await page("ana", true);
  await pass(2_500);
  assert.deepEqual([ana.call.state, bob.call.state], ["connected", "connected"], "before an offer without an answer is repeated");
  await talk(ana, bob);
  assert.deepEqual([...ana.log, ...bob.log].filter((line) => /error|restart/.test(line)), []);
  assert.equal(new Set(world.calls().filter(({ answers }) => answers === 1).map(({ seq }) => seq)).size, 1, "one answer");
});

test("a peer whom one may not reach ends the call", async () => {
  world.intercept = ({ method }) => method === "POST" ? { status: 403, body: { code: "forbidden" } } : undefined;
  const ana = await page("ana", true);
  await pass(500);
  assert.deepEqual(ana.log.slice(-2), ["state closed", "bye refused"]);
});

/** A peer that is no client.js: it writes its messages by hand. */
function byHand(user, device) {
  const from = { user, device };
  let seq = 0;
  return {
    say: (session, body) => world.deliver(from, "ana", "laptop", { event: "call", data: { v: 1, session, seq: seq += 1, ...body } }),
    heard: () => world.posts("call").filter(({ path }) => path === `/user/${user}/device/${device}`).map(({ body }) => body.data),
  };
}
const OFFER = { type: "offer", sdp: "sdp", of: 0, ufrag: 1, data: true, tracks: 0 };

test("candidates that come before their offer are kept", async () => {
  const ana = await world.connect("ana", "laptop");
  ana.on("call", (call) => call.accept());
  const peer = byHand("zoe", "pc");
  world.mailbox("zoe", "pc").source = { fire() {} };
  peer.say("s1", { description: OFFER });
  await pass(200);
  peer.say("s2", { candidates: [{ candidate: "early" }], more: "is ignored" });
  await pass(200);
  peer.say("s2", { description: { ...OFFER, of: 1 } });
  await pass(200);
  peer.say("s1", { candidates: [{ candidate: "of the first session" }] });
  peer.say("s2", { candidates: [{ candidate: "late" }, { candidate: "" }] });
  await pass(200);
  assert.equal(connections().length, 2, "another session has a connection of its own");
  assert.deepEqual(connections().at(-1).candidates.map(({ candidate }) => candidate), ["early", "late", ""]);
});

test("what is no call message is ignored", async () => {
  const ana = await world.connect("ana", "laptop");
  const rings = [];
  ana.on("call", (call) => rings.push(call));
  const data = [null, 7, "text", [], {}, { v: 2, session: "s", seq: 1, description: OFFER }, { v: 1, seq: 1, description: OFFER },
    { v: 1, session: "s", seq: 1 }, { v: 1, session: "s", seq: 1, candidates: [{}] }, { v: 1, session: "s", seq: 1, bye: "x" },
    { v: 1, session: "s", seq: 1, description: { type: "answer", sdp: "" } }, { v: 1, session: "s", seq: 1, description: null }];
  for (const each of data) world.deliver({ user: "zoe", device: "pc" }, "ana", "laptop", { event: "call", data: JSON.stringify(each) });
  for (const from of [null, { user: "zoe", device: null }]) {
    world.deliver(from, "ana", "laptop", { event: "call", data: { v: 1, session: "s", seq: 1, description: OFFER } });
  }
  await settle();
  assert.equal(rings.length, 0);
  assert.equal(world.calls().length, 0);
});

test("a broken description is an error of the call, and a good one after it works", async () => {
  const ana = await world.connect("ana", "laptop");
  const errors = [];
  ana.on("call", (call) => { call.on("error", ({ message }) => errors.push(message)); call.accept(); });
  const peer = byHand("zoe", "pc");
  peer.say("s1", { description: { type: "offer", sdp: "" } });
  await pass(200);
  assert.deepEqual(errors, ["no sdp"]);
  peer.say("s1", { description: OFFER });
  await pass(200);
  assert.equal(peer.heard().filter(({ description }) => description?.type === "answer").length, 1);
});

test("an offer for a page that is gone is answered with bye unknown_session", async () => {
  await world.connect("ana", "laptop");
  const peer = byHand("zoe", "pc");
  peer.say("s1", { peer: "of another page", description: OFFER });
  await pass(200);
  const [{ bye, peer: to }] = peer.heard();
  assert.deepEqual([bye, to], ["unknown_session", "s1"]);
});

test("an answer to an older offer is dropped", async () => {
  const ana = await page("ana", true);
  const peer = byHand("bob", "phone");
  await pass(200);
  const [{ session }] = peer.heard();
  peer.say("b1", { peer: session, answers: 0, description: { ...OFFER, type: "answer" } });
  await pass(200);
  assert.equal(ana.call.pc.signalingState, "have-local-offer");
  peer.say("b1", { peer: "another", answers: 1, description: { ...OFFER, type: "answer" } });
  await pass(200);
  assert.equal(ana.call.pc.signalingState, "have-local-offer");
  peer.say("b1", { peer: session, answers: 1, description: { ...OFFER, type: "answer" } });
  await pass(200);
  assert.equal(ana.call.pc.signalingState, "stable");
});

test("the ICE servers are fetched once, and again before they expire", async () => {
  let fetched = 0;
  world.intercept = ({ path }) => path === "/ice"
    ? { status: 200, body: { iceServers: [{ urls: [`turn:${fetched += 1}`] }], expires_in: 100 } } : undefined;
  const [ana] = await inACall();
  const servers = () => ana.call.pc.configurations.map(({ iceServers }) => iceServers?.[0]?.urls[0]);
  assert.equal(fetched, 2, "one for each page");
  assert.equal(servers().length, 2);
  await pass(91_000);
  assert.equal(fetched, 4);
  assert.equal(servers().length, 3);
});

test("without ICE servers for now a call goes on, and the next one asks again", async () => {
  let asked = 0;
  let broken = false;
  world.intercept = ({ path }) => {
    if (path === "/ticket") return { status: 200, body: { ticket: "t" } };
    if (path === "/ice") asked += 1;
    return path === "/ice" ? { status: broken ? 401 : 500 } : undefined;
  };
  const bob = await page("bob", false);
  const token = () => { if (broken) throw new Error("no token now"); return "token"; };
  const ana = await page("ana", false, { token });
  broken = true;
  ana.signal.on("call", () => {});
  const errors = [];
  const call = ana.signal.call("bob", "phone");
  call.on("error", ({ message }) => errors.push(message));
  await pass(500);
  broken = false;
  call.close();
  ana.signal.call("bob", "phone").channel("chat");
  await pass(8_000);
  assert.equal(bob.call.state, "connected");
  assert.deepEqual(errors, []);
  assert.ok(asked >= 2, `${asked}`);
});

test("ICE servers of the app are used as they are, with the rest of its configuration", async () => {
  const iceServers = [{ urls: ["stun:mine"] }];
  const ana = await page("ana", true, { iceServers, rtc: { iceTransportPolicy: "relay" } });
  await pass(200);
  assert.deepEqual(ana.call.pc.configurations, [{ iceTransportPolicy: "relay", iceServers }]);
  assert.ok(!world.requests.some(({ path }) => path === "/ice"));
});

test("tracks come back in a new connection, and a removed one does not", async () => {
  const [ana, bob] = await inACall();
  const [one, two] = [{ kind: "audio" }, { kind: "video" }];
  ana.call.addTrack(one);
  ana.call.addTrack(two);
  await pass(1_000);
  assert.equal(bob.call.pc.remoteDescription.tracks, 2);
  ana.call.removeTrack(one);
  leave(bob);
  const again = await page("bob", false);
  await pass(500);
  await connected(ana, again);
  assert.deepEqual(ana.call.pc.senders.map(({ track }) => track), [two]);
});

test("a channel that the peer closed while the connection stays up is closed", async () => {
  const [ana, bob] = await inACall();
  bob.chat.close();
  await pass(1_000);
  assert.equal(ana.chat.readyState, "connecting");
  let closed = 0;
  ana.chat.onclose = () => { closed += 1; };
  await pass(10_000);
  assert.deepEqual([ana.chat.readyState, closed], ["closed", 1]);
  assert.equal(ana.call.state, "connected");
});

test("without a device nothing is sent: that would be a broadcast", async () => {
  const ana = await world.connect("ana", "laptop");
  for (const device of ["", undefined, null]) await assert.rejects(ana.send("bob", device, null, "x"), TypeError);
  assert.ok(!world.requests.some(({ method }) => method === "POST"));
});

test("a device cannot call itself", async () => {
  const ana = await world.connect("ana", "laptop");
  assert.throws(() => ana.call("ana", "laptop"), TypeError);
});

for (const who of ["callee", "caller"]) {
  test(`a call that the app closes when it hears that the ${who} has reloaded stays closed`, async () => {
    const [ana, bob] = await inACall();
    const { call } = who === "callee" ? ana : bob;
    call.on("restart", () => call.close());
    leave(who === "callee" ? bob : ana);
    await page(who === "callee" ? "bob" : "ana", who === "caller");
    await pass(2_000);
    assert.deepEqual([call.state, call.pc.signalingState], ["closed", "closed"]);
  });
}

test("a hundred rounds of reloads on random sides end in a call", async () => {
  let [ana, bob] = await inACall();
  let seed = 7;
  const random = () => { seed = (seed * 16_807) % 2_147_483_647; return seed / 2_147_483_647; };
  mock.method(Math, "random", random);
  for (let round = 0; round < 100; round += 1) {
    if (random() < 0.5) { leave(ana); ana = await page("ana", true); } else { leave(bob); bob = await page("bob", false); }
    await pass(Math.floor(random() * 8) * 100);
    if (random() < 0.3) continue;
    await connected(ana, bob);
    await talk(ana, bob);
  }
});

test("a peer that reloads while the watch is away is noticed as soon as the watch is back", async () => {
  const [ana, bob] = await inACall();
  mock.method(Math, "random", () => 0.25);
  world.sources.findLast(({ path, query, readyState }) => path === "/devices" && query.get("user") === "bob" && readyState === 1).fail();
  leave(bob);
  const reloaded = await page("bob", false);
  await pass(1_500);
  assert.deepEqual(ana.log.filter((line) => line.startsWith("restart")), ["restart peer_reloaded"]);
  await connected(ana, reloaded);
  await talk(ana, reloaded);
});

test("a call is left alone when a watch of somebody else opens the stream of all watches anew", async () => {
  const [ana] = await inACall();
  const said = world.calls().length;
  ana.signal.watch(["eve"]);
  await pass(1_000);
  assert.equal(world.calls().length, said);
});

test("a peer that reloads while this machine sleeps is noticed when the network is back", async () => {
  const listeners = [];
  const bob = await page("bob", false);
  globalThis.addEventListener = (name, listener) => listeners.push({ name, listener });
  const ana = await page("ana", true);
  delete globalThis.addEventListener;
  await connected(ana, bob);
  // The streams are dead, and nothing says so.
  const dead = world.sources.filter(({ query, readyState }) => readyState === 1 && query.get("user") !== "ana");
  for (const source of dead.filter(({ path }) => path === "/devices")) source.dispatchEvent = () => {};
  leave(bob);
  const reloaded = await page("bob", false);
  for (const { name, listener } of listeners) if (name === "online") listener({ type: "online" });
  await pass(1_500);
  assert.deepEqual(ana.log.filter((line) => line.startsWith("restart")), ["restart peer_reloaded"]);
  await connected(ana, reloaded);
});

test("what is said while the channel closes waits for the next one, and nothing is thrown", async () => {
  const [ana, bob] = await inACall();
  leave(bob);
  ana.chat.send("meanwhile");
  const reloaded = await page("bob", false);
  await connected(ana, reloaded);
  await pass(300);
  assert.deepEqual(reloaded.texts, ["meanwhile"]);
});

for (const index of [0, 1]) {
  test(`what is said while one of two channels closes goes over the other (${index})`, async () => {
    const [ana, bob] = await inACall();
    const links = ana.call.pc.channels.filter(({ label }) => label === "chat");
    assert.equal(links.length, 2, "each side has made one");
    links[index].close();
    ana.chat.send("meanwhile");
    await pass(300);
    assert.equal(bob.texts.filter((text) => text === "meanwhile").length, 1);
    assert.equal(ana.chat.readyState, "open");
  });
}
