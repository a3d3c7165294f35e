// The pages of a folder of examples in Chromium, and what the tests ask of them. The daemon runs with `--dev`.

import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import { chromium } from "playwright-core";
import { Daemon } from "./storm/daemon.mjs";
import { until } from "./storm/wait.mjs";

/** All scenarios together. */
const WHOLE_MS = 240_000;
/** So many scenarios at a time: they mostly wait. */
const AT_ONCE = 3;

const FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
  // Candidates with the address of this machine: there may be no mDNS, and no network but the loopback.
  "--disable-features=WebRtcHideLocalIpsWithMdns", "--allow-loopback-in-peer-connection"];

const REPORT_CONNECTIONS = `
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(configuration) {
      super(configuration);
      console.log("ICE servers: " + JSON.stringify((configuration.iceServers ?? []).flatMap(({ urls }) => urls)));
    }
  };`;

/**
 * Runs all scenarios whose name contains the third argument of the program; the first two are the daemon and Chromium.
 * `folder`: what is served. `change(text)`: what a page gets instead, if its address begins with `/changed/`. `tools(place)`: more for
 * the scenarios.
 */
export function main(scenarios, { folder, options = [], change = (text) => text, tools = () => ({}) }) {
  const [executable, browser, only = ""] = process.argv.slice(2);
  setTimeout(() => fail(`failed: not done within ${WHOLE_MS / 1000} s`), WHOLE_MS).unref();
  const chosen = Object.entries(scenarios).filter(([name]) => name.includes(only));
  runAll(chosen, { executable, browser, folder, options, change, tools }).catch((error) => fail(error.message));
}

function fail(why) {
  console.error(why);
  process.exit(1);
}

async function runAll(chosen, { executable, browser: executablePath, folder, options, change, tools }) {
  assert.ok(executable && executablePath, "usage: node THIS.mjs DAEMON_EXECUTABLE CHROMIUM [PART_OF_A_NAME]");
  const daemon = await new Daemon(executable, ["--dev", ...options]).start();
  const server = await serve(folder, change);
  const browser = await chromium.launch({ executablePath, headless: true, chromiumSandbox: false, args: FLAGS });
  const place = { browser, daemon, origin: `http://127.0.0.1:${server.address().port}`, tools };
  const queue = chosen.values();
  const work = async () => {
    for (const [name, scenario] of queue) await run(name, scenario, place);
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  } finally {
    await browser.close();
    server.close();
    server.closeAllConnections();
    await daemon.stop("SIGKILL");
  }
  console.log(`${chosen.length} passed, 0 failed`);
}

async function run(name, scenario, { browser, daemon, origin, tools }) {
  const pages = [], close = [];
  const load = async (url) => {
    const context = await browser.newContext();
    close.push(() => context.close());
    const page = new Page(await context.newPage());
    pages.push(page);
    await page.page.addInitScript(REPORT_CONNECTIONS);
    await page.page.goto(url);
    return page;
  };
  /** Opens a page of the folder, whose daemon is at `url`. */
  const open = (path, { url = daemon.url, changed = false } = {}) =>
    load(`${origin}${changed ? "/changed" : ""}/${new URL(url).port}/${path}`);
  const post = async (to, message) => {
    const headers = { "content-type": "application/json" };
    const answer = await fetch(daemon.url + to, { method: "POST", headers, body: JSON.stringify(message) });
    assert.equal(answer.status, 200, await answer.text());
  };
  const place = { daemon, load, open, post, close };
  try {
    await scenario({ ...place, ...tools(place) });
    assert.deepEqual(pages.flatMap(({ errors }) => errors), []);
    console.log(`ok: ${name}`);
  } catch (error) {
    throw new Error(`failed: ${name}: ${error.stack}`, { cause: error });
  } finally {
    for (const action of close.reverse()) await action();
  }
}

/** Serves the folder at `/PORT/`, where PORT is that of the daemon. */
async function serve(folder, change) {
  const types = { html: "text/html", js: "text/javascript", mjs: "text/javascript" };
  const server = http.createServer((request, response) => {
    const [, changed, port, name, type] = /^(\/changed)?\/(\d+)\/([^?]+\.(html|m?js))(?:\?|$)/.exec(request.url) ?? [];
    if (!name || name.includes("..")) return response.writeHead(404).end();
    let text = fs.readFileSync(new URL(name, folder), "utf8");
    if (type === "html") assert.ok(text.includes("http://localhost:1837/client.js"), `${name} names the daemon`);
    text = text.replaceAll("http://localhost:1837", `http://127.0.0.1:${port}`);
    return response.writeHead(200, { "content-type": `${types[type]}; charset=utf-8` }).end(changed ? change(text) : text);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

/** A page with what the tests ask of it. */
export class Page {
  /** What it has sent: `{ to, event, data }`, and the statuses of the answers. */
  sent = [];
  statuses = [];
  /** The URLs of the ICE servers of each RTCPeerConnection. */
  connections = [];
  errors = [];

  constructor(page) {
    this.page = page;
    page.on("pageerror", (error) => this.errors.push(error.stack ?? String(error)));
    page.on("console", (message) => {
      const [, urls] = /^ICE servers: (.*)/.exec(message.text()) ?? [];
      if (urls) this.connections.push(JSON.parse(urls));
    });
    page.on("request", (request) => {
      if (request.method() === "POST") this.sent.push({ to: new URL(request.url()).pathname, ...JSON.parse(request.postData()) });
    });
    page.on("response", (response) => {
      if (response.request().method() === "POST") this.statuses.push(response.status());
    });
  }

  log = () => this.page.textContent("#log");
  /** The state of the newest ring. */
  state = () => this.page.locator("#rings li span").last().textContent();

  /** The log has all these lines. */
  async logs(...lines) {
    let log;
    await until(`the lines ${lines.join(", ")}`, async () => {
      log = (await this.log()).split("\n");
      return lines.every((line) => log.includes(line));
    }).catch((error) => { throw new Error(`${error.message}: the log is ${JSON.stringify(log)}`); });
    return log;
  }

  /** The log has all these lines, each once. */
  async logsOnce(...lines) {
    const log = await this.logs(...lines);
    for (const line of lines) assert.equal(log.filter((other) => other === line).length, 1, `${line}: ${log}`);
  }

  async rings(state) {
    let seen;
    await until(`the ring is ${state}`, async () => {
      seen = (await this.page.locator("#rings li").count()) > 0 && (await this.state());
      return seen === state;
    }).catch((error) => { throw new Error(`${error.message}: it is ${seen}`); });
  }

  async calls(user) {
    await this.page.fill("#to", user);
    await this.page.click("#call");
  }

  shows(selector, text) {
    return until(text, async () => (await this.page.textContent(selector)) === text);
  }

  async says(line) {
    await this.page.fill("#line", line);
    await this.page.press("#line", "Enter");
  }
}
