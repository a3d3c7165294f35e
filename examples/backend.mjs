// A backend in Node.js 18 or newer that sends a message to a device. It needs no package.
//
//     node examples/backend.mjs bob phone 'hello'
//
// SIGNAL_URL is the address of the daemon. SIGNAL_TOKEN is a token of the backend; a daemon with --dev needs none.

const { SIGNAL_URL = "http://localhost:1837", SIGNAL_TOKEN } = process.env;

/** Gives "delivered", or "held" when the device is away: it gets the message if it connects within 30 s. */
async function send(user, device, event, data) {
  const url = `${SIGNAL_URL}/user/${encodeURIComponent(user)}/device/${encodeURIComponent(device)}`;
  const headers = { "content-type": "application/json", ttl: "30" };
  if (SIGNAL_TOKEN) headers.authorization = `Bearer ${SIGNAL_TOKEN}`;
  const body = JSON.stringify({ event, data });
  const answer = await fetch(url, { method: "POST", headers, body, signal: AbortSignal.timeout(10_000) });
  if (answer.status === 200) return "delivered";
  if (answer.status === 202) return "held";
  // After 429 and 503 it is worth trying again, in as many seconds as the header Retry-After says.
  throw new Error(`${answer.status}: ${await answer.text()}`);
}

const [user, device, text] = process.argv.slice(2);
console.log(await send(user, device, "greeting", text));
