// The browser helper of backend-signal: signalling, watching devices, and WebRTC calls that survive reloads and cut networks.
// One ES module without dependencies, served as it is written. Types: client.d.ts. What calls send: docs/calls.md.
//
// Reading order: connect and Signal (what a page uses), Watch, Call, Channel, then what they stand on: Link and SharedLink (who
// holds the streams), Stream (one EventSource that comes back), Api (requests), Emitter.

/** How long a send is tried again after 429 and 503. */
const SEND_MS = 10_000;
/** How long one request may take. */
const ANSWER_MS = 10_000;
/** How long an EventSource may take to open. */
const OPEN_MS = 15_000;
/** Full jitter: a reconnect waits a random part of this. It doubles with each failure, up to the second figure. */
const BACKOFF_MS = [4_000, 30_000];
/** How long a call may take to connect before it negotiates again. It doubles with each attempt, up to the second figure. */
const CHECK_MS = [5_000, 30_000];
/** Candidates that appear within this time share a message. */
const COLLECT_MS = 20;
/** Seconds for which the server holds a call message while the peer has no stream: a short cut of its network loses nothing. */
const CALL_TTL = 30;
/** A channel that the peer closed while the connection stays up this long was closed on purpose. */
const CHANNEL_GONE_MS = 10_000;
const MAX_USERS = 64, MAX_QUEUED_SENDS = 256, MAX_RINGING = 64, MAX_CANDIDATES = 256, MAX_BUFFERED = 1 << 20;

/** Opens the stream of this device. Resolves at the first `signal.ready`; rejects when the server refuses, or on abort. */
export function connect(options = {}) {
  return new Promise((resolve, reject) => {
    const signal = new Signal(options);
    signal._settle = (error) => (error ? reject(error) : resolve(signal));
    if (options.signal?.aborted) signal.close();
  });
}

/** Why a request failed for good: `status` and `code` as in the server's answer. */
export class SignalError extends Error {
  constructor({ status = 0, body = {} }, text) {
    super(text ?? body.detail ?? body.title ?? `status ${status}`);
    this.name = "SignalError";
    this.status = status;
    this.code = body.code ?? "";
  }
}

/** Calls listeners by event name. A listener that throws does not stop the others. */
class Emitter {
  #listeners = new Map();

  /** Adds a listener. Returns a function that removes it. */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  _emit(name, value) {
    const listeners = [...(this.#listeners.get(name) ?? [])];
    for (const listener of listeners) {
      try {
        listener(value);
      } catch (error) {
        console.error(error);
      }
    }
    return listeners.length > 0;
  }
}

class Signal extends Emitter {
  state = "connecting";
  user = null;
  device = null;
  #options;
  #api;
  #link;
  #queues = new Map();
  #watches = new Set();
  /** The devices of the users that are watched now. */
  #present = new Map();
  #calls = new Map();
  #ice;
  #iceServers = [];
  #iceTimer;
  #abort = () => this.close();

  constructor(options) {
    super();
    this.#options = options;
    this.#api = new Api(options);
    const told = { frame: (frame) => this.#frame(frame), state: (state, error) => this.#become(state, error), taken: (keys) => this.#taken(keys) };
    this.#link = options.shared && globalThis.navigator?.locks ? new SharedLink(this.#api, told) : new Link(this.#api, told);
    this.#link.listen(options.events ?? []);
    this.#link.start();
    options.signal?.addEventListener("abort", this.#abort);
  }

  /** `message:NAME` also tells the stream to listen for that name: an EventSource hears only names that it was told. */
  on(name, listener) {
    const off = super.on(name, listener);
    if (name.startsWith("message:")) this.#link.listen([name.slice(8)]);
    if (name === "call") {
      for (const call of this.#calls.values()) {
        if (call._unannounced) queueMicrotask(() => this.#announce(call));
      }
    }
    return off;
  }

  /** Sends one message. Sends to one device keep their order. Resolves to an outcome; rejects when the request is wrong. */
  send(user, device, event, data, options = {}) {
    return this._send({ user, device }, event, data, options);
  }

  async _send(to, event, data, { ttl, signal, repeat }) {
    const key = keyOf(to);
    const queue = this.#queues.get(key) ?? { length: 0, tail: Promise.resolve() };
    if (queue.length >= MAX_QUEUED_SENDS) return "full";
    this.#queues.set(key, queue);
    queue.length += 1;
    const path = `user/${encodeURIComponent(to.user)}/device/${encodeURIComponent(to.device)}`;
    const sent = queue.tail.then(() => this.#post(path, event, data, { ttl, signal, repeat }));
    queue.tail = sent.catch(() => {});
    try {
      const answer = await sent;
      const outcome = outcomeOf(answer);
      this._emit("sent", { ...to, event: event ?? null, data, outcome, status: answer.status });
      return outcome;
    } finally {
      queue.length -= 1;
      if (queue.length === 0) this.#queues.delete(key);
    }
  }

  /** Sends to every connected device of a user. */
  async broadcast(user, event, data, options = {}) {
    const answer = await this.#post(`user/${encodeURIComponent(user)}/devices`, event, data, options);
    const outcome = outcomeOf(answer);
    const delivered = answer.body.delivered ?? [];
    this._emit("sent", { user, device: null, event: event ?? null, data, outcome, status: answer.status });
    return { outcome, delivered };
  }

  #post(path, event, data, { ttl, signal, repeat }) {
    const body = JSON.stringify({ data, event: event ?? undefined });
    const headers = { "content-type": "application/json", ...(ttl && { ttl: String(ttl) }) };
    return this.#api.request("POST", path, { body, headers, signal, repeat, wait: SEND_MS });
  }

  /** The connected devices of a user. */
  async devices(user) {
    const answer = await this.#api.request("GET", `user/${encodeURIComponent(user)}/devices`, { repeat: true, wait: SEND_MS });
    if (answer.status !== 200) throw new SignalError(answer);
    return answer.body;
  }

  /** Watches the devices of up to 64 users. All watches of a signal share one stream. */
  watch(users) {
    const watch = new Watch([users].flat(), () => {
      this.#watches.delete(watch);
      this.#watched();
    });
    this.#watches.add(watch);
    for (const user of watch.users) {
      const known = this.#present.get(user);
      if (known) queueMicrotask(() => watch._emit("devices", { user, devices: [...known] }));
    }
    try {
      this.#watched();
    } catch (error) {
      this.#watches.delete(watch);
      throw error;
    }
    return watch;
  }

  #watched() {
    const users = new Set([...this.#watches].flatMap((watch) => watch.users));
    if (users.size > MAX_USERS) throw new RangeError(`at most ${MAX_USERS} users can be watched`);
    for (const user of this.#present.keys()) if (!users.has(user)) this.#present.delete(user);
    this.#link.watch([...users]);
  }

  /** Calls a device, or gives the call that there is with it. */
  call(user, device) {
    const peer = { user, device };
    const known = this.#calls.get(keyOf(peer));
    if (known) {
      known.accept();
      return known;
    }
    if (user === this.user && device === this.device) throw new TypeError("a device cannot call itself");
    return this.#call(peer, false);
  }

  #call(peer, ringing) {
    const key = keyOf(peer);
    const call = new Call(this, peer, ringing, {
      polite: bytes(keyOf({ user: this.user, device: this.device })) < bytes(key),
      own: (own) => this.#link.own(key, own),
      ended: () => this.#calls.delete(key),
    });
    this.#calls.set(key, call);
    return call;
  }

  /** Opens the stream anew after `superseded` (or after `unauthorised`, with a new token): the other tab is superseded then. */
  takeOver() {
    if (this.state !== "closed") this.#link.takeOver();
  }

  /** Ends the calls, the watches and the stream. */
  close() {
    this.#become("closed");
  }

  #become(state, error) {
    if (this.state === "closed" || (state === this.state && state !== "live")) return;
    const changed = state !== this.state;
    this.state = state;
    if (state === "closed") {
      for (const call of this.#calls.values()) call.close();
      clearTimeout(this.#iceTimer);
      this.#link.close();
      this.#options.signal?.removeEventListener("abort", this.#abort);
      error ??= this.#options.signal?.reason ?? new DOMException("closed", "AbortError");
    }
    if (state === "live") this._settle();
    if (state === "closed" || state === "unauthorised") this._settle(error ?? new SignalError({}));
    if (changed) this._emit("state", state);
  }

  #frame(frame) {
    const { stream, event, data, id } = frame;
    this._emit("frame", frame);
    const value = parse(data);
    if (stream === "devices") return this.#presence(event.slice(7), value);
    if (event === "signal.ready") return this.#ready(value);
    if (event.startsWith("signal.") || !value) return;
    const { from, data: text, sent_at: sentAt } = value;
    if (event === "call") this.#callMessage(from, parse(text));
    const message = { event: event === "message" ? null : event, data: text, from, sentAt: new Date(sentAt), id, json: () => JSON.parse(text) };
    this._emit(event === "message" ? event : `message:${event}`, message);
  }

  /** A first `signal.ready` (`new`) begins anew; a later one renegotiates only if messages were lost (`broken`). */
  #ready(ready) {
    this.user = ready.user;
    this.device = ready.device;
    this._emit("ready", ready);
    if (ready.continuity === "resumed") return;
    for (const call of this.#calls.values()) call._restart("messages_lost", ready.continuity === "new");
  }

  #presence(event, value) {
    if (!value?.user) return;
    if (event === "devices") this.#present.set(value.user, new Set(value.devices));
    else this.#present.get(value.user)?.[event === "online" ? "add" : "delete"](value.device);
    for (const watch of this.#watches) {
      if (watch.users.includes(value.user)) watch._emit(event, value);
    }
  }

  #callMessage(from, message) {
    if (!from?.device || message?.v !== 1 || typeof message.session !== "string") return;
    const key = keyOf(from);
    let call = this.#calls.get(key);
    if (!call) {
      const offers = message.description?.type === "offer";
      if (!offers || this.#link.owned(key)) return;
      // An offer for a page that is gone: its sender has to begin anew.
      if (message.peer) return this._say(from, { v: 1, session: random(), seq: 1, peer: message.session, bye: "unknown_session" });
      if ([...this.#calls.values()].filter((call) => call.state === "ringing").length >= MAX_RINGING) return;
      call = this.#call(from, true);
      call._unannounced = true;
    }
    call._receive(message);
    this.#announce(call);
  }

  /** A call that comes before anybody listens waits for the first listener. */
  #announce(call) {
    if (call._unannounced && call.state === "ringing") call._unannounced = !this._emit("call", call);
  }

  /** Another tab of a shared stream has taken these calls. */
  #taken(keys) {
    for (const key of keys) this.#calls.get(key)?._taken();
  }

  /** Sends a call message. A repeat does no harm: it has the same `seq`. Never rejects. */
  _say(peer, message) {
    if (this.state === "superseded" || this.state === "unauthorised") return Promise.resolve("unavailable");
    return this._send(peer, "call", message, { ttl: CALL_TTL, repeat: true }).catch((error) => error);
  }

  /** The configuration for an RTCPeerConnection, as far as it is known now. */
  _rtc() {
    const { rtc, iceServers } = this.#options;
    return { ...rtc, iceServers: iceServers ?? rtc?.iceServers ?? this.#iceServers };
  }

  /** Fetches the ICE servers, once for all calls, and again before they expire. */
  _ice() {
    if (this.#options.iceServers || this.#options.rtc?.iceServers) return Promise.resolve();
    return (this.#ice ??= this.#fetchIce().catch(() => {}));
  }

  async #fetchIce() {
    const { status, body } = await this.#api.request("GET", "ice", { repeat: true, wait: 3_000 });
    if (this.state === "closed") return;
    if (status === 200) this.#iceServers = body.iceServers ?? [];
    for (const call of this.#calls.values()) call.pc?.setConfiguration(this._rtc());
    // 404: none is configured. After another failure the next call asks again.
    if (status !== 200 && status !== 404) this.#ice = undefined;
    if (status !== 200 || !body.expires_in) return;
    this.#iceTimer = setTimeout(() => {
      this.#ice = undefined;
      if (this.#calls.size > 0) this._ice();
    }, Math.min(body.expires_in * 900, 2 ** 31 - 1));
  }
}

/** The devices of some users: `devices` (the whole list, again after each reconnect), then `online` and `offline`. */
class Watch extends Emitter {
  #closed;

  constructor(users, closed) {
    super();
    this.users = users;
    this.#closed = closed;
  }

  close() {
    this.#closed();
  }
}

/**
 * A call with one device: perfect negotiation over call messages (docs/calls.md). `pc` is replaced when the peer has reloaded or
 * ICE cannot be repaired; tracks and channels that the app made come back in the new one.
 */
class Call extends Emitter {
  state = "connecting";
  pc;
  #signal;
  #role;
  #watch;
  #work = Promise.resolve();
  #session;
  /** The peer's session that ours is paired with. */
  #theirs;
  #seq = 0;
  /** The `seq` of the first message with the offer that is open now. */
  #offered = 0;
  #heard = {};
  /** The browser has asked for an offer. It asks again if our answer to the peer's offer does not serve as well. */
  #needed = false;
  #kept = [];
  #candidates = { local: [], remote: [], timer: 0, sending: false };
  #tracks = new Map();
  #channels = new Map();
  #timer;
  #tries = 0;
  #connected = false;

  constructor(signal, peer, ringing, role) {
    super();
    this.#signal = signal;
    this.#role = role;
    this.from = this.peer = { user: peer.user, device: peer.device };
    if (ringing) this.state = "ringing";
    else this.#begin();
  }

  /** Answers a call that rings. */
  accept() {
    if (this.state !== "ringing") return;
    this.state = "connecting";
    this.#begin();
    for (const message of this.#kept) this.#run(() => this.#handle(message));
    this.#kept = [];
    this._emit("state", this.state);
  }

  reject(reason = "rejected") {
    this.close(reason);
  }

  close(reason = "closed") {
    if (this.state === "closed") return;
    const peer = this.state === "ringing" ? this.#heard.session : this.#theirs;
    this.#session ??= random();
    if (this.#seq > 0 || peer) this.#say({ bye: reason }, peer);
    this.#end(reason);
  }

  /** Sends a track, also over connections that replace this one. */
  addTrack(track, ...streams) {
    this.#tracks.set(track, streams);
    this.pc?.addTrack(track, ...streams);
  }

  removeTrack(track) {
    this.#tracks.delete(track);
    const sender = this.pc?.getSenders().find((sender) => sender.track === track);
    if (sender) this.pc.removeTrack(sender);
  }

  /** The data channel with this label, which lives as long as the call. Both sides may ask for it. */
  channel(label, init) {
    let channel = this.#channels.get(label);
    if (!channel) {
      channel = this.#channel(label, init);
      channel._connect(this.pc);
    }
    return channel;
  }

  #channel(label, init) {
    const channel = new Channel(label, init, {
      up: () => this.pc.connectionState === "connected",
      gone: () => this.#channels.delete(label),
    });
    this.#channels.set(label, channel);
    return channel;
  }

  #begin() {
    const { user, device } = this.peer;
    this.#watch = this.#signal.watch([user]);
    this.#role.own(true);
    this.#watch.on("online", (who) => who.device === device && this.#nudge());
    this.#watch.on("devices", ({ devices }) => devices.includes(device) && this.state === "waiting" && this.#nudge());
    this.#watch.on("offline", (who) => who.device === device && this.state !== "connected" && this.#become("waiting"));
    this.#renew();
    this.#run(() => this.#signal._ice());
  }

  /** One thing at a time: answers, offers and candidates wait for each other. */
  #run(step) {
    this.#work = this.#work.then(() => this.state !== "closed" && step()).catch((error) => {
      if (this.state === "closed") return;
      this._emit("error", error);
      this.#arm();
    });
  }

  /** Begins a session: a new RTCPeerConnection, with the app's tracks and channels. The browser then asks for an offer. */
  #renew() {
    this.#drop();
    this.#session = random();
    this.#theirs = undefined;
    this.#seq = this.#offered = 0;
    this.#candidates.local = [];
    const pc = (this.pc = new RTCPeerConnection(this.#signal._rtc()));
    pc.onnegotiationneeded = () => {
      this.#needed = true;
      this.#run(() => this.#needed && pc === this.pc && pc.signalingState === "stable" && this.#offer());
    };
    pc.onicecandidate = ({ candidate }) => candidate && this.#collect(candidate);
    pc.ontrack = (event) => this._emit("track", event);
    pc.ondatachannel = ({ channel }) => this.#arrived(channel);
    pc.onconnectionstatechange = pc.onsignalingstatechange = () => this.#changed();
    for (const [track, streams] of this.#tracks) pc.addTrack(track, ...streams);
    for (const channel of this.#channels.values()) channel._connect(pc);
    if (this.state === "connected") this.#become("reconnecting");
    this.#arm();
  }

  #drop() {
    if (!this.pc) return;
    this.#needed = false;
    for (const channel of this.#channels.values()) channel._disconnect();
    for (const name of ["negotiationneeded", "icecandidate", "track", "datachannel", "connectionstatechange", "signalingstatechange"]) {
      this.pc[`on${name}`] = null;
    }
    this.pc.close();
  }

  #arrived(link) {
    const known = this.#channels.get(link.label);
    const channel = known ?? this.#channel(link.label);
    channel._add(link);
    if (!known) this._emit("channel", channel);
  }

  /** Makes an offer, or repeats the one that has no answer. */
  async #offer() {
    const pc = this.pc;
    if (pc.signalingState === "stable") {
      this.#needed = false;
      await pc.setLocalDescription();
      if (pc !== this.pc || pc.localDescription?.type !== "offer") return;
      this.#offered = this.#seq + 1;
    }
    if (pc.signalingState === "have-local-offer") this.#say({ description: pc.localDescription });
  }

  #say(body, peer = this.#theirs) {
    const message = { v: 1, session: this.#session, seq: ++this.#seq, ...(peer && { peer }), ...body };
    const session = this.#session;
    return this.#signal._say(this.peer, message).then((outcome) => {
      if (this.state === "closed" || session !== this.#session) return;
      if (outcome instanceof SignalError && outcome.status !== 401) {
        this._emit("error", outcome);
        this.#end("refused");
      }
      if ((outcome === "held" || outcome === "not_connected") && this.state !== "connected") this.#become("waiting");
      if (outcome === "delivered") this.#present();
    });
  }

  #collect(candidate) {
    const { local, timer } = this.#candidates;
    local.push(candidate);
    if (!timer) this.#candidates.timer = setTimeout(() => this.#flush(), COLLECT_MS);
  }

  /** Sends all candidates that came meanwhile in one message. */
  async #flush() {
    const mine = this.#candidates;
    while (mine.local.length > 0 && this.state !== "closed") await this.#say({ candidates: mine.local.splice(0) });
    mine.timer = 0;
  }

  /** Takes a message of the peer. */
  _receive(message) {
    const { session, seq, bye, description } = message;
    if (session === this.#heard.session && seq <= this.#heard.seq) return;
    this.#heard = { session, seq };
    if (this.state !== "ringing") return this.#run(() => this.#handle(message));
    if (bye !== undefined) session === this.#kept[0]?.session && this.#end(String(bye));
    else if (description?.type === "offer") this.#kept = [message];
    else if (this.#kept.length < MAX_CANDIDATES) this.#kept.push(message);
  }

  async #handle({ session, seq, peer, answers, description, candidates, bye }) {
    const offer = description?.type === "offer";
    if (peer && peer !== this.#session) {
      // For an earlier session of ours. Only an offer needs an answer: its sender has to begin anew.
      if (offer) this.#say({ bye: "unknown_session" }, session);
      return;
    }
    if (bye !== undefined) {
      if (peer !== this.#session && session !== this.#theirs) return;
      if (bye === "unknown_session") return this._restart("peer_reloaded", true);
      return this.#end(String(bye));
    }
    this.#present();
    if (offer) await this.#handleOffer(session, seq, description);
    else if (description?.type === "answer") await this.#handleAnswer(session, answers, description);
    if (Array.isArray(candidates)) {
      this.#candidates.remote.push(...candidates.slice(0, MAX_CANDIDATES).map((candidate) => ({ session, candidate })));
      this.#candidates.remote.splice(0, this.#candidates.remote.length - MAX_CANDIDATES);
    }
    await this.#addCandidates();
  }

  async #handleOffer(session, seq, description) {
    const anew = session !== this.#theirs;
    if (this.pc.signalingState === "have-local-offer" && !this.#role.polite && !(anew && this.#theirs)) {
      // Both offered. Ours stands: the polite side drops its own. It may be a new page that has not seen ours.
      if (anew) await this.#offer();
      return;
    }
    if (anew) {
      const paired = this.#theirs;
      if (this.#seq > 0) this.#renew();
      this.#theirs = session;
      if (paired) this._emit("restart", "peer_reloaded");
    }
    await this.pc.setRemoteDescription(description);
    this.#needed = false;
    await this.pc.setLocalDescription();
    this.#say({ answers: seq, description: this.pc.localDescription });
  }

  async #handleAnswer(session, answers, description) {
    if (this.pc.signalingState !== "have-local-offer" || answers < this.#offered) return;
    if (this.#theirs && this.#theirs !== session) return this._restart("peer_reloaded", true);
    this.#theirs = session;
    await this.pc.setRemoteDescription(description);
  }

  /** Candidates may come before their offer: they are kept until then. */
  async #addCandidates() {
    if (!this.pc.remoteDescription) return;
    const { remote } = this.#candidates;
    this.#candidates.remote = remote.filter(({ session }) => session !== this.#theirs);
    for (const { session, candidate } of remote) {
      // The browser refuses candidates of an offer that we ignored.
      if (session === this.#theirs) await this.pc.addIceCandidate(candidate).catch(() => {});
    }
  }

  /** Negotiates again, in a new session or in this one. */
  _restart(why, anew) {
    if (this.state === "closed" || this.state === "ringing") return;
    this._emit("restart", why);
    if (!anew) return this.#nudge();
    // Without tracks and channels of our own only the peer can offer.
    if (this.#tracks.size + this.#channels.size === 0 && this.#theirs) this.#say({ bye: "unknown_session" });
    this.#renew();
  }

  /** Asks the peer to show that it still knows this session: repeats the open offer, or offers an ICE restart. */
  #nudge() {
    if (this.state === "closed") return;
    if (this.pc.signalingState === "have-local-offer") this.#run(() => this.#offer());
    else if (this.pc.remoteDescription) this.pc.restartIce();
    this.#arm();
  }

  #changed() {
    const { connectionState, signalingState } = this.pc;
    if (connectionState === "connected") {
      this.#connected = true;
      if (signalingState === "stable") {
        this.#tries = 0;
        clearTimeout(this.#timer);
        this.#timer = undefined;
      } else this.#arm();
      return this.#become("connected");
    }
    if (this.state === "connected") this.#become("reconnecting");
    if (connectionState === "failed") this.#check();
    else this.#arm();
  }

  #arm() {
    this.#timer ??= setTimeout(() => this.#check(), Math.min(CHECK_MS[0] * 2 ** this.#tries, CHECK_MS[1]));
  }

  /** Not connected for too long, or an offer has no answer. */
  #check() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const { pc } = this;
    if (this.state === "closed" || (pc.connectionState === "connected" && pc.signalingState === "stable")) return;
    if (this.#signal.state !== "live") this.#tries = 0;
    else {
      this.#tries += 1;
      const failed = pc.connectionState !== "connected" && this.state !== "waiting" && this.#theirs;
      if (failed && this.#tries > 2) this._restart("ice_failed", true);
      else if (failed && pc.signalingState === "stable") this._restart("ice_failed", false);
      else this.#nudge();
    }
    this.#arm();
  }

  _taken() {
    if (this.state === "ringing") this.#end("answered_elsewhere");
  }

  #present() {
    if (this.state === "waiting") this.#become(this.#connected ? "reconnecting" : "connecting");
  }

  #become(state) {
    if (this.state === state || this.state === "closed") return;
    this.state = state;
    this._emit("state", state);
  }

  #end(reason) {
    if (this.state === "closed") return;
    this.#role.ended();
    this.#drop();
    clearTimeout(this.#timer);
    clearTimeout(this.#candidates.timer);
    for (const channel of this.#channels.values()) channel._end();
    if (this.#watch) {
      this.#watch.close();
      this.#role.own(false);
    }
    this.#become("closed");
    this._emit("bye", reason);
  }
}

/**
 * A data channel that outlives its RTCDataChannel. While it is not open, what is sent waits (up to 1 MiB). Both sides may have made
 * one with this label: messages of both are taken, and sends go over the first that opened, so they stay in order.
 */
class Channel extends EventTarget {
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  binaryType = "arraybuffer";
  readyState = "connecting";
  #init;
  #call;
  #links = new Set();
  #out;
  #queue = [];
  #queued = 0;
  #timer;

  constructor(label, init, call) {
    super();
    this.label = label;
    this.#init = init;
    this.#call = call;
  }

  get bufferedAmount() {
    return this.#queued + (this.#out?.bufferedAmount ?? 0);
  }

  send(data) {
    if (this.readyState === "closed") throw new DOMException("the channel is closed", "InvalidStateError");
    if (this.readyState === "open") return this.#out.send(data);
    const size = data.size ?? data.byteLength ?? String(data).length;
    if (this.#queued + size > MAX_BUFFERED) throw new DOMException("too much waits for the channel to open", "OperationError");
    this.#queued += size;
    this.#queue.push(data);
  }

  close() {
    this._end();
  }

  _connect(pc) {
    this._add(pc.createDataChannel(this.label, this.#init));
  }

  _add(link) {
    this.#links.add(link);
    link.binaryType = this.binaryType;
    link.onopen = () => this.#opened(link);
    link.onmessage = ({ data }) => this.#fire(new MessageEvent("message", { data }));
    link.onerror = (event) => this.#fire(Object.assign(new Event("error"), { error: event.error }));
    link.onclose = () => this.#lost(link);
    if (link.readyState === "open") this.#opened(link);
  }

  #opened(link) {
    clearTimeout(this.#timer);
    if (this.#out) return;
    this.#out = link;
    this.readyState = "open";
    for (const data of this.#queue.splice(0)) link.send(data);
    this.#queued = 0;
    this.#fire(new Event("open"));
  }

  /** The peer has closed its side, or is gone: then a new connection follows. */
  #lost(link) {
    this.#links.delete(link);
    if (link !== this.#out) return;
    this.#down();
    const open = [...this.#links].find((link) => link.readyState === "open");
    if (open) this.#opened(open);
    else this.#timer = setTimeout(() => this.#call.up() && this._end(), CHANNEL_GONE_MS);
  }

  #down() {
    this.#out = undefined;
    if (this.readyState === "open") this.readyState = "connecting";
  }

  _disconnect() {
    clearTimeout(this.#timer);
    for (const link of this.#links) link.onopen = link.onmessage = link.onerror = link.onclose = null;
    this.#links.clear();
    this.#down();
  }

  _end() {
    if (this.readyState === "closed") return;
    const links = [...this.#links];
    this._disconnect();
    for (const link of links) link.close();
    this.readyState = "closed";
    this.#queue = [];
    this.#queued = 0;
    this.#call.gone();
    this.#fire(new Event("close"));
  }

  #fire(event) {
    try {
      this[`on${event.type}`]?.(event);
    } catch (error) {
      console.error(error);
    }
    this.dispatchEvent(event);
  }
}

/** The streams of one tab: the device's own, and one for all watches. */
class Link {
  #told;
  #names = new Set(["message", "call"]);
  #own;
  #watch;
  #api;
  #users = [];
  #live = false;
  #wake = (event) => {
    if (event.type === "visibilitychange" && document.visibilityState !== "visible") return;
    this.wake(event.type);
  };

  constructor(api, told, cursor) {
    this.#api = api;
    this.#told = told;
    this.#own = new Stream(api, {
      name: "subscribe",
      cursor,
      names: () => ["signal.ready", "signal.ping", "signal.end", ...this.#names],
      query: { format: "envelope" },
      frame: (frame) => told.frame(frame),
      state: (state, error) => this.#become(state, error),
    });
    this.#watch = new Stream(api, {
      name: "devices",
      names: () => ["signal.devices", "signal.online", "signal.offline", "signal.ping", "signal.end"],
      frame: (frame) => told.frame(frame),
      state: () => {},
    });
  }

  start() {
    for (const [target, name] of WAKE) target()?.addEventListener?.(name, this.#wake);
    this.#own.open();
  }

  listen(names) {
    for (const name of names) this.#names.add(name);
    this.#own.listen();
  }

  watch(users) {
    if (String(users) === String(this.#users)) return;
    this.#users = users;
    this.#rewatch();
  }

  /** Watches while the device's own stream is live. */
  #rewatch() {
    this.#watch.close();
    this.#watch.users = this.#users;
    if (this.#live && this.#users.length > 0) this.#watch.open();
  }

  #become(state, error) {
    if (state === "live" && !this.#live) {
      this.#live = true;
      this.#rewatch();
    } else if (FINAL.includes(state)) {
      this.#live = false;
      this.#watch.close();
    }
    this.#told.state(state, error);
  }

  wake(why) {
    for (const stream of [this.#own, this.#watch]) stream.wake(why);
  }

  takeOver() {
    this.#api.renew();
    this.#own.open(true);
  }

  own() {}

  owned() {
    return false;
  }

  close() {
    for (const [target, name] of WAKE) target()?.removeEventListener?.(name, this.#wake);
    this.#own.close();
    this.#watch.close();
  }
}

const FINAL = ["superseded", "unauthorised", "closed"];
const WAKE = [
  [() => globalThis, "online"],
  [() => globalThis, "pageshow"],
  [() => globalThis, "pagehide"],
  [() => globalThis.document, "visibilitychange"],
];

/**
 * One link for all tabs of an origin: the tab that holds a Web Lock has the streams, and tells the others over a BroadcastChannel.
 * When it goes, the next tab gets the lock and resumes from the last cursor.
 */
class SharedLink {
  #api;
  #told;
  #link;
  #name;
  #channel;
  #tab = random();
  #mine = { names: [], users: [], calls: [] };
  #tabs = new Map();
  #state = "connecting";
  #error;
  #ready;
  #cursor;
  #release = new AbortController();

  constructor(api, told) {
    this.#api = api;
    this.#told = told;
    this.#name = `backend-signal ${api.base} ${api.identity}`;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#heard(data);
  }

  start() {
    const { signal } = this.#release;
    const ended = () => new Promise((resolve) => signal.addEventListener("abort", resolve));
    const hold = (name, got) => navigator.locks.request(name, { signal }, got).catch(() => {});
    hold(this.#name + this.#tab, ended);
    hold(this.#name, () => {
      this.#lead();
      return ended();
    });
    this.#tell("hello");
  }

  #lead() {
    this.#link = new Link(this.#api, {
      frame: (frame) => this.#post({ frame }),
      state: (state, error) => this.#post({ state, error: error && { status: error.status, text: error.message } }),
    }, this.#cursor);
    this.#spread();
    if (FINAL.includes(this.#state)) return;
    this.#link.start();
  }

  /** To the other tabs, and to this one. */
  #post(message) {
    this.#channel.postMessage(message);
    this.#heard(message);
  }

  #tell(ask) {
    this.#channel.postMessage({ tab: this.#tab, wants: this.#mine, ask });
    this.#spread();
  }

  /** The leader does what all tabs want. */
  #spread() {
    const all = [this.#mine, ...this.#tabs.values()];
    this.#link?.listen(all.flatMap(({ names }) => names));
    this.#link?.watch([...new Set(all.flatMap(({ users }) => users))].slice(0, MAX_USERS));
  }

  #heard({ frame, state, error, ready, cursor, tab, wants, ask, wake, takeOver }) {
    if (cursor) this.#cursor = cursor;
    if (tab) this.#met(tab, wants, ask);
    if (frame) {
      this.#cursor = frame.stream === "subscribe" && frame.id ? frame.id : this.#cursor;
      if (frame.event === "signal.ready") this.#ready = frame;
      this.#told.frame(frame);
    }
    if (ready && !this.#ready) {
      this.#ready = ready;
      this.#told.frame(ready);
    }
    if (state) {
      this.#state = state;
      this.#told.state(state, error && new SignalError({ status: error.status }, error.text));
    }
    if (wake) this.#link?.wake(wake);
    if (takeOver) this.#link?.takeOver();
  }

  #met(tab, wants, ask) {
    if (!this.#tabs.has(tab)) {
      // The lock of a tab is free when the tab is gone.
      const { signal } = this.#release;
      navigator.locks.request(this.#name + tab, { signal }, () => {
        this.#tabs.delete(tab);
        this.#spread();
      }).catch(() => {});
    }
    this.#tabs.set(tab, wants);
    this.#told.taken(wants.calls);
    this.#spread();
    if (!ask) return;
    this.#tell();
    if (this.#link) this.#channel.postMessage({ ready: this.#ready, state: this.#state, cursor: this.#cursor });
  }

  listen(names) {
    this.#mine.names.push(...names);
    this.#tell();
  }

  watch(users) {
    this.#mine.users = users;
    this.#tell();
  }

  /** Tells the other tabs that this one has the call with a device. */
  own(key, own) {
    this.#mine.calls = [...this.#mine.calls.filter((other) => other !== key), ...(own ? [key] : [])];
    this.#tell();
  }

  owned(key) {
    return [...this.#tabs.values()].some(({ calls }) => calls.includes(key));
  }

  takeOver() {
    this.#post({ takeOver: true });
  }

  close() {
    this.#release.abort();
    this.#channel.close();
    this.#link?.close();
  }
}

/** An EventSource that comes back: after cuts, silence, refusals, and with a new ticket where tokens are used. */
class Stream {
  users;
  #api;
  #to;
  #source;
  #cursor;
  #turn = 0;
  #failures = 0;
  #renewed = false;
  #everLive = false;
  #open = false;
  #silence = OPEN_MS;
  #heardAt = 0;
  #watchdog;
  #retry;
  #known = new Set();

  constructor(api, to) {
    this.#api = api;
    this.#to = to;
    this.#cursor = to.cursor;
  }

  /** Opens it, or opens it again. `anew` forgets the cursor, and so takes the device over. */
  async open(anew) {
    const turn = this.#stop();
    this.#open = true;
    if (anew) this.#cursor = undefined;
    this.#to.state(this.#everLive ? "reconnecting" : "connecting");
    let url;
    try {
      url = await this.#url();
    } catch (error) {
      if (turn === this.#turn) this.#refused(error);
      return;
    }
    if (turn !== this.#turn) return;
    const source = (this.#source = new EventSource(url, { withCredentials: this.#api.credentials === "include" }));
    source.onerror = () => {
      if (source !== this.#source) return;
      const final = source.readyState === 2;
      this.#again(final ? () => this.#probe() : undefined);
    };
    this.#known.clear();
    this.listen();
    this.#feed(OPEN_MS);
  }

  listen() {
    const source = this.#source;
    if (!source) return;
    for (const name of this.#to.names()) {
      // These two are the EventSource's own events. The server refuses them as names.
      if (this.#known.has(name) || name === "error" || name === "open") continue;
      this.#known.add(name);
      source.addEventListener(name, (event) => source === this.#source && this.#heard(event));
    }
  }

  close() {
    this.#stop();
    this.#open = false;
  }

  /** The network or the page is back: connect at once if the stream is not sound. */
  wake(why) {
    if (!this.#open) return;
    if (why === "pagehide") return void this.#stop();
    const sound = this.#source && Date.now() - this.#heardAt < this.#silence;
    if (!sound || why === "online") this.open();
  }

  #stop() {
    clearTimeout(this.#watchdog);
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = undefined;
    return ++this.#turn;
  }

  async #url() {
    const ticket = await this.#api.ticket();
    return this.#api.url(this.#to.name, {
      ...this.#to.query,
      heartbeat: this.#api.heartbeat,
      ...(this.#to.name === "subscribe" ? this.#api.caller() : { user: this.users }),
      ticket,
      last_event_id: this.#cursor,
    });
  }

  #heard({ type, data, lastEventId }) {
    this.#cursor = lastEventId || this.#cursor;
    if (type === "signal.ready") this.#api.silence = parse(data).heartbeat_ms * 1.5 + 2_000;
    if (type !== "signal.end") {
      this.#failures = 0;
      this.#renewed = false;
      this.#feed(this.#api.silence);
    }
    const first = type === "signal.ready" || type === "signal.devices";
    this.#to.frame({ stream: this.#to.name, event: type, data, id: lastEventId });
    if (first) {
      this.#everLive = true;
      this.#to.state("live");
    }
    if (type === "signal.end") this.#ended(parse(data)?.reason);
  }

  #feed(silence) {
    this.#silence = silence;
    this.#heardAt = Date.now();
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#again(), silence);
  }

  #ended(reason) {
    if (reason === "superseded") return this.#finish("superseded");
    if (reason === "expired") {
      this.#api.renew();
      return this.#again(undefined, 0, 1_000);
    }
    // Draining or overloaded: not at once.
    this.#again(undefined, 2_000);
  }

  /** Comes back after a random part of the backoff. */
  #again(step = () => this.open(), least = 0, most = Math.min(BACKOFF_MS[0] * 2 ** this.#failures, BACKOFF_MS[1])) {
    this.#stop();
    this.#failures += 1;
    this.#to.state(this.#everLive ? "reconnecting" : "connecting");
    this.#retry = setTimeout(step, least + Math.random() * most);
  }

  #finish(state, error) {
    this.close();
    this.#to.state(state, error);
  }

  /** An EventSource does not say why it was refused, so ask again. With our cursor this takes the device from no newer page. */
  async #probe() {
    const turn = this.#stop();
    const answer = await this.#api.probe(() => this.#url()).catch((error) => error);
    if (turn !== this.#turn) return;
    if (answer.status === 200) {
      this.#cursor ??= answer.cursor;
      return this.open();
    }
    if (answer.status === 204) return this.#finish("superseded");
    this.#refused(answer);
  }

  #refused(answer) {
    const { status = 0, retryAfter = 0 } = answer;
    if (status === 401 || status === 403) {
      if (status === 403 && this.#api.unbind()) return void this.open();
      if (!this.#renewed && this.#api.renew()) {
        this.#renewed = true;
        return void this.open();
      }
      return this.#finish("unauthorised", toError(answer));
    }
    // A wrong address is better said at once. A stream that was live once had a right one.
    if (!this.#everLive && status >= 400 && status < 500 && ![408, 425, 429].includes(status)) {
      return this.#finish("closed", toError(answer));
    }
    this.#again(undefined, retryAfter * 1_000);
  }
}

/** Requests to the daemon, with the caller's identity. */
class Api {
  base;
  credentials;
  silence = 60_000;
  #options;
  #device;
  #chosen;
  #token;

  constructor(options) {
    this.#options = options;
    const base = new URL(options.url ?? ".", options.url ? globalThis.location?.href ?? import.meta.url : import.meta.url);
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    this.base = base.href;
    this.credentials = options.credentials ?? "same-origin";
    this.heartbeat = options.heartbeat;
    this.#chosen = options.device !== undefined;
    this.#device = this.#chosen ? options.device : deviceId(options.shared);
  }

  get identity() {
    return JSON.stringify(this.caller());
  }

  /** The parameters that name the caller. */
  caller() {
    return { user: this.#options.user, device: this.#device ?? undefined };
  }

  /** The identity names another device than the tab's: take that. Says whether there is something to try. */
  unbind() {
    const bound = !this.#chosen && this.#device !== null;
    if (bound) this.#device = null;
    return bound;
  }

  url(path, query) {
    const url = new URL(path, this.base);
    for (const [name, value] of Object.entries(query)) {
      for (const each of [value].flat()) {
        if (each !== undefined) url.searchParams.append(name, each);
      }
    }
    return url.href;
  }

  /** Forgets the token, so that the app is asked for a new one. Says whether it can be. */
  renew() {
    this.#token = undefined;
    return typeof this.#options.token === "function";
  }

  async #bearer() {
    const { token } = this.#options;
    if (typeof token === "function") this.#token ??= Promise.resolve(token());
    try {
      return (await this.#token) ?? (typeof token === "string" ? token : undefined);
    } catch (error) {
      this.#token = undefined;
      throw error;
    }
  }

  /** A ticket for one stream. None where the daemon reads no tokens. */
  async ticket() {
    if (!this.#options.token) return undefined;
    const answer = await this.request("POST", "ticket", {});
    if (answer.status === 200) return answer.body.ticket;
    if (answer.status === 404 || answer.status === 405) return undefined;
    throw answer;
  }

  /** Opens a stream only to learn the answer. Without a cursor it takes that of the stream that it has opened. */
  async probe(makeUrl) {
    const headers = { accept: "text/event-stream" };
    return this.#timed(undefined, async (signal) => {
      const answer = await fetch(await makeUrl(), { headers, credentials: this.credentials, signal, cache: "no-store" });
      if (answer.status !== 200) return read(answer);
      let text = "";
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let chunk = {}; !chunk.done && !/\n\n/.test(text); text += chunk.value ?? "") chunk = await reader.read();
      reader.cancel().catch(() => {});
      return { status: 200, cursor: /^id: (.*)$/m.exec(text)?.[1] };
    });
  }

  /**
   * One request. It is repeated after 429 and 503 for as long as `wait` allows; with `repeat` also when its outcome is unknown.
   * A token that is refused is renewed once.
   */
  async request(method, path, { body, headers, signal, repeat, wait = 0 }) {
    const end = Date.now() + wait;
    let renewed = false;
    for (let failures = 0; ; failures += 1) {
      const answer = await this.#ask(method, path, { body, headers, signal });
      if (answer.status === 401 && !renewed && this.renew()) {
        renewed = true;
        continue;
      }
      const again = answer.status === 429 || answer.status === 503 || (repeat && (answer.status === 0 || answer.status === 504));
      const pause = answer.retryAfter * 1_000 || Math.random() * Math.min(250 * 2 ** failures, 4_000);
      if (!again || Date.now() + pause > end) return answer;
      await sleep(pause, signal);
    }
  }

  /** Status 0: there was no answer. The request may have arrived. */
  async #ask(method, path, { body, headers, signal }) {
    const token = await this.#bearer();
    return this.#timed(signal, async (timed) => {
      const url = this.url(path, path === "devices" ? {} : this.caller());
      const answer = await fetch(url, {
        method,
        body,
        headers: { ...headers, ...(token && { authorization: `Bearer ${token}` }) },
        credentials: this.credentials,
        signal: timed,
        cache: "no-store",
      });
      return read(answer);
    }).catch((error) => {
      if (signal?.aborted) throw signal.reason;
      return { status: 0, retryAfter: 0, body: {}, error };
    });
  }

  async #timed(signal, work) {
    const controller = new AbortController();
    const abort = () => controller.abort(signal?.reason);
    const timer = setTimeout(abort, ANSWER_MS);
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) abort();
    try {
      return await work(controller.signal);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }
}

async function read(answer) {
  const body = parse(await answer.text()) ?? {};
  return { status: answer.status, body, retryAfter: Number(answer.headers.get("retry-after")) || 0 };
}

/** What became of a send. Throws when it can never succeed as it is. */
function outcomeOf(answer) {
  const { status, body } = answer;
  if (status === 200) return "delivered";
  if (status === 202) return "held";
  if (status === 404 && body.code === "not_connected") return "not_connected";
  if (status === 429) return body.code === "mailbox_full" ? "full" : "limited";
  if (status === 0 || status === 504) return "unknown";
  if (status >= 500) return "unavailable";
  throw new SignalError(answer);
}

function toError(answer) {
  return answer instanceof Error ? answer : new SignalError(answer);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort);
  });
}

function random() {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** An address as a string. Addresses are ordered by these bytes. */
function keyOf({ user, device }) {
  return `${user}\0${device}`;
}

function bytes(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

let tab;

/**
 * The id of this tab. While the page lives, the id is not in the session storage, so a duplicated tab, which gets a copy of the
 * storage, finds none and makes its own. The page puts the id back as it goes, and so a reload finds it.
 */
function deviceId(shared) {
  const key = "backend-signal.device";
  try {
    if (shared) return (localStorage[key] ??= random());
    if (tab) return tab;
    tab = sessionStorage[key] ?? random();
    const take = () => sessionStorage.removeItem(key);
    const leave = () => sessionStorage.setItem(key, tab);
    take();
    for (const name of ["pagehide", "freeze"]) (name === "freeze" ? document : globalThis).addEventListener(name, leave);
    for (const name of ["pageshow", "resume"]) (name === "resume" ? document : globalThis).addEventListener(name, take);
    return tab;
  } catch {
    return (tab ??= random());
  }
}
