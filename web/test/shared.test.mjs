// Several tabs: one stream for all that share, one device for each that does not.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { World, pass, settle } from "./world.mjs";

let world;
let browser;
beforeEach(() => {
  world = new World();
  browser = new Browser();
});
afterEach(() => {
  browser.close();
  world.close();
});

/** Web Locks, BroadcastChannels and storage of one origin. */
class Browser {
  #held = new Map();
  #channels = new Set();
  #localStorage = storage();

  /** A tab: its globals, and `close`, which releases what it holds. */
  tab(sessionStorage = storage()) {
    const browser = this;
    const releases = new Set();
    const channels = new Set();
    const window = new EventTarget();
    return {
      globals: {
        globalThis: window,
        addEventListener: window.addEventListener.bind(window),
        document: new EventTarget(),
        localStorage: this.#localStorage,
        sessionStorage,
        navigator: { locks: { request: (name, options, act) => this.#request(name, options, act, releases) } },
        BroadcastChannel: class extends BroadcastChannel {
          constructor(name) {
            super(name);
            this.unref();
            channels.add(this);
            browser.#channels.add(this);
          }
        },
      },
      fire: (name) => window.dispatchEvent(new Event(name)),
      end() {
        for (const channel of channels) channel.close();
        for (const release of releases) release();
      },
    };
  }

  async #request(name, { signal }, act, releases) {
    const before = this.#held.get(name) ?? Promise.resolve();
    let release;
    const held = new Promise((resolve) => { release = resolve; });
    this.#held.set(name, before.then(() => held));
    releases.add(release);
    const aborted = new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
    aborted.catch(() => {});
    try {
      await Promise.race([before, aborted]);
      await Promise.race([act(), held]);
    } finally {
      release();
    }
  }

  close() {
    for (const channel of this.#channels) channel.close();
  }
}

function storage(entries = {}) {
  const kept = { ...entries };
  Object.defineProperty(kept, "setItem", { value: (key, value) => { kept[key] = value; } });
  Object.defineProperty(kept, "removeItem", { value: (key) => { delete kept[key]; } });
  return kept;
}

async function share(options = {}) {
  const tab = browser.tab();
  const signal = await world.connect("ana", "laptop", { shared: true, ...options }, tab.globals);
  return { signal, end() { world.leave(signal); tab.end(); } };
}

const open = (path) => world.sources.filter((source) => source.path === path && source.readyState === 1);

test("tabs that share have one stream and one watch, and each gets every message", async () => {
  const tabs = [await share(), await share(), await share()];
  const texts = tabs.map(() => []);
  tabs.forEach(({ signal }, index) => {
    signal.on("message", ({ data }) => texts[index].push(data));
    signal.on("message:named", ({ data }) => texts[index].push(data));
    signal.watch([`user${index}`]);
  });
  await pass(500);
  world.deliver(null, "ana", "laptop", { data: "one" });
  world.deliver(null, "ana", "laptop", { event: "named", data: "two" });
  await pass(500);
  assert.deepEqual(texts, tabs.map(() => ["one", "two"]));
  assert.deepEqual([open("/subscribe").length, open("/devices").length], [1, 1]);
  assert.deepEqual(open("/devices")[0].query.getAll("user").sort(), ["user0", "user1", "user2"]);
  assert.deepEqual(tabs.map(({ signal }) => [signal.state, signal.user, signal.device]), tabs.map(() => ["live", "ana", "laptop"]));
});

test("a tab that comes later knows who is there, without a new stream", async () => {
  const first = await share();
  first.signal.watch("bob");
  const bob = await world.connect("bob", "phone");
  await world.connect("bob", "laptop");
  bob.close();
  await pass(300);
  const opened = world.sources.length;
  const lists = [];
  (await share()).signal.watch("bob").on("devices", (list) => lists.push(list));
  await pass(300);
  assert.deepEqual(lists, [{ user: "bob", devices: ["laptop"] }]);
  assert.equal(world.sources.length, opened);
});

test("the tab with the stream is closed: another resumes, with nothing lost", async () => {
  const [first, second] = [await share(), await share()];
  const texts = [];
  const states = [];
  second.signal.on("message", ({ data }) => texts.push(data));
  second.signal.on("state", (state) => states.push(state));
  second.signal.watch("bob");
  world.deliver(null, "ana", "laptop", { data: "one" });
  await pass(200);
  first.end();
  world.deliver(null, "ana", "laptop", { data: "two" }, 30);
  await pass(500);
  assert.deepEqual(texts, ["one", "two"]);
  assert.deepEqual(states, ["reconnecting", "live"]);
  assert.deepEqual([open("/subscribe").length, open("/devices").length], [1, 1]);
  assert.equal(open("/subscribe")[0].query.get("last_event_id"), "1.1");
});

test("a tab that is closed is watched for no longer", async () => {
  const [first, second] = [await share(), await share()];
  first.signal.watch("bob");
  second.signal.watch("eve");
  await pass(200);
  second.end();
  await pass(200);
  assert.deepEqual(open("/devices")[0].query.getAll("user"), ["bob"]);
});

test("a call rings in every tab, one takes it, and its messages go there only", async () => {
  const tabs = [await share(), await share()];
  const rings = [[], []];
  const byes = [];
  tabs.forEach(({ signal }, index) => signal.on("call", (call) => {
    rings[index].push(call);
    call.on("bye", (reason) => byes.push([index, reason]));
  }));
  await pass(200);
  const bob = await world.connect("bob", "phone");
  const call = bob.call("ana", "laptop");
  call.channel("chat");
  await pass(300);
  assert.deepEqual(rings.map(({ length }) => length), [1, 1]);
  rings[1][0].accept();
  await pass(1_000);
  assert.deepEqual(byes, [[0, "answered_elsewhere"]]);
  assert.deepEqual([call.state, rings[1][0].state], ["connected", "connected"]);
  call.pc.restartIce();
  await pass(1_000);
  assert.ok(!world.calls().some(({ bye }) => bye), "the other tab is silent");
  tabs[1].end();
  call.pc.restartIce();
  await pass(1_000);
  assert.deepEqual(rings.map(({ length }) => length), [2, 1], "after it is closed, the call comes to the tab that is left");
});

test("all sharing tabs are superseded, and any of them takes over", async () => {
  const tabs = [await share(), await share()];
  await world.connect("ana", "laptop");
  await pass(300);
  assert.deepEqual(tabs.map(({ signal }) => signal.state), ["superseded", "superseded"]);
  const late = await share();
  assert.equal(late.signal.state, "superseded", "so that a page can offer to take over");
  tabs.shift().end();
  await pass(10_000);
  assert.deepEqual([...tabs, late].map(({ signal }) => signal.state), ["superseded", "superseded"], "the next tab with the lock is quiet");
  tabs[0].signal.takeOver();
  await pass(300);
  assert.deepEqual([...tabs, late].map(({ signal }) => signal.state), ["live", "live"]);
});

test("sharing tabs have one device by default", async () => {
  const [one, two] = [await share({ device: undefined }), await share({ device: undefined })];
  assert.ok(one.signal.device);
  assert.equal(one.signal.device, two.signal.device);
});

test("a device that is left out is of the tab: kept over a reload, new in a duplicated tab", async () => {
  const session = storage();
  const connect = async (tab) => (await world.connect("ana", undefined, {}, tab.globals)).device;
  const tab = browser.tab(session);
  const device = await connect(tab);
  const copy = storage(session);
  assert.notEqual(await connect(browser.tab(copy)), device, "a duplicate, while the first lives");
  tab.fire("pagehide");
  assert.equal(await connect(browser.tab(session)), device, "the next page of the tab");
  assert.notEqual(await connect(browser.tab(storage(session))), device, "a duplicate of the page that was reloaded");
  assert.notEqual(await connect(browser.tab()), device, "another tab");
});

test("a page whose storage is forbidden has a device all the same", async () => {
  const { globals } = browser.tab();
  const signal = await world.connect("ana", undefined, {}, { ...globals, sessionStorage: undefined });
  assert.match(signal.device, /^[0-9a-f]{16}$/);
});

test("a closed signal leaves the stream to the other tabs", async () => {
  const [first, second] = [await share(), await share()];
  first.signal.close();
  await pass(500);
  await settle();
  assert.equal(second.signal.state, "live");
  assert.equal(open("/subscribe").length, 1);
});
