// The cable between one page and the daemon: a TCP proxy that can be cut, can go silent, and can heal. The packets of calls
// follow it (media.mjs).

import net from "node:net";

export class Cable {
  #daemon;
  #server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => this.#connect(socket));
  /** Each connection of the page with its connection to the daemon. */
  #pairs = new Set();
  #state = "whole";

  /** `daemon()` gives the port of the daemon at the time of each connection. */
  constructor(daemon) {
    this.#daemon = daemon;
  }

  async start() {
    await new Promise((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}`;
    return this;
  }

  get whole() {
    return this.#state === "whole";
  }

  toString() {
    const side = ({ readyState, bytesRead, bytesWritten }) => `${readyState} ${bytesRead}/${bytesWritten}`;
    const pairs = [...this.#pairs].map(({ page, daemon }) => `${side(page)} - ${side(daemon)}`);
    return `the cable ${this.url} is ${this.#state}, with ${pairs.join(", ") || "nothing"}`;
  }

  /** Resets all connections, and every new one. */
  cut() {
    this.#state = "cut";
    for (const { page, daemon } of this.#pairs) {
      page.resetAndDestroy();
      daemon.resetAndDestroy();
    }
  }

  /** Takes new connections and passes nothing on, neither bytes nor ends, in both directions. */
  silence() {
    this.#state = "silent";
    for (const { page, daemon } of this.#pairs) {
      page.pause();
      daemon.pause();
    }
  }

  /** Passes on what waits, and everything from now on. */
  heal() {
    this.#state = "whole";
    for (const { page, daemon } of this.#pairs) {
      if (page.destroyed || daemon.destroyed) {
        page.resetAndDestroy();
        daemon.resetAndDestroy();
      } else {
        page.resume();
        daemon.resume();
      }
    }
  }

  stop() {
    this.cut();
    this.#server.close();
  }

  #connect(page) {
    if (this.#state === "cut") return page.resetAndDestroy();
    const daemon = net.connect({ port: this.#daemon(), host: "127.0.0.1", allowHalfOpen: true });
    const pair = { page, daemon };
    this.#pairs.add(pair);
    this.#pipe(pair, page, daemon);
    this.#pipe(pair, daemon, page);
    if (this.#state === "silent") daemon.pause();
    else page.resume();
    return undefined;
  }

  /** Passes bytes, the end and the reset of one side to the other. Without `pipe`, which would resume a silent socket. */
  #pipe(pair, from, to) {
    from.setNoDelay(true);
    from.on("data", (chunk) => to.write(chunk));
    from.on("end", () => to.end());
    from.on("error", () => to.resetAndDestroy());
    from.on("close", () => {
      // A silent cable tells nobody before it heals.
      if (this.#state !== "silent") to.destroySoon();
      if (to.destroyed) this.#pairs.delete(pair);
    });
  }
}
