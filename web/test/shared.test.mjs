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
  #locks = new Map();
  #channels = new Set();
  #localStorage = storage();

  /** A tab: its globals, and `close`, which releases what it holds. */
  tab(sessionStorage = storage()) {
    const browser = this;
    const releases = new Set();
    const channels = new Set();
    const window = new EventTarget();
    let frozen = false;
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
            this.addEventListener("message", (event) => frozen && event.stopImmediatePropagation());
            channels.add(this);
            browser.#channels.add(this);
          }

          postMessage(message) {
            if (!frozen) super.postMessage(message);
          }
        },
      },
      /** A suspended tab keeps its locks, and neither hears nor says anything. */
      freeze: (still) => { frozen = still; },
      fire: (name) => window.dispatchEvent(new Event(name)),
      end() {
        for (const channel of channels) channel.close();
        for (const release of releases) release();
      },
    };
  }

  #request(name, { signal, steal }, act, releases) {
    if (!this.#locks.has(name)) this.#locks.set(name, { queue: [] });
    const lock = this.#locks.get(name);
    const next = () => {
      lock.holder = lock.queue.shift();
      lock.holder?.start();
    };
    return new Promise((resolve, reject) => {
      const start = () => Promise.resolve().then(() => lock.holder === entry && act()).then(resolve, reject).finally(release);
      const entry = { start, robbed: () => reject(new DOMException("stolen", "AbortError")) };
      const release = () => {
        lock.queue = lock.queue.filter((other) => other !== entry);
        if (lock.holder === entry) next();
      };
      releases.add(release);
      signal?.addEventListener("abort", () => {
        if (lock.holder === entry) return;
        release();
        reject(signal.reason);
      });
      if (!steal) {
        lock.queue.push(entry);
        return lock.holder ?? next();
      }
      lock.holder?.robbed();
      lock.holder = entry;
      start();
    });
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
  return { signal, freeze: tab.freeze, end() { world.leave(signal); tab.end(); } };
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

/** Calls of tabs that accept at once, with what they hear of the end. */
function accepting(tabs) {
  const calls = [];
  tabs.forEach(({ signal }, index) => signal.on("call", (call) => {
    calls.push(call);
    call.accept();
    call.channel("chat");
    call.on("bye", (reason) => byes.push([index, reason]));
  }));
  const byes = [];
  return { calls, byes };
}

test("tabs that all accept at once: one has the call, the others hear answered_elsewhere", async () => {
  const tabs = [await share(), await share(), await share()];
  const { calls, byes } = accepting(tabs);
  await pass(200);
  const bob = await world.connect("bob", "phone");
  const call = bob.call("ana", "laptop");
  const restarts = [];
  call.on("restart", (why) => restarts.push(why));
  call.channel("chat");
  await pass(30_000);
  assert.deepEqual(restarts, []);
  assert.equal(call.state, "connected");
  assert.deepEqual(calls.map(({ state }) => state).sort(), ["closed", "closed", "connected"]);
  assert.deepEqual(byes.map(([, reason]) => reason), ["answered_elsewhere", "answered_elsewhere"]);
});

test("tabs that both call a device: one has the call, also after it was closed and made again", async () => {
  const tabs = [await share(), await share()];
  const bob = await world.connect("bob", "phone");
  const { calls } = accepting([{ signal: bob }]);
  const both = tabs.map(({ signal }) => signal.call("bob", "phone"));
  for (const call of both) call.channel("chat");
  await pass(30_000);
  assert.deepEqual(both.map(({ state }) => state).sort(), ["closed", "connected"]);
  assert.deepEqual(calls.map(({ state }) => state), ["connected"]);
  const index = both.findIndex(({ state }) => state === "connected");
  both[index].close();
  const again = tabs[index].signal.call("bob", "phone");
  again.channel("chat");
  await pass(5_000);
  assert.equal(again.state, "connected");
});

test("a tab that stands still loses the stream to another, and has its messages again when it wakes up", async () => {
  const tabs = [await share(), await share()];
  const texts = tabs.map(() => []);
  tabs.forEach(({ signal }, index) => signal.on("message", ({ data }) => texts[index].push(data)));
  await pass(200);
  tabs[0].freeze(true);
  await pass(82_000);
  world.deliver(null, "ana", "laptop", { data: "one" });
  await pass(200);
  assert.deepEqual(texts[1], ["one"]);
  assert.equal(open("/subscribe").length, 1);
  tabs[0].freeze(false);
  world.deliver(null, "ana", "laptop", { data: "two" });
  await pass(200);
  assert.deepEqual(texts.map((heard) => heard.at(-1)), ["two", "two"]);
  tabs[1].end();
  await pass(5_000);
  assert.equal(open("/subscribe").length, 1, "it is in line again");
});

test("a new tab connects although the tab with the stream stands still", async () => {
  const first = await share();
  await pass(200);
  first.freeze(true);
  const { connect } = world.load(browser.tab().globals);
  let signal;
  connect({ url: "http://daemon.test/", user: "ana", device: "laptop", shared: true }).then((it) => { signal = it; });
  await pass(21_000);
  assert.equal(signal?.state, "live");
});

test("tabs that live ask for no stream of their own in a quiet time", async () => {
  const tabs = [await share(), await share()];
  world.heartbeat = 1e6;
  const opened = world.sources.length;
  tabs[0].signal.takeOver();
  await pass(300_000);
  assert.equal(world.sources.length, opened + 1);
});

test("a tab that was refused at first leaves the stream to the next, and a new tab tries its own token", async () => {
  const good = new Set(["good"]);
  world.intercept = ({ path, headers }) => path === "/ticket"
    ? good.has(headers.authorization.slice(7)) ? { status: 200, body: { ticket: "t" } } : { status: 401, body: { code: "unauthenticated" } } : undefined;
  const tab = browser.tab();
  await assert.rejects(world.connect("ana", "laptop", { token: "bad", shared: true }, tab.globals), { status: 401 });
  assert.equal((await share({ token: "good" })).signal.state, "live", "the first holds no lock");
});

test("shared tabs with another key have a stream of their own", async () => {
  await share({ shared: "ana" });
  await share({ shared: "ana" });
  await share({ shared: "eve", device: "other" });
  const paths = () => world.sources.filter(({ path }) => path === "/subscribe").length;
  assert.equal(paths(), 2);
  await share({ shared: "zoe" });
  assert.equal(paths(), 3);
});

test("without Web Locks a shared tab has a device of its own", async () => {
  const tabs = [browser.tab(), browser.tab()];
  const signals = [];
  for (const { globals } of tabs) signals.push(await world.connect("ana", undefined, { shared: true }, { ...globals, navigator: {} }));
  assert.notEqual(signals[0].device, signals[1].device);
  assert.deepEqual(signals.map(({ state }) => state), ["live", "live"]);
});
