// The browser helper of backend-signal: signalling, watching, and WebRTC calls that survive reloads and cut networks.
// Types: client.d.ts. Messages of a call: docs/calls.md. Names with `_` are internal: a minifier may shorten them.

// For an answer, and the repeats of a send. A peer that closed a channel, and stays connected so long, meant it.
const PATIENCE_MS = 1e4;
const OPEN_MS = 15e3;
// A reconnect waits a random part of the backoff, a call negotiates again after the check time. Failures double both.
const BACKOFF_MS = 4e3, CHECK_MS = 5e3, MOST_MS = 3e4, SUSPECT_MS = 6e4, RING_MS = 45e3;
// Candidates of this time share a message.
const COLLECT_MS = 20;
// Seconds: a short cut of the peer's network loses no call message.
const CALL_TTL = 30;
const MAX_USERS = 64, MAX_QUEUED = 256, MAX_RINGING = 64, MAX_RINGS = 8, MAX_KEPT = 1 << 18, MAX_CANDIDATES = 256, MAX_BUFFERED = 1 << 20;
const CONNECTING = "connecting", LIVE = "live", RECONNECTING = "reconnecting", SUPERSEDED = "superseded", CLOSED = "closed";
const UNAUTHORISED = "unauthorised", MUTE = [SUPERSEDED, UNAUTHORISED];
const RINGING = "ringing", WAITING = "waiting", CONNECTED = "connected", OPEN = "open";
const EVENTS = "signal.ping signal.end signal.ready signal.devices signal.online signal.offline message call";
const READY = "signal.ready", UNKNOWN_SESSION = "unknown_session", PEER_RELOADED = "peer_reloaded";

export const connect = (options = {}) => new Promise((resolve, reject) => createSignal(options, resolve, reject));

const createSignal = (options, resolve, reject) => {
	const [on, emit] = createEmitter(), api = createApi(options);
	const queues = new Map(), calls = new Map(), watches = new Set(), recent = new Map(), names = new Set(options.events);
	let { iceServers } = options, ice = iceServers, iceEnds = Infinity, state = CONNECTING, known;
	const refresh = createTimer(), rtc = () => ({ iceServers, ...options.rtc });

	const signal = {
		state,
		user: null,
		device: null,

		on(name, listener) {
			if (name.startsWith("message:")) link._want("names", names.add(name.slice(8)));
			if (name === "call") queueMicrotask(() => calls.forEach(announce));
			return on(name, listener);
		},

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
			if (!device || state === CLOSED) throw new TypeError(device ? CLOSED : "no device");
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

	const post = async (user, device, event, data, options) => {
		const sent = { user, device, event: event ?? null, data, ttl: options?.ttl };
		emit("sending", sent);
		const answer = await api._ask(pathOf(user, device), { ...options, key: device && random(), body: JSON.stringify({ data, event }) });
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
		if (next === LIVE || next === SUPERSEDED) resolve((known = signal));
		if (next === CLOSED) {
			calls.forEach((call) => call.close());
			link._close();
			error ??= options.signal?.reason ?? new DOMException(next, "AbortError");
		}
		if (error) reject(error);
		// A refused page shows why.
		if (next !== before && (known || before !== UNAUTHORISED)) emit("state", next);
		if (error && !known) become(CLOSED, error);
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
			// After `broken` messages may be missing.
			if (continuity !== "resumed") calls.forEach((call) => call._restart(continuity === "new"));
		} else if (!event.startsWith("signal.")) {
			const { from, data, sent_at: sentAt } = value, name = event === "message" ? null : event;
			if (event === "call") hearCall(from, parse(data));
			emit(name ? `message:${name}` : event, { event: name, data, from, sentAt: new Date(sentAt), id, json: () => JSON.parse(data) });
		}
	};

	const hearCall = (from, message) => {
		if (!from?.device || message?.v !== 1 || !/^.{1,64}$/.test(message.session ?? "") || typeof (message.bye ?? "") !== "string") return;
		const path = pathOf(from.user, from.device);
		let call = calls.get(path);
		if (!call) {
			if (message.description?.type !== "offer" || link._elsewhere(path)) return;
			// For a page that is gone.
			if (message.peer) return once(path, 4e3) && say(from, { v: 1, session: random(), seq: 1, peer: message.session, bye: UNKNOWN_SESSION });
			const rings = [...calls.values()].filter(({ state }) => state === RINGING);
			if (rings.length >= MAX_RINGING || rings.filter(({ peer }) => peer.user === from.user)[MAX_RINGS - 1]) return;
			// A repeat of an offer whose call is over.
			if (recent.get(path + message.session) > Date.now()) return;
			call = begin(from, path);
		}
		call._receive(message);
		announce(call);
	};

	// Not twice within `ms`. A stranger fills no memory.
	const once = (key, ms) => {
		if (recent.get(key) > Date.now()) return;
		recent.set(key, Date.now() + ms);
		return recent.size < MAX_QUEUED || recent.delete(recent.keys().next().value);
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
			// A timer is late when the machine has slept.
			_ice: () => (ice = (Date.now() < iceEnds && ice) || fetchIce()),
			_claim: (act) => link._claim(path, act),
			_begun: own,
			_ended(session) {
				once(path + session, 6e4);
				calls.delete(path);
				own();
			},
		});
		calls.set(path, call);
		return call;
	};

	// Never rejects.
	const say = async ({ user, device }, message) =>
		MUTE.includes(state) || signal.send(user, device, "call", message, { ttl: CALL_TTL }).catch((error) => error);

	const fetchIce = async () => {
		const { status, body } = await api._ask("ice", { wait: 3e3 }).catch(() => ({ body: {} }));
		if (status === 404) return; // none is configured
		const ms = Math.min(Math.max(body.expires_in * 900 || 0, 3e4), 2e9);
		iceEnds = Date.now() + ms;
		refresh(() => (ice = calls.size && fetchIce()), ms);
		// Without an answer the next call asks again.
		if (!Array.isArray(body.iceServers)) return void (ice = iceServers);
		iceServers = body.iceServers;
		// A bad list fails the next connection.
		try {
			calls.forEach(({ pc }) => pc?.setConfiguration(rtc()));
		} catch {}
	};

	const link = createLink(api, options.shared, receive, become, (path) => calls.get(path)?._taken());
	const { signal: abort } = options;
	listen(abort, "abort", signal.close);
	if (abort?.aborted) return signal.close();
	for (const name in options.on) signal.on(name, options.on[name]);
	link._want("names", names);
	link._start();
};

/**
 * A call with one device: perfect negotiation. When the peer has reloaded or ICE cannot be repaired, a new `pc` has the tracks and
 * channels of the old one.
 */
const createCall = (signal, peer, polite, { _say, _rtc, _ice, _claim, _begun, _ended }) => {
	const [on, emit] = createEmitter();
	const tracks = new Map(), channels = new Map();
	// `session` is ours, `theirs` the peer's that it is paired with. `offered`: the `seq` of the first message with the open offer.
	let session = random(), theirs, seq = 0, offered, heard = {};
	// Messages that wait for `accept`. Candidates that wait to be sent, and that wait for their offer.
	let kept = [], local = [], remote = [];
	let work = Promise.resolve(), state = RINGING, watch, pc, needed, timer, collecting, connected, release, tries = 0, renewed = -Infinity, pending = 0;

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
			disarm();
			_claim(() => {
				if (state === CLOSED) return;
				renew();
				_begun();
				run(_ice);
				for (const message of kept) run(() => handle(message));
				return new Promise((resolve) => (release = resolve));
			});
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
			if (pc) pending < MAX_QUEUED && run(() => handle(message));
			else if (description?.type === "offer") kept = [message];
			else if (session !== kept[0]?.session) return;
			else if (bye) return end(bye);
			else if (JSON.stringify(kept).length < MAX_KEPT) kept.push(message);
			// A caller who is there repeats its offer.
			if (state === RINGING) {
				disarm();
				timer = setTimeout(() => end("lost"), RING_MS);
			}
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

	// One step at a time: one that waits for an RTCPeerConnection that is closed would never end.
	const run = (step) => {
		pending++;
		work = work.then(() => pc && step()).catch((error) => pc && emit("error", error)).then(() => pending--);
	};

	const restart = async (why, anew) => {
		emit("restart", why);
		if (!anew) return nudge();
		await ready();
		// Without tracks and channels of our own only the peer can offer.
		if (pc && theirs && !(tracks.size + channels.size)) tell({ bye: UNKNOWN_SESSION });
		renew();
	};

	// Begins a session. The browser then asks for an offer.
	const renew = () => {
		if (state === CLOSED) return;
		let mine;
		try {
			mine = new RTCPeerConnection(_rtc());
		} catch (error) {
			return queueMicrotask(() => fail(error, "failed"));
		}
		drop();
		session = random();
		theirs = needed = undefined;
		seq = 0;
		local = [];
		call.pc = pc = mine;
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
			if (!known && channels.size >= MAX_USERS) return link.close();
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
		return mine;
	};

	// Before a new session: fresh ICE servers, and a pause, because a peer may ask for many.
	const ready = async () => {
		await _ice();
		renewed = Math.max(renewed, Date.now() - 3e3) + 1e3;
		const ms = renewed - Date.now();
		if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
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
		if (/403|413/.test(outcome?.status)) fail(outcome, "refused");
		else if (outcome?.status) emit("error", outcome);
		else if (outcome === "delivered") present();
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
				if (seq) {
					await ready();
					if (!renew()) return;
				}
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
		run(async () => {
			if (offering()) return offer();
			await _ice();
			if (pc?.remoteDescription) pc.restartIce();
		});
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

	const fail = (error, reason) => {
		emit("error", error);
		end(reason);
	};

	const end = (reason) => {
		if (state === CLOSED) return;
		drop();
		_ended(reason === "lost" || (theirs ?? kept[0]?.session));
		release?.();
		disarm();
		channels.forEach((channel) => channel.close());
		watch?.close();
		become(CLOSED);
		emit("bye", `${reason}`);
	};

	return call;
};

// Outlives its RTCDataChannel. There may be one of each side: both are heard, and sends stay in order on the one that opened first.
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
			queue.push([data, size - queued]);
			queued = size;
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
		while (queue[0] && isOpen(out)) {
			const [data, size] = queue.shift();
			queued -= size;
			// It may be too long.
			try {
				out.send(data);
			} catch (error) {
				console.error(error);
			}
		}
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
 * The device's stream, and one for all watches. With `shared` the tab with a Web Lock has them, and tells the others over a
 * BroadcastChannel. When it goes, the next gets the lock, and resumes from the last cursor.
 */
const createLink = (api, shared, onFrame, onState, taken) => {
	const locks = shared && navigator.locks, name = `backend-signal ${shared} ${api._url("", api._caller)}`, me = random(), stop = new AbortController(), { signal } = stop;
	// What the tabs want.
	const mine = { names: [], users: [], calls: [] }, tabs = new Map([[me, mine]]);
	const channel = locks && new BroadcastChannel(name), wait = createTimer();
	let streams = [], users = [], live;
	let past = { present: new Map() };

	const lock = (name, act) => locks.request(name, { signal }, act).catch(() => {});
	// A tab that stands still is robbed, and queues again.
	const stand = (how = { signal }) => locks.request(name, how, lead).catch(() => {
		if (signal.aborted || !streams[0]) return;
		quiet();
		stand();
	});
	const quiet = () => {
		streams.forEach((stream) => stream._close());
		streams = users = [];
		live = false;
	};
	const suspect = () => {
		tell(true);
		wait(() => stand({ steal: true }), PATIENCE_MS * (1 + Math.random()));
	};
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
		wait();
		const own = createStream(api, "subscribe", () => ({ format: "envelope", ...api._caller }), (state, error) => {
			live = state === LIVE || (live && state === RECONNECTING);
			spread();
			post({ state, error });
		}, past.cursor);
		const watch = createStream(api, "devices", () => ({ user: users }), (_, error) => error && post({
			frame: { stream: "devices", event: "signal.error", data: JSON.stringify({ status: error.status, ...error.body }), id: "" },
		}));
		streams = [own, watch];
		if (!MUTE.includes(past.state)) own._open();
		return closed();
	};

	const hear = ({ frame, state, error, before, tab, wants, ask, takeOver }) => {
		const { present } = past, [own] = streams;
		if (locks && !own && (frame || state || before)) wait(suspect, SUSPECT_MS);
		if (frame) {
			const { stream, event, id, late } = frame, value = parse(frame.data);
			if (event === READY) past.frame = frame;
			if (stream === "subscribe") past.cursor = id || past.cursor;
			else if (value?.user) {
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
		// A new tab may have a better token.
		if (before && !past.state) before.state === UNAUTHORISED ? post({ takeOver: true }) : hear((past = before));
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
			const wake = ({ type }) => streams.forEach((stream) => stream._wake(type));
			listen(globalThis, "online pageshow pagehide visibilitychange", wake, { signal });
			if (!locks) return lead();
			lock(name + me, closed);
			stand();
			suspect();
		},
		_want(what, list) {
			mine[what] = [...list];
			tell();
		},
		// The tab with its lock has the call. The others hear so.
		_claim(path, act) {
			if (!locks) return act();
			lock(name + path, act);
			tell(true);
		},
		_takeOver: () => post({ takeOver: true }),
		_present: (user) => past.present.get(user),
		_elsewhere: (path) => all("calls").includes(path),
		_close() {
			stop.abort();
			wait();
			channel?.close();
			quiet();
		},
	};
};

// An EventSource that comes back, with a new ticket where tokens are used.
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
		if (ready) api._silence = value.heartbeat_ms * 1.5 + 2e3;
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
		} else again(2e3);
	};

	const finish = (state, error) => {
		close();
		onState(state, error);
	};

	const refused = (error) => {
		const { status, retryAfter } = error, forbidden = /40[13]/.test(status);
		if (status === 204) finish(SUPERSEDED);
		else if (forbidden && !renewed && (renewed = api._renew())) open();
		else if (forbidden) finish(UNAUTHORISED, error);
		// A wrong address is said at once.
		else if (!everLive && /^4(?!08|29)/.test(status)) finish(CLOSED, error);
		else again(retryAfter || 0);
	};

	return {
		_open: open,
		_close: close,
		_listen: hearNames,

		// An answer to something else ends the backoff.
		_hurry: () => earliest && wait(open, earliest - Date.now() + Math.random() * 1e3),

		_wake(type) {
			if (!wanted) return;
			if (type === "pagehide") stop();
			else if (type === "online" || Date.now() > deadline) open();
		},
	};
};

const createApi = ({ url: base, token, user, device, shared, credentials, heartbeat }) => {
	const root = new URL(base ?? ".", base ? globalThis.location?.href : import.meta.url);
	if (!root.pathname.endsWith("/")) root.pathname += "/";
	if (device === undefined) device = deviceId(shared && navigator.locks);
	let known, down;

	// One that does not come is asked for again. An error of the app is no answer of the daemon.
	const bearerOf = async () => {
		try {
			return token?.call ? await Promise.race([token(), new Promise((_, reject) => setTimeout(reject, PATIENCE_MS))]) : token;
		} catch (cause) {
			throw new Error("token", { cause });
		}
	};

	const api = {
		_credentials: credentials,
		_heartbeat: heartbeat,
		_silence: 6e4,

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

		// None where the daemon reads no tokens.
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
				const found = probe && status === 200;
				if (found && !/event-stream/.test(headers.get("content-type"))) return { status: 404, body: { detail: `no daemon at ${root}` } };
				const body = found ? void answer.body.cancel() : parse(await answer.text());
				return { status, body: body ?? {}, retryAfter: Math.min(Math.max(headers.get("retry-after") * 1e3, 0), 6e5) };
			} catch {
				signal?.throwIfAborted();
				return { status: 0, body: {} };
			}
		},

		// Repeats after 429 and 503 for as long as `wait` allows; with a `key` also without an answer.
		async _ask(path, { body, ttl, key, signal, wait = PATIENCE_MS } = {}) {
			const end = Date.now() + wait;
			for (let failures = 0, renewed; ; failures++) {
				const asked = (known ??= bearerOf());
				asked.catch(() => known === asked && api._renew());
				const bearer = await asked;
				const headers = {
					...(body && { "content-type": "application/json" }),
					...(key && { "idempotency-key": key }),
					...(ttl && { ttl }),
					...(bearer && { authorization: `Bearer ${bearer}` }),
				};
				const answer = await api._once(api._url(path, api._caller), { method: body ? "POST" : "GET", body, headers, signal });
				const { status, retryAfter } = answer;
				// The network is back. Tickets, without `wait`, say nothing of streams.
				if (!status) down = true;
				else if (down && wait && status < 500 && status !== 429) down = api._answered();
				if (status === 401 && !renewed && (renewed = api._renew())) continue;
				const again = (body && !key ? /429|503/ : /^0|408|425|504|429|503/).test(status);
				const pause = retryAfter || Math.random() * Math.min(500 * 2 ** failures, 4e3);
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

// `on` gives a function that removes the listener, `emit` says whether there is one.
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

// A timer of which the last start counts. Without arguments it stops.
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

// What became of a send. `refused`: it can never succeed as it is.
const outcomeOf = ({ status, body: { code } }) =>
	({ 200: "delivered", 202: "held", 429: code === "mailbox_full" ? "full" : "limited" })[status] ??
	(code === "not_connected" ? code : /^0|408|425|504/.test(status) ? "unknown" : status < 500 ? "refused" : "unavailable");

const failure = ({ status, body: { detail = `status ${status}`, code } = {} }) =>
	Object.assign(new Error(detail), { name: "SignalError", status, code });

const parse = (text) => {
	try {
		return JSON.parse(text);
	} catch {}
};

// The path of a device, or of all of a user. Also the key and the order of addresses.
const pathOf = (user, device) => `user/${encodeURIComponent(user)}/device${device ? `/${encodeURIComponent(device)}` : "s"}`;
const random = () => crypto.getRandomValues(new BigUint64Array(1))[0].toString(16).padStart(16, 0);

let tab;

// A reload finds it in the session storage; a duplicated tab, which gets a copy while the page lives, does not.
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
