// What is published of campanile.js: its size, its types, its package.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { minify } from "terser";

const root = new URL("../../", import.meta.url);
const read = (path) => readFileSync(new URL(path, root), "utf8");
const MOST = 4608; // bytes, minified and compressed

test("under 4.5 KiB minified and gzipped", async (t) => {
  const { code } = await minify(read("js/campanile.js"), { module: true });
  const size = gzipSync(code, { level: 9 }).length;
  t.diagnostic(`campanile.js: ${code.length} bytes minified, ${size} gzipped`);
  assert.ok(code.length > 1000 && size < MOST, `${size} bytes`);
});

test("the size in the documents is the bound", () => {
  for (const page of ["README.md", "docs/guide/pages.md", "js/README.md"]) {
    assert.match(read(page), new RegExp(`less\\s+than\\s+${MOST / 1024}\\s+KiB`), page);
  }
});

test("no dependency, nothing that a strict Content-Security-Policy forbids", () => {
  const text = read("js/campanile.js");
  assert.doesNotMatch(text, /\bimport\b|\beval\b|innerHTML|new Function|document\.write/);
  const { dependencies, peerDependencies, version } = JSON.parse(read("js/package.json"));
  assert.deepEqual([dependencies, peerDependencies], [undefined, undefined]);
  assert.equal(version, /^version = "(.*)"$/m.exec(read("Cargo.toml"))[1]);
});

test("the package exports what is there", () => {
  const { exports, types, files, main } = JSON.parse(read("js/package.json"));
  const named = [...Object.values(exports["."]), types, main, ...files];
  for (const file of named) assert.ok(existsSync(new URL(file, new URL("js/", root))), file);
});

test("the types fit, and refuse what does not", async () => {
  const tsc = fileURLToPath(new URL("node_modules/typescript/bin/tsc", import.meta.url));
  const args = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", "--types", "", "push_types.ts"];
  const { stdout } = await promisify(execFile)(process.execPath, [tsc, ...args], {
    cwd: fileURLToPath(new URL(".", import.meta.url)),
  }).catch((error) => error);
  assert.equal(stdout, "");
});
