// The media path between two pages: UDP relays that pass packets only while both cables are whole. A cut cable cuts calls too.

import dgram from "node:dgram";

export class Media {
  #whole;
  #sockets = [];
  /** The port of the relay for each address. */
  #relays = new Map();

  /** `whole()` says whether packets pass. */
  constructor(whole) {
    this.#whole = whole;
  }

  /** The page gets this text in place of the peer's: each UDP candidate of IPv4 leads to a relay, all others are left out. */
  async reroute(text) {
    const lines = [];
    for (const line of text.split("\r\n")) {
      const candidate = /^((?:a=)?candidate:\S+ \d udp \d+ )(\d+\.\d+\.\d+\.\d+) (\d+)(.*)$/i.exec(line);
      if (candidate) lines.push(`${candidate[1]}127.0.0.1 ${await this.#relay(candidate[2], Number(candidate[3]))}${candidate[4]}`);
      else if (!/^(a=)?candidate:/.test(line)) lines.push(line);
    }
    return lines.join("\r\n");
  }

  stop() {
    for (const socket of this.#sockets) socket.close();
  }

  /** A port which passes what comes to this address, and what comes back. */
  #relay(address, port) {
    const key = `${address}:${port}`;
    if (!this.#relays.has(key)) this.#relays.set(key, this.#open(address, port));
    return this.#relays.get(key);
  }

  async #open(address, port) {
    const outward = new Map();
    const relay = await this.#bind(async (packet, from) => {
      const key = `${from.address}:${from.port}`;
      // The peer sees one address for each that sends.
      if (!outward.has(key)) outward.set(key, this.#bind((answer) => this.#pass(relay, answer, from.port, from.address)));
      this.#pass(await outward.get(key), packet, port, address);
    });
    return relay.address().port;
  }

  #pass(socket, packet, port, address) {
    // An address may have gone: that is a lost packet.
    if (this.#whole()) socket.send(packet, port, address, () => {});
  }

  async #bind(receive) {
    const socket = dgram.createSocket("udp4", receive);
    this.#sockets.push(socket);
    await new Promise((resolve) => socket.bind(0, resolve));
    return socket;
  }
}
