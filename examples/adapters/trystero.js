// Trystero over client.js. How to use it: docs/recipes.md.

import { createTopicStrategy } from "@trystero-p2p/core";

/** Messages for one peer wait so many seconds while its network is cut. */
const TTL = 30;
/** Peers announce themselves so often: one that comes back is found soon. */
const ANNOUNCE_MS = 10_000;
/** So many topics of peers are known, the newest: each page load has a new one. */
const MAX_DEVICES = 256;

/**
 * Gives Trystero's `joinRoom` for a signal whose user is shared by all who may meet, such as a room (docs/recipes.md): each peer is a device
 * of it.
 */
export function joinRoomOver(signal) {
  const place = signal.user;
  const listeners = new Map(), devices = new Map();

  signal.on("message:trystero", ({ from, json }) => {
    // A broadcast comes to the sender as well. Others than the devices of this user are strangers.
    if (from?.user !== place || from.device === signal.device) return;
    const { topic, self, payload } = json();
    devices.delete(self);
    devices.set(self, from.device);
    if (devices.size > MAX_DEVICES) devices.delete(devices.keys().next().value);
    listeners.get(topic)?.forEach((listener) => listener(topic, payload));
  });

  return createTopicStrategy({
    steadyAnnounceIntervalMs: ANNOUNCE_MS,

    init: () => signal,

    subscribeTopic(_, topic, listener) {
      const all = listeners.get(topic) ?? new Set();
      listeners.set(topic, all.add(listener));
      return () => all.delete(listener) && all.size === 0 && listeners.delete(topic);
    },

    async publishTopic(_, topic, payload, { kind, selfTopic: self }) {
      const message = { topic, self, payload }, device = devices.get(topic);
      if (kind === "announce") await signal.broadcast(place, "trystero", message);
      // A topic of one peer goes to its device alone. What is lost is made good by the next announcement.
      else if (device) await signal.send(place, device, "trystero", message, { ttl: TTL }).catch(console.warn);
    },
  });
}
