// The recipes in `examples/recipes`, as docs/recipes.md has one try them: pages in Chromium against the daemon with `--dev`.
//
//   node recipes.mjs target/debug/backend-signal /usr/bin/chromium [PART_OF_A_NAME]

import assert from "node:assert/strict";
import fs from "node:fs";
import { main } from "./pages.mjs";
import { Cable } from "./storm/cable.mjs";
import { until, within } from "./storm/wait.mjs";

const FOLDER = new URL("../../examples/recipes/", import.meta.url);

const SCENARIOS = {
  "everybody in a room talks to everybody, and a stranger to nobody": mesh,
  "who leaves, closes its page or loads it again is gone and comes back": comesAndGoes,
  "a phone rings on all devices, and stops on all when one answers": answers,
  "of two devices that answer at the same moment exactly one wins": answersTwice,
  "all devices stop when the caller gives up": givesUp,
  "all devices stop when one of them rejects": rejects,
  "a device that connects while it rings, rings": connectsLate,
  "a device whose network is cut learns that another one has answered": isCut,
  "a device stops when the caller has gone": loses,
  "a stranger can neither answer nor end a ring": strangers,
};

async function mesh({ open, post, blank }) {
  const [ana, bob, carol] = await room(open, "blue", ["ana", "bob", "carol"]);
  await bob.says("hello");
  for (const page of [ana, carol]) await page.logsOnce("bob to all: hello", "bob directly: hello");
  const mallory = await blank();
  assert.equal(await mallory.bye("blue", "ana"), "rejected");
  await post("/user/blue/devices?user=mallory&device=mallory", { event: "room", data: "from outside" });
  await carol.says("after the stranger");
  await ana.logsOnce("carol to all: after the stranger", "carol directly: after the stranger");
  for (const page of [ana, bob, carol]) assert.ok(!/mallory|outside/.test(await page.log()), "a stranger is not heard");
  assert.ok(!/bob (to all|directly)/.test(await bob.log()), "one's own lines do not come back");
}

async function comesAndGoes({ open }) {
  const [ana, bob, carol] = await room(open, "green", ["ana", "bob", "carol"]);
  await bob.page.reload();
  await until("a new page is in the room", async () => {
    await bob.says("again");
    return (await ana.log()).includes("bob directly: again");
  });
  await ana.says("welcome");
  await bob.logsOnce("ana directly: welcome");
  await bob.page.click("#leave");
  for (const page of [ana, carol]) await page.logs("bob has left");
  await carol.page.context().close();
  await ana.logs("carol has left");
  await ana.shows("#peers", "here: nobody else");
}

async function answers({ ring }) {
  const { ana, bobs: [phone, tablet, watch] } = await ring("one", ["phone", "tablet", "watch"]);
  await tablet.page.click("text=answer");
  await ana.rings("answered");
  await tablet.rings("answered");
  for (const page of [phone, watch]) await page.rings("answered_elsewhere");
  await ana.logs("hello from bob-one's tablet");
  await tablet.logs("hello from ana-one's laptop");
  for (const page of [phone, watch]) assert.equal(await page.log(), "");
  // The line is free again.
  await phone.page.fill("#to", "ana-one");
  await phone.page.click("text=Ring");
  await ana.rings("ringing");
}

async function answersTwice({ ring }) {
  const { ana, bobs } = await ring("two", ["phone", "tablet"]);
  const held = [];
  // Both answers are on their way before either goes on.
  const both = new Promise((resolve) => {
    for (const { page } of bobs) {
      page.route("**/user/ana-two/device/*", (route) => {
        if (route.request().method() !== "POST" || held.length >= 2) return route.continue();
        held.push(route);
        return held.length === 2 && resolve();
      });
    }
  });
  await Promise.all(bobs.map(({ page }) => page.click("text=answer")));
  await within("both answers", both);
  await Promise.all(held.map((route) => route.continue()));
  await ana.rings("answered");
  await until("both know", async () => (await Promise.all(bobs.map((page) => page.state()))).every((state) => state.startsWith("answered")));
  const states = await Promise.all(bobs.map((page) => page.state()));
  assert.deepEqual(states.toSorted(), ["answered", "answered_elsewhere"]);
  const winner = states.indexOf("answered");
  await bobs[winner].logs("hello from ana-two's laptop");
  await ana.logs(`hello from bob-two's ${["phone", "tablet"][winner]}`);
  assert.equal(await bobs[1 - winner].log(), "");
}

async function givesUp({ ring }) {
  const { ana, bobs } = await ring("three", ["phone", "tablet"]);
  await ana.page.click("text=cancel");
  for (const page of [ana, ...bobs]) await page.rings("cancelled");
}

async function rejects({ ring }) {
  const { ana, bobs: [phone, tablet] } = await ring("four", ["phone", "tablet"]);
  await tablet.page.click("text=reject");
  for (const page of [tablet, phone, ana]) await page.rings("rejected");
}

async function connectsLate({ open, ring }) {
  // Nobody is there at first.
  const { ana } = await ring("five", []);
  const phone = await open("ring.html?user=bob-five&device=phone");
  await phone.rings("ringing");
  const tablet = await open("ring.html?user=bob-five&device=tablet");
  await tablet.rings("ringing");
  await phone.page.click("text=answer");
  await tablet.rings("answered_elsewhere");
  await ana.logs("hello from bob-five's phone");
}

async function isCut({ open, cable, ring }) {
  const wire = await cable();
  const cut = await open("ring.html?user=bob-six&device=cut", { url: wire.url });
  const { ana, bobs: [phone] } = await ring("six", ["phone"]);
  await cut.rings("ringing");
  wire.cut();
  await phone.page.click("text=answer");
  await ana.rings("answered");
  assert.equal(await cut.state(), "ringing");
  wire.heal();
  // So says a browser whose network is back.
  await cut.page.evaluate(() => { window.dispatchEvent(new Event("online")); });
  await cut.rings("answered_elsewhere");
}

async function loses({ ring }) {
  const { ana, bobs: [phone] } = await ring("seven", ["phone"], { changed: false });
  await ana.page.context().close();
  await phone.rings("lost");
}

async function strangers({ ring, post }) {
  const { ana, bobs: [phone] } = await ring("eight", ["phone"]);
  const { id } = ana.sent.find(({ event }) => event === "ring").data;
  const mallory = "?user=mallory&device=phone";
  await post(`/user/bob-eight/devices${mallory}`, { event: "ring", data: { id, type: "end", reason: "cancelled" } });
  await post(`/user/ana-eight/device/laptop${mallory}`, { event: "ring", data: { id, type: "answer" } });
  // What is no message of a ring does no harm.
  for (const data of ["no JSON", "null", "[]", { id: 7, type: "ring" }, { id: "x".repeat(65), type: "ring" }]) {
    await post(`/user/bob-eight/devices${mallory}`, { event: "ring", data });
  }
  await phone.page.click("text=answer");
  await phone.rings("answered");
  await ana.rings("answered");
  assert.equal(await phone.page.locator("#rings li").count(), 1);
}

/** Opens a page for each peer, until all are connected to all. */
async function room(open, name, peers) {
  const pages = [];
  for (const peer of peers) pages.push(await open(`room.html?room=${name}&peer=${peer}`));
  for (const [index, page] of pages.entries()) {
    const others = peers.filter((_, other) => other !== index);
    await page.logs(...others.map((other) => `${other} is connected`));
    await page.shows("#peers", `here: ${others.join(", ")}`);
  }
  return pages;
}

/** What docs/recipes.md shows is in the pages that run here and in adapters.mjs. */
function theSnippetsAreOfThePages() {
  const read = (name) => fs.readFileSync(new URL(`../../${name}`, import.meta.url), "utf8");
  const files = ["examples/recipes", "examples/adapters"].flatMap((folder) =>
    fs.readdirSync(new URL(`../../${folder}`, import.meta.url)).filter((name) => name.endsWith(".html")).map((name) => `${folder}/${name}`));
  const lines = files.flatMap((file) => read(file).split("\n")).map((line) => line.trim());
  const blocks = [...read("docs/recipes.md").matchAll(/^```js\n([^]*?)^```$/gm)].map(([, block]) => block);
  assert.ok(blocks.length > 1);
  for (const line of blocks.join("").trim().split("\n")) assert.ok(lines.includes(line.trim()), `docs/recipes.md has a line of its own: ${line}`);
}

function tools({ daemon, load, open, close }) {
  /** A page of somebody else, who may call. */
  const blank = async () => {
    const page = await load(`${daemon.url}/client.d.ts`);
    page.bye = (user, device) => within("the end of the call", page.page.evaluate(async ([daemon, user, device]) => {
      const { connect } = await import(`${daemon}/client.js`);
      const call = (await connect({ user: "mallory" })).call(user, device);
      call.channel("chat");
      return new Promise((resolve) => call.on("bye", resolve));
    }, [daemon.url, user, device]));
    return page;
  };
  const cable = async () => {
    const cable = await new Cable(() => daemon.port).start();
    close.push(() => cable.stop());
    return cable;
  };
  /** Ana rings Bob. Everybody has a name of this scenario. */
  const ring = async (name, devices, options = { changed: true }) => {
    const bobs = [];
    for (const device of devices) bobs.push(await open(`ring.html?user=bob-${name}&device=${device}`, options));
    const connected = async () => (await (await fetch(`${daemon.url}/user/bob-${name}/devices`)).json());
    await until("Bob's devices", async () => devices.every(async (device) => (await connected()).includes(device)));
    const ana = await open(`ring.html?user=ana-${name}&device=laptop`, options);
    await ana.page.fill("#to", `bob-${name}`);
    await ana.page.click("text=Ring");
    for (const page of [ana, ...bobs]) await page.rings("ringing");
    return { ana, bobs };
  };
  return { blank, cable, ring };
}

theSnippetsAreOfThePages();
// A slow machine makes no device lose its caller.
main(SCENARIOS, { folder: FOLDER, tools, change: (text) => text.replace("LOST_MS = 10_000", "LOST_MS = 60_000") });
