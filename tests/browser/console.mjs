// The console as people use it: two tabs in a call, streams by hand, proxies that do harm, keyboard, phone, light and dark.
//
//   CHROMIUM=/usr/bin/chromium node console.mjs target/debug/backend-signal target/console
//
// Each scenario has a daemon of its own. Pictures of every state go to the folder. With CONSOLE_PICTURE=FILE only the picture of the
// README is made. CONSOLE_ONLY=proxy picks scenarios by their names. Exits with 1 when a promise does not hold.

import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import zlib from "node:zlib";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [DAEMON, PICTURES] = process.argv.slice(2);
const PATIENCE_MS = 60_000;
/** All scenarios together. */
const WHOLE_MS = 420_000;
/** Scenarios at the same time: some only wait, but each has tabs that encode video. */
const AT_ONCE = 4;
const PARTS = ["call", "stream", "devices", "metrics", "test", "code"];

const FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
  // Candidates with the address of this machine: there may be no mDNS, and no network but the loopback.
  "--disable-features=WebRtcHideLocalIpsWithMdns", "--allow-loopback-in-peer-connection",
  "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];

const SCENARIOS = {
  "one click makes a call between two tabs, and the diagram shows every signal": makesACall,
  "no camera before its button is pressed, then video in both directions, then none": showsVideo,
  "a tab that does not answer without asking rings, and may decline or answer": rings,
  "a ring ends as a missed call when its caller has gone": missesACall,
  "a tab that has gone is away, and one that has only lost the daemon is not": seesAnAbsentPeer,
  "after a reload the camera is offered again, and the other side knows": cameraAfterReload,
  "a reload of either tab does not end the call": survivesReload,
  "a restart of the daemon does not end the call, and is named": daemonRestarts,
  "the call goes on while the daemon is away, and the page comes back by itself": daemonAway,
  "a page that was taken over says so, stays quiet, and can take the device back": takenOver,
  "a call is made and ended with the keyboard alone": byKeyboard,
  "a stream is opened, cut and resumed by hand": resumesByHand,
  "devices are listed and watched, and a send shows its answer": sends,
  "a tab in the background leaves a connection to the others": yields,
  "metrics are shown": metrics,
  "the self-test finds nothing where nothing is": testsNothing,
  "the self-test names a proxy that buffers": testsBuffering,
  "the self-test names a proxy that compresses": testsCompression,
  "the self-test names a proxy that cuts": testsCutting,
  "the self-test says whether a TURN server gives a relay": testsRelay,
  "ids and messages of other people are only text": onlyText,
  "a page that takes the place of the peer is sent no camera unasked": keepsCamera,
  "a flood lays the page out once a frame, draws nothing in hidden parts, and stays small": floods,
  "a stranger is named, and forges and removes no row": strangers,
  "ids that cannot be read are shown with escapes": unreadable,
  "many devices scroll, and are announced together": crowd,
  "the code for the reader's own page makes a call from another origin": ownPage,
  "behind a prefix of a proxy everything works too": behindPrefix,
  "without an identity the page says how to connect, and with a token it does": withToken,
  "a token that is none or has expired is named": badTokens,
  "every part can be used by people who do not see it, in light and dark": accessible,
  "on a phone nothing is wider than the screen": onAPhone,
};

async function makesACall({ open, picture, metric }) {
  const first = await open("/");
  assert.match(first.url(), /\/console$/);
  await title(first, "Open this page in a second tab");
  await row(first, "told", /^ready · new$/);
  await picture(first, "alone");
  const [second] = await Promise.all([first.context().waitForEvent("page"), first.getByRole("link", { name: "Open a second tab" }).click()]);
  await title(second, "Call the other tab");
  await title(first, "Call the other tab");
  assert.notEqual(await name(first), await name(second), "a second tab is another device");
  await picture(second, "other-tab");
  await second.getByRole("button", { name: `Call ${await name(first)}` }).click();
  await title(second, `In a call with ${await name(first)}`);
  await title(first, `In a call with ${await name(second)}`);
  await chat(second, first, "hello from the second tab");
  await chat(first, second, "hello from the first tab");
  await picture(second, "in-a-call");
  for (const page of [first, second]) {
    const sent = page === second ? "offer" : "answer", got = page === second ? "answer" : "offer";
    assert.equal(await (await row(page, "out", new RegExp(`^${sent}$`))).getAttribute("data-note"), "200 delivered");
    await row(page, "in", new RegExp(`^${got}$`));
    await row(page, "out", /^\d+ candidates?$/);
    await row(page, "mark", /connected/);
    assert.equal(await page.locator('#rows [data-kind="direct"]').count(), 2, "the chat went directly");
  }
  const offer = (await row(second, "out", /^offer$/)).getByRole("button");
  assert.match(await offer.locator(".hidden-text").textContent(), /sent offer to .*: 200 delivered/);
  await offer.click();
  assert.equal(await offer.getAttribute("aria-expanded"), "true");
  await second.locator("#rows pre:not([hidden])").filter({ hasText: "a=ice-ufrag" }).waitFor();
  await picture(second, "full-text");
  await until("each tab has two streams", async () => [await metric("signal_streams"), await metric("signal_watches")].join() === "2,2");
  await second.getByRole("button", { name: "Hang up" }).click();
  await title(first, "The call has ended");
  await first.getByText("The other side hung up.").first().waitFor();
  await picture(first, "ended");
}

async function showsVideo({ two, picture }) {
  const [first, second] = await two();
  await callAndWait(second, first);
  for (const page of [first, second]) assert.equal(await page.evaluate(() => window.asked), 0, "no camera was asked for");
  for (const page of [first, second]) {
    await page.getByRole("button", { name: "Turn on camera and microphone" }).click();
    await page.getByRole("button", { name: "Turn off camera and microphone" }).waitFor();
  }
  const plays = () => document.querySelector("#their-video").videoWidth > 0 && !document.querySelector("#theirs").hidden;
  for (const page of [first, second]) {
    await page.waitForFunction(plays, null, { timeout: PATIENCE_MS });
    assert.equal(await page.evaluate(() => window.asked), 1);
    assert.equal(await page.evaluate(() => document.querySelector("#their-video").muted), true, "two tabs on one machine would howl");
  }
  await picture(second, "video");
  assert.ok(await second.getByRole("button", { name: "Hang up" }).evaluate((button) => button.getBoundingClientRect().bottom < innerHeight), "without scrolling a call can be ended");
  await second.getByRole("button", { name: "Unmute" }).click();
  await second.getByRole("button", { name: "Mute", exact: true }).waitFor();
  await first.getByRole("button", { name: "Turn off camera and microphone" }).click();
  await second.waitForFunction(() => document.querySelector("#theirs").hidden, null, { timeout: PATIENCE_MS });
  assert.equal(await second.evaluate(() => document.querySelector("#own").hidden), false, "the own camera stays on");
  await second.getByRole("button", { name: "Hang up" }).click();
  await title(second, "The call has ended");
  const live = () => [...document.querySelectorAll("video")].some((video) => video.srcObject?.getTracks().some((track) => track.readyState === "live"));
  assert.equal(await second.evaluate(live), false, "the camera is off after the call");
}

async function rings({ two, picture }) {
  const [first, second] = await two();
  assert.equal(await first.getByLabel("Answer without asking").isChecked(), true, "with --dev a tab answers");
  await first.getByLabel("Answer without asking").uncheck();
  await first.evaluate(() => document.activeElement.blur());
  await call(second, first);
  await title(first, `${await name(second)} calls`);
  assert.equal(await focused(first), "Answer", "with a keyboard one key answers");
  await second.getByText("Ringing. Somebody has to answer there.").waitFor();
  await row(first, "in", /^offer, again$/);
  assert.equal(await first.locator('#rows [data-kind="in"][data-label="offer"]').count(), 1, "an offer that repeats says so");
  assert.match(await first.title(), /calls/);
  await picture(first, "incoming");
  await picture(second, "calling");
  await first.getByRole("button", { name: "Decline" }).click();
  await second.getByText("The other side declined.").first().waitFor();
  await first.getByText("You declined.").first().waitFor();
  await call(second, first);
  await first.getByRole("button", { name: "Answer", exact: true }).click();
  await title(second, `In a call with ${await name(first)}`);
  await chat(second, first, "thank you for answering");
}

async function missesACall({ two, picture }) {
  const [first, second] = await two();
  const caller = await name(second);
  await first.getByLabel("Answer without asking").uncheck();
  await call(second, first);
  await title(first, `${caller} calls`);
  await second.close();
  await title(first, "Missed call");
  await first.getByText(`Missed call from ${caller}.`).first().waitFor();
  await picture(first, "missed");
}

async function seesAnAbsentPeer({ context, open, proxy, picture }) {
  const relay = await proxy();
  const first = await open("/"), second = await openAt(context, `${relay.url}/`);
  const other = await name(second);
  await callAndWait(second, first);
  const figure = first.locator("#path").getByText("there and back");
  await figure.waitFor();
  await relay.close();
  await first.getByText(`${other} has lost the daemon. You still talk directly.`).waitFor();
  await chat(second, first, "directly");
  await relay.open();
  await first.getByText("You can chat.").waitFor();
  await figure.waitFor();
  await second.close();
  await first.getByText(`${other} is away. Waiting until it comes back`).waitFor();
  assert.equal(await first.locator("#path").textContent(), "", "no figure of a peer that has gone");
  await picture(first, "peer-away");
}

async function cameraAfterReload({ two, picture }) {
  const [first, second] = await two();
  await callAndWait(second, first);
  await second.getByRole("button", { name: "Turn on camera and microphone" }).click();
  const plays = () => document.querySelector("#their-video").videoWidth > 0 && !document.querySelector("#theirs").hidden;
  await first.waitForFunction(plays, null, { timeout: PATIENCE_MS });
  await second.reload();
  await title(second, `In a call with ${await name(first)}`);
  await second.getByText("The reload has turned your camera off.").waitFor();
  await first.getByRole("log").getByText("Its camera is off until it is turned on again.").waitFor();
  assert.equal(await first.locator("#theirs").isVisible(), false, "no frozen picture");
  assert.equal(await second.evaluate(() => window.asked), 0, "no camera before its button is pressed");
  await picture(second, "camera-again");
  await second.getByRole("button", { name: "Turn the camera on again" }).click();
  await first.waitForFunction(plays, null, { timeout: PATIENCE_MS });
  await second.getByRole("button", { name: "Turn off camera and microphone" }).click();
  await second.reload();
  await title(second, `In a call with ${await name(first)}`);
  await second.getByRole("button", { name: "Turn on camera and microphone" }).waitFor();
}

async function daemonRestarts({ context, url, daemon, keep }) {
  const next = await daemon(["--dev"]);
  let target = url;
  const relay = await keep(listen((request, response) => proxyOf(target)(request, response)));
  const [first, second] = await twoAt(context, `${relay.url}/`);
  await callAndWait(second, first);
  await relay.close();
  await state(first, "reconnecting");
  target = next.url;
  await relay.open();
  for (const page of [first, second]) await page.getByRole("log").getByText("The daemon was restarted. The call goes on.").first().waitFor();
  await chat(second, first, "after the restart");
}

async function survivesReload({ two }) {
  const [first, second] = await two();
  await callAndWait(second, first);
  await chat(second, first, "before");
  const before = await name(first);
  for (const [reloaded, other] of [[first, second], [second, first]]) {
    await reloaded.reload();
    await title(reloaded, `In a call with ${await name(other)}`);
    assert.match(await reloaded.locator("#who-name").textContent(), /./);
    await chat(other, reloaded, "after the reload");
    await chat(reloaded, other, "and back");
    await row(other, "in", /^my old call has gone$/);
  }
  assert.equal(await name(first), before, "a reload keeps the device");
}

async function daemonAway({ context, proxy, picture }) {
  const relay = await proxy();
  const [first, second] = await twoAt(context, `${relay.url}/`);
  await callAndWait(second, first);
  await relay.close();
  await state(first, "reconnecting");
  await second.getByText("Your call does not need it").waitFor();
  await chat(second, first, "who needs a daemon");
  await picture(second, "away-in-a-call");
  await second.getByRole("button", { name: "Hang up" }).click();
  await second.getByText("The daemon does not answer.").waitFor();
  await picture(second, "away");
  await relay.open();
  await state(first, "live");
  await state(second, "live");
}

async function takenOver({ open, picture }) {
  const page = await open("/");
  await state(page, "live");
  const mine = await name(page);
  await part(page, "stream");
  const [twin] = await Promise.all([page.context().waitForEvent("page"), page.getByRole("link", { name: "Open this device again" }).click()]);
  await state(twin, "live");
  await state(page, "superseded");
  await page.locator("#notice").getByText("Another page took this device over.").waitFor();
  await part(page, "call");
  await title(page, "This device is open elsewhere");
  await picture(page, "superseded");
  await page.getByRole("button", { name: "Take it back" }).click();
  await state(page, "live");
  await state(twin, "superseded");
  assert.equal(await name(twin), mine);
}

async function byKeyboard({ two }) {
  const [first, second] = await two();
  await second.keyboard.press("Tab");
  assert.equal(await focused(second), "Skip to the content");
  await tabTo(second, `Call ${await name(first)}`);
  await second.keyboard.press("Enter");
  await title(second, `In a call with ${await name(first)}`);
  await tabTo(second, "Your message");
  await second.keyboard.type("no mouse");
  await second.keyboard.press("Enter");
  await first.getByRole("log").getByText("no mouse").waitFor();
  await tabTo(second, /^\d\d:\d\d:\d\d sent offer to/);
  await second.keyboard.press("Enter");
  await second.locator("#rows pre:not([hidden])").filter({ hasText: "a=ice-ufrag" }).waitFor();
  const outline = await second.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.notEqual(outline, "none", "the focus can be seen");
  await tabTo(second, "Hang up");
  await second.keyboard.press("Space");
  await title(second, "The call has ended");
  assert.match(await focused(second), /The call has ended/, "the focus is not lost with the button");
}

async function resumesByHand({ open, as, picture, metric }) {
  const page = await open("/console#stream");
  await state(page, "live");
  const frames = page.locator("#frames");
  await page.locator("#lab").getByLabel("Device").fill("by-hand");
  await page.getByRole("button", { name: "Open", exact: true }).click();
  await frames.getByText('"continuity":"new"').waitFor();
  await until("a tab has two streams at most", async () => [await metric("signal_streams"), await metric("signal_watches")].join() === "2,0");
  await page.getByRole("button", { name: "Send it a message" }).click();
  await frames.getByText('"data":"message 1"').waitFor();
  await page.getByRole("button", { name: "Cut" }).click();
  await frames.getByText("Cut.", { exact: true }).waitFor();
  const cursor = await page.getByLabel("Cursor").inputValue();
  assert.match(cursor, /^[0-9a-f]+\.1\.1$/);
  await page.getByRole("button", { name: "Send it a message" }).click();
  await frames.getByText("“message 2”: 202 held").waitFor();
  await page.getByRole("button", { name: "Resume with the cursor" }).click();
  await frames.getByText('"continuity":"resumed","replayed":1').waitFor();
  await frames.getByText('"data":"message 2"').waitFor();
  await picture(page, "stream");
  await part(page, "call");
  await until("the watch comes back when the stream is closed", async () => [await metric("signal_streams"), await metric("signal_watches")].join() === "1,1");
  const other = await as("demo", "other");
  await call(page, other);
  await title(page, "In a call with other");
  await part(page, "stream");
  await page.getByRole("button", { name: "Open", exact: true }).click();
  await page.locator("#lab-state").getByText("Hang up first.").waitFor();
  assert.deepEqual([await metric("signal_streams"), await metric("signal_watches")], [2, 2], "two tabs with two streams");
}

async function sends({ open, picture, as }) {
  const page = await open("/console#devices");
  await state(page, "live");
  await page.getByLabel("Users, separated by commas").fill("eve, nobody");
  await page.getByRole("button", { name: "List", exact: true }).click();
  await page.locator("#presence").getByText("nobody: no device").waitFor();
  await page.getByLabel("Users, separated by commas").fill("demo");
  await page.getByRole("button", { name: "List", exact: true }).click();
  await page.locator("#presence").getByText(new RegExp(`demo: ${await name(page)} \\([0-9a-f]{16}\\)`)).waitFor();
  await page.getByLabel("Users, separated by commas").fill("eve, nobody");
  await page.getByRole("button", { name: "Watch", exact: true }).click();
  const eve = await as("eve", "eves-phone");
  await page.locator("#presence").getByText("eve: eves-phone is online").waitFor();
  const form = page.locator("#send");
  const attempt = async (device, ttl, answer) => {
    await form.getByLabel("User").fill("eve");
    await form.getByLabel("Device").fill(device);
    await form.getByLabel("Event").fill("invite");
    await form.getByLabel("Hold for").fill(ttl);
    await form.getByRole("button", { name: "Send" }).click();
    await page.locator("#answer-of-send").getByText(answer).waitFor();
  };
  await attempt("eves-phone", "", "200 delivered");
  await row(eve, "in", /^invite/);
  await attempt("", "", "200 delivered to eves-phone");
  await attempt("absent", "30", "202 held");
  await attempt("absent's", "", "404 not_connected");
  await page.getByText("The same with curl").click();
  assert.match(await page.locator("#curl").textContent(), /^curl -i 'http.*absent'\\''s' -H 'Content-Type: application\/json' -d '\{"event":"invite","data":\{"hello":"there"\}\}'$/);
  await picture(page, "devices");
}

async function yields({ two, open, metric }) {
  const [first, second] = await two();
  const watches = (count) => until(`${count} watches`, async () => (await metric("signal_watches")) === count);
  const hide = (page, hidden) => page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  await watches(2);
  await hide(first, true);
  await watches(1);
  const third = await open("/");
  await title(third, "Call another tab");
  await third.getByText("2 other tabs are open: choose the one to talk with.").waitFor();
  await third.getByText("a browser has six connections").waitFor();
  await hide(second, true);
  await watches(1);
  await call(third, second);
  await title(second, `In a call with ${await name(third)}`);
  await chat(third, second, "to a tab in the background");
  await hide(first, false);
  await title(first, "Call another tab");
  await first.getByRole("button", { name: `Call ${await name(third)}` }).waitFor();
}

async function metrics({ two, picture }) {
  const [first, second] = await two();
  await callAndWait(second, first);
  await part(first, "metrics");
  const figure = (term) => first.locator("#figures div").filter({ hasText: term }).locator("dd").innerText();
  await until("figures", async () => Number.parseInt(await figure("Streams"), 10) >= 2 && Number.parseInt(await figure("Sends"), 10) >= 3);
  assert.match(await figure("Delivery, median"), /^(none yet|≤)/);
  await first.getByRole("table", { name: "Sends by outcome" }).getByText("delivered").waitFor();
  await first.getByRole("table", { name: "Requests by route" }).getByText("/user/{user}/device/{device}").first().waitFor();
  await picture(first, "metrics");
  // Of another version of the daemon, and after a long time.
  const body = "signal_streams 12345678\nsignal_sends_total 7\nsignal_requests_total 8\n";
  await second.route("**/metrics", (route) => route.fulfill({ contentType: "text/plain", body }));
  await part(second, "metrics");
  await second.locator("#figures").getByText("12.3M", { exact: true }).waitFor();
  await second.getByRole("table", { name: "Sends by outcome" }).getByText("other").waitFor();
}

async function testsNothing({ open, picture }) {
  const page = await open("/console#test");
  await state(page, "live");
  await runTest(page);
  await picture(page, "self-test");
  assert.deepEqual(await results(page, "bad"), []);
  const good = await results(page, "ok");
  for (const check of ["The daemon answers.", "A message comes back.", "The first event comes at once.", "Nothing compresses the stream.", "The stream stays open."]) {
    assert.ok(good.includes(check), `${check} in ${good}`);
  }
  assert.deepEqual(await results(page, "note"), ["No ICE servers are set up."]);
}

async function testsBuffering({ context, proxy, picture }) {
  const relay = await proxy({ change: buffer });
  const page = await openAt(context, `${relay.url}/`);
  await title(page, "Still connecting");
  await picture(page, "slow");
  await page.getByRole("link", { name: "Find out why" }).click();
  await runTest(page);
  await picture(page, "self-test-buffers");
  const bad = await results(page, "bad");
  assert.ok(bad.includes("A proxy buffers the stream."), bad.join());
  assert.ok(!bad.includes("A proxy compresses the stream."), bad.join());
}

async function testsCompression({ context, proxy, picture }) {
  const relay = await proxy({ change: compress });
  const page = await openAt(context, `${relay.url}/console#test`);
  await runTest(page);
  await picture(page, "self-test-compresses");
  const bad = await results(page, "bad");
  assert.ok(bad.includes("A proxy compresses the stream."), bad.join());
  assert.ok(!bad.includes("Something cuts the stream."), bad.join());
}

async function testsCutting({ context, proxy, picture }) {
  const relay = await proxy({ change: cutAfter(5_000) });
  const page = await openAt(context, `${relay.url}/console#test`);
  await runTest(page);
  await picture(page, "self-test-cuts");
  assert.deepEqual((await results(page, "bad")).filter((check) => check !== "A message is late."), ["Something cuts the stream."]);
  assert.match(await page.locator('[data-check="Something cuts the stream."]').innerText(), /ended after [5-7]\.\d s, before the first heartbeat/);
}

async function testsRelay({ context, daemon, turnServer, picture }) {
  const secret = secretFile();
  const runWith = async (port) => {
    const { url } = await daemon(["--dev", "--turn", `turn:127.0.0.1:${port}?transport=udp`, "--turn-secret-file", secret]);
    const page = await openAt(context, `${url}/console#test`);
    await state(page, "live");
    await runTest(page);
    return page;
  };
  const nothing = await listen(() => {});
  const without = await runWith(new URL(nothing.url).port);
  assert.deepEqual(await results(without, "bad"), ["The TURN server gives no relay."]);
  await picture(without, "self-test-no-relay");
  await nothing.close();
  const port = await turnServer(SECRET);
  if (port === undefined) return;
  const page = await runWith(port);
  assert.deepEqual(await results(page, "bad"), []);
  assert.ok((await results(page, "ok")).includes("The TURN server gives a relay."));
  fs.rmSync(secret);
}

async function onlyText({ open, as, picture }) {
  const evil = `<img src=x onerror="window.harmed=1"><b>bold</b>`;
  const page = await open("/");
  await state(page, "live");
  const other = await as("demo", evil);
  await title(page, "Call the other tab");
  await page.getByText(evil).first().waitFor();
  await call(page, other);
  await title(page, `In a call with ${short(evil)}`);
  await chat(other, page, evil);
  await chat(page, other, evil);
  await part(page, "devices");
  await page.locator("#list").getByRole("button", { name: "Watch" }).click();
  await page.locator("#presence").getByText(evil).waitFor();
  await picture(page, "only-text");
  for (const one of [page, other]) {
    const found = await one.evaluate(() => [window.harmed ?? 0, document.querySelectorAll("main img, #presence b, #rows b, #texts b, h1 b").length]);
    assert.deepEqual(found, [0, 0], "nothing of it became an element");
  }
}

async function keepsCamera({ two, context, serve, url, picture }) {
  const [first, second] = await two();
  const user = "demo", [mine, theirs] = await Promise.all([first, second].map(idOf));
  await callAndWait(second, first);
  await first.getByRole("button", { name: "Turn on camera and microphone" }).click();
  await second.waitForFunction(() => document.querySelector("#their-video").videoWidth > 0, null, { timeout: PATIENCE_MS });
  const origin = await serve(`<!doctype html><script type="module">
    import { connect } from ${JSON.stringify(`${url}/client.js`)};
    const signal = await connect(${JSON.stringify({ user, device: theirs })});
    const call = signal.call(${JSON.stringify(user)}, ${JSON.stringify(mine)});
    window.tracks = [];
    call.on("track", ({ track }) => window.tracks.push(track.kind));
    call.channel("chat").onopen = () => { window.isOpen = true; };
  </script>`);
  const stranger = await openAt(context, origin);
  await stranger.waitForFunction(() => window.isOpen, null, { timeout: PATIENCE_MS });
  await first.getByText("Another page may have taken the place of the other tab.").waitFor();
  assert.deepEqual(await stranger.evaluate(() => window.tracks), [], "nothing is sent to the new page");
  assert.equal(await first.evaluate(() => document.querySelector("#own-video").srcObject), null, "and the camera is off");
  await picture(first, "stranger-in-the-call");
  await first.getByRole("button", { name: "Turn on camera and microphone" }).click();
  await stranger.waitForFunction(() => window.tracks.includes("video"), null, { timeout: PATIENCE_MS });
}

async function floods({ two, url, picture }) {
  const [first, second] = await two();
  const mine = await idOf(first);
  await first.evaluate(() => {
    window.counts = { frames: 0, reads: 0, hidden: 0 };
    const real = requestAnimationFrame;
    window.requestAnimationFrame = (draw) => real((at) => { window.counts.frames += 1; draw(at); });
    const { get } = Object.getOwnPropertyDescriptor(Element.prototype, "scrollHeight");
    Object.defineProperty(Element.prototype, "scrollHeight", { get() { window.counts.reads += 1; return get.call(this); } });
    const view = document.querySelector('[data-view="call"]');
    new MutationObserver(() => { window.counts.hidden += view.hidden ? 1 : 0; }).observe(document.querySelector("#rows"), { childList: true });
  });
  const flood = (name) => Promise.all(Array.from({ length: 40 }, (_, index) => post(url, { from: "demo/flood", to: `demo/${mine}`, event: name, data: `${index}` })));
  await flood("hello");
  await until("40 rows", async () => (await first.locator('#rows [data-label^="hello"]').count()) === 40);
  const { frames, reads } = await first.evaluate(() => window.counts);
  // One frame may have been asked for before they were counted.
  assert.ok(reads <= 3 * (frames + 1), `${reads} heights were read in ${frames} frames`);
  await part(first, "devices");
  await flood("invite");
  await first.locator("#send").getByLabel("Device").fill(mine);
  await first.locator("#send").getByRole("button", { name: "Send" }).click();
  await first.locator("#answer-of-send").getByText("200 delivered").waitFor();
  assert.equal(await first.evaluate(() => window.counts.hidden), 0, "no row while the part is hidden");
  await part(first, "call");
  await until("40 rows when it is shown", async () => (await first.locator('#rows [data-label^="invite"]').count()) === 40);
  await callAndWait(second, first);
  const sendTexts = (texts) => second.evaluate((texts) => {
    for (const text of texts) {
      document.querySelector("#text").value = text;
      document.querySelector("#say").requestSubmit();
    }
  }, texts);
  await second.waitForFunction(() => !document.querySelector("#text").disabled, null, { timeout: PATIENCE_MS });
  await sendTexts(["x".repeat(100_000)]);
  for (const page of [second, first]) await page.getByRole("log").getByText(/^x{4000}… 96,000 more$/).waitFor();
  await sendTexts(Array.from({ length: 70 }, (_, index) => `${index} `.padEnd(4_000, "y")));
  await first.getByRole("log").getByText(/^69 y/).waitFor();
  for (const list of ["#texts", "#rows"]) {
    const size = await first.evaluate((list) => document.querySelector(list).textContent.length, list);
    assert.ok(size < 250_000, `${size} characters in ${list}`);
  }
  await picture(first, "flooded");
}

async function strangers({ context, daemon, picture }) {
  const { url } = await daemon(["--dev", "--heartbeat", "4"]);
  const page = await openAt(context, `${url}/console?device=target`);
  await state(page, "live");
  const send = (event, data) => post(url, { from: "eve/phone", to: "demo/target", event, data });
  await send("invite", "hello");
  await row(page, "in", /^invite ← eve’s phone$/);
  await send("call", { description: { type: "connected: from here on directly" } });
  await row(page, "in", /^description/);
  await send("call", { candidates: { length: 7 } });
  await row(page, "in", /^call/);
  await send("call", { description: { type: "heartbeat × 7" } });
  await page.locator("#rows [data-beats]").first().waitFor({ state: "attached" });
  assert.equal(await page.locator('#rows [data-kind="in"]').count(), 4, "a heartbeat replaces no row of a sender");
  assert.equal(await page.locator('#rows [data-label*="connected"], #rows [data-label*="× 8"]').count(), 0);
  await picture(page, "stranger");
}

async function unreadable({ open, as, picture }) {
  const page = await open("/console?device=reader");
  await state(page, "live");
  const shown = { "ana\u200b": "ana\\u200b", "ana\u202e": "ana\\u202e", "ana\\u200b": "ana\\u005cu200b", " ana": "\\u0020ana", "Amber Fox": "Amber Fox (a chosen id)", "👩‍👧 tablet": "👩‍👧 tablet" };
  const pages = [];
  for (const device of Object.keys(shown)) {
    pages.push(await as("demo", device));
    await page.locator(`#peers .named b`).getByText(shown[device], { exact: true }).waitFor();
    // A browser has six connections to one daemon.
    if (device !== "👩‍👧 tablet") await pages.at(-1).close();
  }
  const peer = page.locator("#peers li").filter({ hasText: "tablet" });
  assert.equal(await peer.locator(".face").textContent(), "👩T", "the initial is a whole character");
  assert.equal(await peer.locator("b").evaluate((name) => getComputedStyle(name).unicodeBidi), "isolate");
  await picture(page, "unreadable");
}

async function crowd({ open, url, picture }) {
  const page = await open("/");
  await state(page, "live");
  await page.evaluate(() => {
    window.said = [];
    const status = document.querySelector("#said");
    new MutationObserver(() => window.said.push(status.textContent)).observe(status, { childList: true });
  });
  const leave = new AbortController();
  const devices = Array.from({ length: 40 }, (_, index) => `d${index}`);
  const headers = { accept: "text/event-stream" };
  await Promise.all(devices.map((device) => fetch(`${url}/subscribe?user=demo&device=${device}`, { headers, signal: leave.signal })));
  await until("40 devices", async () => (await page.locator("#peers li").count()) === 40);
  const said = await until("they are announced", () => page.evaluate(() => window.said.some((text) => / more devices are online\.$/.test(text)) && window.said));
  assert.ok(said.length < 40, `${said.length} announcements`);
  const [height, whole] = await page.locator("#peers").evaluate((list) => [list.clientHeight, list.scrollHeight]);
  assert.ok(height <= 20 * 16 && whole > height, `${height} of ${whole} pixels`);
  await picture(page, "crowd");
  leave.abort();
}

async function ownPage({ open, context, serve, url }) {
  const page = await open("/console#code");
  await state(page, "live");
  const code = await page.locator("#sample").textContent();
  const readme = fs.readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  const [, shown] = /^```html\n([^]*?)^```$/m.exec(readme);
  assert.equal(code, shown.replace("http://localhost:1837", url), "the console shows the page of the README");
  const origin = await serve(code);
  const [alice, bob] = [await openAt(context, `${origin}/?alice`), await openAt(context, `${origin}/?bob`)];
  for (const [one, name] of [[alice, "alice"], [bob, "bob"]]) await one.getByText(`${name}: call connected`).waitFor();
  await alice.locator("#line").fill("hello from another origin");
  await alice.keyboard.press("Enter");
  for (const one of [alice, bob]) await one.locator("#log").getByText("alice: hello from another origin").waitFor();
  const third = await openAt(context, origin);
  await third.getByText(/^alice: (live|call)/).waitFor();
  await alice.getByText("alice: superseded").waitFor();
}

async function behindPrefix({ context, proxy }) {
  const relay = await proxy({ prefix: "/signal" });
  const [first, second] = await twoAt(context, `${relay.url}/signal/`);
  assert.equal(first.url(), `${relay.url}/signal/console`);
  await callAndWait(second, first);
  await chat(second, first, "behind a prefix");
}

/** A daemon that wants tokens. */
async function withTokens(daemon) {
  const secret = secretFile();
  const { url } = await daemon(["--auth", "jwt", "--jwt-secret-file", secret, "--console"]);
  fs.rmSync(secret);
  return url;
}

async function connectWith(page, token) {
  await page.getByRole("button", { name: "Connect …" }).click();
  const dialog = page.getByRole("dialog", { name: "Connect as …" });
  assert.equal(await dialog.getByLabel("Token", { exact: true }).getAttribute("autocomplete"), "one-time-code", "no password to keep");
  await dialog.getByLabel("Token", { exact: true }).fill(token);
  await dialog.getByRole("button", { name: "Connect", exact: true }).click();
}

async function badTokens({ context, picture, daemon }) {
  const page = await openAt(context, `${await withTokens(daemon)}/`);
  await title(page, "Connect to begin");
  await connectWith(page, "");
  const dialog = page.getByRole("dialog", { name: "Connect as …" });
  assert.equal(await dialog.isVisible(), true, "without a token there is nothing to send");
  assert.equal(await dialog.getByText("Nobody: I choose a name").isVisible(), false, "this daemon believes no name");
  await picture(page, "connect-as-token");
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await connectWith(page, "rubbish");
  await page.locator("#stage-lead").getByText("This is not a token.").waitFor();
  await picture(page, "no-token");
  const exp = Math.floor(Date.now() / 1_000) + 6;
  await connectWith(page, makeToken({ sub: "ana", exp }));
  await state(page, "live");
  await title(page, "Your token has expired");
  await page.locator("#stage-lead").getByText("Paste a new one.").waitFor();
  assert.equal(await page.locator("#said").textContent(), "Your token has expired. Paste a new one.");
  await row(page, "told", /^end · expired$/);
  await picture(page, "expired");
}

async function withToken({ context, picture, daemon }) {
  const url = await withTokens(daemon);
  const token = makeToken({ sub: "ana", exp: Math.floor(Date.now() / 1_000) + 600 });
  const page = await openAt(context, `${url}/`);
  await title(page, "Connect to begin");
  await picture(page, "no-identity");
  await connectWith(page, makeToken({ sub: "ana", exp: Math.floor(Date.now() / 1_000) + 600 }).slice(0, -4));
  await title(page, "Not connected");
  await page.getByText("The token is not valid").waitFor();
  await picture(page, "unauthorised");
  await connectWith(page, token);
  await state(page, "live");
  assert.equal(await page.getByLabel("Answer without asking").isChecked(), false, "in production nobody answers unasked");
  const stored = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, location.href, document.cookie]));
  assert.ok(!stored.includes(token), "the token stays in memory");
}

async function accessible({ browser, picture, url }) {
  // The checker puts its code into the page, which the policy of the page forbids.
  const rules = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  for (const colorScheme of ["light", "dark"]) {
    const context = await newContext(browser, { colorScheme, bypassCSP: true });
    const [first, second] = await twoAt(context, `${url}/`);
    await callAndWait(second, first);
    await chat(second, first, "hello");
    for (const wanted of PARTS) {
      await part(second, wanted);
      await picture(second, `${colorScheme}-${wanted}`);
      await second.evaluate(rules);
      const { violations } = await second.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
      assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, any }) => `${html} ${any[0]?.message ?? ""}`).join(" ")}`), [], `${colorScheme} ${wanted}`);
    }
    assert.equal(await second.getByRole("navigation").getByRole("link").count(), PARTS.length);
    assert.equal(await second.getByRole("navigation").locator("[aria-current]").count(), 1);
    await context.close();
  }
}

async function onAPhone({ browser, picture, url }) {
  const context = await newContext(browser, { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true, reducedMotion: "reduce" });
  const [first, second] = await twoAt(context, ...["d", "e"].map((letter) => `${url}/console?device=${letter.repeat(256)}`));
  const fits = async (page, what) => {
    const wide = await page.evaluate(() => [...document.querySelectorAll("body *")].filter((element) => {
      const { right, width } = element.getBoundingClientRect();
      return width > 0 && right > innerWidth + 1 && !element.closest(".scrolls, pre, .log, .hidden-text, .skip, bdi");
    }).map((element) => element.outerHTML.slice(0, 120)));
    assert.deepEqual(wide, [], what);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${what}: no part sticks out`);
  };
  await fits(second, "before the call");
  assert.equal(await second.evaluate(() => new Set([...document.querySelectorAll("nav a")].map(({ offsetTop }) => offsetTop)).size), 1, "the menu is one line");
  await callAndWait(second, first);
  await chat(second, first, `a long word: ${"o".repeat(200)}`);
  for (const wanted of PARTS) {
    await part(second, wanted);
    if (wanted === "devices") await second.getByText("The same with curl").click();
    await picture(second, `phone-${wanted}`, { fullPage: true });
    await fits(second, wanted);
  }
  assert.equal(await second.evaluate(() => document.getAnimations().length), 0, "with reduced motion nothing moves");
  await context.close();
}

// ---- What a person does

const state = (page, wanted) => page.locator(`#state[data-state="${wanted}"]`).waitFor();
const title = (page, wanted) => page.getByRole("heading", { level: 1, name: wanted, exact: true }).waitFor();
const part = async (page, wanted) => {
  await page.locator(`nav a[href="#${wanted}"]`).click();
  await page.locator(`[data-view="${wanted}"]`).waitFor();
};

/** How a long name stands in a title. */
const short = (name) => (name.length > 40 ? `${name.slice(0, 39)}…` : name);

/** The id of the device of a tab. It is in the address of the part for streams. */
async function idOf(page) {
  await part(page, "stream");
  const id = new URL(await page.locator("#twin").evaluate(({ href }) => href)).searchParams.get("device");
  await part(page, "call");
  return id;
}

/** Sends a message, as anybody can with `--dev`. Addresses are `user/device`. */
async function post(url, { from, to, event, data }) {
  const [[user, device], [toUser, toDevice]] = [from, to].map((address) => address.split("/"));
  const target = `${url}/user/${toUser}/device/${toDevice}?${new URLSearchParams({ user, device })}`;
  const answer = await fetch(target, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ event, data }) });
  assert.equal(answer.status, 200, await answer.text());
}

/** How other tabs call this one. */
async function name(page) {
  await page.locator("#who-name").filter({ hasText: "/" }).waitFor();
  const text = await page.locator("#who-name").textContent();
  return text.slice(text.indexOf(" / ") + 3);
}

async function call(caller, callee) {
  await caller.getByRole("button", { name: `Call ${await name(callee)}`, exact: true }).click();
}

async function callAndWait(caller, callee) {
  await call(caller, callee);
  await title(caller, `In a call with ${short(await name(callee))}`);
  await title(callee, `In a call with ${short(await name(caller))}`);
}

async function chat(from, to, text) {
  await from.waitForFunction(() => !document.querySelector("#text").disabled, null, { timeout: PATIENCE_MS });
  const before = await to.getByRole("log").getByText(text, { exact: true }).count();
  await from.getByLabel("Your message").fill(text);
  await from.getByRole("button", { name: "Send", exact: true }).click();
  await to.getByRole("log").getByText(text, { exact: true }).nth(before).waitFor();
}

/** The first row of the diagram of this kind, whose label fits. */
async function row(page, kind, label) {
  const find = ([kind, source]) => [...document.querySelectorAll(`#rows [data-kind="${kind}"]`)].findIndex((row) => new RegExp(source).test(row.dataset.label) && row.dataset.note !== "…");
  const index = await until(`${kind} ${label}`, async () => (await page.evaluate(find, [kind, label.source])) + 1);
  return page.locator(`#rows [data-kind="${kind}"]`).nth(index - 1);
}

const focused = (page) => page.evaluate(() => {
  const element = document.activeElement;
  return element.ariaLabel || element.labels?.[0]?.textContent.trim() || element.textContent.trim();
});

/** Presses the Tab key until the element with this name has the focus. */
async function tabTo(page, wanted) {
  for (let presses = 0; presses < 80; presses += 1) {
    const found = await focused(page);
    if (typeof wanted === "string" ? found === wanted : wanted.test(found)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`the Tab key does not reach ${wanted}`);
}

async function runTest(page) {
  await page.getByRole("button", { name: "Run the test" }).click();
  await page.locator("#test-state").filter({ hasText: /^Done/ }).waitFor();
}

const results = (page, verdict) => page.locator(`#checks [data-verdict="${verdict}"]`).evaluateAll((checks) => checks.map((check) => check.dataset.check));

async function until(what, condition) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await condition();
    if (found) return found;
    assert.ok(Date.now() < deadline, `did not come in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// ---- Pages, and what goes wrong in them

const faults = [];
/** What the browser writes down by itself for an answer that is no success. The pages show these answers. */
const EXPECTED = /Failed to load resource|net::ERR_/;

async function newContext(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1240, height: 860 }, ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  await context.exposeBinding("violated_", (_, text) => faults.push(text));
  await context.addInitScript(() => {
    addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sample }) => window.violated_(`policy: ${violatedDirective} ${blockedURI} ${sample}`));
    window.asked = 0;
    const real = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
    if (real) navigator.mediaDevices.getUserMedia = (wanted) => ((window.asked += 1), real(wanted));
  });
  context.on("page", (page) => {
    page.on("pageerror", (error) => faults.push(`error of the page: ${error.stack}`));
    page.on("console", (message) => {
      if (message.type() === "error" && !EXPECTED.test(message.text())) faults.push(`error in the console: ${message.text()}`);
    });
  });
  return context;
}

async function openAt(context, url) {
  const page = await context.newPage();
  await page.goto(url);
  return page;
}

async function twoAt(context, url, other = url) {
  const first = await openAt(context, url);
  await state(first, "live");
  const second = await openAt(context, other);
  await title(second, "Call the other tab");
  await title(first, "Call the other tab");
  return [first, second];
}

// ---- Proxies

/** Passes on what comes below a prefix. `change(answer, head, response)` passes an answer on in its own way; `head` writes its head. */
function proxyOf(target, { prefix = "", change = passOn } = {}) {
  return (request, response) => {
    if (!request.url.startsWith(`${prefix}/`)) return void response.writeHead(404).end();
    const options = { method: request.method, headers: request.headers, agent: false };
    const outward = http.request(target + request.url.slice(prefix.length), options, (answer) => {
      answer.on("error", () => response.destroy());
      const head = () => {
        response.writeHead(answer.statusCode, answer.headers);
        response.flushHeaders();
      };
      change(answer, head, response);
    });
    outward.on("error", () => response.destroy());
    response.on("close", () => outward.destroy());
    request.pipe(outward);
  };
}

function passOn(answer, head, response) {
  head();
  answer.pipe(response);
}

const isStream = (answer) => String(answer.headers["content-type"]).startsWith("text/event-stream");

/** Collects the whole answer before it passes it on. */
function buffer(answer, head, response) {
  const chunks = [];
  answer.on("data", (chunk) => chunks.push(chunk)).on("end", () => {
    head();
    response.end(Buffer.concat(chunks));
  });
}

/** Compresses streams, and passes on at once what the compressor has. */
function compress(answer, head, response) {
  if (!isStream(answer)) return passOn(answer, head, response);
  answer.headers["content-encoding"] = "gzip";
  head();
  const gzip = zlib.createGzip();
  gzip.pipe(response);
  answer.on("end", () => gzip.end()).on("data", (chunk) => {
    gzip.write(chunk);
    gzip.flush(zlib.constants.Z_SYNC_FLUSH);
  });
}

const cutAfter = (ms) => (answer, head, response) => {
  passOn(answer, head, response);
  if (isStream(answer)) setTimeout(() => response.destroy(), ms);
};

/** A server on a free port, which can be closed and opened again on the same one. */
async function listen(handler) {
  const server = http.createServer(handler);
  const start = (port) => new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  await start(0);
  const { port } = server.address();
  return {
    url: `http://127.0.0.1:${port}`,
    open: () => start(port),
    close: () => new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    }),
  };
}

// ---- Daemons

const SECRET = "a secret of the test, which is long enough";

function secretFile() {
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "console-test-")), "secret");
  fs.writeFileSync(file, SECRET);
  return file;
}

/** Starts coturn on a free port. Without coturn it says so, or fails with CI=true. */
async function startTurnServer(secret) {
  const free = await listen(() => {});
  const { port } = new URL(free.url);
  await free.close();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "console-test-"));
  const file = path.join(folder, "turnserver.conf");
  const own = ["listening-ip=127.0.0.1", "relay-ip=127.0.0.1", "no-tls", "no-dtls", "no-cli", "log-file=stdout", `pidfile=${folder}/pid`, `userdb=${folder}/db`];
  fs.writeFileSync(file, ["use-auth-secret", `static-auth-secret=${secret}`, "realm=test", `listening-port=${port}`, ...own].join("\n"));
  const child = spawn("turnserver", ["-c", file], { cwd: folder, stdio: "ignore" });
  const absent = await new Promise((resolve) => child.on("error", resolve).on("spawn", () => resolve(undefined)));
  assert.ok(!absent || process.env.CI !== "true", `with CI=true coturn must be there: ${absent}`);
  if (absent) return console.log("SKIPPED: the relay of a TURN server: coturn is not installed"), undefined;
  const listens = () => new Promise((resolve) => net.connect(port, "127.0.0.1").on("connect", () => resolve(true)).on("error", () => resolve(false)));
  await until("coturn listens", listens);
  return { port, close: async () => void child.kill("SIGKILL") };
}

function makeToken(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

/** A daemon in a process of its own. Its address: where it says that the console is. */
async function startDaemon(options) {
  const child = spawn(DAEMON, ["--host", "127.0.0.1", "--port", "0", ...options], { env: {}, stdio: ["ignore", "ignore", "pipe"] });
  const url = await new Promise((resolve, reject) => {
    let log = "";
    child.stderr.on("data", (text) => {
      log += text;
      const found = /the console is at (\S+)\/\n[^]*listening on/.exec(log);
      if (found) resolve(found[1]);
    });
    child.on("error", reject).on("exit", () => reject(new Error(log)));
  });
  return { url, close: async () => void child.kill("SIGKILL") };
}

// ---- Running

function toolsOf(browser, context, url, opened) {
  const keep = async (made) => {
    const one = await made;
    opened.push(one);
    return one;
  };
  const open = (path) => openAt(context, url + path);
  return {
    browser, context, url, open,
    two: () => twoAt(context, `${url}/`),
    as: async (user, device) => {
      const page = await open(`/console?${new URLSearchParams({ user, device })}`);
      await state(page, "live");
      return page;
    },
    picture: (page, name, options) => page.screenshot({ path: path.join(PICTURES, `${name}.png`), ...options }),
    metric: async (name) => {
      const text = await (await fetch(`${url}/metrics`)).text();
      return Number(new RegExp(`^${name} (\\d+)`, "m").exec(text)[1]);
    },
    keep,
    daemon: (options) => keep(startDaemon(options)),
    turnServer: async (secret) => {
      const server = await startTurnServer(secret);
      if (server) opened.push(server);
      return server?.port;
    },
    proxy: (options) => keep(listen(proxyOf(url, options))),
    serve: async (html) => {
      const server = await keep(listen((_, response) => response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(html)));
      return server.url;
    },
  };
}

async function run(name, scenario, browser) {
  const daemon = await startDaemon(["--dev"]);
  const opened = [daemon];
  const context = await newContext(browser);
  try {
    await scenario(toolsOf(browser, context, daemon.url, opened));
    console.log(`ok: ${name}`);
    return true;
  } catch (error) {
    console.error(`failed: ${name}: ${error.stack}`);
    const file = (index) => path.join(PICTURES, `failed-${scenario.name}-${index}.png`);
    await Promise.all(context.pages().map((page, index) => page.screenshot({ path: file(index) }).catch(() => {})));
    return false;
  } finally {
    await context.close();
    for (const one of opened) await one.close();
  }
}

/** The picture of the README: two tabs in a call, seen from one of them. */
async function takePicture(browser, file) {
  const { url, close } = await startDaemon(["--dev"]);
  const context = await newContext(browser, { viewport: { width: 1180, height: 770 }, reducedMotion: "reduce" });
  const [ana, bob] = [await openAt(context, `${url}/console?device=Phone`), await openAt(context, `${url}/console?device=Laptop`)];
  await callAndWait(bob, ana);
  await chat(bob, ana, "Hello phone. Do you hear me without a server?");
  await chat(ana, bob, "Loud and clear. Reload me, and we go on.");
  await bob.evaluate(() => document.activeElement.blur());
  await bob.screenshot({ path: file });
  await context.close();
  await close();
  const { size } = fs.statSync(file);
  assert.ok(size < 150_000, `${size} bytes`);
  console.log(`${file}: ${size} bytes`);
}

async function main() {
  assert.ok(DAEMON && PICTURES, "usage: node console.mjs EXECUTABLE FOLDER");
  fs.mkdirSync(PICTURES, { recursive: true });
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, headless: true, chromiumSandbox: false, args: FLAGS });
  console.log(`Chromium ${browser.version()}`);
  const wanted = Object.entries(SCENARIOS).filter(([name]) => name.includes(process.env.CONSOLE_ONLY ?? ""));
  let passed = 0;
  try {
    if (process.env.CONSOLE_PICTURE) await takePicture(browser, process.env.CONSOLE_PICTURE);
    else {
      const waiting = [...wanted];
      const work = async () => {
        for (let next = waiting.shift(); next; next = waiting.shift()) {
          if (await run(...next, browser)) passed += 1;
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      assert.deepEqual(faults, [], "no error and no violation of the policy in any page");
    }
  } finally {
    await browser.close();
  }
  const failed = process.env.CONSOLE_PICTURE ? 0 : wanted.length - passed;
  console.log(`${passed} passed, ${failed} failed`);
  assert.equal(failed, 0);
}

setTimeout(() => {
  console.error(`failed: not done within ${WHOLE_MS / 1000} s`);
  process.exit(1);
}, WHOLE_MS).unref();

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
