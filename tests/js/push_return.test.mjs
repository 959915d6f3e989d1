// campanile.js against a server that can be made to misbehave: how it comes back, and what it does with silence and
// refusals.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { after, before, describe } from "node:test";
import { WebSocket } from "ws";
import { connect as connectTo } from "../../js/campanile.js";
import { Inbox, event, within } from "./harness.mjs";
import { StuckServer, Way } from "./push_fake.mjs";
import { connect, ending, listen, open, rejected, server, serving, test } from "./push_listen.mjs";

describe("coming back", () => {
  before(serving());
  after(ending);

  test("events, states and close", async () => {
    const push = connect(server.url());
    assert.deepEqual([push.readyState, push.hello], [0, {}]);
    const [{ hello }] = await event(push, "open");
    assert.deepEqual([push.readyState, push.hello.heartbeat, hello.heartbeat], [1, 25_000, 25_000]);
    assert.equal(push.bufferedAmount, 0);
    const closed = event(push, "close");
    push.close(4321, "enough");
    const [{ code, reason, wasClean, retry }] = await closed;
    assert.deepEqual([code, reason, wasClean, retry, push.readyState], [4321, "enough", true, null, 3]);
    push.close();
  });

  test("close() ends it, reconnect() goes on with the subscriptions", async () => {
    const push = connect(server.url());
    const { next, message } = listen(push, "again");
    await next("onSubscribed");
    push.close();
    server.publish("again", { data: 1 });
    push.reconnect();
    await next("onSubscribed");
    await next("onRecovered");
    assert.equal(await message(), 1);
    push.reconnect();
    await next("onSubscribed");
    await next("onRecovered");
  });

  for (const [code, back] of [[1000, false], [1001, true], [1008, false], [1009, false], [1011, true], [1012, true], [1013, true], [3008, true], [4001, false]]) {
    test(`closed with ${code}: ${back ? "comes back" : "stays away"}`, async () => {
      const push = connect(server.url());
      await event(push, "open");
      const closed = event(push, "close");
      const opened = back && event(push, "open");
      for (const socket of server.sockets) socket.close(code, "said so");
      const [close] = await closed;
      assert.deepEqual([close.code, close.reason, close.retry !== null], [code, "said so", back]);
      await opened;
      assert.equal(push.readyState, back ? 1 : 3);
      push.close();
    });
  }

  test("the page may decide otherwise", async () => {
    const push = connect(server.url(), { reconnect: (code) => (code === 4401 ? true : undefined) });
    await event(push, "open");
    const [socket] = [...server.sockets].slice(-1);
    socket.close(4401);
    await event(push, "open");
    push.close();
  });

  test("waits grow, with full jitter, up to the cap; 1013 is given more time", async () => {
    const push = connect("ws://127.0.0.1:9/", { reconnectionDelay: 2, reconnectionDelayMax: 16 });
    const waits = [];
    while (waits.length < 12) waits.push((await event(push, "close"))[0].retry);
    push.close();
    waits.forEach((wait, i) => assert.ok(wait >= 0 && wait < Math.min(16, 2 * 2 ** i), `${i}: ${wait}`));
    assert.ok(new Set(waits).size > 6, String(waits));
    const busy = connect(server.url(), { reconnectionDelayMax: 60_000 });
    let longest = 0;
    for (let i = 0; i < 20; i++) {
      await event(busy, "open");
      const closed = event(busy, "close");
      for (const socket of server.sockets) socket.close(1013);
      longest = Math.max(longest, (await closed)[0].retry);
      busy.reconnect();
    }
    assert.ok(longest > 500 && longest < 5_000, String(longest));
    busy.close();
  });

  test("the server says how far apart its clients return; the page may say otherwise", async () => {
    const longest = async (options, times = 20) => {
      const push = connectTo(server.url(), { WebSocket, ...options });
      open.add(push);
      let wait = 0;
      for (let i = 0; i < times; i++) {
        await event(push, "open");
        const closed = event(push, "close");
        server.cut();
        wait = Math.max(wait, (await closed)[0].retry);
        push.reconnect(); // takes back that it failed
      }
      push.close();
      return wait;
    };
    // Of twenty random parts the greatest is below half of the whole once in a million times.
    const between = (wait, least, most) => assert.ok(wait > least && wait < most, `${least} < ${wait} < ${most}`);
    between(await longest(), 500, 1_000);
    server.helloMore = { retry: 100_000 };
    between(await longest(), 50_000, 100_000); // above the longest wait that is usual
    between(await longest({ reconnectionDelayMax: 10_000 }), 5_000, 10_000);
    between(await longest({ reconnectionDelay: 10 }), 5, 10);
    for (const retry of [undefined]) {
      server.helloMore = { retry };
      between(await longest({}, 20), 500, 1_000);
    }
    server.helloMore = {};
  });

  test("a server that is away is waited for as it has said, doubled each time", async () => {
    const way = await Way.to(server.port);
    server.helloMore = { retry: 16 };
    const push = connectTo(`ws://127.0.0.1:${way.port}/push`, { WebSocket });
    open.add(push);
    await event(push, "open");
    way.open = false;
    way.cut();
    for (let ceiling = 16; ceiling < 200; ceiling *= 2) {
      const { retry } = (await event(push, "close"))[0];
      assert.ok(retry >= 0 && retry < ceiling, `${retry} of ${ceiling}`);
    }
    push.close();
    await way.stop();
    server.helloMore = {};
  });

  test("the URL's function is asked each time, and may fail", async () => {
    const given = [];
    const push = connect(async () => {
      given.push(given.length);
      if (given.length === 2) throw new Error("no token today");
      return `${server.url("/push")}?token=${given.length}`;
    });
    await event(push, "open");
    assert.equal(server.urls.at(-1), "/push?token=1&batch=true");
    const failed = event(push, "open"); // an event named error would reject
    const errors = new Inbox();
    push.addEventListener("error", ({ error }) => errors.push(error.message));
    server.cut();
    await failed;
    assert.equal(await errors.next(), "no token today");
    assert.equal(server.urls.at(-1), "/push?token=3&batch=true");
    push.close();
  });

  test("online and a page that is looked at again: at once", async () => {
    const [page, world] = [Object.assign(new EventTarget(), { hidden: false }), new EventTarget()];
    globalThis.document = page;
    globalThis.addEventListener = world.addEventListener.bind(world);
    try {
      const way = await Way.to(server.port);
      way.open = false;
      const slow = { reconnectionDelay: 1e8, reconnectionDelayMax: 1e8 };
      const push = connect(`ws://127.0.0.1:${way.port}/push`, slow);
      for (const tell of [() => world.dispatchEvent(new Event("online")), () => page.dispatchEvent(new Event("visibilitychange"))]) {
        await event(push, "close");
        way.open = true;
        const opened = event(push, "open");
        tell();
        await opened;
        way.open = false;
        const asked = event(server, "ping");
        tell(); // while it is open, it asks whether that is still so
        await asked;
        way.cut();
      }
      await event(push, "close");
      push.close();
      way.open = true;
      world.dispatchEvent(new Event("online"));
      assert.equal(push.readyState, 3);
      await way.stop();
    } finally {
      delete globalThis.document;
      delete globalThis.addEventListener;
    }
  });

  test("wrong use throws at once", () => {
    assert.throws(() => connectTo("/push", { WebSocket }), TypeError); // relative to no page
    assert.throws(() => connectTo("http://", { WebSocket }), TypeError);
    if (!globalThis.WebSocket) assert.throws(() => connectTo("ws://localhost/"), /WebSocket/);
  });
});

describe("refusals", () => {
  before(serving());
  after(ending);

  test("a publication rejects with the server's code, or when it is too big", async () => {
    const push = connect(server.url());
    server.refuse = ({ type }) => type === "publish" && { code: "forbidden" };
    const error = await rejected(push.publish("secret", 1), "forbidden");
    assert.equal(error.message, "refused");
    server.refuse = () => undefined;
    await rejected(push.publish("big", "🔔".repeat(16_400)), "too_big");
    await push.publish("big", "ü".repeat(32_600));
    assert.equal(push.readyState, 1);
  });

  test("rate and busy are tried again when the server says", async () => {
    const push = connect(server.url());
    const refused = new Map();
    server.refuse = ({ id }) => {
      refused.set(id, (refused.get(id) ?? 0) + 1);
      return refused.get(id) < 3 && { code: "rate_limited", retry: 1 };
    };
    const { next, message, sub } = listen(push, "busy");
    await next("onSubscribed");
    await push.publish("busy", 1);
    assert.equal(await message(), 1);
    sub.unsubscribe();
    const again = listen(push, "busy"); // the refused unsubscribe must not end this one
    await again.next("onSubscribed");
    server.refuse = () => undefined;
    await push.publish("busy", 2);
    assert.equal(await again.message(), 2);
  });

  test("nothing of a closed client keeps Node.js running", async () => {
    const asked = event(server, "subscribe");
    server.refuse = ({ type }) => type === "subscribe" && { code: "busy", retry: 60_000 };
    const script = `
      import { WebSocket } from "ws";
      import { connect } from ${JSON.stringify(new URL("../../js/campanile.js", import.meta.url).href)};
      const push = connect(${JSON.stringify(server.url())}, { WebSocket });
      push.subscribe("t", () => {});
      process.stdin.once("data", () => { push.close(); process.stdin.destroy(); });`;
    const options = { cwd: new URL(".", import.meta.url), stdio: ["pipe", "inherit", "inherit"] };
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], options);
    try {
      await asked;
      await new Promise((resolve) => setImmediate(resolve)); // the refusal is on its way
      child.stdin.write("close");
      assert.deepEqual(await event(child, "exit"), [0, null]);
    } finally {
      child.kill("SIGKILL");
      server.refuse = () => undefined;
    }
  });

  test("a subscription that is refused ends, and says so", async () => {
    const push = connect(server.url());
    server.refuse = ({ type }) => type === "subscribe" && { code: "forbidden" };
    const { next } = listen(push, "no");
    const [error] = await next("onError");
    assert.equal(error.code, "forbidden");
    const failure = new Promise((resolve) => push.addEventListener("error", resolve, { once: true }));
    push.subscribe("no", () => {});
    assert.equal((await within(failure, "an error event")).error.code, "forbidden");
    server.refuse = () => undefined;
    await listen(push, "no").next("onSubscribed");
  });

  test("an error without a request, and lagged, are events", async () => {
    const push = connect(server.url());
    await event(push, "open");
    const failure = new Promise((resolve) => push.addEventListener("error", resolve, { once: true }));
    const [socket] = [...server.sockets].slice(-1);
    server.tell(socket, { type: "error", code: "binary", message: "no" });
    assert.equal((await within(failure, "an error event")).error.code, "binary");
    const lagged = event(push, "lagged");
    server.tell(socket, { type: "lagged", messages: 12 });
    assert.equal((await lagged)[0].messages, 12);
    const broken = new Promise((resolve) => push.addEventListener("error", resolve, { once: true }));
    socket.send("no JSON");
    assert.ok((await within(broken, "an error event")).error instanceof SyntaxError);
    assert.equal(push.readyState, 1);
  });
});

describe("a server that sends a close frame and does not end TCP", () => {
  // Node.js 24 has undici 7, which keeps its socket out of reach: there the code is 1006 and the socket stays.
  const reachable = parseInt(process.versions.undici) < 7;

  /** Runs a page's script under Node.js, with its own WebSocket. Lines of JSON come back. */
  function run(url, script, options = "{}") {
    const text = `
      import { connect } from ${JSON.stringify(new URL("../../js/campanile.js", import.meta.url).href)};
      const push = connect(${JSON.stringify(url)}, ${options});
      const tell = (...what) => console.log(JSON.stringify(what));
      push.addEventListener("close", ({ code, reason, wasClean, retry }) => tell("close", code, reason, wasClean, retry !== null));
      ${script}`;
    const flags = globalThis.WebSocket ? [] : ["--experimental-websocket", "--no-warnings"];
    const child = spawn(process.execPath, [...flags, "--input-type=module", "-e", text], { stdio: ["ignore", "pipe", "inherit"] });
    const inbox = new Inbox();
    createInterface({ input: child.stdout }).on("line", (line) => inbox.push(JSON.parse(line)));
    return { child, inbox };
  }

  for (const drip of [false, true]) {
    test(`Node.js returns after 1001, and no socket stays${drip ? ", while messages follow" : ""}`, async () => {
      const stuck = await StuckServer.start(1001, drip);
      const first = event(stuck, "connection");
      const { child, inbox } = run(stuck.url, "", "{ reconnectionDelayMax: 1 }");
      try {
        await first;
        const second = event(stuck, "connection");
        const ended = reachable && event(stuck, "end");
        const expected = reachable ? [1001, "go", true] : [1006, "closed by the server, which did not end TCP", false];
        assert.deepEqual(await inbox.next("a close event"), ["close", ...expected, true]);
        await second;
        await ended;
      } finally {
        child.kill("SIGKILL");
        stuck.stop();
      }
    });
  }

  if (reachable) test("Node.js stays away after 4001", async () => {
    const stuck = await StuckServer.start(4001);
    const { child, inbox } = run(stuck.url, "");
    try {
      const exit = event(child, "exit");
      assert.deepEqual(await inbox.next("a close event"), ["close", 4001, "go", true, false]);
      assert.deepEqual(await exit, [0, null], "nothing keeps it running");
    } finally {
      child.kill("SIGKILL");
      stuck.stop();
    }
  });

  if (reachable) test("close() ends Node.js, although the server does not answer it", async () => {
    const stuck = await StuckServer.start();
    const { child } = run(stuck.url, 'push.addEventListener("open", () => push.close());');
    try {
      assert.deepEqual(await event(child, "exit"), [0, null]);
    } finally {
      child.kill("SIGKILL");
      stuck.stop();
    }
  });

  test("`ws` keeps the code, and no socket stays", async () => {
    const stuck = await StuckServer.start(4001, true);
    const ended = event(stuck, "end");
    const push = connectTo(stuck.url, { WebSocket });
    try {
      const [{ code, reason, retry }] = await event(push, "close");
      assert.deepEqual([code, reason, retry, push.readyState], [4001, "go", null, 3]);
      await ended;
    } finally {
      push.close();
      stuck.stop();
    }
  });
});
