// simple-peer over client.js. How to use it, and what it does not do: docs/recipes.md.

/** An offer waits so many seconds for a device whose network is cut. */
const TTL = 30;
/** So many connections, asked for by others, at once. */
const MAX_PEERS = 64;

/**
 * `onPeer(peer, from)`: the device `from` calls. Gives `call(user, device)`, which gives a `SimplePeer`. `options` are those of SimplePeer, such as
 * `config` with the ICE servers.
 */
export function simplePeers(signal, SimplePeer, onPeer, options = {}) {
  const peers = new Map();
  const keyOf = (user, device, id) => JSON.stringify([user, device, id]);

  const create = ({ user, device }, id, initiator) => {
    const key = keyOf(user, device, id), peer = new SimplePeer({ ...options, initiator });
    let count = 0;
    peers.set(key, peer);
    peer.on("close", () => peers.delete(key));
    peer.on("signal", async (data) => {
      const message = { id, number: count++, data };
      const outcome = await signal.send(user, device, "simple-peer", message, { ttl: TTL }).catch((error) => error);
      const arrives = outcome === "delivered" || outcome === "held";
      // What is lost later, such as one more candidate, ends no connection.
      if (!arrives && !peer.connected) peer.destroy(outcome instanceof Error ? outcome : new Error(outcome));
    });
    return peer;
  };

  signal.on("message:simple-peer", ({ from, json }) => {
    const { id, number, data } = json();
    if (!from?.device || typeof id !== "string" || !data) return;
    const key = keyOf(from.user, from.device, id);
    // Only the first message of a connection begins one: others are for a page that is gone.
    if (number === 0 && data.type === "offer" && !peers.has(key) && peers.size < MAX_PEERS) onPeer(create(from, id, false), from);
    const peer = peers.get(key);
    if (peer && !peer.destroyed) peer.signal(data);
  });

  return (user, device) => create({ user, device }, String(crypto.getRandomValues(new BigUint64Array(1))[0]), true);
}
