// A phone over client.js: it rings on all devices of a user, and stops on all of them when one answers. The rules are in
// docs/recipes.md.

/** The caller says so often that it still rings. A device that has not heard it for so long stops. */
const REPEAT_MS = 3_000, LOST_MS = 10_000;
/** So long the caller rings. */
const RING_MS = 45_000;
/** A device whose network is cut finds the end when it comes back within so many seconds. */
const TTL = 30;
/** So many ring at once, and so many are remembered when they are over. */
const MAX_RINGS = 8, MAX_OVER = 64;
const REASONS = ["answered", "rejected", "cancelled", "no_answer"];

/** `onRing(ring)`: somebody rings. Gives `{ ring(user) }`. Needs a device, so call it after `connect`. */
export function createPhone(signal, onRing) {
  const outgoing = new Map(), incoming = new Map(), over = new Map();
  const remember = (key, end) => over.set(key, end).size > MAX_OVER && over.delete(over.keys().next().value);
  const become = (ring, state) => {
    ring.state = state;
    ring.onstate?.(state);
  };

  /** The caller's side: `state` is `ringing`, then one of REASONS or `refused`. After `answered` there is `call`. */
  function ring(user) {
    const id = String(crypto.getRandomValues(new BigUint64Array(1))[0]), rung = new Set(), began = Date.now();
    const ring = { id, user, state: "ringing", call: undefined, onstate: undefined, cancel: () => end("cancelled") };
    let last = Promise.resolve(), timer;

    // One after the other: a device must not hear that it rings after it heard the end.
    const tell = (message) => last = last.catch(() => {}).then(() => signal.broadcast(user, "ring", { id, ...message }));
    const repeat = () => tell({ type: "ring" }).then(({ delivered }) => {
      delivered.forEach((device) => rung.add(device));
      if (ring.state !== "ringing") return;
      if (Date.now() - began > RING_MS) end("no_answer");
      else timer = setTimeout(repeat, REPEAT_MS);
    }).catch(() => ring.state === "ringing" && finish("refused", {}));

    const finish = (state, message) => {
      clearTimeout(timer);
      outgoing.delete(id);
      remember(id, message);
      become(ring, state);
    };
    // The first answer wins: later ones find the ring over.
    const end = async (reason, device) => {
      if (ring.state !== "ringing") return;
      const message = { type: "end", reason, device };
      finish(reason, message);
      // `tell` first: the device that has answered knows so before the call comes.
      const { delivered } = await tell(message).catch(() => ({ delivered: [] }));
      for (const other of rung) if (!delivered.includes(other)) post({ user, device: other }, id, message);
      if (!device) return;
      ring.call = signal.call(user, device);
      ring.oncall?.(ring.call);
    };
    outgoing.set(id, { user, end });
    repeat();
    return ring;
  }

  const post = (to, id, message) => signal.send(to.user, to.device, "ring", { id, ...message }, { ttl: TTL }).catch(() => {});

  /** The side that is rung: `state` is `ringing`, `answering`, then one of REASONS, `answered_elsewhere` or `lost`. */
  function begin(from, id, key) {
    let timer;
    const ring = {
      id, from, state: "ringing", call: undefined, onstate: undefined,
      answer() {
        if (ring.state !== "ringing") return;
        become(ring, "answering");
        post(from, id, { type: "answer" });
      },
      reject() {
        if (ring.state !== "ringing") return;
        end("rejected", { type: "reject" });
        post(from, id, { type: "reject" });
      },
    };
    const end = (state, said) => {
      clearTimeout(timer);
      incoming.delete(key);
      remember(key, said);
      if (state === "answered") ring.call = signal.call(from.user, from.device);
      become(ring, state);
    };
    incoming.set(key, {
      // The caller may not have got the answer.
      again() {
        clearTimeout(timer);
        timer = setTimeout(() => end("lost"), LOST_MS);
        if (ring.state === "answering") post(from, id, { type: "answer" });
      },
      end(reason, device) {
        const won = ring.state === "answering" && device === signal.device;
        end(reason === "answered" && !won ? "answered_elsewhere" : REASONS.includes(reason) ? reason : "lost");
      },
    });
    onRing(ring);
  }

  signal.on("message:ring", ({ from, data }) => {
    const { id, type, reason, device } = parse(data);
    // The daemon says who `from` is. A ring belongs to its caller: nobody else can end it.
    const own = from?.user === signal.user && from.device === signal.device;
    if (!from?.device || own || typeof id !== "string" || id.length > 64) return;
    const key = JSON.stringify([from.user, from.device, id]);
    if (type === "ring" && over.has(key)) {
      // The caller may not have got the refusal.
      if (over.get(key)) post(from, id, over.get(key));
    } else if (type === "ring") {
      if (!incoming.has(key) && incoming.size < MAX_RINGS) begin(from, id, key);
      incoming.get(key)?.again();
    } else if (type === "end") {
      if (!incoming.has(key)) remember(key);
      incoming.get(key)?.end(reason, device);
    } else if (type === "answer" || type === "reject") {
      const ring = outgoing.get(id);
      if (ring?.user === from.user) ring.end(...(type === "answer" ? ["answered", from.device] : ["rejected"]));
      // It is over, or this page has forgotten it.
      else if (!ring) post(from, id, over.get(id) ?? { type: "end", reason: "cancelled" });
    }
  });

  return { ring };
}

function parse(data) {
  try {
    return Object(JSON.parse(data));
  } catch {
    return {};
  }
}
