// The real executable, on one port through all its restarts.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { within } from "./wait.mjs";

/** The daemons that run. None outlives this process. */
const running = new Set();
process.once("exit", () => running.forEach((child) => child.kill("SIGKILL")));

export class Daemon {
  #executable;
  #options;
  #child;
  #log = [];
  port = 0;

  constructor(executable, options) {
    this.#executable = executable;
    this.#options = options;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Starts it, on the port that it had before. */
  async start() {
    const child = spawn(this.#executable, ["--host", "127.0.0.1", ...this.#options],
      { env: { PORT: String(this.port) }, stdio: ["ignore", "ignore", "pipe"] });
    this.#child = child;
    running.add(child);
    child.once("exit", () => running.delete(child));
    let text = "";
    await within("the daemon listens", new Promise((resolve, reject) => {
      child.stderr.setEncoding("utf8").on("data", (chunk) => {
        text += chunk;
        const lines = text.split("\n");
        text = lines.pop();
        this.#log.push(...lines);
        const address = lines.map((line) => /listening on 127\.0\.0\.1:(\d+)/.exec(line)).find(Boolean);
        if (address) resolve(this.port = Number(address[1]));
      });
      child.once("exit", () => reject(new Error(`the daemon has ended: ${this.log()}`)));
      child.once("error", reject);
    }));
    return this;
  }

  /** Ends it by a signal. SIGTERM must end it with 0. */
  async stop(signal) {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", (code, by) => resolve({ code, by })));
    child.kill(signal);
    const end = await within(`the daemon ends by ${signal}`, ended);
    assert.deepEqual(end, signal === "SIGTERM" ? { code: 0, by: null } : { code: null, by: signal });
  }

  log() {
    return this.#log.slice(-20).join("\n");
  }
}
