// What `client.js` promises to a page beside calls, in real browsers: devices of tabs, shared streams, takeover, tickets, bfcache.
//
//   node features.mjs DAEMON_EXECUTABLE chromium /usr/bin/chromium
//   node features.mjs DAEMON_EXECUTABLE firefox /usr/bin/firefox-esr [--only PART_OF_A_NAME] [--client FILE]
//
// Each scenario has a daemon and a profile of its own. The pages come from another origin than the daemon's. `--client` tries a
// `client.js` without building the daemon.

import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import { parseArgs } from "node:util";
import puppeteer from "puppeteer-core";
import { Daemon } from "./storm/daemon.mjs";
import { Issuer } from "./storm/issuer.mjs";
import { until, within } from "./storm/wait.mjs";

const { values: { only, client }, positionals: [EXECUTABLE, NAME, BROWSER] } = parseArgs({ allowPositionals: true, options: {
  only: { type: "string", default: "" },
  client: { type: "string" },
} });
/** All scenarios together. */
const WHOLE_MS = 480_000;

/** Candidates with the address of this machine: there may be no mDNS, and no network but the loopback. */
const RTC_FLAGS = ["--disable-features=WebRtcHideLocalIpsWithMdns", "--allow-loopback-in-peer-connection"];

const LAUNCH = {
  chromium: {
    // The driver switches the back-forward cache off.
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", ...RTC_FLAGS],
  },
  firefox: {
    browser: "firefox",
    extraPrefsFirefox: { "media.peerconnection.ice.obfuscate_host_addresses": false, "media.peerconnection.ice.loopback": true },
  },
};

const DEV = ["--dev", "--heartbeat", "2"];

const SCENARIOS = {
  "a tab keeps its device over a reload, and a duplicated tab gets one of its own": devices,
  "the older tab of a device is superseded until it takes over": superseded,
  "tabs that share a stream get every message once, also when the tab with the stream closes": sharedStream,
  "ten tabs of one page can all send when they share a stream": tenTabs,
  "a page that one goes back to gets what it missed": goneBack,
  "a call connects, and survives a reload of either side": calls,
  "a token is renewed when it expires, no message is lost, and no token stands in a URL": tickets,
  "a page whose token is refused is unauthorised, and asks no more": unauthorised,
};

async function devices({ tab }) {
  const first = await tab();
  const device = await first.connect({ user: "ana" });
  await first.reload();
  assert.equal(await first.connect({ user: "ana" }), device, "after a reload");
  // `window.open` copies the session storage, as duplicating a tab does.
  const copy = await first.duplicate();
  const other = await copy.connect({ user: "ana" });
  assert.notEqual(other, device);
  await first.state("live");
  await copy.state("live");
  await Promise.all([first, copy].map((page) => page.reload()));
  assert.deepEqual(await Promise.all([first, copy].map((page) => page.connect({ user: "ana" }))), [device, other]);
}

async function superseded({ tab, post }) {
  const [older, newer] = [await tab(), await tab()];
  await older.connect({ user: "ana", device: "phone" });
  await newer.connect({ user: "ana", device: "phone" });
  await older.state("superseded");
  await post("/user/ana/device/phone", "for the newer");
  await newer.gets(["for the newer"]);
  await older.page.evaluate(() => window.signal.takeOver());
  await older.state("live");
  await newer.state("superseded");
  await post("/user/ana/device/phone", "for the older");
  await older.gets(["for the older"]);
  await newer.gets(["for the newer"]);
}

async function sharedStream({ tab, post, streams }) {
  const tabs = await Promise.all([tab(), tab(), tab()]);
  const names = [];
  for (const one of tabs) names.push(await one.connect({ user: "ana", device: "phone", shared: true }));
  assert.equal(await streams(), 1);
  await post("/user/ana/device/phone", "one");
  for (const one of tabs) await one.gets(["one"]);
  // The first tab has the stream. What is sent while the stream moves is held for the device that comes back.
  const [first, ...rest] = tabs;
  const closed = first.page.close();
  const sent = [];
  for (let number = 0; number < 20; number += 1) {
    sent.push(`moved ${number}`);
    await post("/user/ana/device/phone", `moved ${number}`, 30);
  }
  await closed;
  for (const one of rest) await one.gets(["one", ...sent]);
  assert.equal(await streams(), 1);
}

async function tenTabs({ tab, streams }) {
  const tabs = [];
  for (let number = 0; number < 10; number += 1) {
    tabs.push(await tab());
    await tabs[number].connect({ user: "ana", device: "phone", shared: true });
  }
  assert.equal(await streams(), 1);
  const outcomes = await Promise.all(tabs.map((one, number) => one.send("ana", "phone", `from ${number}`)));
  assert.deepEqual(outcomes, tabs.map(() => "delivered"));
  const expected = tabs.map((_, number) => `from ${number}`);
  for (const one of tabs) assert.deepEqual((await one.gotten(expected.length)).sort(), expected);
}

async function goneBack({ tab, post }) {
  const page = await tab();
  await page.connect({ user: "ana", device: "phone" });
  await post("/user/ana/device/phone", "before");
  await page.gets(["before"]);
  await page.page.evaluate(() => {
    window.onpageshow = ({ persisted }) => { window.persisted = persisted; };
  });
  await page.away();
  await post("/user/ana/device/phone", "meanwhile", 30);
  await page.back();
  if (NAME === "chromium") {
    assert.equal(await page.page.evaluate(() => window.persisted), true, "the page was in the cache");
    await page.gets(["before", "meanwhile"]);
  } else {
    // Firefox keeps no page that had an EventSource, and loads it anew.
    await page.connect({ user: "ana", device: "phone" });
    await page.gets(["meanwhile"]);
  }
  await page.state("live");
}

async function calls({ tab }) {
  const pages = { ana: await tab(), bob: await tab() };
  const begin = async (user) => {
    await pages[user].connect({ user, device: "phone" });
    await pages[user].page.evaluate((user) => {
      window.heard = [];
      const talk = (call) => {
        window.chat = call.channel("chat");
        window.chat.onmessage = ({ data }) => window.heard.push(data);
      };
      window.signal.on("call", (call) => {
        call.accept();
        talk(call);
      });
      if (user === "ana") talk(window.signal.call("bob", "phone"));
    }, user);
  };
  /** What one says, from now on, comes to the other. What is said while the other loads its page may be lost. */
  const hears = async (listener, speaker, time) => {
    await until(`${listener} hears ${speaker}, ${time}`, async () => {
      await pages[speaker].page.evaluate((text) => window.chat?.send(text), `${speaker}, ${time}`);
      return pages[listener].page.evaluate((text) => window.heard.includes(text), `${speaker}, ${time}`);
    });
  };
  await begin("bob");
  await begin("ana");
  for (const time of ["at first", "after a reload of ana", "after a reload of bob"]) {
    const [, reloaded] = time.split("reload of ");
    if (reloaded) {
      await pages[reloaded].reload();
      await begin(reloaded);
    }
    await Promise.all([hears("bob", "ana", time), hears("ana", "bob", time)]);
  }
}

async function tickets({ tab, issuer, service }) {
  issuer.lifetime = 6;
  const page = await tab();
  const urls = [];
  page.page.on("request", (request) => urls.push(request.url()));
  await page.connect({ user: "ana", device: "phone", token: "fetched" });
  const sent = [];
  while (issuer.tokens.length < 3) {
    const text = `message ${sent.length}`;
    sent.push(text);
    await service("/user/ana/device/phone", text);
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.ok(sent.length < 300, "tokens are renewed");
  }
  await page.gets(sent);
  await page.state("live");
  assert.ok(urls.filter((url) => url.includes("/subscribe")).length >= 2);
  const leaked = urls.filter((url) => issuer.tokens.some((token) => url.includes(token)));
  assert.deepEqual(leaked, []);
}

async function unauthorised({ tab, issuer }) {
  issuer.lifetime = 6;
  const page = await tab();
  await page.connect({ user: "ana", device: "phone", token: "fetched" });
  issuer.lifetime = -60;
  await page.state("unauthorised");
  const asked = issuer.tokens.length;
  const refused = await tab();
  await assert.rejects(refused.connect({ user: "ana", device: "tablet", token: "fetched" }), /The token has expired/);
  assert.equal(await page.page.evaluate(() => window.signal.state), "unauthorised");
  assert.ok(issuer.tokens.length <= asked + 2, "a refused token is fetched anew once");
}

/** One tab of the browser. */
class Tab {
  errors = [];

  constructor(page, origin, daemon) {
    Object.assign(this, { page, origin, daemon });
    page.on("pageerror", (error) => this.errors.push(error.stack ?? String(error)));
  }

  /** Connects with `client.js` of the daemon, and gives the device. */
  connect(options) {
    const module = client ? "/client.js" : `${this.daemon}/client.js`;
    return within("connected", this.page.evaluate(async ([module, options]) => {
      const { connect } = await import(module);
      const token = async () => (await fetch("/token?user=ana")).text();
      window.gotten = [];
      window.signal = await connect(options.token ? { ...options, user: undefined, token } : options);
      for (const name of ["message", "message:text"]) window.signal.on(name, ({ data }) => window.gotten.push(data));
      return window.signal.device;
    }, [module, client ? { ...options, url: `${this.daemon}/` } : options]));
  }

  async reload() {
    await this.page.reload();
  }

  async away() {
    await this.page.goto(`${this.origin}/elsewhere`);
  }

  async back() {
    await this.page.evaluate(() => { history.back(); });
    const there = () => this.page.evaluate(() => location.pathname === "/" && document.readyState === "complete").catch(() => false);
    await until("the page is back", there);
  }

  async duplicate() {
    const opened = new Promise((resolve) => this.page.once("popup", resolve));
    await this.page.evaluate(() => { window.open(location.href); });
    const page = await within("the duplicate opens", opened);
    await page.waitForFunction((href) => document.readyState === "complete" && location.href === href, {}, this.page.url());
    return new Tab(page, this.origin, this.daemon);
  }

  send(user, device, data) {
    return this.page.evaluate(([user, device, data]) => window.signal.send(user, device, "text", data), [user, device, data]);
  }

  state(state) {
    return until(`the state ${state}`, () => this.page.evaluate((state) => window.signal.state === state, state));
  }

  /** Waits for so many messages, and gives all that came. */
  async gotten(count) {
    await until(`${count} messages`, () => this.page.evaluate((count) => window.gotten.length >= count, count));
    return this.page.evaluate(() => window.gotten);
  }

  /** The page has got exactly these messages, in this order. */
  async gets(messages) {
    assert.deepEqual(await this.gotten(messages.length), messages);
  }
}

async function run(name, scenario, browser) {
  const issuer = new Issuer();
  const daemon = await new Daemon(EXECUTABLE, [tickets, unauthorised].includes(scenario) ? issuer.options() : DEV).start();
  const pages = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://localhost");
    const answer = (type, text) => response.writeHead(200, { "content-type": `${type}; charset=utf-8` }).end(text);
    if (pathname === "/token") answer("text/plain", issuer.fetched(searchParams.get("user")));
    else if (pathname === "/client.js") answer("text/javascript", fs.readFileSync(client));
    else answer("text/html", "<!doctype html><title>test</title>");
  });
  await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${pages.address().port}`;
  const context = await browser.createBrowserContext();
  const tabs = [];
  const tab = async () => {
    const page = await context.newPage();
    await page.goto(origin);
    tabs.push(new Tab(page, origin, daemon.url));
    return tabs.at(-1);
  };
  const post = async (to, data, ttl = 0, headers = {}) => {
    const answer = await fetch(daemon.url + to, { method: "POST", body: new URLSearchParams({ data }),
      headers: { ...headers, ...(ttl > 0 ? { ttl: String(ttl) } : {}) } });
    assert.ok([200, 202].includes(answer.status), `${answer.status}: ${await answer.text()}`);
  };
  const service = (to, data) => post(to, data, 30, { authorization: `Bearer ${issuer.sign("service", 600)}` });
  const streams = async () => {
    const metrics = await (await fetch(`${daemon.url}/metrics`)).text();
    return Number(/^signal_streams (\d+)/m.exec(metrics)[1]);
  };
  try {
    await scenario({ tab, post, streams, issuer, service });
    assert.deepEqual(tabs.flatMap(({ errors }) => errors), []);
    console.log(`ok: ${name}`);
  } catch (error) {
    throw new Error(`failed: ${name}: ${error.stack}\n${daemon.log()}`, { cause: error });
  } finally {
    await context.close();
    pages.close();
    pages.closeAllConnections();
    await daemon.stop("SIGKILL");
    issuer.stop();
  }
}

async function main() {
  assert.ok(EXECUTABLE && LAUNCH[NAME] && BROWSER, "usage: node features.mjs DAEMON_EXECUTABLE chromium|firefox BROWSER");
  const chosen = Object.entries(SCENARIOS).filter(([name]) => name.includes(only));
  const browser = await puppeteer.launch({ executablePath: BROWSER, headless: true, ...LAUNCH[NAME] });
  console.log(await browser.version());
  try {
    for (const [name, scenario] of chosen) await run(name, scenario, browser);
  } finally {
    await browser.close();
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
