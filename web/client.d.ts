// The types of client.js.

/** Opens the stream of this device. Resolves at the first `signal.ready`. Rejects when the server refuses, or on abort. */
export function connect(options?: Options): Promise<Signal>;

export interface Options {
  /** The base address of the daemon. Default: the folder that client.js was loaded from. */
  url?: string | URL;
  /** A token for `--auth jwt`, or a function that gives one. It is called again when the server refuses a token or one expires, and when it rejects or takes longer than 10 s. */
  token?: string | (() => string | null | undefined | Promise<string | null | undefined>);
  /** With `--dev` only: who this is. */
  user?: string;
  /** This device. Default: an id of this tab, kept over a reload, new in a duplicated tab. `null`: the identity names the device. */
  device?: string | null;
  /** Event names to listen for from the start. An EventSource hears only names that it was told. */
  events?: string[];
  /** Listeners from before the stream opens, by name, as for `signal.on`. */
  on?: { [K in keyof SignalEvents]?: (value: SignalEvents[K]) => void } & { [name: `message:${string}`]: (message: Message) => void };
  /** As in `fetch`. "include" sends the cookie of a proxy to another origin. */
  credentials?: RequestCredentials;
  /**
   * One device and one stream for all tabs of this origin that ask for it with the same value. Where tabs may have different logins,
   * give a text of the login, such as the user's id.
   */
  shared?: boolean | string;
  /** Seconds of silence after which the server sends a ping: 4 to 60. */
  heartbeat?: number;
  /** Closes the signal. */
  signal?: AbortSignal;
  /** ICE servers to use instead of what the daemon gives (`GET /ice`). */
  iceServers?: RTCIceServer[];
  /** More of the configuration of each RTCPeerConnection. ICE servers in it win. */
  rtc?: RTCConfiguration;
}

export interface Address {
  user: string;
  device: string;
}

export type State = "connecting" | "live" | "reconnecting" | "superseded" | "unauthorised" | "closed";

/**
 * What became of a send.
 * `delivered`: the device is connected and has the message in its mailbox. `held`: it is absent, and the message waits for it.
 * `not_connected`: it is absent; nothing was kept. `full`: its mailbox is full, or 256 of your sends wait. `limited`: you send too much. `unavailable`: the
 * server cannot take it now. After `unknown` it may have been delivered: there was no answer for 10 s.
 */
export type Outcome = "delivered" | "held" | "not_connected" | "full" | "limited" | "unavailable" | "unknown";

export interface Sender {
  user: string;
  device: string | null;
}

export interface Message {
  /** The name that the sender gave. */
  event: string | null;
  /** The text as it came. Data that is no string comes as its JSON text. */
  data: string;
  /** `data` parsed as JSON. */
  json(): any;
  /** Null: anonymous. */
  from: Sender | null;
  sentAt: Date;
  id: string;
}

export interface Ready {
  user: string;
  device: string;
  continuity: "new" | "resumed" | "broken";
  replayed: number;
  heartbeat_ms: number;
}

/** One event of a stream, as it came. */
export interface Frame {
  stream: "subscribe" | "devices";
  event: string;
  data: string;
  id: string;
  /** The stream has come back after a loss. */
  late?: boolean;
}

/** A message that this page sent, with its outcome. `device` is null for a broadcast. */
export interface Sent {
  user: string;
  device: string | null;
  event: string | null;
  data: unknown;
  ttl: number | undefined;
  /** `refused`: the send rejects. */
  outcome: Outcome | "refused";
  /** The status of the answer; 0 when there was none. */
  status: number;
}

export interface SendOptions {
  /** Seconds to hold the message for an absent device. */
  ttl?: number;
  signal?: AbortSignal;
}

export interface SignalEvents {
  state: State;
  ready: Ready;
  /** A message without a name. */
  message: Message;
  call: Call;
  frame: Frame;
  /** A message goes out. The same object comes again as `sent`. */
  sending: Omit<Sent, "outcome" | "status">;
  sent: Sent;
}

export interface Signal {
  readonly state: State;
  readonly user: string | null;
  readonly device: string | null;
  /** Adds a listener; gives a function that removes it. */
  on<K extends keyof SignalEvents>(name: K, listener: (value: SignalEvents[K]) => void): () => void;
  /** Messages with the name NAME. */
  on(name: `message:${string}`, listener: (message: Message) => void): () => void;
  /** Sends to one device, in order, and once, however often it has to try in 10 s. Rejects with a SignalError when the request can never succeed, such as 400, 401, 403, 413. */
  send(user: string, device: string, event: string | null, data: unknown, options?: SendOptions): Promise<Outcome>;
  /** Sends to all connected devices of a user. Without an answer it does not try again. */
  broadcast(user: string, event: string | null, data: unknown, options?: { signal?: AbortSignal }): Promise<{ outcome: Outcome; delivered: string[] }>;
  /** The connected devices of a user. */
  devices(user: string): Promise<string[]>;
  watch(users: string | string[]): Watch;
  /** Calls a device, or gives the call that there is with it. */
  call(user: string, device: string): Call;
  /** After `superseded`: takes the device back. After `unauthorised`: tries again, with a new token. */
  takeOver(): void;
  close(): void;
}

export interface Watch {
  readonly users: readonly string[];
  /** The whole list of a user: at first, and after each reconnect. */
  on(name: "devices", listener: (value: { user: string; devices: string[] }) => void): () => void;
  /** The server refuses the watch, such as 403: it has ended. */
  on(name: "error", listener: (error: { status: number; code?: string }) => void): () => void;
  /** `online` for a device that is there already: it has begun a new page. */
  on(name: "online" | "offline", listener: (value: { user: string; device: string }) => void): () => void;
  close(): void;
}

export type CallState = "ringing" | "connecting" | "waiting" | "connected" | "reconnecting" | "closed";

export interface CallEvents {
  state: CallState;
  track: RTCTrackEvent;
  /** The peer has made a channel with a label that this page has not asked for. */
  channel: Channel;
  /** The call negotiates again. */
  restart: "peer_reloaded" | "messages_lost" | "ice_failed";
  error: Error;
  /**
   * The call is over: "closed", "rejected", "refused" (403, 413), "failed" (no RTCPeerConnection can be made), "lost" (it rang, and its
   * caller said nothing for 45 s), "answered_elsewhere" (another tab has it), or the peer's own word.
   */
  bye: string;
}

export interface Call {
  readonly from: Address;
  readonly peer: Address;
  readonly state: CallState;
  /** The connection of now. It is replaced when the peer reloads. Undefined while the call rings. */
  readonly pc: RTCPeerConnection | undefined;
  on<K extends keyof CallEvents>(name: K, listener: (value: CallEvents[K]) => void): () => void;
  accept(): void;
  reject(reason?: string): void;
  close(reason?: string): void;
  /** The channel with this label. Both sides may ask for it. It outlives the RTCDataChannels under it. */
  channel(label: string, init?: RTCDataChannelInit): Channel;
  addTrack(track: MediaStreamTrack, ...streams: MediaStream[]): void;
  removeTrack(track: MediaStreamTrack): void;
}

/** Like an RTCDataChannel. While it is not open, up to 1 MiB that is sent waits. `open` fires again after each restart. */
export interface Channel extends EventTarget {
  readonly label: string;
  readonly readyState: "connecting" | "open" | "closed";
  readonly bufferedAmount: number;
  binaryType: BinaryType;
  onopen: ((event: Event) => void) | null;
  onmessage: ((event: MessageEvent) => void) | null;
  onclose: ((event: Event) => void) | null;
  send(data: string | Blob | ArrayBuffer | ArrayBufferView): void;
  close(): void;
}

/** Why a request failed for good. `name` is "SignalError". */
export interface SignalError extends Error {
  readonly status: number;
  /** The `code` of the server's answer, such as "forbidden". */
  readonly code?: string;
}
