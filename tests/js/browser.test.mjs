// campanile in a real browser: the chat page as people use it, and WebSocket as page scripts do.
//
// CHROMIUM says which browser [/usr/bin/chromium]; playwright-core only drives it.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test as nodeTest } from "node:test";
import { deflateSync } from "node:zlib";
import { chromium } from "playwright-core";
import { DEADLINE, MIB, Server, TEST_LIMIT, testAuthority } from "./harness.mjs";

const test = (name, body) => nodeTest(name, { timeout: TEST_LIMIT }, body);
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

let server, browser;
before(async () => {
  server = await Server.start();
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: FLAGS });
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** A browser window of its own; gone after the body, whatever happens. */
async function withContext(body) {
  const context = await browser.newContext();
  context.setDefaultTimeout(DEADLINE);
  try {
    return await body(context);
  } finally {
    await context.close();
  }
}

/** The chat page, connected; `errors` are its scripts' and whatever it could not load. */
async function openPage(context, on = server) {
  const page = await context.newPage();
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(String(error)));
  page.on("response", (response) => {
    if (response.status() >= 400) page.errors.push(`${response.status()} for ${response.url()}`);
  });
  await page.goto(on.http("/"));
  await state(page, "OPEN");
  return page;
}

function state(page, wanted) {
  return page.waitForFunction(
    (text) => document.getElementById("state").textContent.trim() === text, wanted, { polling: 50 });
}

async function say(page, name, message) {
  await page.fill("#name", name);
  await page.fill("#message", message);
  await page.click("#send");
}

/** An entry of the log that contains all these words, of one of these kinds; how many there are. */
function sees(page, words, { kinds = ["text"], times = 1 } = {}) {
  return page.waitForFunction(([words, kinds, times]) => {
    const fits = (entry) => kinds.includes(entry.dataset.kind) && words.every((word) => entry.textContent.includes(word));
    return [...document.querySelectorAll("#log > li")].filter(fits).length === times;
  }, [words, kinds, times], { polling: 50 });
}

function crc32(data) { // zlib's own needs a newer Node.js
  let crc = ~0;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** A PNG of this size, a gradient, made here: RFC 2083. */
function png(width, height) {
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const out = Buffer.alloc(8 + data.length + 4);
    out.writeUInt32BE(data.length, 0);
    body.copy(out, 4);
    out.writeUInt32BE(crc32(body), out.length - 4);
    return out;
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8); // 8 bits each of red, green and blue
  const rows = Array.from({ length: height }, (_, y) => Buffer.from([
    0, ...Array.from({ length: width }, (_, x) => [(x * 255) / width, (y * 255) / height, 128]).flat(),
  ]));
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(Buffer.concat(rows))),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

describe("the chat page", () => {
  test("two tabs chat, emoji too, and one leaves", () => withContext(async (context) => {
    const [anna, bert] = [await openPage(context), await openPage(context)];
    await say(anna, "Anna", "hello Bert");
    for (const page of [anna, bert]) await sees(page, ["Anna", "hello Bert"]);
    await say(bert, "Bert 🦀", "grüße 👩‍👩‍👧‍👦 <b>not bold</b>");
    for (const page of [anna, bert]) await sees(page, ["Bert 🦀", "grüße 👩‍👩‍👧‍👦 <b>not bold</b>"]);
    assert.equal(await anna.locator("#log b", { hasText: "not bold" }).count(), 0, "text is no markup");
    await anna.close();
    await sees(bert, ["Anna left"], { kinds: ["text", "system"] });
    assert.deepEqual(bert.errors, []);
  }));

  test("an image arrives and is decoded in the other tab", () => withContext(async (context) => {
    const [anna, bert] = [await openPage(context), await openPage(context)];
    await anna.setInputFiles("#image", { name: "gradient.png", mimeType: "image/png", buffer: png(64, 48) });
    for (const page of [anna, bert]) {
      await page.waitForFunction(() => {
        const image = document.querySelector("#log > li[data-kind=image] img");
        return image?.complete && image.naturalWidth === 64 && image.naturalHeight === 48;
      }, undefined, { polling: 50 });
    }
    assert.deepEqual([...anna.errors, ...bert.errors], []);
  }));

  test("disconnect and reconnect by hand", () => withContext(async (context) => {
    const [anna, bert] = [await openPage(context), await openPage(context)];
    await say(anna, "Anna", "before");
    await sees(bert, ["Anna", "before"]);
    await anna.click("#disconnect");
    await state(anna, "CLOSED");
    assert.match(await anna.textContent("#close-code"), /1000|1005/);
    await sees(bert, ["Anna left"], { kinds: ["text", "system"] });
    await anna.click("#reconnect");
    await state(anna, "OPEN");
    await say(anna, "Anna", "after");
    await sees(bert, ["Anna", "after"]);
  }));

  test("the server restarts: the page says so, comes back by itself, and chats", () => withContext(async (context) => {
    let own = await Server.start();
    try {
      const [anna, bert] = [await openPage(context, own), await openPage(context, own)];
      await say(anna, "Anna", "before the restart");
      await sees(bert, ["Anna", "before the restart"]);
      const port = own.port;
      await own.stop();
      for (const page of [anna, bert]) {
        await page.waitForFunction(() => document.getElementById("state").textContent.trim() !== "OPEN", undefined, { polling: 50 });
      }
      own = await Server.start({ port });
      for (const page of [anna, bert]) await state(page, "OPEN");
      await say(anna, "Anna", "after the restart");
      for (const page of [anna, bert]) await sees(page, ["Anna", "after the restart"]);
    } finally {
      own.kill();
    }
  }));

  test("a server killed and started again is no different", () => withContext(async (context) => {
    let own = await Server.start();
    try {
      const page = await openPage(context, own);
      own.kill();
      await own.ended();
      await page.waitForFunction(() => document.getElementById("state").textContent.trim() !== "OPEN", undefined, { polling: 50 });
      own = await Server.start({ port: own.port });
      await state(page, "OPEN");
      await say(page, "Ida", "again");
      await sees(page, ["Ida", "again"]);
    } finally {
      own.kill();
    }
  }));

  test("ten tabs", () => withContext(async (context) => {
    const pages = [];
    for (let i = 0; i < 10; i++) pages.push(await openPage(context));
    for (const [i, page] of pages.entries()) await say(page, `tab${i}`, `message of ${i}`);
    for (const page of pages) {
      for (let i = 0; i < 10; i++) await sees(page, [`tab${i}`, `message of ${i}`]);
    }
  }));

  test("its echo, its health light, and nothing left in the buffer", () => withContext(async (context) => {
    const page = await openPage(context);
    await page.fill("#echo-text", "écho 😀");
    await page.click("#echo-send");
    await page.waitForFunction(() => {
      const result = document.getElementById("echo-result");
      return (result.value ?? result.textContent).includes("écho 😀");
    }, undefined, { polling: 50 });
    await page.waitForFunction(() => /\b(ok|healthy)\b/i.test(document.getElementById("health").textContent), undefined, { polling: 50 });
    await page.waitForFunction(() => /^0\b/.test(document.getElementById("buffered").textContent.trim()), undefined, { polling: 50 });
    assert.deepEqual(page.errors, []);
  }));
});

describe("WebSocket in a page", () => {
  // Runs the function in a page of the server's, with `open(path)`, which gives a connection whose
  // `next()` is the next message, `opened` and `ended` promises, and `states` the states seen.
  const inPage = (body, argument, on = server) => withContext(async (context) => {
    const page = await context.newPage();
    await page.goto(on.http("/healthz"));
    await page.evaluate(() => {
      globalThis.open = (path, protocols) => {
        const ws = new WebSocket(`ws://${location.host}${path}`, protocols);
        ws.binaryType = "arraybuffer";
        const [got, waiting] = [[], []];
        ws.states = [ws.readyState];
        ws.onmessage = ({ data }) => (waiting.length ? waiting.shift()(data) : got.push(data));
        ws.next = () => (got.length ? Promise.resolve(got.shift()) : new Promise((resolve) => waiting.push(resolve)));
        ws.opened = new Promise((resolve, reject) => {
          ws.onopen = () => { ws.states.push(ws.readyState); resolve(); };
          ws.onerror = () => reject(new Error("the connection failed"));
        });
        ws.ended = new Promise((resolve) => {
          ws.onclose = ({ code, reason, wasClean }) => { ws.states.push(ws.readyState); resolve({ code, reason, wasClean }); };
        });
        return ws;
      };
    });
    return page.evaluate(body, argument);
  });

  test("readyState goes 0, 1, 2, 3; close(3000, 'x') is clean", async () => {
    const { states, end, protocol, extensions } = await inPage(async () => {
      const ws = open("/echo");
      await ws.opened;
      ws.close(3000, "x");
      ws.states.push(ws.readyState);
      return { end: await ws.ended, states: ws.states, protocol: ws.protocol, extensions: ws.extensions };
    });
    assert.deepEqual(states, [0, 1, 2, 3]);
    assert.equal(end.code, 3000);
    assert.equal(end.wasClean, true);
    assert.ok(["", "x"].includes(end.reason), end.reason);
    assert.equal(protocol, "");
    assert.equal(extensions, "permessage-deflate; server_no_context_takeover; client_no_context_takeover");
  });

  test("close() without a code is 1005 and clean", async () => {
    const end = await inPage(async () => {
      const ws = open("/echo");
      await ws.opened;
      ws.close();
      return ws.ended;
    });
    assert.deepEqual({ code: end.code, wasClean: end.wasClean }, { code: 1005, wasClean: true });
  });

  test("text, ArrayBuffer, typed array and Blob come back as they were", async () => {
    const got = await inPage(async () => {
      const ws = open("/echo");
      await ws.opened;
      const seen = [];
      for (const message of ["", "κόσμε 😀", new ArrayBuffer(0), new Uint8Array([0, 127, 128, 255]), new Blob(["blob"])]) {
        ws.send(message);
        const back = await ws.next();
        seen.push(typeof back === "string" ? back : [...new Uint8Array(back)]);
      }
      ws.close(1000);
      await ws.ended;
      return seen;
    });
    assert.deepEqual(got, ["", "κόσμε 😀", [], [0, 127, 128, 255], [...Buffer.from("blob")]]);
  });

  const modes = {
    shared: "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    dedicated: "permessage-deflate; client_max_window_bits=11",
    off: "",
  };
  for (const [mode, agreed] of Object.entries(modes)) {
    test(`--deflate ${mode}: what is agreed on, and text and binary of any size come back equal`, async () => {
      const own = await Server.start({ args: ["--deflate", mode] });
      try {
        const { extensions, wrong } = await inPage(async () => {
          const ws = open("/echo");
          await ws.opened;
          const wrong = [];
          for (const size of [0, 1, 127, 128, 1023, 1024, 5000, 65536, 1 << 20]) {
            const text = "größte Glocke, ".repeat(size).slice(0, size);
            const noise = new Uint8Array(size);
            for (let i = 0; i < size; i += 65536) crypto.getRandomValues(noise.subarray(i, i + 65536));
            ws.send(text);
            ws.send(new TextEncoder().encode(text));
            ws.send(noise);
            if (await ws.next() !== text) wrong.push(`text ${size}`);
            if (new TextDecoder().decode(await ws.next()) !== text) wrong.push(`binary ${size}`);
            const back = new Uint8Array(await ws.next());
            if (back.length !== size || !back.every((byte, i) => byte === noise[i])) wrong.push(`noise ${size}`);
          }
          const { extensions } = ws;
          ws.close(1000);
          await ws.ended;
          return { extensions, wrong };
        }, undefined, own);
        assert.deepEqual({ extensions, wrong }, { extensions: agreed, wrong: [] });
      } finally {
        await own.stop();
      }
    });
  }

  test("bufferedAmount rises with send and is 0 when the echo is back", async () => {
    const { size, rose, fell, equal } = await inPage(async (size) => {
      const ws = open("/echo");
      await ws.opened;
      const bytes = new Uint8Array(size);
      for (let i = 0; i < size; i += 65536) crypto.getRandomValues(bytes.subarray(i, i + 65536));
      ws.send(bytes);
      const rose = ws.bufferedAmount;
      const back = new Uint8Array(await ws.next());
      const result = { size: back.length, rose, fell: ws.bufferedAmount, equal: back.every((byte, i) => byte === bytes[i]) };
      ws.close(1000);
      await ws.ended;
      return result;
    }, 16 * MIB);
    assert.equal(size, 16 * MIB);
    assert.ok(equal, "content");
    assert.ok(rose >= 16 * MIB, `bufferedAmount ${rose}`);
    assert.equal(fell, 0);
  });

  test("1000 messages keep their order", async () => {
    const order = await inPage(async () => {
      const ws = open("/echo");
      await ws.opened;
      for (let i = 0; i < 1000; i++) ws.send(String(i));
      const order = [];
      for (let i = 0; i < 1000; i++) order.push(Number(await ws.next()));
      ws.close(1000);
      await ws.ended;
      return order;
    });
    assert.deepEqual(order, Array.from({ length: 1000 }, (_, i) => i));
  });

  test("a message that is too big ends with 1009", async () => {
    const code = await inPage(async (size) => {
      const ws = open("/echo");
      await ws.opened;
      ws.send(new Uint8Array(size));
      return (await ws.ended).code;
    }, 16 * MIB + 1);
    assert.equal(code, 1009);
  });

  test("a refused handshake is an error and an unclean 1006", async () => {
    const end = await inPage(async () => {
      const ws = open("/nowhere");
      await ws.opened.catch(() => {});
      return ws.ended;
    });
    assert.deepEqual({ code: end.code, wasClean: end.wasClean }, { code: 1006, wasClean: false });
  });
});

describe("over TLS", () => {
  let secure, trusting, home;
  before(async () => {
    const authority = testAuthority();
    try {
      secure = await Server.startTls(authority);
      // A browser with a home of its own, in which this authority is one of those it trusts.
      home = mkdtempSync(join(tmpdir(), "campanile-home-"));
      const store = join(home, ".pki/nssdb");
      mkdirSync(store, { recursive: true });
      execFileSync("certutil", ["-N", "-d", `sql:${store}`, "--empty-password"]);
      execFileSync("certutil", ["-A", "-d", `sql:${store}`, "-t", "C,,", "-n", "campanile test", "-i", authority.ca]);
    } finally {
      authority.remove();
    }
    const env = { ...process.env, HOME: home };
    trusting = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: FLAGS, env });
  });
  after(async () => {
    await trusting?.close();
    await secure?.stop();
    if (home) rmSync(home, { recursive: true, force: true });
  });

  test("a browser that does not know the authority does not connect", async () => {
    const context = await browser.newContext();
    try {
      const page = await context.newPage();
      await assert.rejects(page.goto(secure.https("/healthz")), /ERR_CERT_AUTHORITY_INVALID/);
    } finally {
      await context.close();
    }
  });

  test("the page chats over https and wss", async () => {
    const [one, two] = [await trusting.newContext(), await trusting.newContext()];
    try {
      const on = { http: (path) => secure.https(path) };
      const [anna, bert] = [await openPage(one, on), await openPage(two, on)];
      assert.equal(await anna.evaluate(() => [location.protocol, isSecureContext].join()), "https:,true");
      await say(anna, "Anna", "nobody else hears this");
      await sees(bert, ["Anna", "nobody else hears this"]);
      await say(bert, "Bert", "nor this");
      await sees(anna, ["Bert", "nor this"]);
      assert.deepEqual([anna.errors, bert.errors], [[], []]);
    } finally {
      await one.close();
      await two.close();
    }
  });

  test("a script's socket echoes large messages over wss", async () => {
    const context = await trusting.newContext();
    try {
      const page = await context.newPage();
      await page.goto(secure.https("/healthz"));
      const sizes = await page.evaluate(async (url) => {
        const ws = new WebSocket(url);
        ws.binaryType = "arraybuffer";
        await new Promise((resolve, reject) => Object.assign(ws, { onopen: resolve, onerror: reject }));
        const sizes = [];
        for (const size of [1, 16_384, 1 << 20, 16 << 20]) {
          const bytes = new Uint8Array(size).map((_, i) => i % 251);
          const back = new Promise((resolve) => (ws.onmessage = (event) => resolve(new Uint8Array(event.data))));
          ws.send(bytes);
          const got = await back;
          sizes.push(got.length === size && got.every((byte, i) => byte === i % 251));
        }
        const closed = new Promise((resolve) => (ws.onclose = resolve));
        ws.close(1000);
        const { code, wasClean } = await closed;
        return [...sizes, code, wasClean];
      }, secure.wss("/echo"));
      assert.deepEqual(sizes, [true, true, true, true, 1000, true]);
    } finally {
      await context.close();
    }
  });

  test("a certificate that is not trusted is not accepted", async () => {
    await withContext(async (context) => {
      const page = await context.newPage();
      await assert.rejects(page.goto(secure.https("/")), /ERR_CERT/);
    });
    assert.ok(await secure.healthy());
  });
});
