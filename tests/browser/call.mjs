// Two pages make a call through the daemon with a token: with client.js, and with nothing but EventSource and fetch. A stolen ticket
// is worth nothing.
//
//   CHROMIUM=/usr/bin/chromium node call.mjs https://127.0.0.1:1837 TOKEN_OF_ANA TOKEN_OF_BOB
//
// The daemon runs with TLS and `--auth jwt`. The pages run the code of docs/production.md.

import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import { chromium } from "playwright-core";

const [DAEMON, ANA, BOB] = process.argv.slice(2);
const PATIENCE_MS = 60_000;
/** How long a ticket lives, and a little more. */
const TICKET_MS = 30_500;

const FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
  // The daemon's certificate is self-signed.
  "--ignore-certificate-errors",
  // Candidates with the address of this machine: there may be no mDNS, and no network but the loopback.
  "--disable-features=WebRtcHideLocalIpsWithMdns", "--allow-loopback-in-peer-connection"];

/** The block of code in the page of the documentation. */
function code() {
  const page = fs.readFileSync(new URL("../../docs/production.md", import.meta.url), "utf8");
  const blocks = [...page.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map(([, block]) => block);
  const [block, ...more] = blocks.filter((block) => block.includes("function call("));
  assert.deepEqual(more, []);
  return block;
}

/** The page of docs/production.md: that of the README with two lines changed, and what gets the token. */
function pageWithClient() {
  const read = (name) => fs.readFileSync(new URL(`../../${name}`, import.meta.url), "utf8").match(/^```html\n([^]*?signal\.call\([^]*?)^```$/m)[1];
  const [page, readme] = [read("docs/production.md"), read("README.md")];
  assert.ok(page.includes("https://signal.example.org/client.js"));
  const lines = page.split("\n").map((line) => line.trim());
  const absent = readme.split("\n").filter((line) => !lines.includes(line.trim()));
  assert.deepEqual(absent.map((line) => /import|connect\(/.exec(line)?.[0]), ["import", "connect("], "two lines of the README's page are changed");
  return page.replace("https://signal.example.org", DAEMON);
}

async function callsWithClient(browser, address) {
  const url = address(pageWithClient());
  const load = async (user, token) => {
    const page = await (await browser.newContext()).newPage();
    page.on("pageerror", (error) => errors.push(error.message));
    await page.route("**/token", (route) => route.fulfill({ body: token }));
    await page.goto(`${url}?${user}`);
    return page;
  };
  const errors = [];
  const [bob, ana] = [await load("bob", BOB), await load("alice", ANA)];
  for (const page of [ana, bob]) await page.getByText(/: call connected$/).waitFor({ timeout: PATIENCE_MS });
  const log = bob.locator("#log");
  await until("Bob reads what Ana writes", async () => {
    await ana.fill("#line", "hello");
    await ana.press("#line", "Enter");
    return (await log.textContent()).includes("alice: hello");
  });
  const refused = await load("alice", "expired");
  await refused.getByText("alice: The token is not valid").waitFor({ timeout: PATIENCE_MS });
  assert.deepEqual(errors, []);
  await Promise.all([ana, bob, refused].map((page) => page.context().close()));
}

/** The snippet of docs/identity.md opens a stream with a ticket, in a page of the daemon's own origin. */
async function opensAStreamWithATicket(browser) {
  const text = fs.readFileSync(new URL("../../docs/identity.md", import.meta.url), "utf8");
  const blocks = [...text.matchAll(/^```js\n([^]*?)^```$/gm)].map(([, block]) => block);
  const code = blocks.find((block) => block.includes(`fetch("/ticket"`));
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${DAEMON}/client.d.ts`);
  const before = `const token = ${JSON.stringify(BOB)}, device = "snippet";`;
  const after = `stream.addEventListener("signal.ready", ({ data }) => { window.ready = JSON.parse(data); });`;
  await page.addScriptTag({ type: "module", content: before + code + after });
  await until("a stream", () => page.evaluate(() => Boolean(window.ready)));
  assert.equal(await page.evaluate(() => window.ready.device), "snippet");
  await page.context().close();
}

/** Opens a page of another origin than the daemon's, and notes the tickets in its URLs. */
async function open(browser, origin, tickets) {
  const page = await (await browser.newContext()).newPage();
  page.on("request", (request) => {
    const ticket = new URL(request.url()).searchParams.get("ticket");
    if (ticket) tickets.push(ticket);
  });
  await page.goto(origin);
  await page.addScriptTag({ content: code() });
  await page.evaluate(() => {
    window.texts = [];
    window.onChannel = (channel) => {
      channel.onmessage = ({ data }) => window.texts.push(data);
      const greet = () => channel.send(`hello from ${window.me}`);
      if (channel.readyState === "open") greet();
      else channel.onopen = greet;
    };
  });
  return page;
}

/** One side of the call. `offers`: this side begins. */
function call(page, token, me, to, offers) {
  return page.evaluate(([server, token, me, to, offers]) => {
    window.me = me;
    window.peer = call({ server, token: async () => token, device: `${me}'s phone` }, to, offers, window.onChannel);
  }, [DAEMON, token, me, to, offers]);
}

/** Asks the daemon as somebody who is no browser. Gives the status, and the body of an answer that ends. */
function ask(method, path, headers = {}) {
  return new Promise((resolve, reject) => {
    const request = https.request(DAEMON + path, { method, headers, rejectUnauthorized: false, agent: false }, (answer) => {
      if (String(answer.headers["content-type"]).startsWith("text/event-stream")) {
        request.destroy();
        return resolve({ status: answer.statusCode });
      }
      let body = "";
      answer.on("data", (chunk) => { body += chunk; }).on("end", () => resolve({ status: answer.statusCode, body }));
    });
    request.on("error", reject).end();
  });
}

async function until(what, condition) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await condition();
    if (found) return found;
    assert.ok(Date.now() < deadline, `did not come in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The first answer to a POST of `/ticket` is 503, as while the daemon stops. */
async function refuseFirstTicket(page) {
  let refused = 0;
  await page.route("**/ticket", (route) => {
    if (route.request().method() !== "POST" || refused > 0) return route.continue();
    refused += 1;
    const headers = { "access-control-allow-origin": "*", "content-type": "application/problem+json" };
    return route.fulfill({ status: 503, headers, body: `{"status":503,"code":"draining"}` });
  });
  return () => refused;
}

async function learnsThatItIsLoggedOut(browser, origin) {
  const page = await open(browser, origin, []);
  await page.evaluate((server) => {
    const onLoggedOut = () => { window.loggedOut = true; };
    connect({ server, token: async () => "expired", device: "phone", events: [], receive() {}, onLoggedOut });
  }, DAEMON);
  await until("logged out", () => page.evaluate(() => window.loggedOut));
}

async function makesACall(browser, origin) {
  const tickets = [];
  const bob = await open(browser, origin, tickets);
  const refused = await refuseFirstTicket(bob);
  await call(bob, BOB, "bob", { user: "ana" }, false);
  const ana = await open(browser, origin, tickets);
  const devices = () => ana.evaluate(async ([server, token]) => {
    const answer = await fetch(`${server}/user/bob/devices`, { headers: { authorization: `Bearer ${token}` } });
    return answer.json();
  }, [DAEMON, ANA]);
  const [device] = await until("Bob's device", async () => (await devices())[0] && devices());
  await call(ana, ANA, "ana", { user: "bob", device }, true);
  for (const [page, text] of [[ana, "hello from bob"], [bob, "hello from ana"]]) {
    await until(text, () => page.evaluate((text) => window.texts.includes(text), text));
  }
  assert.equal(await ana.evaluate(() => window.peer.connectionState), "connected");
  assert.equal(refused(), 1);
  assert.equal(tickets.length, 2, "each page opened one stream");
  await Promise.all([ana, bob].map((page) => page.context().close()));
  return tickets;
}

async function stolenTicketsAreWorthNothing(used, old, madeAt) {
  const events = { accept: "text/event-stream" };
  for (const ticket of used) {
    for (const path of ["/subscribe?device=phone", "/user/bob/devices?", "/devices?user=bob"]) {
      assert.equal((await ask("GET", `${path}&ticket=${ticket}`, events)).status, 401, path);
    }
  }
  // One that was never used opens a stream and nothing else.
  const { body } = await ask("POST", "/ticket", { authorization: `Bearer ${BOB}` });
  const { ticket } = JSON.parse(body);
  for (const [method, path] of [["POST", "/ticket?"], ["POST", "/user/ana/devices?"], ["GET", "/user/bob/devices?"]]) {
    assert.equal((await ask(method, `${path}ticket=${ticket}`)).status, 401, `${method} ${path}`);
  }
  assert.equal((await ask("GET", `/subscribe?device=tablet&ticket=${ticket}`, events)).status, 200);
  assert.equal((await ask("GET", `/subscribe?device=tablet&ticket=${ticket}`, events)).status, 401);
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, madeAt + TICKET_MS - Date.now())));
  assert.equal((await ask("GET", `/subscribe?device=tablet&ticket=${old}`, events)).status, 401, "after 30 s");
}

async function main() {
  assert.ok(DAEMON?.startsWith("https://") && ANA && BOB, "usage: node call.mjs https://HOST:PORT TOKEN_OF_ANA TOKEN_OF_BOB");
  const texts = ["<!doctype html><title>test</title>"];
  const pages = http.createServer((request, response) => {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(texts[Number.parseInt(request.url.slice(1), 10)]);
  });
  await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${pages.address().port}`;
  const address = (text) => `${origin}/${texts.push(text) - 1}`;
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, headless: true, chromiumSandbox: false, args: FLAGS });
  try {
    const madeAt = Date.now();
    const { body } = await ask("POST", "/ticket", { authorization: `Bearer ${BOB}` });
    const used = await makesACall(browser, origin);
    console.log("ok: two pages make a call");
    await learnsThatItIsLoggedOut(browser, origin);
    console.log("ok: a page learns that its token is refused");
    await stolenTicketsAreWorthNothing(used, JSON.parse(body).ticket, madeAt);
    console.log("ok: a stolen ticket is worth nothing");
    await callsWithClient(browser, address);
    console.log("ok: two pages make a call with client.js");
    await opensAStreamWithATicket(browser);
    console.log("ok: the snippet of docs/identity.md opens a stream with a ticket");
  } finally {
    await browser.close();
    pages.close();
    pages.closeAllConnections();
  }
  console.log("5 passed, 0 failed");
}

setTimeout(() => {
  console.error("failed: not done within 240 s");
  process.exit(1);
}, 240_000).unref();

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
