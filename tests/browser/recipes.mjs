// The recipes in `examples/recipes`, as docs/recipes.md has one try them: pages in Chromium against the daemon with `--dev`.
//
//   node recipes.mjs target/debug/backend-signal /usr/bin/chromium [PART_OF_A_NAME]

import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import { chromium } from "playwright-core";
import { Cable } from "./storm/cable.mjs";
import { Daemon } from "./storm/daemon.mjs";
import { until, within } from "./storm/wait.mjs";

const [EXECUTABLE, BROWSER, ONLY = ""] = process.argv.slice(2);
/** All scenarios together. */
const WHOLE_MS = 240_000;

const FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
  // Candidates with the address of this machine: there may be no mDNS, and no network but the loopback.
  "--disable-features=WebRtcHideLocalIpsWithMdns", "--allow-loopback-in-peer-connection"];

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
  for (const page of [ana, carol]) await page.logs("bob to all: hello", "bob directly: hello");
  const mallory = await blank();
  assert.equal(await mallory.bye("blue", "ana"), "rejected");
  await post("/user/blue/devices?user=mallory&device=mallory", { event: "room", data: "from outside" });
  await carol.says("after the stranger");
  await ana.logs("carol to all: after the stranger", "carol directly: after the stranger");
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
  await bob.logs("ana directly: welcome");
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
  const cut = await open("ring.html?user=bob-six&device=cut", { daemon: wire.url });
  const { ana, bobs: [phone] } = await ring("six", ["phone"]);
  await cut.rings("ringing");
  wire.cut();
  await phone.page.click("text=answer");
  await ana.rings("answered");
  assert.equal(await cut.state(), "ringing");
  wire.heal();
  await cut.rings("answered_elsewhere");
}

async function loses({ ring }) {
  const { ana, bobs: [phone] } = await ring("seven", ["phone"], { patient: false });
  await ana.page.context().close();
  await phone.rings("lost");
}

async function strangers({ ring, post }) {
  const { ana, bobs: [phone] } = await ring("eight", ["phone"]);
  const { id } = ana.said.find(({ type }) => type === "ring");
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

/** A page with what the tests ask of it. */
class Page {
  /** The data of the messages of rings that it has sent. */
  said = [];
  errors = [];

  constructor(page) {
    this.page = page;
    page.on("pageerror", (error) => this.errors.push(error.stack ?? String(error)));
    page.on("request", (request) => {
      const { event, data } = JSON.parse(request.postData() ?? "{}");
      if (event === "ring") this.said.push(data);
    });
  }

  log = () => this.page.textContent("#log");
  /** The state of the newest ring. */
  state = () => this.page.locator("#rings li span").last().textContent();

  /** The log has all these lines, each once. */
  async logs(...lines) {
    let log;
    const times = (line) => log.split("\n").filter((other) => other === line).length;
    await until(`the lines ${lines.join(", ")}`, async () => {
      log = await this.log();
      return lines.every(times);
    }).catch((error) => { throw new Error(`${error.message}: the log is ${JSON.stringify(log)}`); });
    assert.deepEqual(lines.map(times), lines.map(() => 1), log);
  }

  async rings(state) {
    let seen;
    await until(`the ring is ${state}`, async () => {
      seen = (await this.page.locator("#rings li").count()) > 0 && (await this.state());
      return seen === state;
    }).catch((error) => { throw new Error(`${error.message}: it is ${seen}`); });
  }

  shows(selector, text) {
    return until(text, async () => (await this.page.textContent(selector)) === text);
  }

  async says(line) {
    await this.page.fill("#line", line);
    await this.page.press("#line", "Enter");
  }
}

/** Serves `examples/recipes` at `/PORT/`, where PORT is that of the daemon. `/slow/` before it: a device waits longer for its caller. */
async function serve() {
  const types = { html: "text/html", js: "text/javascript" };
  const server = http.createServer((request, response) => {
    const [, slow, port, name] = /^(\/slow)?\/(\d+)\/(\w+\.(?:html|js))/.exec(request.url) ?? [];
    if (!name) return response.writeHead(404).end();
    let text = fs.readFileSync(new URL(`../../examples/recipes/${name}`, import.meta.url), "utf8");
    if (name.endsWith(".html")) assert.ok(text.includes("http://localhost:1837/client.js"), `${name} names the daemon`);
    text = text.replace("http://localhost:1837", `http://127.0.0.1:${port}`);
    if (slow) text = text.replace("LOST_MS = 10_000", "LOST_MS = 60_000");
    return response.writeHead(200, { "content-type": `${types[name.split(".")[1]]}; charset=utf-8` }).end(text);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

/** What docs/recipes.md shows is in the pages that run here. */
function theSnippetsAreOfThePages() {
  const read = (name) => fs.readFileSync(new URL(`../../${name}`, import.meta.url), "utf8");
  const folder = new URL("../../examples/recipes/", import.meta.url);
  const lines = fs.readdirSync(folder).flatMap((name) => read(`examples/recipes/${name}`).split("\n")).map((line) => line.trim());
  const blocks = [...read("docs/recipes.md").matchAll(/^```js\n([^]*?)^```$/gm)].map(([, block]) => block);
  assert.ok(blocks.length > 1);
  for (const line of blocks.join("").trim().split("\n")) assert.ok(lines.includes(line.trim()), `docs/recipes.md has a line of its own: ${line}`);
}

async function run(name, scenario, { browser, daemon, origin }) {
  const pages = [], close = [];
  const load = async (url) => {
    const context = await browser.newContext();
    close.push(() => context.close());
    const page = new Page(await context.newPage());
    pages.push(page);
    await page.page.goto(url);
    return page;
  };
  const open = (path, { daemon: url = daemon.url, patient = true } = {}) =>
    load(`${origin}${patient ? "/slow" : ""}/${new URL(url).port}/${path}`);
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
  const ring = async (name, devices, options) => {
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
  const post = async (to, { event, data }) => {
    const headers = { "content-type": "application/json" };
    const answer = await fetch(daemon.url + to, { method: "POST", headers, body: JSON.stringify({ event, data }) });
    assert.equal(answer.status, 200, await answer.text());
  };
  try {
    await scenario({ open, blank, cable, ring, post });
    assert.deepEqual(pages.flatMap(({ errors }) => errors), []);
    console.log(`ok: ${name}`);
  } catch (error) {
    throw new Error(`failed: ${name}: ${error.stack}`, { cause: error });
  } finally {
    for (const action of close.reverse()) await action();
  }
}

async function main() {
  assert.ok(EXECUTABLE && BROWSER, "usage: node recipes.mjs DAEMON_EXECUTABLE CHROMIUM [PART_OF_A_NAME]");
  theSnippetsAreOfThePages();
  const chosen = Object.entries(SCENARIOS).filter(([name]) => name.includes(ONLY));
  const daemon = await new Daemon(EXECUTABLE, ["--dev"]).start();
  const server = await serve();
  const browser = await chromium.launch({ executablePath: BROWSER, headless: true, chromiumSandbox: false, args: FLAGS });
  const place = { browser, daemon, origin: `http://127.0.0.1:${server.address().port}` };
  try {
    // Three at a time: they mostly wait.
    const queue = chosen.values();
    const work = async () => {
      for (const [name, scenario] of queue) await run(name, scenario, place);
    };
    await Promise.all([work(), work(), work()]);
  } finally {
    await browser.close();
    server.close();
    server.closeAllConnections();
    await daemon.stop("SIGKILL");
  }
  console.log(`${chosen.length} passed, 0 failed`);
}

setTimeout(() => {
  console.error(`failed: not done within ${WHOLE_MS / 1000} s`);
  process.exit(1);
}, WHOLE_MS).unref();

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
