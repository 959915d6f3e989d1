#!/usr/bin/env node
// Time from `publish` to the callback in a page: campanile.js in Chromium, idle and beside a load.
//
// usage: node benches/driver/browser.mjs [--secs S] [--rate N] [--share X]
//
//   --secs S    seconds of each measurement [20]
//   --rate N    publications a second, below the 50 of /push [40]
//   --share X   the load, of the rate that saturates the server [0.5]
//
// This process publishes to /push through campanile.js; a page in Chromium and a second connection of this process listen.
// The message carries the time at which `publish` was called, and the callback subtracts it from its own: both are
// `performance.timeOrigin + performance.now()`, the system's clock on one machine. That they agree is checked: the page is
// asked for its time, often, between two readings here, and every answer has to lie between them, but for the 0.1 ms in
// which a page's clock steps.
// The publisher is no page, so that the browser's way is in the figure once.
//
// The load is a broadcast to 1,000 connections of /broadcast, 100 bytes, at a share of the rate at which it saturates the
// server. Server on the first CPU; load client, this process and the browser on the second. Wants what `make test` has
// installed for the browser's tests, CHROMIUM or /usr/bin/chromium, and the release build.

import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { connect } from "../../js/campanile.js";

const { chromium } = createRequire(new URL("../../tests/js/", import.meta.url))("playwright-core");
const { WebSocket } = createRequire(new URL("../../tests/js/", import.meta.url))("ws");

const { values: options } = parseArgs({
  options: {
    secs: { type: "string", default: "20" },
    rate: { type: "string", default: "40" },
    share: { type: "string", default: "0.5" },
  },
});
const [secs, rate, share] = [options.secs, options.rate, options.share].map(Number);
if (!(secs > 0 && rate > 0 && rate < 50 && share > 0)) throw new Error("--secs and --share: above 0; --rate: below 50");

const root = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const target = process.env.CARGO_TARGET_DIR || root("target");
const TOPIC = "public/latency";
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

// The first two CPUs that this process may use: "0,1", "0-3", "2,5-7".
const allowed = execFileSync("taskset", ["-cp", String(process.pid)], { encoding: "utf8" }).split(":").pop().trim();
const cpus = allowed.split(",").flatMap((part) => {
  const [first, last = first] = part.split("-").map(Number);
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
});
if (cpus.length < 2) throw new Error("this needs two CPUs: one for the server, one for all others");
execFileSync("taskset", ["-acp", String(cpus[1]), String(process.pid)]); // and all that it starts

setTimeout(() => {
  console.error("browser: it takes too long");
  process.exit(1);
}, (secs * 5 + 120) * 1000).unref();

const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

async function serve() {
  const args = ["-c", String(cpus[0]), `${target}/release/campanile`, "--dev", "--listen", "127.0.0.1:0", "--workers", "1", "--log", "warn"];
  const child = spawn("taskset", args, { stdio: ["ignore", "pipe", "inherit"] });
  children.add(child);
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  return { child, port: Number(/:(\d+)\/$/.exec(line)[1]) };
}

/** A run of the load client: its report. */
async function load(...args) {
  const program = `${target}/release/campanile-loadtest`;
  const child = promisify(execFile)(program, ["broadcast", `ws://127.0.0.1:${port}/broadcast`, "--conns", "1000", "--size", "100", ...args, "--json", "-"]);
  children.add(child.child);
  const { stdout } = await child.finally(() => children.delete(child.child));
  return JSON.parse(stdout);
}

/** A page sees its clock in steps, in ms. */
const STEP = 0.1;

const now = () => performance.timeOrigin + performance.now();

/** Between which bounds the page's clock is ahead of ours, in ms. */
async function ahead(page) {
  let [low, high] = [-Infinity, Infinity];
  for (let i = 0; i < 500; i++) {
    const before = now();
    const theirs = await page.evaluate(() => performance.timeOrigin + performance.now());
    const after = now();
    [low, high] = [Math.max(low, theirs - after), Math.min(high, theirs - before)];
  }
  if (low > STEP || high < -STEP) throw new Error(`the page's clock is ahead by ${low} to ${high} ms`);
  return `${low.toFixed(2)} to ${high.toFixed(2)}`;
}

const at = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];

/** Publishes for a while; the times of both listeners in ms, sorted. */
async function measure(page) {
  here.length = 0;
  await page.evaluate(() => { times.length = 0; });
  const [from, sent] = [now(), []];
  while (now() - from < secs * 1000) {
    sent.push(push.publish(TOPIC, { at: now(), more: "x".repeat(60) }));
    await sleep((1000 / rate) * (0.5 + Math.random())); // in step with no other timer
  }
  await Promise.all(sent);
  await page.waitForFunction((n) => times.length >= n, sent.length, { polling: 50 });
  const there = await page.evaluate(() => times);
  return [there, here].map((times) => [...times].sort((a, b) => a - b));
}

const { child: server, port } = await serve();
const push = connect(`ws://127.0.0.1:${port}/push`, { WebSocket });
const listener = connect(`ws://127.0.0.1:${port}/push`, { WebSocket });
const here = [];
await new Promise((onSubscribed) => {
  listener.subscribe(TOPIC, (message) => here.push(now() - message.at), { onSubscribed });
});
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: FLAGS });
try {
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${port}/healthz`);
  await page.evaluate(async (topic) => {
    const { connect } = await import("/campanile.js");
    globalThis.times = [];
    const push = connect();
    await new Promise((onSubscribed) => {
      push.subscribe(topic, (message) => times.push(performance.timeOrigin + performance.now() - message.at), { onSubscribed });
    });
  }, TOPIC);
  const clocks = await ahead(page);
  await measure(page); // compilers warm up
  console.log("| from `publish` to the callback, ms | p50 | p99 | longest | of |");
  console.log("| --- | ---: | ---: | ---: | ---: |");
  const row = (what, times) =>
    console.log(`| ${what} | ${at(times, 0.5).toFixed(2)} | ${at(times, 0.99).toFixed(2)} | ${times.at(-1).toFixed(2)} | ${times.length} |`);
  const both = (what, [there, node]) => { row(`${what}, in Chromium`, there); row(`${what}, in Node`, node); };
  both("idle", await measure(page));
  const full = await load("--depth", "16", "--duration", "3s");
  const half = (full.messages_per_second / 1000) * share;
  const loading = load("--duration", `${secs + 2}s`, "--rate", half.toFixed(1));
  await sleep(2000); // it opens, and warms up
  both(`at ${share} of saturation`, await measure(page));
  const loaded = await loading;
  console.log(`\nLoad: ${Math.round(loaded.messages_per_second).toLocaleString("en")} deliveries a second of 100 bytes to 1,000; saturated `
    + `${Math.round(full.messages_per_second).toLocaleString("en")}. The page's clock is ahead by ${clocks} ms before and ${await ahead(page)} ms after.`);
} finally {
  await browser.close();
  push.close();
  listener.close();
  server.kill();
}
