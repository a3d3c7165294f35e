// A stand-in for RTCPeerConnection: the signalling states of webrtc-pc, negotiationneeded, rollback, candidates, in-band channels.
// Two of them connect when each has the other's description and one of its candidates.

let all = [];
let serial = 0;
/** Every connection that was made, in order, also closed ones. */
export const connections = () => all;

export class FakePeerConnection extends EventTarget {
  signalingState = "stable";
  connectionState = "new";
  localDescription = null;
  remoteDescription = null;
  channels = [];
  senders = [];
  /** What was added or refused, for assertions. */
  candidates = [];
  configurations = [];
  #pending = {};
  #ufrag = 0;
  #restart = false;
  #checking = false;
  /** What the last finished negotiation has. */
  #negotiated = { data: false, tracks: 0 };
  /** Set by a test: this connection cannot reach its peer. */
  static blocked = false;
  static reset() {
    all = [];
    FakePeerConnection.blocked = false;
  }

  constructor(configuration) {
    super();
    this.configurations.push(configuration);
    this.id = serial += 1;
    all.push(this);
  }

  setConfiguration(configuration) {
    this.configurations.push(configuration);
  }

  createDataChannel(label) {
    const channel = new FakeDataChannel(this, label);
    this.channels.push(channel);
    this.#check();
    setImmediate(() => this.#connect());
    return channel;
  }

  addTrack(track) {
    const sender = { track };
    this.senders.push(sender);
    this.#check();
    return sender;
  }

  getSenders() {
    return this.senders;
  }

  removeTrack(sender) {
    sender.track = null;
    this.#check();
  }

  restartIce() {
    this.#restart = true;
    this.#check();
  }

  /** Fires `negotiationneeded` later, if it is still true then. */
  #check() {
    setImmediate(() => {
      if (this.signalingState !== "stable" || this.#checking || !this.#needs()) return;
      this.#checking = true;
      this.dispatchEvent(new Event("negotiationneeded"));
    });
  }

  #needs() {
    const tracks = this.senders.filter(({ track }) => track).length;
    return this.#restart || (this.channels.length > 0 && !this.#negotiated.data) || tracks > this.#negotiated.tracks;
  }

  async setLocalDescription() {
    await null;
    this.#alive();
    this.#checking = false;
    const type = this.signalingState === "have-remote-offer" ? "answer" : "offer";
    if (type === "offer") {
      if (this.signalingState !== "stable") throw new DOMException(`offer in ${this.signalingState}`, "InvalidStateError");
      if (this.#restart || !this.#ufrag) this.#ufrag += 1;
    } else if (this.#pending.remote.ufrag !== this.remoteDescription?.ufrag || !this.#ufrag) this.#ufrag += 1;
    const description = { type, sdp: `sdp of ${this.id}`, of: this.id, ufrag: this.#ufrag, data: this.channels.length > 0,
      tracks: this.senders.filter(({ track }) => track).length };
    if (type === "offer") {
      this.#pending = { local: description };
      this.localDescription = description;
      this.#state("have-local-offer");
    } else {
      this.localDescription = description;
      this.#settled(this.#pending.remote, description);
    }
    for (const n of [1, 2]) setImmediate(() => this.#candidate(n));
  }

  #candidate(n) {
    if (this.signalingState === "closed") return;
    this.dispatchEvent(Object.assign(new Event("icecandidate"), { candidate: { candidate: `${n} of ${this.id}`, ufrag: this.#ufrag } }));
  }

  async setRemoteDescription(description) {
    await null;
    this.#alive();
    if (!description?.sdp) throw new DOMException("no sdp", "OperationError");
    // Another certificate cannot come into a connection that is there.
    if (this.remoteDescription && description.of !== this.remoteDescription.of) throw new DOMException("another peer", "OperationError");
    if (description.type === "offer") {
      // Rollback of our own offer, as browsers do it.
      if (this.signalingState === "have-local-offer") this.localDescription = null;
      this.#pending = { remote: description };
      this.#state("have-remote-offer");
    } else {
      if (this.signalingState !== "have-local-offer") throw new DOMException(`answer in ${this.signalingState}`, "InvalidStateError");
      this.#settled(description, this.localDescription);
    }
  }

  #settled(remote, local) {
    this.remoteDescription = remote;
    this.#pending = {};
    this.#restart = false;
    const offer = local.type === "offer" ? local : remote;
    this.#negotiated = { data: this.#negotiated.data || offer.data, tracks: local.tracks };
    this.#state("stable");
    this.#check();
    queueMicrotask(() => this.#connect());
  }

  async addIceCandidate(candidate) {
    await null;
    this.#alive();
    if (!this.remoteDescription && !this.#pending.remote) throw new DOMException("no remote description", "InvalidStateError");
    this.candidates.push(candidate);
    this.#connect();
  }

  #peer() {
    return all.find((peer) => peer.id === this.remoteDescription?.of && peer.remoteDescription?.of === this.id && peer.signalingState !== "closed");
  }

  #connect() {
    const peer = this.#peer();
    if (!peer || FakePeerConnection.blocked || this.candidates.length + peer.candidates.length === 0) return;
    for (const [one, other] of [[this, peer], [peer, this]]) {
      if (one.connectionState !== "connected") one.become("connected");
      if (!one.#negotiated.data) continue;
      for (const channel of one.channels) channel.open(other);
    }
  }

  /** A change that a test makes, such as "failed". */
  become(state) {
    this.connectionState = state;
    this.dispatchEvent(new Event("connectionstatechange"));
  }

  #state(state) {
    this.signalingState = state;
    this.dispatchEvent(new Event("signalingstatechange"));
  }

  #alive() {
    if (this.signalingState === "closed") throw new DOMException("closed", "InvalidStateError");
  }

  close() {
    if (this.signalingState === "closed") return;
    this.signalingState = this.connectionState = "closed";
    for (const channel of [...this.channels]) channel.peer?.lost();
    this.channels = [];
  }
}

class FakeDataChannel extends EventTarget {
  readyState = "connecting";
  bufferedAmount = 0;

  constructor(pc, label, peer) {
    super();
    Object.assign(this, { pc, label, peer });
  }

  open(pc) {
    if (this.peer) return;
    this.peer = new FakeDataChannel(pc, this.label, this);
    pc.channels.push(this.peer);
    this.peer.readyState = this.readyState = "open";
    setImmediate(() => {
      pc.dispatchEvent(Object.assign(new Event("datachannel"), { channel: this.peer }));
      this.peer.dispatchEvent(new Event("open"));
      this.dispatchEvent(new Event("open"));
    });
  }

  send(data) {
    if (this.readyState !== "open") throw new DOMException(`send in ${this.readyState}`, "InvalidStateError");
    setImmediate(() => this.peer.readyState === "open" && this.peer.dispatchEvent(Object.assign(new Event("message"), { data })));
  }

  lost() {
    if (this.readyState === "closed") return;
    this.readyState = "closed";
    setImmediate(() => this.dispatchEvent(new Event("close")));
  }

  close() {
    this.lost();
    this.peer?.lost();
  }
}
