// campanile.js in a real browser, as the binary serves it, and the page of topics.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, describe, test as nodeTest } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";
import { WebSocket } from "ws";
import { connect } from "../../js/campanile.js";
import { DEADLINE, Server, TEST_LIMIT, get } from "./harness.mjs";

const test = (name, body) => nodeTest(name, { timeout: TEST_LIMIT }, body);
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
// The smallest PNG: one grey pixel.
const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";

let server, browser, other;
before(async () => {
  server = await Server.start();
  other = connect(server.ws("/push"), { WebSocket });
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: FLAGS });
});
after(async () => {
  await browser?.close();
  other?.close();
  await server?.stop();
});

async function withPage(path, body, on = server) {
  const context = await browser.newContext();
  context.setDefaultTimeout(DEADLINE);
  try {
    const page = await context.newPage();
    page.errors = [];
    page.on("pageerror", (error) => page.errors.push(String(error)));
    page.on("console", (message) => {
      if (/Content Security Policy/.test(message.text())) page.errors.push(message.text());
    });
    await page.goto(on.http(path));
    await body(page, context);
    assert.deepEqual(page.errors, []);
  } finally {
    await context.close();
  }
}

/** Over HTTP, for bytes. */
async function post(message, on = server) {
  const headers = { "Content-Type": "application/json" };
  const { status, body } = await get(on.http("/api/publish"), { method: "POST", headers, body: JSON.stringify(message) });
  assert.equal(status, 200, body);
}

const until = (page, condition, argument) => page.waitForFunction(condition, argument, { polling: 50 });

/** In a page without scripts of its own: `push`, `got` and `told`. */
async function begin(page, topic) {
  await page.evaluate(async (topic) => {
    const { connect } = await import("/campanile.js");
    Object.assign(globalThis, { got: [], told: [], opens: 0 });
    globalThis.push = connect(undefined, { reconnectionDelay: 10, reconnectionDelayMax: 100 });
    push.addEventListener("open", () => opens++);
    push.subscribe(topic, (message) => got.push(message instanceof Uint8Array ? [...message] : message), {
      onSubscribed: () => told.push("subscribed"),
      onRecovered: () => told.push("recovered"),
      onLost: () => told.push("lost"),
    });
  }, topic);
  await until(page, () => told.includes("subscribed"));
}

describe("the module in a page", () => {
  test("publishes, hears text, JSON and bytes", () => withPage("/healthz", async (page) => {
    await begin(page, "public/browser/1");
    const { offset } = await page.evaluate(() => push.publish("public/browser/1", { größe: "🔔" }));
    await page.evaluate(() => push.publish("public/browser/1", "text"));
    await post({ topic: "public/browser/1", base64: Buffer.from([0, 255, 7]).toString("base64") });
    await until(page, () => got.length === 3);
    assert.deepEqual(await page.evaluate(() => got), [{ größe: "🔔" }, "text", [0, 255, 7]]);
    assert.ok(offset > 0);
  }));

  test("offline and online again: at once, and with what was missed", () => withPage("/healthz", async (page, context) => {
    await begin(page, "public/browser/2");
    await other.publish("public/browser/2", "kept"); // a topic that keeps nothing ends with its last subscriber
    await until(page, () => got.length === 1);
    // A socket that is open survives Chromium's offline mode; this one is ended, and no other can be made.
    await context.setOffline(true);
    await page.evaluate(() => push.reconnect());
    await until(page, () => push.readyState === 0);
    for (let i = 0; i < 20; i++) await other.publish("public/browser/2", i);
    await page.evaluate(() => { globalThis.waiting = push.publish("public/browser/2", "from offline"); });
    await context.setOffline(false);
    await until(page, () => told.includes("recovered") && got.length === 22);
    assert.deepEqual(await page.evaluate(() => got), ["kept", ...Array.from({ length: 20 }, (_, i) => i), "from offline"]);
    assert.equal((await page.evaluate(() => waiting)).receivers, 1);
    assert.deepEqual(await page.evaluate(() => told), ["subscribed", "subscribed", "recovered"]);
  }));

  test("20 new connections while others publish: nothing is missing, nothing comes twice", () => withPage("/healthz", async (page) => {
    await begin(page, "public/browser/3");
    await other.publish("public/browser/3", 0);
    let [going, sent] = [true, 1];
    const publishing = (async () => {
      while (going) {
        await other.publish("public/browser/3", sent++);
        await sleep(10); // what one reconnection takes is to be less than what the topic keeps
      }
    })();
    try {
      for (let i = 0; i < 20; i++) {
        await page.evaluate(() => { globalThis.before = opens; push.reconnect(); });
        await until(page, () => opens > before);
      }
    } finally {
      going = false;
      await publishing;
    }
    await until(page, (sent) => got.length >= sent, sent);
    assert.deepEqual(await page.evaluate(() => got), Array.from({ length: sent }, (_, i) => i));
    assert.ok(!(await page.evaluate(() => told)).includes("lost"));
  }));

  test("the server is killed and started again: lost, and on it goes", async () => {
    let own = await Server.start();
    try {
      await withPage("/healthz", async (page) => {
        await begin(page, "public/browser/4");
        const { port } = own;
        own.kill();
        await own.ended();
        own = await Server.start({ port });
        await until(page, () => told.includes("lost"));
        await page.evaluate(() => push.publish("public/browser/4", "again"));
        await until(page, () => got.includes("again"));
      }, own);
    } finally {
      own.kill();
    }
  });
});

describe("a page that is busy", () => {
  test("is told how many messages were given up meanwhile", async () => {
    const own = await Server.start({ args: ["--topics", "public/busy/:client-subscribe=yes,slow-consumer=drop-oldest"] });
    // A synchronous request holds the page's thread until it is answered.
    let letGo;
    const held = new Promise((resolve) => {
      letGo = createServer((_, answer) => resolve(answer.setHeader("Access-Control-Allow-Origin", "*"))).listen(0, "127.0.0.1");
    });
    await once(letGo, "listening");
    try {
      await withPage("/healthz", async (page) => {
        await begin(page, "public/busy/1");
        const busy = page.evaluate((port) => {
          globalThis.lost = 0;
          push.addEventListener("lagged", ({ messages }) => (lost += messages));
          const request = new XMLHttpRequest();
          request.open("GET", `http://127.0.0.1:${port}/`, false);
          request.send();
        }, letGo.address().port);
        const answer = await held;
        const text = randomBytes(45_000).toString("base64"); // does not get shorter
        const sent = 400; // 24 MB: more than the browser's and the kernel's buffers and the backlog of 1 MiB
        for (let i = 0; i < sent; i++) await post({ topic: "public/busy/1", text: `${i} ${text}` }, own);
        answer.end();
        await busy;
        await until(page, (sent) => got.length + lost === sent, sent);
        assert.ok((await page.evaluate(() => lost)) > 0);
        const order = await page.evaluate(() => got.map((message) => parseInt(message)));
        assert.deepEqual(order, order.toSorted?.((a, b) => a - b) ?? [...order].sort((a, b) => a - b));
        assert.equal(order.at(-1), sent - 1, "the newest comes");
      }, own);
    } finally {
      letGo.close();
      await own.stop();
    }
  });
});

describe("the page of topics", () => {
  const opened = (page) => until(page, () => document.getElementById("state").textContent === "OPEN");
  const lines = (page) => page.locator("#lines li span").allTextContents();

  test("tickers: the latest of each key, also for who comes late", () => withPage("/live.html", async (page) => {
    await opened(page);
    for (const [key, value] of [["A", 1], ["B", 2.5], ["A", 3]]) {
      await other.publish("public/ticks", { key, value }, { key });
    }
    const shown = () => [...document.querySelectorAll("#ticks tr")].map((tr) => `${tr.cells[0].textContent} ${tr.cells[1].textContent}`).sort().join();
    const all = async (page) => until(page, (wanted) => [...document.querySelectorAll("#ticks tr")].map((tr) => `${tr.cells[0].textContent} ${tr.cells[1].textContent}`).sort().join() === wanted, "A 3.00,B 2.50");
    await all(page);
    await page.reload();
    await all(page);
    assert.equal(await page.evaluate(shown), "A 3.00,B 2.50");
    await other.publish("public/ticks", { key: "<b>x</b>", value: 1 }, { key: "x" });
    await until(page, () => document.querySelectorAll("#ticks tr").length === 3);
    assert.equal(await page.locator("#ticks b").count(), 0, "text is no markup");
  }));

  test("the room survives a reload, and has what was said meanwhile", () => withPage("/live.html", async (page) => {
    await opened(page);
    await page.fill("#words", "before");
    await page.keyboard.press("Enter");
    await until(page, () => document.querySelectorAll("#lines li").length === 1);
    await page.click("#toggle");
    await until(page, () => document.getElementById("state").textContent === "CLOSED");
    for (const text of ["one", "two"]) await other.publish("public/room", { name: "Bert", text });
    await page.reload();
    await until(page, () => document.querySelectorAll("#lines li").length === 3);
    assert.deepEqual(await lines(page), ["before", "one", "two"]);
    await page.reload();
    await opened(page);
    await until(page, () => /nothing was missed/.test(document.getElementById("room-note").textContent));
    assert.deepEqual(await lines(page), ["before", "one", "two"]);
  }));

  test("an image by HTTP is shown, and the page's own stream moves", () => withPage("/live.html", async (page) => {
    await opened(page);
    await post({ topic: "public/image", base64: PIXEL });
    await until(page, () => document.getElementById("picture").naturalWidth === 1);
    await page.click("#image-run");
    await until(page, () => document.getElementById("picture").naturalWidth === 480);
    const first = await page.locator("#picture").getAttribute("data-offset");
    await until(page, (first) => document.getElementById("picture").dataset.offset > Number(first) + 3, first);
    await page.click("#image-run");
    assert.equal(await page.textContent("#image-note"), "");
  }));

  test("its curl lines are true", () => withPage("/live.html", async (page) => {
    await opened(page);
    const { execFileSync } = await import("node:child_process");
    for (const id of ["ticks-curl", "room-curl", "image-curl"]) {
      const line = await page.textContent(`#${id}`);
      execFileSync("sh", ["-c", line.replace("curl ", "curl -sSf ")], { stdio: "pipe" });
    }
    await until(page, () => [...document.querySelectorAll("#ticks th")].some((th) => th.textContent === "BEL/EUR"));
    await until(page, () => document.getElementById("lines").textContent.includes("Ding!"));
    await until(page, () => document.getElementById("picture").naturalWidth === 64);
  }));
});
