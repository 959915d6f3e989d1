// The time from `publish` to the callback in a page: campanile.js in Chromium and in Node, idle and under load.
//
// usage: node browser.mjs CAMPANILE LOADTEST SERVER-CPU CLIENT-CPU SECS RATE SHARE
//
// The driver `browser` starts it. This process publishes to /push through campanile.js; a page in Chromium and a second
// connection of this process subscribe. The message carries the time at which `publish` was called, and the callback
// subtracts it from its own: both are `performance.timeOrigin + performance.now()`, the system's clock on one machine.
// That they agree is checked: the page is asked for its time between two readings here, 500 times, and every answer has to
// be between them, but for the 0.1 ms in which a page's clock steps. The publisher is no page, so that the way through the
// browser is in the figure once.
//
// The load is a broadcast to 1,000 connections of /broadcast, 100 bytes, at a share of the rate at which it saturates the
// server. Needs what `make test` installs for the browser's tests, and CHROMIUM or /usr/bin/chromium. Prints JSON.

import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { connect } from "../../js/campanile.js";

const { chromium } = createRequire(new URL("../../tests/js/", import.meta.url))("playwright-core");
const { WebSocket } = createRequire(new URL("../../tests/js/", import.meta.url))("ws");

const [campanile, loadtest, serverCpu, clientCpu] = process.argv.slice(2);
const [secs, rate, share] = process.argv.slice(6).map(Number);
if (!(secs > 0 && rate > 0 && rate < 50 && share > 0)) throw new Error("SECS and SHARE: must be above 0; RATE: must be below 50");

const TOPIC = "public/latency";
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

execFileSync("taskset", ["-acp", clientCpu, String(process.pid)]); // and all that it starts

setTimeout(() => {
  console.error("browser: not done in time");
  process.exit(1);
}, (secs * 5 + 120) * 1000).unref();

const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

async function serve() {
  const args = ["-c", serverCpu, campanile, "--dev", "--listen", "127.0.0.1:0", "--workers", "1", "--log", "warn"];
  const child = spawn("taskset", args, { stdio: ["ignore", "pipe", "inherit"] });
  children.add(child);
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  return { child, port: Number(/:(\d+)\/$/.exec(line)[1]) };
}

/** Runs the load client: its report. */
async function load(...args) {
  const child = promisify(execFile)(loadtest, ["broadcast", `ws://127.0.0.1:${port}/broadcast`, "--conns", "1000", "--size", "100", ...args, "--json", "-"]);
  children.add(child.child);
  const { stdout } = await child.finally(() => children.delete(child.child));
  return JSON.parse(stdout);
}

/** A page's clock steps, in ms. */
const STEP = 0.1;

const now = () => performance.timeOrigin + performance.now();

/** Fails unless the page's clock agrees with ours. */
async function compareClocks(page) {
  let [low, high] = [-Infinity, Infinity];
  for (let i = 0; i < 500; i++) {
    const before = now();
    const theirs = await page.evaluate(() => performance.timeOrigin + performance.now());
    const after = now();
    [low, high] = [Math.max(low, theirs - after), Math.min(high, theirs - before)];
  }
  if (low > STEP || high < -STEP) throw new Error(`the page's clock is ahead by ${low} to ${high} ms`);
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
  await compareClocks(page);
  await measure(page); // compilers warm up
  const figures = (times) => ({ p50: at(times, 0.5), p99: at(times, 0.99), max: times.at(-1) });
  const idle = await measure(page);
  const full = await load("--depth", "16", "--duration", "3s");
  const messages = (full.messages_per_second / 1000) * share;
  const loading = load("--duration", `${secs + 2}s`, "--rate", messages.toFixed(1));
  await sleep(2000); // it opens its connections and warms up
  const loaded = await measure(page);
  const report = await loading;
  await compareClocks(page);
  console.log(JSON.stringify({
    "idle, Chromium": figures(idle[0]),
    "idle, Node": figures(idle[1]),
    "loaded, Chromium": figures(loaded[0]),
    "loaded, Node": figures(loaded[1]),
    deliveries_per_second: Math.round(report.messages_per_second),
  }));
} finally {
  await browser.close();
  push.close();
  listener.close();
  server.kill();
}
