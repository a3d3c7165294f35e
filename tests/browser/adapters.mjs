// The adapters for other libraries in `examples/adapters`, with the real libraries: pages in Chromium make data channels.
//
//   node adapters.mjs target/debug/backend-signal /usr/bin/chromium [PART_OF_A_NAME]

import assert from "node:assert/strict";
import { main } from "./pages.mjs";
import { until } from "./storm/wait.mjs";
import { sha1 } from "../../examples/adapters/node_modules/@trystero-p2p/core/dist/index.mjs";

const SCENARIOS = {
  "simple-peer: two pages make a data channel, again after a reload": simplePeer,
  "simple-peer: a call waits for a device that connects within the TTL": simplePeerWaits,
  "simple-peer: what cannot arrive ends the call, and what is no signal does no harm": simplePeerFails,
  "Trystero: three pages make a mesh, one leaves, and one comes back": trystero,
  "Trystero: a stranger does not meet the room": trysteroStranger,
};

async function simplePeer({ open }) {
  const [ana, bob] = [await open("simple-peer.html?user=ana"), await open("simple-peer.html?user=bob")];
  await ana.calls("bob");
  await ana.logs("bob is connected");
  await bob.logs("ana is connected");
  await ana.says("hello Bob");
  await bob.logsOnce("ana: hello Bob");
  await bob.says("hello Ana");
  await ana.logsOnce("bob: hello Ana");
  await bob.page.reload();
  await bob.calls("ana");
  await bob.logs("ana is connected");
  await bob.says("back again");
  await ana.logsOnce("bob: back again");
  usesTheServersOfTheDaemon(ana, bob);
}

async function simplePeerWaits({ open }) {
  const carol = await open("simple-peer.html?user=carol");
  await carol.calls("dave");
  await until("the offer is held", async () => carol.statuses.includes(202));
  const dave = await open("simple-peer.html?user=dave");
  await dave.logs("carol is connected");
  await carol.says("hello Dave");
  await dave.logsOnce("carol: hello Dave");
}

async function simplePeerFails({ open, post }) {
  const erin = await open("simple-peer.html?user=erin");
  // An id of 257 bytes is refused.
  const long = "x".repeat(257);
  await erin.calls(long);
  await until("the call ends", async () => (await erin.log()).includes(`${long} is gone`));
  const offer = { type: "offer", sdp: "v=0" };
  for (const data of ["no JSON", null, { id: "a", number: 0 }, { id: "a", number: 7, data: offer }, { id: 1, number: 0, data: offer }]) {
    await post("/user/erin/device/phone?user=mallory&device=phone", { event: "simple-peer", data: data ?? "null" });
  }
  await post("/user/erin/device/phone?user=mallory&device=phone", { event: "simple-peer", data: { id: "b", number: 0, data: offer } });
  await until("the call with a bad description ends", async () => (await erin.log()).includes("mallory is gone"));
  assert.equal((await erin.log()).split("mallory is gone").length, 2, "only the one with an offer was a call");
}

async function trystero({ open }) {
  const pages = {};
  for (const peer of ["ana", "bob", "carol"]) pages[peer] = await open(`trystero.html?room=blue&peer=${peer}`);
  const { ana, bob, carol } = pages;
  for (const peer in pages) await pages[peer].logs(...Object.keys(pages).filter((other) => other !== peer).map((other) => `${other} is connected`));
  usesTheServersOfTheDaemon(ana, bob, carol);
  await ana.says("hello");
  for (const page of [bob, carol]) await page.logsOnce("ana: hello");
  const toAll = bob.sent.filter(({ to }) => to.endsWith("/devices"));
  assert.deepEqual(new Set(toAll.map(({ data }) => data.topic)).size, 1, "what is for one peer is sent to its device alone");
  assert.ok(bob.sent.some(({ to }) => to === "/user/blue/device/carol"));
  await bob.page.click("#leave");
  for (const page of [ana, carol]) await page.logs("bob has left");
  await carol.page.reload();
  await ana.logs("carol has left");
  await until("carol is back", async () => (await ana.log()).split("carol is connected").length === 3);
  await ana.says("welcome");
  await carol.logsOnce("ana: welcome");
}

async function trysteroStranger({ open, post }) {
  const [ana, bob] = [await open("trystero.html?room=green&peer=ana"), await open("trystero.html?room=green&peer=bob")];
  await ana.logs("bob is connected");
  // What a peer of the room says first, from somebody whose user is not the room.
  const { topic } = ana.sent.find(({ to }) => to === "/user/green/devices").data;
  const peerId = "m".repeat(20), self = await sha1(`Trystero@example@blue@${peerId}`);
  const announcement = { topic, self, payload: JSON.stringify({ peerId }) };
  await post("/user/green/devices?user=mallory&device=mallory", { event: "trystero", data: announcement });
  await bob.says("after the stranger");
  await ana.logsOnce("bob: after the stranger");
  const member = await open("trystero.html?room=green&peer=carol");
  await member.logs("ana is connected", "bob is connected");
  for (const page of [ana, bob]) assert.ok(!page.sent.some(({ to }) => to.endsWith("/mallory")), "nobody offers the stranger a connection");
}

/** Each RTCPeerConnection of these pages has the ICE servers of the daemon. */
function usesTheServersOfTheDaemon(...pages) {
  for (const { connections } of pages) {
    assert.ok(connections.length > 0);
    for (const urls of connections) assert.deepEqual(urls, ["stun:127.0.0.1:9"]);
  }
}

const FOLDER = new URL("../../examples/adapters/", import.meta.url);
main(SCENARIOS, { folder: FOLDER, options: ["--stun", "stun:127.0.0.1:9"] });
