// A call of two pages that run the code of the README survives every kind of fault, round after round.
//
//   CHROMIUM=/usr/bin/chromium node storm.mjs DAEMON_EXECUTABLE [--rounds 3] [--lanes 2] [--seed N] [--client FILE] [--trace MS]
//
// A round starts a daemon and two pages, then brings every fault once, in random order. Rounds with odd seeds use tokens, as in
// production. The seed of a round is that of the first plus the rounds before it, so `--rounds 1 --seed N` repeats one. Lanes run at
// the same time, because most of it is waiting. `--client` tries a `client.js` without building the daemon, `--trace MS` shows what
// led to a recovery that took longer.

import assert from "node:assert/strict";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { Cable } from "./cable.mjs";
import { Daemon } from "./daemon.mjs";
import { FAULTS } from "./faults.mjs";
import { Issuer } from "./issuer.mjs";
import { Media } from "./media.mjs";
import { Side } from "./page.mjs";
import { random } from "./random.mjs";
import { PATIENCE_MS, until, within } from "./wait.mjs";

const { values, positionals: [EXECUTABLE] } = parseArgs({ allowPositionals: true, options: {
  rounds: { type: "string", default: process.env.STORM_ROUNDS ?? "3" },
  lanes: { type: "string", default: process.env.STORM_LANES ?? "3" },
  client: { type: "string" },
  trace: { type: "string", default: "Infinity" },
  seed: { type: "string", default: process.env.STORM_SEED ?? String(Date.now() % 1_000_000) },
} });
const [ROUNDS, LANES, SEED] = [values.rounds, values.lanes, values.seed].map(Number);

const FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
  // Candidates with the address of this machine: there may be no mDNS, and no network but the loopback.
  "--disable-features=WebRtcHideLocalIpsWithMdns", "--allow-loopback-in-peer-connection"];
/** Every other round has tokens that expire in the storm. */
const TOKEN_SECONDS = 20;

/** One daemon, two pages, and every fault once. Notes the times of recovery in `times`. */
class Round {
  constructor(number, times) {
    this.seed = SEED + number;
    this.name = `round ${number + 1} (seed ${this.seed})`;
    this.chance = random(this.seed);
    this.times = times;
  }

  async run(browser) {
    const issuer = this.seed % 2 === 1 ? new Issuer(TOKEN_SECONDS) : null;
    // A short heartbeat, so that a silent cable is noticed soon.
    this.daemon = await new Daemon(EXECUTABLE, [...(issuer?.options() ?? ["--dev"]), "--heartbeat", "2"]).start();
    this.media = new Media(() => !this.media.cut && sides.every(({ cable }) => cable.whole));
    const { media } = this;
    const sides = ["callee", "caller"].map((role) => {
      const cable = new Cable(() => this.daemon.port);
      return new Side(role, { cable, media, issuer, client: values.client });
    });
    [this.callee, this.caller] = sides;
    try {
      for (const side of sides) {
        await side.cable.start();
        await side.start(browser);
      }
      await this.recovers("the call begins");
      for (const kind of this.chance.shuffled(Object.keys(FAULTS))) await this.#fault(kind);
      await this.#settles();
    } catch (error) {
      const evidence = await Promise.all(sides.map((side) => within("evidence", side.evidence()).catch(String)));
      throw new Error([`${this.name}: ${this.kind}: ${error.stack}`, ...evidence, this.daemon.log()].join("\n"), { cause: error });
    } finally {
      await within("the pages close", Promise.all(sides.map((side) => side.stop())));
      media.stop();
      issuer?.stop();
      await this.daemon.stop("SIGKILL");
    }
  }

  async #fault(kind) {
    this.kind = kind;
    // Messages that the fault may lose. None may come twice.
    const sent = Promise.all([this.caller.send(this.callee), this.callee.send(this.caller)]);
    const fault = FAULTS[kind]({ ...this, recovers: (what) => this.recovers(`${kind}: ${what}`) });
    await within(kind, fault, 4 * PATIENCE_MS);
    await this.recovers(kind);
    await within("the messages from before the fault have an outcome", sent);
    this.#nothingTwice();
  }

  /** Each side hears something new from the other, over the data channel and through the daemon. */
  async recovers(kind) {
    const start = Date.now();
    const sides = [[this.caller, this.callee], [this.callee, this.caller]];
    await Promise.all(sides.map(async ([speaker, listener]) => {
      const texts = [];
      await until(`the ${listener.role} hears the ${speaker.role}`, async () => {
        texts.push(await speaker.say());
        return texts.some((text) => listener.heard.has(text));
      });
      const { text } = await until(`a message of the ${speaker.role} is delivered`, async () => {
        const sent = await speaker.send(listener);
        return sent.outcome === "delivered" && sent;
      });
      await until(`the ${listener.role} gets the message`, () => listener.heard.has(text));
    }));
    const took = Date.now() - start;
    if (!this.times.has(kind)) this.times.set(kind, []);
    this.times.get(kind).push(took);
    console.log(`${this.name}: ${kind}: ${took} ms`);
    if (took > values.trace) console.log((await Promise.all(sides.map(([side]) => side.evidence()))).join("\n"));
  }

  #nothingTwice() {
    for (const { role, heard, errors } of [this.caller, this.callee]) {
      assert.deepEqual([...heard].filter(([, times]) => times > 1), [], `the ${role} heard these more than once`);
      assert.deepEqual(errors, [], `errors in the page of the ${role}`);
    }
  }

  /** After the storm: one call, no connection or stream too many, and nothing is lost. */
  async #settles() {
    this.kind = "after the storm";
    for (const [speaker, listener] of [[this.caller, this.callee], [this.callee, this.caller]]) {
      await until(`the ${speaker.role} has one call and at most two streams`, async () => {
        const { state, peers, streams } = await speaker.page.evaluate(() => window.storm.open());
        return state === "live" && peers === 1 && streams <= 2;
      });
      const text = await speaker.say();
      await until(`the ${listener.role} hears ${text}`, () => listener.heard.has(text));
    }
    this.#nothingTwice();
  }
}

function table(times) {
  const median = (sorted) => sorted[Math.floor(sorted.length / 2)];
  const rows = [...times].sort().map(([kind, list]) => {
    const sorted = [...list].sort((one, other) => one - other);
    return `| ${kind} | ${sorted.length} | ${median(sorted)} | ${sorted.at(-1)} |`;
  });
  return ["| fault | times | median, ms | worst, ms |", "| --- | --- | --- | --- |", ...rows].join("\n");
}

async function main() {
  assert.ok(EXECUTABLE && ROUNDS > 0 && LANES > 0 && SEED >= 0, "usage: node storm.mjs DAEMON_EXECUTABLE [--rounds N]");
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  // Whoever ends this process ends the browser and the daemons too.
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));
  const browser = await chromium.launch({ executablePath, headless: true, chromiumSandbox: false, args: FLAGS,
    handleSIGINT: false, handleSIGTERM: false });
  const times = new Map();
  const failures = [];
  let next = 0;
  console.log(`Chromium ${browser.version()}, ${ROUNDS} rounds, seed ${SEED}`);
  const lane = async () => {
    while (next < ROUNDS) {
      const round = new Round(next++, times);
      await round.run(browser).catch((error) => {
        failures.push(round.name);
        console.error(`failed: ${error.message}`);
      });
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(LANES, ROUNDS) }, lane));
  } finally {
    await browser.close();
  }
  console.log(table(times));
  console.log(`${ROUNDS - failures.length} passed, ${failures.length} failed`);
  process.exit(failures.length > 0 ? 1 : 0);
}

await main();
