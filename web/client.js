// The browser helper of backend-signal: signalling, watching devices, and WebRTC calls that survive reloads and cut networks.
// Served as it is written. Types: client.d.ts. What calls say to each other: docs/calls.md.
//
// Closures and not classes, because a minifier shortens names of variables only. Reading order: createSignal (what a page uses),
// createCall, createChannel; below them createLink (which tab has the streams), createStream (an EventSource), createApi (requests).

// For an answer, and for the repeats of a send. A channel that the peer closed while the connection stays up so long was closed on
// purpose.
const PATIENCE_MS = 10_000;
// For an EventSource to open.
const OPEN_MS = 15_000;
// A reconnect waits a random part of the backoff (full jitter), a call negotiates again after the check time. Both double with each
// failure.
const BACKOFF_MS = 4_000, CHECK_MS = 5_000, MOST_MS = 30_000;
// Candidates of this time share a message.
const COLLECT_MS = 20;
// In seconds: a short cut of the peer's network loses no call message.
const CALL_TTL = 30;
const MAX_USERS = 64, MAX_QUEUED = 256, MAX_RINGING = 64, MAX_CANDIDATES = 256, MAX_BUFFERED = 1 << 20;
const MUTE = /^(superseded|unauthorised)$/;
const UNKNOWN_SESSION = "unknown_session", PEER_RELOADED = "peer_reloaded";

/** Resolves at the first `signal.ready`. Rejects when the server refuses, or on abort. */
export const connect = (options = {}) => new Promise((resolve, reject) => createSignal(options, resolve, reject));

function createSignal(options, resolve, reject) {
  const [on, emit] = createEmitter();
  const api = createApi(options);
  const queues = new Map(), calls = new Map(), watches = new Set(), names = new Set(options.events);
  let { iceServers } = options, ice = !!iceServers, iceTimer;
  const rtc = () => ({ iceServers, ...options.rtc });

  const signal = {
    state: "connecting",
    user: null,
    device: null,

    // An EventSource hears only names that it was told.
    on(name, listener) {
      if (name.startsWith("message:")) link.want("names", names.add(name.slice(8)));
      const off = on(name, listener);
      if (name === "call") queueMicrotask(() => calls.forEach(announce));
      return off;
    },

    // Sends to one device keep their order.
    async send(user, device, event, data, more) {
      if (!device) throw new TypeError("no device");
      const path = pathOf(user, device), queue = queues.get(path) ?? { length: 0 };
      if (queue.length >= MAX_QUEUED) return "full";
      queues.set(path, queue);
      queue.length++;
      const sent = Promise.resolve(queue.last).then(() => post(path, { user, device }, event, data, more));
      queue.last = sent.catch(() => {}).then(() => --queue.length || queues.delete(path));
      return (await sent)[0];
    },

    async broadcast(user, event, data, more) {
      const [outcome, body] = await post(pathOf(user), { user, device: null }, event, data, more);
      return { outcome, delivered: body.delivered ?? [] };
    },

    async devices(user) {
      const answer = await api.ask("GET", pathOf(user), { repeat: true, wait: PATIENCE_MS });
      if (answer.status !== 200) throw failure(answer);
      return answer.body;
    },

    // All watches share one stream.
    watch(users) {
      const [on, emit] = createEmitter();
      const watch = { users: [users].flat(), on, _emit: emit, close: () => void (watches.delete(watch) && watched()) };
      if (new Set([...watches, watch].flatMap(({ users }) => users)).size > MAX_USERS) throw new RangeError(`over ${MAX_USERS} users`);
      watches.add(watch);
      for (const user of watch.users) {
        const devices = link.present(user);
        if (devices) queueMicrotask(() => emit("devices", { user, devices }));
      }
      watched();
      return watch;
    },

    call(user, device) {
      if (user === signal.user && device === signal.device) throw new TypeError("a device cannot call itself");
      const call = calls.get(pathOf(user, device)) ?? begin(user, device);
      call.accept();
      return call;
    },

    takeOver: () => signal.state === "closed" || link.takeOver(),

    close: () => become("closed"),
  };

  const watched = () => link.want("users", [...watches].flatMap(({ users }) => users));

  async function post(path, to, event, data, { ttl, signal, repeat } = {}) {
    const headers = { "content-type": "application/json", ...(ttl && { ttl: `${ttl}` }) };
    const body = JSON.stringify({ data, event: event ?? undefined });
    const sent = { ...to, event: event ?? null, data, ttl };
    emit("sending", sent);
    const answer = await api.ask("POST", path, { headers, body, signal, repeat, wait: PATIENCE_MS });
    const outcome = outcomeOf(answer);
    emit("sent", Object.assign(sent, { outcome, status: answer.status }));
    if (outcome === "refused") throw failure(answer);
    return [outcome, answer.body];
  }

  function become(state, error) {
    const before = signal.state;
    if (before === "closed") return;
    signal.state = state;
    if (state === "live" || state === "superseded") resolve(signal);
    if (state === "closed") {
      calls.forEach((call) => call.close());
      clearTimeout(iceTimer);
      link.close();
      error ??= options.signal?.reason ?? new DOMException(state, "AbortError");
    }
    if (error) reject(error);
    if (state !== before) emit("state", state);
  }

  function receive(frame, value) {
    const { event, stream, id } = frame;
    emit("frame", frame);
    if (!value) return;
    if (stream === "devices") {
      for (const watch of watches) if (!value.user || watch.users.includes(value.user)) watch._emit(event.slice(7), value);
    } else if (event === "signal.ready") {
      signal.user = value.user;
      signal.device = value.device;
      emit("ready", value);
      // The first of a page (`new`) begins anew, a later one only if messages were lost (`broken`).
      if (value.continuity !== "resumed") calls.forEach((call) => call._restart(value.continuity === "new"));
    } else if (!event.startsWith("signal.")) {
      const { from, data, sent_at: sentAt } = value, name = event === "message" ? null : event;
      if (event === "call") hearCall(from, parse(data));
      emit(name ? `message:${name}` : event, { event: name, data, from, sentAt: new Date(sentAt), id, json: () => JSON.parse(data) });
    }
  }

  function hearCall(from, message) {
    if (!from?.device || message?.v !== 1 || typeof message.session !== "string") return;
    const path = pathOf(from.user, from.device);
    let call = calls.get(path);
    if (!call) {
      if (message.description?.type !== "offer" || link.elsewhere(path)) return;
      // For a page that is gone.
      if (message.peer) return say(from, { v: 1, session: random(), seq: 1, peer: message.session, bye: UNKNOWN_SESSION });
      if (calls.size >= MAX_RINGING) return;
      call = begin(from.user, from.device);
    }
    call._receive(message);
    announce(call);
  }

  // A call waits for the first listener.
  function announce(call) {
    if (call.state === "ringing" && !call._announced) call._announced = emit("call", call);
  }

  function begin(user, device) {
    const path = pathOf(user, device);
    const own = () => link.want("calls", [...calls.keys()].filter((path) => calls.get(path).pc));
    const call = createCall({
      signal,
      peer: { user, device },
      polite: pathOf(signal.user, signal.device) < path,
      say: (message) => say(call.peer, message),
      rtc,
      ice: () => (ice ||= fetchIce()),
      begun: own,
      ended: () => calls.delete(path) && own(),
    });
    calls.set(path, call);
    return call;
  }

  // A repeat does no harm: it has the same `seq`. Never rejects.
  const say = async ({ user, device }, message) =>
    MUTE.test(signal.state) || signal.send(user, device, "call", message, { ttl: CALL_TTL, repeat: true }).catch((error) => error);

  // The ICE servers: once for all calls, and again before they expire.
  async function fetchIce() {
    const { status, body } = await api.ask("GET", "ice", { repeat: true, wait: 3_000 }).catch(() => ({}));
    // 404: none is configured. After another failure the next call asks again.
    if (status !== 200) return void (ice = status === 404);
    iceServers = body.iceServers;
    calls.forEach(({ pc }) => pc?.setConfiguration(rtc()));
    if (signal.state !== "closed") iceTimer = setTimeout(() => (ice = calls.size && fetchIce()), Math.min(body.expires_in * 900, 2e9));
  }

  const taken = (path) => calls.get(path)?._taken();
  const link = createLink(api, { frame: receive, state: become, taken }, options.shared && navigator.locks);
  options.signal?.addEventListener("abort", signal.close);
  if (options.signal?.aborted) return signal.close();
  for (const [name, listener] of Object.entries(options.on ?? {})) signal.on(name, listener);
  link.want("names", names);
  link.start();
}

/**
 * A call with one device: perfect negotiation over call messages (docs/calls.md). `pc` is replaced when the peer has reloaded or
 * ICE cannot be repaired. The tracks and channels of the app come back in the new one.
 */
function createCall({ signal, peer, polite, say, rtc, ice, begun, ended }) {
  const [on, emit] = createEmitter();
  const tracks = new Map(), channels = new Map();
  // `session` is ours, `theirs` the peer's that it is paired with. `offered`: the `seq` of the first message with the open offer.
  let session = random(), theirs, seq = 0, offered, heard = {};
  // Messages that wait for `accept`. Candidates that wait to be sent, and that wait for their offer.
  let kept = [], local = [], remote = [];
  let work = Promise.resolve(), watch, pc, needed, timer, collecting, connected, tries = 0;

  const call = {
    state: "ringing",
    from: peer,
    peer,
    on,

    accept() {
      if (call.state !== "ringing") return;
      watch = signal.watch([peer.user]);
      const here = (name, act) => watch.on(name, ({ device, devices = [device], late }) => devices.includes(peer.device) && act(late));
      here("online", again);
      // A list after a loss does not show whether the peer has reloaded.
      here("devices", (late) => (call.state === "waiting" ? again() : late && connected && nudge()));
      here("offline", () => up() || become("waiting"));
      become("connecting");
      renew();
      begun();
      run(ice);
      for (const message of kept) run(() => handle(message));
    },

    close(reason = "closed") {
      if (call.state === "closed") return;
      const to = theirs ?? kept[0]?.session;
      if (seq || to) tell({ bye: reason }, to);
      end(reason);
    },

    reject: (reason = "rejected") => call.close(reason),

    addTrack(track, ...streams) {
      tracks.set(track, streams);
      pc?.addTrack(track, ...streams);
    },

    removeTrack(track) {
      tracks.delete(track);
      pc?.getSenders().forEach((sender) => sender.track === track && pc.removeTrack(sender));
    },

    channel: (label, init) => channels.get(label) ?? channelOf(label, init, pc),

    _receive(message) {
      if (message.session === heard.session && message.seq <= heard.seq) return;
      heard = message;
      if (call.state !== "ringing") run(() => handle(message));
      else if (message.description?.type === "offer") kept = [message];
      else if (message.session !== kept[0]?.session) return;
      else if (message.bye) end(`${message.bye}`);
      else if (kept.length < MAX_CANDIDATES) kept.push(message);
    },

    _restart: (anew) => run(() => restart("messages_lost", anew)),

    // Another tab of a shared link has the call.
    _taken: () => pc || end("answered_elsewhere"),
  };

  function channelOf(label, init, pc) {
    const channel = createChannel(label, init, up, () => channels.delete(label));
    channels.set(label, channel);
    if (pc) channel._connect(pc);
    return channel;
  }

  // One step at a time. So no RTCPeerConnection is closed while a step waits for it: that would never end.
  function run(step) {
    work = work.then(() => pc && step()).catch((error) => {
      if (pc) emit("error", error);
    });
  }

  function restart(why, anew) {
    emit("restart", why);
    if (!anew) return nudge();
    // Without tracks and channels of our own only the peer can offer.
    if (tracks.size + channels.size === 0 && theirs) tell({ bye: UNKNOWN_SESSION });
    renew();
  }

  // Begins a session, with the app's tracks and channels. The browser then asks for an offer.
  function renew() {
    drop();
    session = random();
    theirs = needed = undefined;
    seq = 0;
    local = [];
    const mine = (call.pc = pc = new RTCPeerConnection(rtc()));
    const listen = (name, act) => mine.addEventListener(name, (event) => mine === pc && act(event));
    listen("negotiationneeded", () => {
      needed = true;
      // The answer to an offer of the peer may have served as well.
      run(() => mine === pc && needed && stable() && offer());
    });
    listen("icecandidate", ({ candidate }) => candidate && collect(candidate));
    listen("track", (event) => emit("track", event));
    listen("datachannel", ({ channel: link }) => {
      const known = channels.get(link.label);
      const channel = known ?? channelOf(link.label);
      channel._add(link);
      if (!known) emit("channel", channel);
    });
    listen("signalingstatechange", changed);
    listen("connectionstatechange", () => {
      changed();
      if (pc?.connectionState === "failed") check();
    });
    for (const [track, streams] of tracks) pc.addTrack(track, ...streams);
    channels.forEach((channel) => channel._connect(pc));
    if (call.state === "connected") become("reconnecting");
    arm();
  }

  function drop() {
    channels.forEach((channel) => channel._disconnect());
    pc?.close();
    pc = undefined;
  }

  const stable = () => pc.signalingState === "stable";
  const offering = () => pc.signalingState === "have-local-offer";
  const up = () => pc?.connectionState === "connected";

  // Makes an offer, or repeats the open one.
  async function offer() {
    const mine = pc;
    if (stable()) {
      needed = false;
      offered = seq + 1;
      await pc.setLocalDescription();
    }
    if (mine === pc && offering()) tell({ description: pc.localDescription });
  }

  async function tell(body, to = theirs) {
    const mine = session;
    const outcome = await say({ v: 1, session, seq: ++seq, peer: to, ...body });
    if (mine !== session || !pc) return;
    if (outcome?.status && outcome.status !== 401) {
      emit("error", outcome);
      end("refused");
    } else if (outcome === "delivered") present();
    else if (/^(held|not_connected)$/.test(outcome)) up() || become("waiting");
  }

  function collect(candidate) {
    local.push(candidate);
    collecting ??= setTimeout(async () => {
      // What comes while a message is on its way goes with the next one.
      while (local.length && pc) await tell({ candidates: local.splice(0) });
      collecting = undefined;
    }, COLLECT_MS);
  }

  async function handle({ session: from, seq: number, peer: to, answers, description, candidates, bye }) {
    const isOffer = description?.type === "offer";
    if (to && to !== session) {
      // For an earlier session of ours. Who offers has to begin anew.
      return isOffer && tell({ bye: UNKNOWN_SESSION }, from);
    }
    if (bye !== undefined) {
      if (!to && from !== theirs) return;
      return bye === UNKNOWN_SESSION ? restart(PEER_RELOADED, true) : end(`${bye}`);
    }
    present();
    if (isOffer) await handleOffer(from, number, description);
    else if (description?.type === "answer" && offering() && !(answers < offered)) {
      if (theirs && theirs !== from) return restart(PEER_RELOADED, true);
      pair(from);
      await pc.setRemoteDescription(description);
    }
    if (Array.isArray(candidates)) remote = [...remote, ...candidates.map((candidate) => [from, candidate])].slice(-MAX_CANDIDATES);
    // They may come before their offer. The browser refuses those of an offer that we ignored.
    if (!pc?.remoteDescription) return;
    const due = remote.filter(([of]) => of === theirs);
    remote = remote.filter(([of]) => of !== theirs);
    for (const [, candidate] of due) await pc.addIceCandidate(candidate).catch(() => {});
  }

  async function handleOffer(from, number, description) {
    const anew = from !== theirs;
    if (offering() && !polite && !(anew && theirs)) {
      // Glare, and ours stands. The peer may be a new page that has not seen it.
      return anew && offer();
    }
    if (anew) {
      const paired = theirs;
      if (seq) renew();
      pair(from);
      if (paired) emit("restart", PEER_RELOADED);
    }
    await pc.setRemoteDescription(description);
    needed = false;
    await pc.setLocalDescription();
    tell({ answers: number, description: pc.localDescription });
  }

  function pair(from) {
    if (!theirs) tries = 0;
    theirs = from;
  }

  function again() {
    tries = 0;
    disarm();
    nudge();
  }

  // Asks whether the peer knows this session: repeats the open offer, or offers an ICE restart.
  function nudge() {
    if (!pc) return;
    if (offering()) run(offer);
    else if (pc.remoteDescription) pc.restartIce();
    arm();
  }

  function changed() {
    if (up()) {
      connected = true;
      become("connected");
      if (stable()) {
        tries = 0;
        return disarm();
      }
    } else if (call.state === "connected") become("reconnecting");
    arm();
  }

  function disarm() {
    clearTimeout(timer);
    timer = undefined;
  }

  function arm() {
    timer ??= setTimeout(check, Math.min(CHECK_MS * 2 ** tries, MOST_MS));
  }

  // Not connected for too long, or an offer has no answer.
  function check() {
    disarm();
    const failed = theirs && !up() && call.state !== "waiting";
    // Without a stream of our own no answer can come.
    tries = signal.state === "live" ? tries + 1 : 0;
    if (failed && tries && (tries > 2 || stable())) run(() => restart("ice_failed", tries > 2));
    else if (tries) nudge();
    arm();
  }

  function present() {
    if (call.state === "waiting") become(connected ? "reconnecting" : "connecting");
  }

  function become(state) {
    if (call.state === state || call.state === "closed") return;
    call.state = state;
    emit("state", state);
  }

  function end(reason) {
    if (call.state === "closed") return;
    drop();
    ended();
    disarm();
    clearTimeout(collecting);
    channels.forEach((channel) => channel.close());
    watch?.close();
    become("closed");
    emit("bye", reason);
  }

  return call;
}

/**
 * A data channel that outlives its RTCDataChannel. While it is not open, what is sent waits. Both sides may have made one with this
 * label: both are heard, and sends go over the one that opened first, so they stay in order.
 */
function createChannel(label, init, isUp, gone) {
  const links = new Set();
  let out, queue = [], queued = 0, timer;

  const channel = Object.assign(new EventTarget(), {
    label,
    binaryType: "arraybuffer",
    readyState: "connecting",

    send(data) {
      if (channel.readyState === "closed") throw new DOMException("closed", "InvalidStateError");
      if (out) return out.send(data);
      const size = queued + (data.size ?? data.byteLength ?? `${data}`.length);
      if (size > MAX_BUFFERED) throw new DOMException("too much waits", "OperationError");
      queued = size;
      queue.push(data);
    },

    close() {
      if (channel.readyState === "closed") return;
      links.forEach((link) => link.close());
      channel._disconnect();
      channel.readyState = "closed";
      gone();
      fire(new Event("close"));
    },

    _connect: (pc) => channel._add(pc.createDataChannel(label, init)),

    _add(link) {
      links.add(link);
      link.binaryType = channel.binaryType;
      const listen = (name, act) => link.addEventListener(name, (event) => links.has(link) && act(event));
      listen("open", opened);
      listen("message", ({ data }) => fire(new MessageEvent("message", { data })));
      listen("close", () => {
        links.delete(link);
        if (link !== out) return;
        out = undefined;
        opened();
        if (out) return;
        channel.readyState = "connecting";
        // The peer has closed it, or is gone: then a new connection follows.
        timer = setTimeout(() => isUp() && channel.close(), PATIENCE_MS);
      });
      opened();
    },

    _disconnect() {
      clearTimeout(timer);
      links.clear();
      out = undefined;
      if (channel.readyState === "open") channel.readyState = "connecting";
    },
  });
  Object.defineProperty(channel, "bufferedAmount", { get: () => queued + (out?.bufferedAmount ?? 0) });

  function opened() {
    out ??= [...links].find(({ readyState }) => readyState === "open");
    if (!out || channel.readyState === "open") return;
    clearTimeout(timer);
    channel.readyState = "open";
    for (const data of queue.splice(0)) out.send(data);
    queued = 0;
    fire(new Event("open"));
  }

  const fire = (event) => channel.dispatchEvent(event);
  for (const type of ["open", "message", "close"]) channel.addEventListener(type, (event) => channel[`on${type}`]?.(event));
  return channel;
}

/**
 * The device's stream, and one for all watches. With `shared` all tabs of an origin have one pair: the tab that holds a Web Lock
 * tells the others over a BroadcastChannel. When it goes, the next gets the lock, and resumes from the last cursor.
 */
function createLink(api, told, shared) {
  const name = `backend-signal ${api.url("", api.caller())}`, me = random(), stop = new AbortController();
  // What the tabs want: event names, users to watch, and the calls that they have.
  const mine = { names: [], users: [], calls: [] }, tabs = new Map();
  const channel = shared && new BroadcastChannel(name);
  let own, watch, users = [], live;
  // What a later tab has to know.
  let past = { present: new Map() };

  const lock = (name, act) => shared.request(name, { signal: stop.signal }, act).catch(() => {});
  const closed = () => new Promise((resolve) => stop.signal.addEventListener("abort", resolve));
  const all = (what) => [mine, ...tabs.values()].flatMap((wants) => wants[what]);

  function post(message) {
    channel?.postMessage(message);
    hear(message);
  }

  function tell(ask) {
    if (stop.signal.aborted) return;
    channel?.postMessage({ tab: me, wants: mine, ask });
    spread();
  }

  // Does what all tabs want.
  function spread() {
    own?.listen();
    const next = [...new Set(all("users"))].sort().slice(0, MAX_USERS);
    if (next.join("\0") === users.join("\0")) return;
    users = next;
    rewatch();
  }

  // Watches while the device's own stream is live.
  function rewatch() {
    past.present = new Map();
    watch?.close();
    if (live && users.length) watch?.open();
  }

  function lead() {
    const frame = (frame) => post({ frame });
    own = createStream(api, "subscribe", frame, {
      query: () => ({ format: "envelope", ...api.caller() }),
      names: () => ["signal.ready", "message", "call", ...all("names")],
      cursor: past.cursor,
      state(state, error) {
        const was = live;
        live = state === "live" || (live && state === "reconnecting");
        if (live !== was) rewatch();
        post({ state, error });
      },
    });
    watch = createStream(api, "devices", frame, {
      query: () => ({ user: users }),
      names: () => ["signal.devices", "signal.online", "signal.offline"],
      state: (_, error) => error && frame({ stream: "devices", event: "signal.error", data: JSON.stringify({ status: error.status, ...error.body }), id: "" }),
    });
    const names = ["online", "pageshow", "pagehide", "visibilitychange"];
    api.answered = () => [own, watch].forEach((stream) => stream.hurry());
    names.forEach((name) => globalThis.addEventListener?.(name, wake, { signal: stop.signal }));
    spread();
    if (!MUTE.test(past.state)) own.open();
    return closed();
  }

  function wake({ type }) {
    if (type === "visibilitychange" && document.hidden) return;
    for (const stream of [own, watch]) stream.wake(type);
  }

  function hear({ frame, state, error, before, tab, wants, ask, takeOver }) {
    if (frame) {
      const { stream, event, id, late } = frame, value = parse(frame.data);
      if (event === "signal.ready") past.frame = frame;
      if (stream === "subscribe") past.cursor = id || past.cursor;
      else if (value?.user) note(event, Object.assign(value, { late }));
      told.frame(frame, value);
    }
    if (state) {
      Object.assign(past, { state, error });
      told.state(state, error && failure(error));
    }
    if (before && !past.state) hear((past = before));
    if (takeOver && own) {
      api.renew();
      own.open(false, true);
    }
    if (tab) meet(tab, wants, ask);
  }

  // Keeps the lists for watches to come.
  function note(event, { user, device, devices = past.present.get(user) ?? [] }) {
    const others = devices.filter((other) => other !== device);
    past.present.set(user, event === "signal.online" ? [...others, device].sort() : others);
  }

  function meet(tab, wants, ask) {
    // The lock of a tab is free when the tab is gone.
    if (!tabs.has(tab)) lock(name + tab, () => tabs.delete(tab) && spread());
    tabs.set(tab, wants);
    wants.calls.forEach(told.taken);
    spread();
    if (!ask) return;
    tell();
    if (own) channel.postMessage({ before: past });
  }

  if (channel) channel.onmessage = ({ data }) => hear(data);
  return {
    start() {
      if (!shared) return lead();
      lock(name + me, closed);
      lock(name, lead);
      tell(true);
    },
    want(what, list) {
      mine[what] = [...list];
      tell();
    },
    takeOver: () => post({ takeOver: true }),
    present: (user) => past.present.get(user),
    elsewhere: (path) => [...tabs.values()].some(({ calls }) => calls.includes(path)),
    close() {
      stop.abort();
      channel?.close();
      own?.close();
      watch?.close();
    },
  };
}

/** An EventSource that comes back, with a new ticket where tokens are used. */
function createStream(api, path, onFrame, { query, names, cursor, state: onState }) {
  let source, timer, turn = 0, failures = 0, deadline, earliest, wanted, late, everLive = cursor, probed, renewed;

  function stop() {
    clearTimeout(timer);
    source?.close();
    source = undefined;
    deadline = earliest = 0;
    late = wanted;
    return ++turn;
  }

  function close() {
    stop();
    wanted = late = false;
  }

  // Without a word for so long the stream is dead.
  function feed(ms) {
    clearTimeout(timer);
    deadline = Date.now() + ms;
    timer = setTimeout(() => again(), ms);
  }

  // Comes back after a random part of the backoff.
  function again(least = 0) {
    stop();
    earliest = Date.now() + Math.max(least, 1e3);
    probed = false;
    onState(everLive ? "reconnecting" : "connecting");
    timer = setTimeout(() => open(), least + Math.random() * Math.min(BACKOFF_MS * 2 ** failures++, MOST_MS));
  }

  // `probe` asks first, because an EventSource does not say why it was refused. `anew`: without a cursor, to take over.
  async function open(probe, anew) {
    const mine = stop();
    if (anew) cursor = undefined;
    wanted = true;
    onState(everLive ? "reconnecting" : "connecting");
    feed(OPEN_MS);
    try {
      const ticket = await api.ticket();
      const url = api.url(path, { ...query(), heartbeat: api.heartbeat, ticket, last_event_id: cursor });
      // With our cursor a probe takes the device from no newer page.
      const answer = probe && (await api.once(url, { headers: { accept: "text/event-stream" } }, undefined, true));
      if (mine !== turn) return;
      if (answer) return answer.status === 200 ? open() : refused(answer);
      source = new EventSource(url, { withCredentials: api.credentials === "include" });
      source.onerror = ({ target }) => {
        if (target !== source) return;
        if (target.readyState < 2 || probed) return again();
        probed = true;
        open(true);
      };
      listen();
    } catch (error) {
      // The request for the ticket has already tried another token.
      renewed = true;
      if (mine === turn) refused(error);
    }
  }

  function listen() {
    for (const name of ["signal.ping", "signal.end", ...names()]) /^(open|error)$/.test(name) || source?.addEventListener(name, hear);
  }

  function hear({ target, type, data, lastEventId }) {
    if (target !== source) return;
    const value = parse(data), ready = type === "signal.ready";
    cursor = lastEventId || cursor;
    if (ready) api.silence = value.heartbeat_ms * 1.5 + 2_000;
    if (type !== "signal.end") {
      failures = renewed = 0;
      probed = false;
      feed(api.silence);
    }
    onFrame({ stream: path, event: type, data, id: lastEventId, late });
    if (target !== source) return;
    if (ready || type === "signal.devices") {
      everLive = true;
      onState("live");
      api.answered();
    }
    if (type !== "signal.end") return;
    const { reason } = value;
    if (reason === "superseded") return finish(reason);
    if (reason === "expired") api.renew();
    again(reason === "expired" ? 0 : 2_000);
  }

  function finish(state, error) {
    close();
    onState(state, error);
  }

  function refused(error) {
    const { status, retryAfter = 0 } = error, forbidden = status === 401 || status === 403;
    if (status === 204) finish("superseded");
    else if (forbidden && !renewed && (renewed = api.renew())) open();
    else if (forbidden) finish("unauthorised", error);
    // A wrong address is said at once. A stream that was live had a right one.
    else if (!everLive && status >= 400 && status < 500 && status !== 408 && status !== 429) finish("closed", error);
    else again(retryAfter * 1_000);
  }

  // After a second, an answer to something else ends the backoff.
  function hurry() {
    if (!earliest) return;
    clearTimeout(timer);
    timer = setTimeout(() => open(), earliest - Date.now());
  }

  // The network or the page is back.
  function wake(type) {
    if (!wanted) return;
    if (type === "pagehide") stop();
    else if (type === "online" || Date.now() > deadline) open();
  }

  return { open, close, listen, wake, hurry };
}

/** Requests to the daemon, with the caller's identity. */
function createApi({ url: base, token, user, device, shared, credentials = "same-origin", heartbeat }) {
  const root = new URL(base ?? ".", base ? globalThis.location?.href : import.meta.url);
  if (!root.pathname.endsWith("/")) root.pathname += "/";
  if (device === undefined) device = deviceId(shared);
  let known;

  const api = {
    credentials,
    heartbeat,
    answered() {},
    silence: 60_000,

    // The parameters that name the caller.
    caller: () => ({ user, device }),

    url(path, query) {
      const url = new URL(path, root);
      for (const [name, value] of Object.entries(query)) {
        for (const one of [value ?? []].flat()) url.searchParams.append(name, one);
      }
      return url.href;
    },

    // Forgets the token. Is there another?
    renew() {
      known = undefined;
      return typeof token === "function";
    },

    // For one stream. None where the daemon reads no tokens.
    async ticket() {
      if (!token) return;
      const answer = await api.ask("POST", "ticket", {});
      if (answer.status === 200) return answer.body.ticket;
      if (answer.status !== 404) throw answer;
    },

    // Status 0: no answer. The request may have arrived.
    async once(url, init, signal, probe) {
      const timeout = AbortSignal.timeout(PATIENCE_MS);
      try {
        const answer = await fetch(url, { ...init, credentials, signal: signal ? AbortSignal.any([timeout, signal]) : timeout });
        const { status, headers } = answer;
        if (status < 500 && status !== 429) api.answered();
        const body = probe && status === 200 ? void answer.body?.cancel() : parse(await answer.text());
        return { status, body: body ?? {}, retryAfter: +headers.get("retry-after") || 0 };
      } catch {
        signal?.throwIfAborted();
        return { status: 0, body: {} };
      }
    },

    // Repeats after 429 and 503 for as long as `wait` allows; with `repeat` also when the outcome is unknown.
    async ask(method, path, { headers, body, signal, repeat, wait = 0 }) {
      const end = Date.now() + wait;
      for (let failures = 0, renewed; ; failures++) {
        known ??= Promise.resolve(typeof token === "function" ? token() : token);
        known.catch(api.renew);
        const bearer = await known;
        const all = bearer ? { ...headers, authorization: `Bearer ${bearer}` } : headers;
        const answer = await api.once(api.url(path, api.caller()), { method, body, headers: all }, signal);
        const { status, retryAfter = 0 } = answer;
        if (status === 401 && !renewed && (renewed = api.renew())) continue;
        const again = status === 429 || status === 503 || (repeat && (status === 0 || status === 504));
        const pause = retryAfter * 1_000 || Math.random() * Math.min(500 * 2 ** failures, 4_000);
        if (!again || Date.now() + pause > end) return answer;
        await new Promise((resolve) => {
          setTimeout(resolve, pause);
          signal?.addEventListener("abort", resolve);
        });
        signal?.throwIfAborted();
      }
    },
  };
  return api;
}

/** `on` gives a function that removes the listener, `emit` says whether there is one. */
function createEmitter() {
  let listeners = [];
  const on = (...entry) => {
    listeners.push(entry);
    return () => void (listeners = listeners.filter((other) => other !== entry));
  };
  const emit = (name, value) =>
    listeners.filter((entry) => entry[0] === name).map(([, listener]) => {
      try {
        listener(value);
      } catch (error) {
        console.error(error);
      }
    }).length;
  return [on, emit];
}

/** What became of a send. `refused`: it can never succeed as it is. */
function outcomeOf({ status, body: { code } }) {
  const outcome = { 0: "unknown", 200: "delivered", 202: "held", 504: "unknown" }[status];
  if (outcome) return outcome;
  if (code === "not_connected") return code;
  if (status === 429) return code === "mailbox_full" ? "full" : "limited";
  return status >= 500 ? "unavailable" : "refused";
}

/** An error with the status and the code of an answer. */
function failure(answer) {
  const { status, body: { detail = `status ${status}`, code } } = answer;
  return Object.assign(new Error(detail), { name: "SignalError", status, code });
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {}
}

/** The path of a device, or of all of a user. Also the key and the order of addresses. */
const pathOf = (user, device) => `user/${encodeURIComponent(user)}/device${device ? `/${encodeURIComponent(device)}` : "s"}`;
const random = () => [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => (byte + 256).toString(16).slice(1)).join("");

let tab;

/** Not in the session storage while the page lives: a duplicated tab, which gets a copy, makes its own. A reload finds it. */
function deviceId(shared) {
  const key = "backend-signal.device";
  try {
    if (shared) return (localStorage[key] ??= random());
    if (tab) return tab;
    tab = sessionStorage[key];
    const take = () => sessionStorage.removeItem(key);
    const leave = () => sessionStorage.setItem(key, tab);
    take();
    const events = { pagehide: leave, freeze: leave, pageshow: take, resume: take };
    for (const name in events) addEventListener(name, events[name], true);
  } catch {}
  return (tab ??= random());
}
