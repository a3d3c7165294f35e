// Does not compile: each line that says so has an error, and no other.

import { connect } from "../client.js";

const signal = await connect({ tokens: "x" }); // wrong
signal.on("stat", () => {}); // wrong
signal.state = "live"; // wrong
await signal.send("bob", null, "event", {}); // wrong
signal.on("state", (state) => state === "offline"); // wrong
signal.call("bob", "phone").on("restart", (why) => why === "never"); // wrong
