// A room over client.js: the user is the room, and the device is the peer. Every peer has a call with every other one (a mesh).
// The rules are in docs/recipes.md.

/**
 * Joins the room `signal.user` as the peer `signal.device`.
 *
 * `onCall(call)`: there is a call with one more peer, `call.peer.device`. Add your tracks and channels to it; its `bye` is the end.
 * `onPeers(peers)`: the other peers of the room have changed.
 * `onText(peer, text)`: a peer has said something to all.
 */
export function join(signal, { onCall = () => {}, onPeers = () => {}, onText = () => {} }) {
  const room = signal.user, me = signal.device;
  const calls = new Map();
  let peers = new Set();

  const begin = (call) => {
    const { device } = call.peer;
    if (calls.get(device) === call) return;
    calls.set(device, call);
    call.on("state", () => settle(device));
    call.on("bye", () => calls.get(device) === call && calls.delete(device));
    onCall(call);
  };

  // A peer whose stream is cut keeps a call that is connected: only its way to the daemon may be broken.
  const settle = (device) => {
    const call = calls.get(device);
    if (call?.state === "waiting" && !peers.has(device)) call.close();
  };

  const changed = (devices, arrived) => {
    const before = peers;
    peers = new Set(devices.filter((device) => device !== me));
    // If the other side calls at the same time, that is the same call.
    for (const device of arrived) if (peers.has(device)) begin(signal.call(room, device));
    for (const device of before) settle(device);
    onPeers([...peers]);
  };

  const watch = signal.watch(room);
  watch.on("devices", ({ devices }) => changed(devices, devices));
  watch.on("online", ({ device }) => changed([...peers, device], [device]));
  watch.on("offline", ({ device }) => changed([...peers].filter((peer) => peer !== device), []));

  const off = [
    signal.on("call", (call) => {
      // Anybody may call a device. Only those in the room are answered.
      if (call.peer.user !== room) return call.reject();
      call.accept();
      begin(call);
    }),
    signal.on("message:room", ({ from, data }) => {
      // A broadcast comes to the peer that sent it as well.
      if (from?.user === room && from.device !== me) onText(from.device, data);
    }),
  ];

  return {
    /** Says something to all, also to peers without a call. Gives the peers that got it. */
    async say(text) {
      const { delivered } = await signal.broadcast(room, "room", text);
      return delivered.filter((device) => device !== me);
    },

    /** Who is connected is in the room, so this closes the signal and with it all calls. */
    leave() {
      off.forEach((stop) => stop());
      signal.close();
    },
  };
}
