// What README.md and docs/http.md show for a page and for Node.js, as a reader pastes it, against a daemon with `--dev` and
// `--stun stun:127.0.0.1:9`, where nobody answers.
//
//   CHROMIUM=/usr/bin/chromium node readme.mjs http://127.0.0.1:1837 target/debug/backend-signal
//
// The executable is for what docs/identity.md says about tokens of one's own, which needs a daemon of its own.
//
// Each page is opened twice: from a file, and from a server of another origin than the daemon's.

import assert from "node:assert/strict";
import { execFile, execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [DAEMON, EXECUTABLE] = process.argv.slice(2);
const PATIENCE_MS = 60_000;
const FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
  // Candidates with the address of this machine: there may be no mDNS, and no network but the loopback.
  "--disable-features=WebRtcHideLocalIpsWithMdns", "--allow-loopback-in-peer-connection",
  "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];

/** The only block of a page in this language that contains the mark, with the daemon's real address. */
function block(page, language, mark) {
  const text = fs.readFileSync(new URL(`../../${page}`, import.meta.url), "utf8");
  const blocks = [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, "gm"))].map(([, code]) => code);
  const [code, ...more] = blocks.filter((code) => code.includes(mark));
  assert.ok(code && more.length === 0, `${page}: one block of ${language} with ${mark}`);
  assert.ok(code.includes("http://localhost:1837"), `${page}: the block names the daemon`);
  return code.replaceAll("http://localhost:1837", DAEMON);
}

async function until(what, condition) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `did not come in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Gives the address of a file and of an HTTP server that have this page. */
async function places(html, close) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "readme-"));
  close.push(() => fs.rmSync(folder, { recursive: true }));
  const file = path.join(folder, "page.html");
  fs.writeFileSync(file, html);
  const server = http.createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(html);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  close.push(() => { server.close(); server.closeAllConnections(); });
  return [pathToFileURL(file).href, `http://127.0.0.1:${server.address().port}/page.html`];
}

/** Opens a page, and collects what it writes to the console. */
async function open(browser, url) {
  const page = await (await browser.newContext()).newPage();
  const lines = [];
  page.on("console", (message) => lines.push(message.text()));
  page.on("pageerror", (error) => lines.push(`error: ${error.message}`));
  await page.goto(url);
  return { page, lines };
}

let lineNumber = 0;

/** Somebody writes lines until one has arrived: what is written while the call is interrupted may be lost. */
async function hears(from, to, what, lines) {
  let last = 0;
  const sent = [];
  await until(`${what}; the pages said ${JSON.stringify(lines)}`, async () => {
    if (Date.now() - last > 1_000) {
      last = Date.now();
      sent.push(`line ${lineNumber += 1}`);
      await from.fill("#line", sent.at(-1));
      await from.press("#line", "Enter");
    }
    const log = await to.textContent("#log");
    return sent.some((text) => log.split("\n").some((line) => line.endsWith(`: ${text}`)));
  });
}

async function twoPagesTalk(browser, url) {
  const [alice, bob] = [await open(browser, `${url}?alice`), await open(browser, `${url}?bob`)];
  for (const { page } of [alice, bob]) await page.getByText(/^(alice|bob): call connected$/).waitFor({ timeout: PATIENCE_MS });
  const both = async (when) => {
    await hears(alice.page, bob.page, `Bob hears Alice ${when}`, [alice.lines, bob.lines]);
    await hears(bob.page, alice.page, `Alice hears Bob ${when}`, [alice.lines, bob.lines]);
  };
  await both("at first");
  await bob.page.reload();
  await both("after Bob's page was loaded again");
  await alice.page.reload();
  await both("after Alice's page was loaded again");
  assert.deepEqual([...alice.lines, ...bob.lines].filter((line) => line.startsWith("error: ")), []);
  await Promise.all([alice, bob].map(({ page }) => page.context().close()));
}

/** The README's lines for camera and microphone, in its page: each side sees the other. */
async function twoPagesSeeEachOther(browser, page, close) {
  const readme = fs.readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  const [, element] = /`(<video [^`]*>)`/.exec(readme);
  const [, lines] = /^```js\n([^`]*getUserMedia[^`]*)^```$/m.exec(readme);
  const begin = "  function talk(call) {\n";
  assert.ok(page.includes(begin));
  const [, url] = await places(page.replace(begin, begin + lines).replace("<script", `${element}\n<script`), close);
  const pages = [await open(browser, `${url}?alice`), await open(browser, `${url}?bob`)];
  for (const { page } of pages) await page.waitForFunction(() => document.querySelector("video").videoWidth > 0, null, { timeout: PATIENCE_MS });
  await Promise.all(pages.map(({ page }) => page.context().close()));
}

/** docs/identity.md from its secret to the call: its commands, its program, and the README's page with its line. */
async function ownTokens(browser, page, close) {
  const text = fs.readFileSync(new URL("../../docs/identity.md", import.meta.url), "utf8");
  const part = text.split("\n## ").find((part) => part.startsWith("From --dev to tokens of your own\n"));
  const code = (language, mark) => [...part.matchAll(new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\`$`, "gm"))].map(([, code]) => code).find((code) => code.includes(mark));
  const cwd = fs.mkdtempSync(path.join(os.tmpdir(), "readme-"));
  close.push(() => fs.rmSync(cwd, { recursive: true }));
  const [secret, start] = code("sh", "openssl").trim().split("\n");
  execFileSync("/bin/sh", ["-c", secret], { cwd });
  const options = start.split(" -- ")[1].split(" ");
  const child = spawn(path.resolve(EXECUTABLE), ["--host", "127.0.0.1", "--port", "0", ...options], { cwd, env: {}, stdio: ["ignore", "ignore", "pipe"] });
  close.push(() => child.kill("SIGKILL"));
  let log = "";
  child.stderr.on("data", (chunk) => { log += chunk; });
  await until("the daemon listens", () => /listening on \S+\n/.test(log) || assert.equal(child.exitCode, null, log));
  const daemon = `http://${/listening on (\S+)/.exec(log)[1]}`;
  fs.writeFileSync(path.join(cwd, "sign.mjs"), code("js", "createHmac"));
  const token = (user) => execFileSync(process.execPath, ["sign.mjs", user], { cwd, encoding: "utf8" }).trim();
  const connects = /^  const signal = await connect\(.*\n/m;
  const own = page.replace(DAEMON, daemon).replace(connects, code("js", "connect("));
  assert.notEqual(own, page.replace(DAEMON, daemon));
  for (const url of await places(own, close)) {
    const at = (user) => open(browser, `${url}?${user}#${token(user)}`);
    const [alice, bob] = [await at("alice"), await at("bob")];
    await hears(alice.page, bob.page, "Bob hears Alice", [alice.lines, bob.lines]);
    const refused = await open(browser, `${url}?alice#no-token`);
    await refused.page.getByText("alice: unauthorised").waitFor({ timeout: PATIENCE_MS });
    await Promise.all([alice, bob, refused].map(({ page }) => page.context().close()));
  }
}

/** The page prints these lines and no other. A message may come before the answer to the request that sent it. */
async function prints(browser, url, expected) {
  const { page, lines } = await open(browser, url);
  await until(`the lines of ${url}`, () => lines.length >= expected.length);
  assert.deepEqual(lines.toSorted(), expected.toSorted());
  await page.context().close();
}

/**
 * Runs the snippet of docs/http.md with this mark in a page of the daemon's own origin, as behind a proxy. `before`, the
 * snippet and `after` are one module. What the snippet calls is made up here, and the page collects the calls in `called`.
 */
async function snippet(browser, mark, before, names, after = "") {
  const { page } = await open(browser, `${DAEMON}/client.d.ts`);
  const text = fs.readFileSync(new URL("../../docs/http.md", import.meta.url), "utf8");
  const [code, ...more] = [...text.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map(([, code]) => code).filter((code) => code.includes(mark));
  assert.ok(code && more.length === 0, `docs/http.md: one block of js with ${mark}`);
  const made = names.map((name) => `const ${name} = (value) => called.push([${JSON.stringify(name)}, value]);`).join("\n");
  await page.evaluate(() => { window.called = []; });
  await page.addScriptTag({ type: "module", content: `${made}\n${before}\n${code}\n${after}` });
  const calls = async (count) => {
    await until(`${count} calls of the snippet with ${mark}`, () => page.evaluate((count) => called.length >= count, count));
    return page.evaluate(() => called);
  };
  return { page, calls };
}

async function theSnippetsOfHttpMd(browser) {
  const refused = await snippet(browser, `fetch("/subscribe")`, "", ["showError"]);
  const [[, problem]] = await refused.calls(1);
  assert.equal(problem.status, 401);

  const report = `called.push(["peer", peer.getConfiguration().iceServers[0].urls]);`;
  const ice = await snippet(browser, `fetch("/ice")`, "", [], report);
  assert.deepEqual(await ice.calls(1), [["peer", ["stun:127.0.0.1:9"]]]);

  const lost = `const stream = new EventSource("/subscribe?user=eve&device=phone&last_event_id=none");`;
  const broken = await snippet(browser, "restartNegotiation", lost, ["restartNegotiation"]);
  assert.equal((await broken.calls(1)).length, 1);

  const tab = `const stream = new EventSource("/subscribe?user=eve&device=tab");
    stream.addEventListener("signal.ready", () => called.push(["ready"]), { once: true });`;
  const old = await snippet(browser, "showButton", tab, ["showButton"]);
  await old.calls(1);
  await old.page.evaluate(() => { window.newer = new EventSource("/subscribe?user=eve&device=tab"); });
  assert.deepEqual(await old.calls(2), [["ready"], ["showButton", "Use this tab instead"]]);

  const watch = await snippet(browser, "signal.devices", "", ["show", "add", "remove"]);
  assert.equal((await watch.calls(1))[0][0], "show");
  await watch.page.evaluate(() => { window.phone = new EventSource("/subscribe?user=bob&device=watched"); });
  assert.deepEqual((await watch.calls(2))[1], ["add", "watched"]);
  await watch.page.evaluate(() => window.phone.close());
  assert.deepEqual((await watch.calls(3))[2], ["remove", "watched"]);
  await Promise.all([refused, ice, broken, old, watch].map(({ page }) => page.context().close()));
}

/** Runs a module in Node.js until it has printed these lines, in any order. */
function nodePrints(code, expected) {
  return new Promise((resolve, reject) => {
    const child = execFile(process.execPath, ["--input-type=module", "--eval", code], { timeout: PATIENCE_MS });
    let printed = "";
    child.stdout.on("data", (chunk) => {
      printed += chunk;
      const lines = printed.split("\n").filter((line) => line !== "");
      if (lines.toSorted().join("\n") === expected.toSorted().join("\n")) {
        child.kill();
        resolve();
      }
    });
    child.stderr.pipe(process.stderr);
    child.on("exit", () => reject(new Error(`Node.js printed ${JSON.stringify(printed)}`)));
  });
}

async function main() {
  assert.ok(DAEMON?.startsWith("http://") && EXECUTABLE, "usage: node readme.mjs http://HOST:PORT EXECUTABLE");
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, headless: true, chromiumSandbox: false, args: FLAGS });
  const close = [() => browser.close()];
  let passed = 0;
  const ok = (what) => { passed += 1; console.log(`ok: ${what}`); };
  try {
    const call = block("README.md", "html", "signal.call(");
    for (const url of await places(call, close)) {
      await twoPagesTalk(browser, url);
      ok(`two copies of the README's page talk, ${url.split(":")[0]}`);
    }
    await twoPagesSeeEachOther(browser, call, close);
    ok("two copies with the README's lines for the camera see each other");
    await ownTokens(browser, call, close);
    ok("with the commands, the program and the line of docs/identity.md they talk with tokens");
    const backend = block("README.md", "js", `from "eventsource"`);
    await nodePrints(backend, ["200", "hello from myself"]);
    ok("the README's backend in Node.js gets its own message");
    const withoutImport = backend.split("\n").filter((line) => !line.startsWith("import ")).join("\n");
    for (const url of await places(`<!doctype html><script type="module">${withoutImport}</script>`, close)) {
      await prints(browser, url, ["200", "hello from myself"]);
      ok(`the same in a page, ${url.split(":")[0]}`);
    }
    const page = block("docs/http.md", "html", "new EventSource(");
    const [file] = await places(page, close);
    // Another device: what the first page got has not been confirmed by a cursor, so the next one would be told `broken`.
    const [, server] = await places(page.replaceAll("laptop", "tablet"), close);
    for (const url of [file, server]) {
      await prints(browser, url, ["new", "200", "an offer"]);
      ok(`the page of docs/http.md, ${url.split(":")[0]}`);
    }
    await theSnippetsOfHttpMd(browser);
    ok("the five snippets of docs/http.md do what it says");
  } finally {
    for (const action of close.reverse()) await action();
  }
  console.log(`${passed} passed, 0 failed`);
}

setTimeout(() => {
  console.error("failed: not done within 240 s");
  process.exit(1);
}, 240_000).unref();

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
