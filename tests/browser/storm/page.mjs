// The two pages of a call: the code that a reader of the README writes, and what the test sees and does in them.

import fs from "node:fs";
import http from "node:http";
import { until } from "./wait.mjs";

/** The ten lines of both sides. `talk` and `show` are what an application does with its call. */
const CODE = {
  caller: `
    import { connect } from "/client.js";
    const signal = await connect({ user: "ana", device: "laptop" });
    signal.on("state", show);
    const call = signal.call("bob", "phone");
    talk(signal, call);`,
  callee: `
    import { connect } from "/client.js";
    const signal = await connect({ user: "bob", device: "phone" });
    signal.on("state", show);
    signal.on("call", (call) => {
      call.accept();
      talk(signal, call);
    });`,
};

/** The application around them, and what the test needs: it notes what comes, and counts what the page has open. */
function application() {
  const open = { peers: [], streams: [] };
  const counted = (Class, list) => class extends Class {
    constructor(...options) {
      super(...options);
      list.push(this);
    }
  };
  window.RTCPeerConnection = counted(RTCPeerConnection, open.peers);
  window.EventSource = counted(EventSource, open.streams);
  let [signal, call, chat] = [];
  const note = (kind, value) => window.note(kind, value);
  window.show = (state) => note("state", state);
  window.talk = (newSignal, newCall) => {
    [signal, call] = [newSignal, newCall];
    note("call", null);
    chat = call.channel("chat");
    chat.onmessage = ({ data }) => note("heard", data);
    call.on("restart", (why) => note("restart", why));
    for (const kind of ["frame", "sent"]) signal.on(kind, (what) => note(kind, JSON.stringify(what).slice(0, 300)));
    signal.on("message:text", ({ data }) => note("heard", data));
  };
  window.storm = {
    /** Sends over the data channel, if it is open. */
    say: (text) => {
      if (chat?.readyState !== "open") return false;
      chat.send(text);
      return true;
    },
    /** Sends through the daemon, and gives the outcome. */
    send: (user, device, text) => (signal ? signal.send(user, device, "text", text) : "no signal"),
    takeOver: () => signal.takeOver(),
    open: () => ({
      state: signal?.state,
      chat: chat?.readyState,
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

const html = (code) => `<!doctype html><title>storm</title>
<script type="module" onerror="setTimeout(() => location.reload(), 500)">${code}</script>`;

/** One device: its tabs, its cable, and the server of its page. */
export class Side {
  #number = 0;
  #tabs = [];
  /** What the other side may hear, and how often this side has heard each text. */
  said = new Set();
  heard = new Map();
  errors = [];

  /** `client`: a file to use instead of the daemon's own `client.js`. */
  constructor(role, cable, client) {
    const [user, device] = { caller: ["ana", "laptop"], callee: ["bob", "phone"] }[role];
    Object.assign(this, { role, cable, client, user, device });
  }

  async start(browser) {
    this.server = http.createServer((request, response) => {
      const answer = (type, text) => response.writeHead(200, { "content-type": `${type}; charset=utf-8` }).end(text);
      if (request.url !== "/client.js") answer("text/html", html(this.#code()));
      else if (this.client) answer("text/javascript", fs.readFileSync(this.client));
      // The daemon's own, behind this page's cable.
      else response.writeHead(302, { location: `${this.cable.url}/client.js` }).end();
    });
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.context = await browser.newContext();
    await this.context.exposeBinding("note", ({ page }, kind, value) => this.#note(page, kind, value));
    await this.context.addInitScript(application);
    this.page = await this.open();
    return this;
  }

  #code() {
    return this.client ? CODE[this.role].replace("connect({", `connect({ url: "${this.cable.url}/",`) : CODE[this.role];
  }

  /** Opens a tab of this device. */
  async open() {
    const page = await this.context.newPage();
    this.#tabs.push({ page, notes: [] });
    page.on("pageerror", (error) => this.errors.push(error.stack ?? String(error)));
    await page.goto(`http://127.0.0.1:${this.server.address().port}/`, { waitUntil: "commit" });
    return page;
  }

  reload() {
    return this.page.reload({ waitUntil: "commit" });
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

  /** A text that nobody has used before. */
  text() {
    this.#number += 1;
    return `${this.role} ${this.#number}`;
  }

  /** Says something new over the data channel. Gives nothing if there is none: a page that loads can be asked too. */
  async say() {
    const text = this.text();
    const said = await this.page.evaluate((text) => window.storm.say(text), text).catch(() => false);
    if (said) this.said.add(text);
    return said ? text : null;
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
      for (const { at, kind, value } of notes.slice(-40)) lines.push(`  ${new Date(at).toISOString().slice(14, 23)} ${kind} ${value ?? ""}`);
    }
    return [...lines, ...this.errors].join("\n");
  }

  async stop() {
    await this.context?.close();
    this.server.close();
    this.server.closeAllConnections();
    this.cable.stop();
  }
}
