// What is shipped: its size, its types, and that it needs nothing.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { test } from "node:test";
import zlib from "node:zlib";
import { transformSync } from "esbuild";
import { minify } from "terser";

const web = new URL("../", import.meta.url);
const code = fs.readFileSync(new URL("client.js", web), "utf8");

/** Each minifier shortens also the names that begin with `_`: they are internal. */
const MINIFIERS = {
  esbuild: () => transformSync(code, { minify: true, mangleProps: /^_/, format: "esm", target: "es2022" }).code,
  terser: async () => (await minify(code, { module: true, ecma: 2022, compress: { passes: 3, unsafe_arrows: true }, mangle: { properties: { regex: /^_/ } } })).code,
};

test("client.js is small: as it is, minified, and minified and compressed", async (t) => {
  const results = await Promise.all(Object.entries(MINIFIERS).map(async ([name, run]) => [name, await run()]));
  for (const [name, { length }] of results) t.diagnostic(`${name}: ${length} bytes`);
  const [[name, minified]] = results.sort(([, one], [, other]) => one.length - other.length);
  const sizes = [Buffer.byteLength(code), Buffer.byteLength(minified), zlib.gzipSync(minified, { level: 9 }).length];
  t.diagnostic(`client.js: ${sizes[0]} bytes, ${sizes[1]} minified by ${name}, ${sizes[2]} minified and compressed`);
  for (const [index, limit] of LIMITS.entries()) assert.ok(sizes[index] <= limit, `${sizes[index]} > ${limit}`);
});
/** Bytes: as it is, minified by the better minifier, and that with gzip. */
const LIMITS = [36_000, 15_560, 7_350];

test("client.js imports nothing, and the package ships what its files say", () => {
  assert.ok(!/^\s*import |import\(|require\(/m.test(code));
  const { files, exports, dependencies } = JSON.parse(fs.readFileSync(new URL("package.json", web), "utf8"));
  for (const file of [...files, exports["."].types, exports["."].default]) assert.ok(fs.existsSync(new URL(file, web)), file);
  assert.equal(dependencies, undefined);
});

test("a page as the README shows it, and every part of the API, has types", () => {
  const tsc = new URL("node_modules/typescript/bin/tsc", web).pathname;
  const run = (file) => execFileSync(process.execPath, [tsc, "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext",
    "--lib", "es2023,dom,dom.iterable", new URL(`test/${file}`, web).pathname], { encoding: "utf8" });
  run("usage.mts");
  assert.throws(() => run("misuse.mts"), ({ stdout }) => {
    const lines = fs.readFileSync(new URL("test/misuse.mts", web), "utf8").split("\n");
    const wrong = lines.flatMap((line, index) => line.includes("// wrong") ? [index + 1] : []);
    assert.deepEqual([...stdout.matchAll(/misuse\.mts\((\d+)/g)].map(([, line]) => Number(line)), wrong);
    return true;
  });
});
