// Compiles: a page in types. Not run.

import { connect, type Call, type Message, type Outcome, type SignalError } from "../client.js";

const signal = await connect({ token: () => Promise.resolve("token") });
signal.on("state", (state) => console.log(state satisfies "connecting" | "live" | "reconnecting" | "superseded" | "unauthorised" | "closed"));
const call = signal.call("bob", "phone");
const chat = call.channel("chat");
signal.on("call", (call: Call) => call.accept());
call.on("restart", (why) => console.log(why satisfies string));
const outcome: Outcome = await signal.send("bob", "phone", "invite", { room: 7 }, { ttl: 30 });
const watch = signal.watch(["bob", "eve"]);
watch.on("online", ({ user, device }) => console.log(user.length + device.length, outcome));

const off: () => void = signal.on("message:invite", (message: Message) => message.json().room);
off();
const abort = new AbortController();
await connect({
  url: new URL("https://signal.example.org/base/"), user: "ana", device: null, events: ["invite"], credentials: "include", shared: true,
  heartbeat: 5, signal: abort.signal, iceServers: [{ urls: "stun:stun.example.org" }], rtc: { iceTransportPolicy: "relay" },
  on: { state: (state) => state.length, frame: ({ stream, event, data, id }) => [stream, event, data, id], "message:x": ({ from }) => from?.device },
}).catch((error: SignalError) => console.log(error.status, error.code, error.message));
const { delivered } = await signal.broadcast("bob", null, [1, 2]);
const devices: string[] = await signal.devices(delivered[0] ?? "bob");
call.on("track", ({ track, streams }) => call.addTrack(track, ...streams));
call.on("channel", (channel) => channel.send(new Uint8Array(devices.length)));
chat.onmessage = ({ data }) => chat.send(data);
chat.addEventListener("close", () => chat.bufferedAmount);
call.pc?.getStats();
call.reject("busy");
watch.close();
signal.takeOver();
signal.close();
