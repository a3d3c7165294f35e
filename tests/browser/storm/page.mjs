// The two pages of a call: they run the page of the README, and the test sees and does in them what a person does.

import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import { until, within } from "./wait.mjs";

const README = new URL("../../../README.md", import.meta.url);

/** The page of the README, with `client.js` of another daemon, or another `client.js` for a daemon; as in production with `tokens`. */
function html(daemon, client, tokens) {
  const blocks = [...fs.readFileSync(README, "utf8").matchAll(/^```html\n([\s\S]*?)^```$/gm)].map(([, block]) => block);
  const [page, ...more] = blocks.filter((block) => block.includes("signal.call("));
  assert.deepEqual(more, []);
  const own = page.replace("http://localhost:1837", client ? "" : daemon);
  const here = client ? own.replace("connect({", `connect({ url: "${daemon}/",`) : own;
  const known = tokens ? here.replace("user: me", 'token: async () => (await fetch(`/token?${me}`)).text()') : here;
  const joined = known.replace(/^<\/script>$/m, "  window.storm.join(signal);\n</script>");
  // A person loads a page again whose module could not be loaded.
  const loaded = joined.replace('<script type="module">', '<script type="module" onerror="setTimeout(() => location.reload(), 500)">');
  assert.ok(page !== here && (!tokens || here !== known) && known !== joined && joined !== loaded, "the page of the README looks as expected");
  return loaded;
}

/** What the test sees and does in the page: it notes what comes, and counts what the page has open. */
function watched() {
  const open = { peers: [], streams: [] };
  const counted = (Class, list) => class extends Class {
    constructor(...options) {
      super(...options);
      list.push(this);
    }
  };
  // The peer's addresses lead through the relays of the media path.
  window.RTCPeerConnection = class extends counted(RTCPeerConnection, open.peers) {
    async setRemoteDescription({ type, sdp }) {
      return super.setRemoteDescription({ type, sdp: await window.reroute(sdp) });
    }

    async addIceCandidate(candidate) {
      const rerouted = candidate && (await window.reroute(candidate.candidate));
      return rerouted === "" ? undefined : super.addIceCandidate(candidate && { ...candidate, candidate: rerouted });
    }
  };
  window.EventSource = counted(EventSource, open.streams);
  let signal;
  const note = (kind, value) => window.note(kind, value);
  const called = (call) => {
    note("talks", "");
    call.on("restart", (why) => note("restart", why));
  };
  window.storm = {
    /** The page has connected, and makes a call or waits for one. */
    join: (joined) => {
      signal = joined;
      const lines = new MutationObserver((changes) => {
        for (const { data } of changes.flatMap(({ addedNodes }) => [...addedNodes])) {
          // The page also shows what it says itself.
          if (data !== "\n" && !data.startsWith(`${location.search.slice(1)}: `)) note("heard", data);
        }
      });
      lines.observe(document.getElementById("log"), { childList: true });
      signal.on("state", (state) => note("state", state));
      signal.on("sent", (sent) => note("sent", JSON.stringify(sent).slice(0, 200)));
      signal.on("frame", ({ event, data }) => event === "signal.ping" || note("frame", `${event} ${data.replaceAll("\\", "").slice(0, 200)}`));
      signal.on("message:text", ({ data }) => note("heard", data));
      if (location.search === "?bob") signal.on("call", called);
      else called(signal.call("bob", "laptop"));
    },
    /** Writes into the page's field, as a person does. Says nothing while there is no call. */
    say: (text) => {
      const line = document.getElementById("line");
      if (!line?.onchange) return false;
      line.value = text;
      line.dispatchEvent(new Event("change"));
      return true;
    },
    /** Sends through the daemon, and gives the outcome. */
    send: (user, device, text) => (signal ? signal.send(user, device, "text", text) : "no signal"),
    takeOver: () => signal.takeOver(),
    open: () => ({
      state: signal?.state,
      peers: open.peers.filter(({ connectionState }) => connectionState !== "closed").length,
      streams: open.streams.filter(({ readyState }) => readyState !== EventSource.CLOSED).length,
    }),
    evidence: () => ({
      ...window.storm.open(),
      peers: open.peers.map((peer) => [peer.connectionState, peer.signalingState, peer.iceConnectionState].join(" ")),
      streams: open.streams.map(({ readyState, url }) => `${readyState} ${url}`),
    }),
  };
}

/** One device: its tabs, its cable, and the server of its page. */
export class Side {
  #number = 0;
  #tabs = [];
  /** How often this side has heard each text. */
  heard = new Map();
  errors = [];

  /** `client`: a file to use instead of the daemon's own `client.js`. `issuer`: signs tokens, where there are some. */
  constructor(role, { cable, media, client, issuer }) {
    Object.assign(this, { role, cable, media, client, issuer, user: { caller: "alice", callee: "bob" }[role], device: "laptop" });
  }

  async start(browser) {
    this.server = http.createServer((request, response) => {
      const answer = (type, text) => response.writeHead(200, { "content-type": `${type}; charset=utf-8` }).end(text);
      if (request.url === "/client.js") answer("text/javascript", fs.readFileSync(this.client));
      else if (request.url.startsWith("/token?")) answer("text/plain", this.issuer.fetched(request.url.split("?")[1]));
      else answer("text/html", html(this.cable.url, this.client, this.issuer));
    });
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.context = await browser.newContext();
    await this.context.exposeBinding("note", ({ page }, kind, value) => this.#note(page, kind, value));
    await this.context.exposeBinding("reroute", (_, text) => this.media.reroute(text));
    await this.context.addInitScript(watched);
    this.page = await this.open();
    return this;
  }

  /** Opens a tab of this device. */
  async open() {
    const page = await this.context.newPage();
    this.#tabs.push({ page, notes: [] });
    page.on("pageerror", (error) => this.errors.push(error.stack ?? String(error)));
    await page.goto(`http://127.0.0.1:${this.server.address().port}/?${this.user}`, { waitUntil: "commit" });
    return page;
  }

  reload() {
    return within(`the page of the ${this.role} reloads`, this.page.reload({ waitUntil: "commit" }));
  }

  #note(page, kind, value) {
    this.#notes(page).push({ kind, value, at: Date.now() });
    if (kind === "heard") this.heard.set(value, (this.heard.get(value) ?? 0) + 1);
  }

  #notes(page) {
    return this.#tabs.find((tab) => tab.page === page)?.notes ?? [];
  }

  /** Waits until the page notes this; `after` is a time. */
  noted(after, kind, value, page = this.page) {
    const fits = (note) => note.at >= after && note.kind === kind && (value === undefined || note.value === value);
    return until(`${this.role}: ${kind} ${value ?? ""}`, () => this.#notes(page).find(fits));
  }

  /** The state of the signal. None while the page loads. */
  state() {
    return this.page.evaluate(() => window.storm.open().state).catch(() => undefined);
  }

  /** A text that nobody has used before. */
  text() {
    this.#number += 1;
    return `${this.role} ${this.#number}`;
  }

  /** Says something new in the call. Gives nothing if there is none: a page that loads can be asked too. */
  async say() {
    const text = this.text();
    const said = await this.page.evaluate((text) => window.storm.say(text), text).catch(() => false);
    return said ? `${this.user}: ${text}` : null;
  }

  /** Sends something new through the daemon. Gives the text and its outcome. */
  async send({ user, device }) {
    const text = this.text();
    const arguments_ = [user, device, text];
    const outcome = await this.page.evaluate((list) => window.storm.send(...list), arguments_).catch((error) => error.message);
    return { text, outcome };
  }

  /** What somebody needs who looks for the reason of a failure. */
  async evidence() {
    const lines = [];
    for (const { page, notes } of this.#tabs.filter(({ page }) => !page.isClosed())) {
      lines.push(`${this.role}: ${JSON.stringify(await page.evaluate(() => window.storm.evidence()).catch(String))}`);
      for (const { at, kind, value } of notes.slice(-40)) lines.push(`  ${new Date(at).toISOString().slice(14, 23)} ${kind} ${value}`);
    }
    const health = await fetch(`${this.cable.url}/healthz`, { signal: AbortSignal.timeout(5_000) }).catch(String);
    return [`${this.cable}; over it the daemon says ${health.status ?? health}`, ...lines, ...this.errors].join("\n");
  }

  async stop() {
    await this.context?.close();
    this.server.close();
    this.server.closeAllConnections();
    this.cable.stop();
  }
}
