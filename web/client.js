// The browser helper of backend-signal: signalling, watching devices, and WebRTC calls that survive reloads and cut networks.
// Served as it is written. Types: client.d.ts. What calls say to each other: docs/calls.md.
//
// A minifier shortens the names of variables, so the state is in closures. Names of properties that begin with `_` are internal: it may
// shorten them too. Reading order: createSignal (what a page uses), createCall, createChannel; below them createLink (which tab has the
// streams), createStream (an EventSource), createApi (requests).

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
// States of a signal, a call or a channel.
const CONNECTING = "connecting", LIVE = "live", RECONNECTING = "reconnecting", SUPERSEDED = "superseded", CLOSED = "closed";
const UNAUTHORISED = "unauthorised", MUTE = [SUPERSEDED, UNAUTHORISED];
const RINGING = "ringing", WAITING = "waiting", CONNECTED = "connected", OPEN = "open";
const EVENTS = "signal.ping signal.end signal.ready signal.devices signal.online signal.offline message call";
const READY = "signal.ready", UNKNOWN_SESSION = "unknown_session", PEER_RELOADED = "peer_reloaded";

/** Resolves at the first `signal.ready`. Rejects when the server refuses, or on abort. */
export const connect = (options = {}) => new Promise((resolve, reject) => createSignal(options, resolve, reject));

const createSignal = (options, resolve, reject) => {
  const [on, emit] = createEmitter(), api = createApi(options);
  const queues = new Map(), calls = new Map(), watches = new Set(), names = new Set(options.events);
  let { iceServers } = options, ice = iceServers, state = CONNECTING;
  const rtc = () => ({ iceServers, ...options.rtc });

  const signal = {
    state,
    user: null,
    device: null,

    // An EventSource hears only names that it was told.
    on(name, listener) {
      if (name.startsWith("message:")) link._want("names", names.add(name.slice(8)));
      if (name === "call") queueMicrotask(() => calls.forEach(announce));
      return on(name, listener);
    },

    // Sends to one device keep their order.
    async send(user, device, ...message) {
      if (!device) throw new TypeError("no device");
      const path = pathOf(user, device), queue = queues.get(path) ?? { _length: 0 };
      if (queue._length >= MAX_QUEUED) return "full";
      queues.set(path, queue);
      queue._length++;
      const sent = Promise.resolve(queue._last).then(() => post(user, device, ...message));
      queue._last = sent.catch(() => {}).then(() => --queue._length || queues.delete(path));
      return (await sent)[0];
    },

    async broadcast(user, ...message) {
      const [outcome, { delivered = [] }] = await post(user, null, ...message);
      return { outcome, delivered };
    },

    async devices(user) {
      const answer = await api._ask(pathOf(user));
      if (answer.status !== 200) throw failure(answer);
      return answer.body;
    },

    // All watches share one stream.
    watch(users) {
      const [on, _emit] = createEmitter();
      const close = () => {
        watches.delete(watch);
        watched();
      };
      const watch = { users: [users].flat(), on, close, _emit };
      if (new Set([...watches, watch].flatMap(usersOf)).size > MAX_USERS) throw new RangeError(`over ${MAX_USERS} users`);
      watches.add(watch);
      for (const user of watch.users) {
        const devices = link._present(user);
        if (devices) queueMicrotask(() => watch._emit("devices", { user, devices }));
      }
      watched();
      return watch;
    },

    call(user, device) {
      if (user === signal.user && device === signal.device) throw new TypeError("a device cannot call itself");
      const path = pathOf(user, device), call = calls.get(path) ?? begin({ user, device }, path);
      call.accept();
      return call;
    },

    takeOver: () => link._takeOver(),

    close: () => become(CLOSED),
  };

  const usersOf = ({ users }) => users;
  const watched = () => link._want("users", [...watches].flatMap(usersOf));

  const post = async (user, device, event, data, { ttl, ...options } = {}) => {
    const sent = { user, device, event: event ?? null, data, ttl };
    emit("sending", sent);
    const answer = await api._ask(pathOf(user, device), { ...options, body: JSON.stringify({ data, event }), ttl });
    const outcome = (sent.outcome = outcomeOf(answer));
    sent.status = answer.status;
    emit("sent", sent);
    if (outcome === "refused") throw failure(answer);
    return [outcome, answer.body];
  };

  const become = (next, error) => {
    const before = state;
    if (before === CLOSED) return;
    signal.state = state = next;
    if (next === LIVE || next === SUPERSEDED) resolve(signal);
    if (next === CLOSED) {
      calls.forEach((call) => call.close());
      link._close();
      error ??= options.signal?.reason ?? new DOMException(next, "AbortError");
    }
    if (error) reject(error);
    if (next !== before) emit("state", next);
  };

  const receive = (frame, value) => {
    const { event, stream, id } = frame;
    emit("frame", frame);
    if (!value) return;
    if (stream === "devices") {
      for (const watch of watches) if (!value.user || watch.users.includes(value.user)) watch._emit(event.slice(7), value);
    } else if (event === READY) {
      const { continuity } = value;
      signal.user = value.user;
      signal.device = value.device;
      emit("ready", value);
      // The first of a page (`new`) begins anew, a later one only if messages were lost (`broken`).
      if (continuity !== "resumed") calls.forEach((call) => call._restart(continuity === "new"));
    } else if (!event.startsWith("signal.")) {
      const { from, data, sent_at: sentAt } = value, name = event === "message" ? null : event;
      if (event === "call") hearCall(from, parse(data));
      emit(name ? `message:${name}` : event, { event: name, data, from, sentAt: new Date(sentAt), id, json: () => JSON.parse(data) });
    }
  };

  const hearCall = (from, message) => {
    if (!from?.device || message?.v !== 1 || !message.session) return;
    const path = pathOf(from.user, from.device);
    let call = calls.get(path);
    if (!call) {
      if (message.description?.type !== "offer" || link._elsewhere(path)) return;
      // For a page that is gone.
      if (message.peer) return say(from, { v: 1, session: random(), seq: 1, peer: message.session, bye: UNKNOWN_SESSION });
      if (calls.size >= MAX_RINGING) return;
      call = begin(from, path);
    }
    call._receive(message);
    announce(call);
  };

  // A call waits for the first listener.
  const announce = (call) => {
    if (call.state === RINGING && !call._announced) call._announced = emit("call", call);
  };

  const begin = (peer, path) => {
    const own = () => link._want("calls", [...calls.keys()].filter((path) => calls.get(path).pc));
    const call = createCall(signal, peer, pathOf(signal.user, signal.device) < path, {
      _say: (message) => say(peer, message),
      _rtc: rtc,
      _ice: () => (ice ||= fetchIce()),
      _begun: own,
      _ended: () => calls.delete(path) && own(),
    });
    calls.set(path, call);
    return call;
  };

  // A repeat does no harm: it has the same `seq`. Never rejects.
  const say = async ({ user, device }, message) =>
    MUTE.includes(state) || signal.send(user, device, "call", message, { ttl: CALL_TTL, repeat: true }).catch((error) => error);

  // The ICE servers: once for all calls, and again before they expire.
  const fetchIce = async () => {
    const { status, body } = await api._ask("ice", { wait: 3_000 }).catch(() => ({}));
    // 404: none is configured. After another failure the next call asks again.
    if (status !== 200) return void (ice = status === 404);
    iceServers = body.iceServers;
    calls.forEach(({ pc }) => pc?.setConfiguration(rtc()));
    setTimeout(() => (ice = calls.size && fetchIce()), Math.min(body.expires_in * 900, 2e9));
  };

  const link = createLink(api, options.shared && navigator.locks, receive, become, (path) => calls.get(path)?._taken());
  const { signal: abort } = options;
  listen(abort, "abort", signal.close);
  if (abort?.aborted) return signal.close();
  for (const name in options.on) signal.on(name, options.on[name]);
  link._want("names", names);
  link._start();
};

/**
 * A call with one device: perfect negotiation over call messages (docs/calls.md). `pc` is replaced when the peer has reloaded or
 * ICE cannot be repaired. The tracks and channels of the app come back in the new one.
 */
const createCall = (signal, peer, polite, { _say, _rtc, _ice, _begun, _ended }) => {
  const [on, emit] = createEmitter();
  const tracks = new Map(), channels = new Map();
  // `session` is ours, `theirs` the peer's that it is paired with. `offered`: the `seq` of the first message with the open offer.
  let session = random(), theirs, seq = 0, offered, heard = {};
  // Messages that wait for `accept`. Candidates that wait to be sent, and that wait for their offer.
  let kept = [], local = [], remote = [];
  let work = Promise.resolve(), state = RINGING, watch, pc, needed, timer, collecting, connected, tries = 0;

  const call = {
    state,
    from: peer,
    peer,
    on,

    accept() {
      if (state !== RINGING) return;
      watch = signal.watch(peer.user);
      watch._emit = (name, { device, devices = [device], late }) => {
        if (!devices.includes(peer.device)) return;
        if (name === "offline") leave();
        else if (name === "online" || state === WAITING) again();
        // A list after a loss does not show whether the peer has reloaded.
        else if (late && connected) nudge();
      };
      become(CONNECTING);
      renew();
      _begun();
      run(_ice);
      for (const message of kept) run(() => handle(message));
    },

    close(reason = CLOSED) {
      if (state === CLOSED) return;
      tell({ bye: reason }, theirs ?? kept[0]?.session);
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
      const { session, seq, description, bye } = message;
      if (session === heard.session && seq <= heard.seq) return;
      heard = message;
      if (state !== RINGING) run(() => handle(message));
      else if (description?.type === "offer") kept = [message];
      else if (session !== kept[0]?.session) return;
      else if (bye) end(bye);
      else if (kept.length < MAX_CANDIDATES) kept.push(message);
    },

    _restart: (anew) => run(() => restart("messages_lost", anew)),

    // Another tab of a shared link has the call.
    _taken: () => pc || end("answered_elsewhere"),
  };

  const channelOf = (label, init, pc) => {
    const channel = createChannel(label, init, up, () => channels.delete(label));
    channels.set(label, channel);
    if (pc) channel._connect(pc);
    return channel;
  };

  // One step at a time. So no RTCPeerConnection is closed while a step waits for it: that would never end.
  const run = (step) => {
    work = work.then(() => pc && step()).catch((error) => pc && emit("error", error));
  };

  const restart = (why, anew) => {
    emit("restart", why);
    if (!anew) return nudge();
    // Without tracks and channels of our own only the peer can offer.
    if (theirs && !(tracks.size + channels.size)) tell({ bye: UNKNOWN_SESSION });
    renew();
  };

  // Begins a session, with the app's tracks and channels. The browser then asks for an offer.
  const renew = () => {
    // The app may have closed the call when it heard of the restart.
    if (state === CLOSED) return;
    drop();
    session = random();
    theirs = needed = undefined;
    seq = 0;
    local = [];
    const mine = (call.pc = pc = new RTCPeerConnection(_rtc()));
    const hear = (name, act) => listen(mine, name, (event) => mine === pc && act(event));
    hear("negotiationneeded", () => {
      needed = true;
      // The answer to an offer of the peer may have served as well.
      run(() => needed && stable() && offer());
    });
    hear("icecandidate", ({ candidate }) => candidate && collect(candidate));
    hear("track", (event) => emit("track", event));
    hear("datachannel", ({ channel: link }) => {
      const known = channels.get(link.label);
      const channel = known ?? channelOf(link.label);
      channel._add(link);
      if (!known) emit("channel", channel);
    });
    hear("signalingstatechange", changed);
    hear("connectionstatechange", () => {
      changed();
      if (pc?.connectionState === "failed") check();
    });
    for (const [track, streams] of tracks) pc.addTrack(track, ...streams);
    channels.forEach((channel) => channel._connect(pc));
    if (state === CONNECTED) become(RECONNECTING);
    arm();
  };

  const drop = () => {
    channels.forEach((channel) => channel._disconnect());
    pc = pc?.close();
  };

  const stable = () => pc.signalingState === "stable";
  const offering = () => pc?.signalingState === "have-local-offer";
  const up = () => pc?.connectionState === CONNECTED;

  const describe = () => {
    needed = false;
    return pc.setLocalDescription();
  };

  // Makes an offer, or repeats the open one.
  const offer = async () => {
    if (stable()) {
      offered = seq + 1;
      await describe();
    }
    if (offering()) tell({ description: pc.localDescription });
  };

  const tell = async (body, to = theirs) => {
    const mine = session;
    const outcome = await _say({ v: 1, session, seq: ++seq, peer: to, ...body });
    if (mine !== session || !pc) return;
    if (outcome?.status && outcome.status !== 401) {
      emit("error", outcome);
      end("refused");
    } else if (outcome === "delivered") present();
    else if (/^(held|not_connected)$/.test(outcome)) leave();
  };

  const collect = (candidate) => {
    local.push(candidate);
    collecting ??= setTimeout(async () => {
      // What comes while a message is on its way goes with the next one.
      while (local.length && pc) await tell({ candidates: local.splice(0) });
      collecting = undefined;
    }, COLLECT_MS);
  };

  const handle = async ({ session: from, seq: number, peer: to, answers, description, candidates, bye }) => {
    const isOffer = description?.type === "offer", anew = from !== theirs;
    // For an earlier session of ours. Who offers has to begin anew.
    if (to && to !== session) return isOffer && tell({ bye: UNKNOWN_SESSION }, from);
    if (bye != null) {
      if (!to && anew) return;
      return bye === UNKNOWN_SESSION ? restart(PEER_RELOADED, true) : end(bye);
    }
    present();
    if (isOffer) {
      // Glare, and ours stands. The peer may be a new page that has not seen it.
      if (offering() && !polite && !(anew && theirs)) return anew && offer();
      if (anew) {
        if (theirs) emit("restart", PEER_RELOADED);
        if (seq) renew();
      }
      await pair(from, description);
      await describe();
      tell({ answers: number, description: pc.localDescription });
    } else if (description?.type === "answer" && offering() && !(answers < offered)) {
      if (theirs && anew) return restart(PEER_RELOADED, true);
      await pair(from, description);
    }
    if (Array.isArray(candidates)) remote = [...remote, ...candidates.map((candidate) => [from, candidate])].slice(-MAX_CANDIDATES);
    // They may come before their offer. The browser refuses those of an offer that we ignored.
    if (!pc?.remoteDescription) return;
    for (const [of, candidate] of remote.splice(0)) {
      if (of === theirs) await pc.addIceCandidate(candidate).catch(() => {});
      else remote.push([of, candidate]);
    }
  };

  const pair = (from, description) => {
    if (!theirs) tries = 0;
    theirs = from;
    return pc.setRemoteDescription(description);
  };

  const again = () => {
    tries = 0;
    disarm();
    nudge();
  };

  // Asks whether the peer knows this session: repeats the open offer, or offers an ICE restart.
  const nudge = () => {
    if (!pc) return;
    if (offering()) run(offer);
    else if (pc.remoteDescription) pc.restartIce();
    arm();
  };

  const changed = () => {
    if (up()) {
      connected = true;
      become(CONNECTED);
      if (stable()) {
        tries = 0;
        return disarm();
      }
    } else if (state === CONNECTED) become(RECONNECTING);
    arm();
  };

  const disarm = () => {
    timer = clearTimeout(timer);
  };

  const arm = () => {
    timer ??= setTimeout(check, Math.min(CHECK_MS * 2 ** tries, MOST_MS));
  };

  // Not connected for too long, or an offer has no answer.
  const check = () => {
    disarm();
    const failed = theirs && !up() && state !== WAITING;
    // Without a stream of our own no answer can come.
    tries = signal.state === LIVE ? tries + 1 : 0;
    if (failed && tries && (tries > 2 || stable())) run(() => restart("ice_failed", tries > 2));
    else if (tries) nudge();
    arm();
  };

  const leave = () => up() || become(WAITING);

  const present = () => {
    if (state === WAITING) become(connected ? RECONNECTING : CONNECTING);
  };

  const become = (next) => {
    if (state === next || state === CLOSED) return;
    call.state = state = next;
    emit("state", next);
  };

  const end = (reason) => {
    if (state === CLOSED) return;
    drop();
    _ended();
    disarm();
    channels.forEach((channel) => channel.close());
    watch?.close();
    become(CLOSED);
    emit("bye", `${reason}`);
  };

  return call;
};

/**
 * A data channel that outlives its RTCDataChannel. While it is not open, what is sent waits. Both sides may have made one with this
 * label: both are heard, and sends go over the one that opened first, so they stay in order.
 */
const createChannel = (label, init, isUp, gone) => {
  const links = new Set(), wait = createTimer();
  const isOpen = (link) => link?.readyState === OPEN;
  let out, queue = [], queued = 0, state = CONNECTING;

  const channel = new (class extends EventTarget {
    label = label;
    binaryType = "arraybuffer";
    readyState = state;

    get bufferedAmount() {
      return queued + (out?.bufferedAmount ?? 0);
    }

    send(data) {
      if (state === CLOSED) throw new DOMException(CLOSED, "InvalidStateError");
      if (isOpen(out)) return out.send(data);
      const size = queued + (data.size ?? data.byteLength ?? `${data}`.length);
      if (size > MAX_BUFFERED) throw new DOMException("too much waits", "OperationError");
      queued = size;
      queue.push(data);
    }

    close() {
      if (state === CLOSED) return;
      links.forEach((link) => link.close());
      channel._disconnect();
      become(CLOSED);
      gone();
      fire(new Event("close"));
    }

    _connect(pc) {
      channel._add(pc.createDataChannel(label, init));
    }

    _add(link) {
      links.add(link);
      link.binaryType = channel.binaryType;
      const hear = (name, act) => listen(link, name, (event) => links.has(link) && act(event));
      hear(OPEN, opened);
      hear("message", ({ data }) => fire(new MessageEvent("message", { data })));
      hear("close", () => {
        links.delete(link);
        if (link !== out) return;
        out = undefined;
        opened();
        if (out) return;
        become(CONNECTING);
        // The peer has closed it, or is gone: then a new connection follows.
        wait(() => isUp() && channel.close(), PATIENCE_MS);
      });
      opened();
    }

    _disconnect() {
      wait();
      links.clear();
      out = undefined;
      if (state === OPEN) become(CONNECTING);
    }
  })();

  const opened = () => {
    out ??= [...links].find(isOpen);
    // One that closes takes nothing more, also before its event `close`.
    if (!isOpen(out)) return;
    wait();
    for (const data of queue.splice(0)) out.send(data);
    queued = 0;
    if (state === OPEN) return;
    become(OPEN);
    fire(new Event(OPEN));
  };

  const become = (next) => {
    channel.readyState = state = next;
  };

  const fire = (event) => channel.dispatchEvent(event);
  listen(channel, "open message close", (event) => channel[`on${event.type}`]?.(event));
  return channel;
};

/**
 * The device's stream, and one for all watches. With `shared` all tabs of an origin have one pair: the tab that holds a Web Lock
 * tells the others over a BroadcastChannel. When it goes, the next gets the lock, and resumes from the last cursor.
 */
const createLink = (api, locks, onFrame, onState, taken) => {
  const name = `backend-signal ${api._url("", api._caller)}`, me = random(), stop = new AbortController(), { signal } = stop;
  // What the tabs want: event names, users to watch, and the calls that they have.
  const mine = { names: [], users: [], calls: [] }, tabs = new Map([[me, mine]]);
  const channel = locks && new BroadcastChannel(name);
  let streams = [], users = [], live;
  // What a later tab has to know.
  let past = { present: new Map() };

  const lock = (name, act) => locks.request(name, { signal }, act).catch(() => {});
  const closed = () => new Promise((resolve) => listen(signal, "abort", resolve));
  const all = (what) => [...tabs.values()].flatMap((wants) => wants[what]);

  const post = (message) => {
    if (signal.aborted) return;
    channel?.postMessage(message);
    hear(message);
  };

  const tell = (ask) => post({ tab: me, wants: mine, ask });

  // Does what all tabs want. Watches while the device's own stream is live.
  const spread = () => {
    const [own, watch] = streams;
    own?._listen();
    const next = live ? [...new Set(all("users"))].sort().slice(0, MAX_USERS) : [];
    if (next.join("\n") === users.join("\n")) return;
    users = next;
    past.present = new Map();
    watch._close();
    if (users[0]) watch._open();
  };

  const lead = () => {
    const own = createStream(api, "subscribe", () => ({ format: "envelope", ...api._caller }), (state, error) => {
      live = state === LIVE || (live && state === RECONNECTING);
      spread();
      post({ state, error });
    }, past.cursor);
    const watch = createStream(api, "devices", () => ({ user: users }), (_, error) => error && post({
      frame: { stream: "devices", event: "signal.error", data: JSON.stringify({ status: error.status, ...error.body }), id: "" },
    }));
    streams = [own, watch];
    const wake = ({ type }) => streams.forEach((stream) => stream._wake(type));
    listen(globalThis, "online pageshow pagehide visibilitychange", wake, { signal });
    if (!MUTE.includes(past.state)) own._open();
    return closed();
  };

  const hear = ({ frame, state, error, before, tab, wants, ask, takeOver }) => {
    const { present } = past, [own] = streams;
    if (frame) {
      const { stream, event, id, late } = frame, value = parse(frame.data);
      if (event === READY) past.frame = frame;
      if (stream === "subscribe") past.cursor = id || past.cursor;
      else if (value?.user) {
        // Keeps the lists for watches to come.
        const { user, device, devices = present.get(user) ?? [] } = value;
        value.late = late;
        const others = devices.filter((other) => other !== device);
        present.set(user, event === "signal.online" ? [...others, device] : others);
      }
      onFrame(frame, value);
    }
    if (state) {
      past.state = state;
      past.error = error;
      onState(state, error && failure(error));
    }
    if (before && !past.state) hear((past = before));
    if (takeOver && own) {
      api._renew();
      own._open(false, true);
    }
    if (!tab) return;
    // The lock of a tab is free when the tab is gone.
    if (!tabs.has(tab)) lock(name + tab, () => tabs.delete(tab) && spread());
    tabs.set(tab, wants);
    wants.calls.forEach(taken);
    spread();
    if (!ask || tab === me) return;
    tell();
    if (own) channel.postMessage({ before: past });
  };

  if (channel) channel.onmessage = ({ data }) => hear(data);
  api._names = () => all("names");
  api._frame = (frame) => post({ frame });
  api._answered = () => streams.forEach((stream) => stream._hurry());
  return {
    _start() {
      if (!locks) return lead();
      lock(name + me, closed);
      lock(name, lead);
      tell(true);
    },
    _want(what, list) {
      mine[what] = [...list];
      tell();
    },
    _takeOver: () => post({ takeOver: true }),
    _present: (user) => past.present.get(user),
    _elsewhere: (path) => all("calls").includes(path),
    _close() {
      stop.abort();
      channel?.close();
      streams.forEach((stream) => stream._close());
    },
  };
};

/** An EventSource that comes back, with a new ticket where tokens are used. */
const createStream = (api, path, query, onState, cursor) => {
  const wait = createTimer();
  let source, turn = 0, failures = 0, deadline, earliest, wanted, late, everLive = cursor, probed, renewed;

  const stop = () => {
    wait();
    source = source?.close();
    deadline = earliest = 0;
    late = wanted;
    return ++turn;
  };

  const begin = () => {
    stop();
    onState(everLive ? RECONNECTING : CONNECTING);
    return turn;
  };

  const close = () => {
    stop();
    wanted = late = false;
  };

  // Without a word for so long the stream is dead.
  const feed = (ms) => {
    deadline = Date.now() + ms;
    wait(again, ms);
  };

  // Comes back after a random part of the backoff.
  const again = (least = 0) => {
    begin();
    earliest = Date.now() + Math.max(least, 1e3);
    probed = false;
    wait(open, least + Math.random() * Math.min(BACKOFF_MS * 2 ** failures++, MOST_MS));
  };

  // `probe` asks first, because an EventSource does not say why it was refused. `anew`: without a cursor, to take over.
  const open = async (probe, anew) => {
    const mine = begin();
    if (anew) cursor = undefined;
    wanted = true;
    feed(OPEN_MS);
    try {
      const ticket = await api._ticket();
      const url = api._url(path, { ...query(), heartbeat: api._heartbeat, ticket, last_event_id: cursor });
      // With our cursor a probe takes the device from no newer page.
      const answer = probe && (await api._once(url, { headers: { accept: "text/event-stream" } }, true));
      if (mine !== turn) return;
      if (answer) return answer.status === 200 ? open() : refused(answer);
      source = new EventSource(url, { withCredentials: api._credentials === "include" });
      source.onerror = ({ target }) => {
        if (target === source) target.readyState < 2 || probed ? again() : open((probed = true));
      };
      hearNames();
    } catch (error) {
      // The request for the ticket has already tried another token.
      renewed = true;
      if (mine === turn) refused(error);
    }
  };

  const hearNames = () => listen(source, `${EVENTS} ${api._names().join(" ")}`, hear);

  // An event without data is the EventSource's own, such as `open`.
  const hear = ({ target, type, data, lastEventId }) => {
    if (target !== source || !data) return;
    const value = parse(data), ready = type === READY, ended = type === "signal.end";
    cursor = lastEventId || cursor;
    if (ready) api._silence = value.heartbeat_ms * 1.5 + 2_000;
    if (!ended) {
      failures = renewed = 0;
      probed = false;
      feed(api._silence);
    }
    api._frame({ stream: path, event: type, data, id: lastEventId, late });
    if (target !== source) return;
    if (ready || type === "signal.devices") {
      everLive = true;
      onState(LIVE);
      api._answered();
    }
    if (!ended) return;
    const { reason } = value;
    if (reason === SUPERSEDED) finish(reason);
    else if (reason === "expired") {
      api._renew();
      again();
    } else again(2_000);
  };

  const finish = (state, error) => {
    close();
    onState(state, error);
  };

  const refused = (error) => {
    const { status, retryAfter } = error, forbidden = status === 401 || status === 403;
    if (status === 204) finish(SUPERSEDED);
    else if (forbidden && !renewed && (renewed = api._renew())) open();
    else if (forbidden) finish(UNAUTHORISED, error);
    // A wrong address is said at once. A stream that was live had a right one.
    else if (!everLive && /^4(?!08|29)/.test(status)) finish(CLOSED, error);
    else again(retryAfter * 1_000 || 0);
  };

  return {
    _open: open,
    _close: close,
    _listen: hearNames,

    // After a second, an answer to something else ends the backoff.
    _hurry: () => earliest && wait(open, earliest - Date.now()),

    // The network or the page is back.
    _wake(type) {
      if (!wanted) return;
      if (type === "pagehide") stop();
      else if (type === "online" || Date.now() > deadline) open();
    },
  };
};

/** Requests to the daemon, with the caller's identity. */
const createApi = ({ url: base, token, user, device, shared, credentials, heartbeat }) => {
  const root = new URL(base ?? ".", base ? globalThis.location?.href : import.meta.url);
  if (!root.pathname.endsWith("/")) root.pathname += "/";
  if (device === undefined) device = deviceId(shared);
  let known;

  const api = {
    _credentials: credentials,
    _heartbeat: heartbeat,
    _silence: 60_000,

    // The parameters that name the caller.
    _caller: { user, device },

    _url(path, query) {
      const url = new URL(path, root);
      for (const name in query) for (const one of [query[name] ?? []].flat()) url.searchParams.append(name, one);
      return url.href;
    },

    // Forgets the token. Is there another?
    _renew() {
      known = undefined;
      return token?.call;
    },

    // For one stream. None where the daemon reads no tokens.
    async _ticket() {
      if (!token) return;
      const answer = await api._ask("ticket", { body: "{}", wait: 0 });
      if (!/200|404/.test(answer.status)) throw answer;
      return answer.body.ticket;
    },

    // Status 0: no answer. The request may have arrived.
    async _once(url, { signal, ...init }, probe) {
      const timeout = AbortSignal.timeout(PATIENCE_MS);
      try {
        const answer = await fetch(url, { ...init, credentials, signal: AbortSignal.any([timeout, signal ?? timeout]) });
        const { status, headers } = answer;
        if (status < 500 && status !== 429) api._answered();
        const body = probe && status === 200 ? void answer.body.cancel() : parse(await answer.text());
        return { status, body: body ?? {}, retryAfter: headers.get("retry-after") };
      } catch {
        signal?.throwIfAborted();
        return { status: 0, body: {} };
      }
    },

    // Repeats after 429 and 503 for as long as `wait` allows; with `repeat` also when the outcome is unknown.
    async _ask(path, { body, ttl, signal, repeat = !body, wait = PATIENCE_MS } = {}) {
      const end = Date.now() + wait;
      for (let failures = 0, renewed; ; failures++) {
        known ??= Promise.resolve(token?.call ? token() : token);
        known.catch(api._renew);
        const bearer = await known;
        const headers = {
          ...(body && { "content-type": "application/json" }),
          ...(ttl && { ttl: `${ttl}` }),
          ...(bearer && { authorization: `Bearer ${bearer}` }),
        };
        const answer = await api._once(api._url(path, api._caller), { method: body ? "POST" : "GET", body, headers, signal });
        const { status, retryAfter } = answer;
        if (status === 401 && !renewed && (renewed = api._renew())) continue;
        const again = [429, 503, repeat && 504, repeat && 0].includes(status);
        const pause = retryAfter * 1_000 || Math.random() * Math.min(500 * 2 ** failures, 4_000);
        if (!again || Date.now() + pause > end) return answer;
        await new Promise((resolve) => {
          setTimeout(resolve, pause);
          listen(signal, "abort", resolve);
        });
      }
    },
  };
  return api;
};

/** `on` gives a function that removes the listener, `emit` says whether there is one. */
const createEmitter = () => {
  const listeners = new Set();
  const on = (...entry) => {
    listeners.add(entry);
    return () => void listeners.delete(entry);
  };
  const emit = (name, value) =>
    [...listeners].filter(([of]) => of === name).map(([, listener]) => {
      try {
        listener(value);
      } catch (error) {
        console.error(error);
      }
    }).length;
  return [on, emit];
};

/** A timer of which the last start counts. Without arguments it stops. */
const createTimer = () => {
  let timer;
  return (act, ms) => {
    clearTimeout(timer);
    timer = act && setTimeout(act, ms);
  };
};

const listen = (target, names, act, options) => {
  for (const name of names.split(" ")) target?.addEventListener?.(name, act, options);
};

/** What became of a send. `refused`: it can never succeed as it is. */
const outcomeOf = ({ status, body: { code } }) =>
  ({ 0: "unknown", 200: "delivered", 202: "held", 504: "unknown", 429: code === "mailbox_full" ? "full" : "limited" })[status] ??
  (code === "not_connected" ? code : status < 500 ? "refused" : "unavailable");

/** An error with the status and the code of an answer. */
const failure = ({ status, body: { detail = `status ${status}`, code } }) =>
  Object.assign(new Error(detail), { name: "SignalError", status, code });

const parse = (text) => {
  try {
    return JSON.parse(text);
  } catch {}
};

/** The path of a device, or of all of a user. Also the key and the order of addresses. */
const pathOf = (user, device) => `user/${encodeURIComponent(user)}/device${device ? `/${encodeURIComponent(device)}` : "s"}`;
const random = () => crypto.getRandomValues(new BigUint64Array(1))[0].toString(16).padStart(16, 0);

let tab;

/** Not in the session storage while the page lives: a duplicated tab, which gets a copy, makes its own. A reload finds it. */
const deviceId = (shared) => {
  const key = "backend-signal.device";
  try {
    if (shared) return (localStorage[key] ??= random());
    if (tab) return tab;
    const storage = sessionStorage, take = () => delete storage[key];
    tab = storage[key];
    take();
    listen(globalThis, "pagehide freeze", () => (storage[key] = tab), true);
    listen(globalThis, "pageshow resume", take, true);
  } catch {}
  return (tab ??= random());
};
