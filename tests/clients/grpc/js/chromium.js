// A gRPC-Web client in a page of another origin, in Chromium: `node chromium.js CLIENT BUNDLE`.
import http from "node:http";
import { chromium } from "playwright-core";
import { serve } from "./shell.js";

const [client, bundle] = process.argv.slice(2);
const server = http.createServer((_, response) => response.setHeader("content-type", "text/html").end("<!doctype html>"));
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const page = await browser.newPage({ ignoreHTTPSErrors: true });
await page.goto(`http://127.0.0.1:${server.address().port}/`);
await page.addScriptTag({ path: bundle });
const calls = [];
await page.exposeFunction("emit", (call, message) => calls[call](message));
serve((base, method, requests, metadata, emit) => page.evaluate(
  ([client, call, ...rest]) => web.CLIENTS[client](...rest, (message) => window.emit(call, message)),
  [client, calls.push(emit) - 1, base, method, requests, metadata],
).catch((error) => ({ code: -1, text: String(error) })), () => browser.close());
