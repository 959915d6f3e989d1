// campanile.js against the binary's /push: what it promises, over real topics and real cuts.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test as nodeTest } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket } from "ws";
import { connect as connectTo } from "../../js/campanile.js";
import { Inbox, Server, TEST_LIMIT, event, get } from "./harness.mjs";
import { Way } from "./push_fake.mjs";

const test = (name, body) => nodeTest(name, { timeout: TEST_LIMIT }, body);

let server;
const open = new Set();
before(async () => (server = await Server.start()));
after(async () => {
  for (const push of open) push.close();
  await server?.stop();
});

const connect = (port = server.port, options) => {
  const push = connectTo(`ws://127.0.0.1:${port}/push`, { WebSocket, reconnectionDelay: 1, reconnectionDelayMax: 20, ...options });
  open.add(push);
  return push;
};

/** A topic of its own for each test, that everybody may publish to. */
let topics = 0;
const topic = () => `public/test/${topics++}`;

/** A subscription that has begun: what it is told waits in an inbox as `[what, value]`. */
async function listen(push, name, options = {}) {
  const inbox = new Inbox();
  const begun = new Inbox();
  const told = {};
  for (const what of ["onRecovered", "onLost", "onError"]) told[what] = (value) => inbox.push([what, value]);
  const onMessage = (message, info) => inbox.push(["message", message, info]);
  const how = name.endsWith("/*") ? "subscribePattern" : "subscribe";
  const sub = push[how](name, onMessage, { ...told, onSubscribed: (how) => begun.push(how), ...options });
  const next = async (what) => {
    const [kind, ...rest] = await inbox.next(what);
    assert.equal(kind, what, JSON.stringify(rest));
    return rest;
  };
  await begun.next("subscribed");
  return { sub, inbox, begun, next, message: async () => (await next("message"))[0] };
}

const post = (body, on = server) =>
  get(on.http("/api/publish"), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

describe("campanile.js and the server", () => {
  test("hello, JSON, text, and each message's place", async () => {
    const push = connect();
    const [{ hello }] = await event(push, "open");
    assert.equal(hello.protocol, "campanile.v1.json");
    assert.ok(hello.heartbeat > 0 && hello.max_message_size > 0 && hello.max_subscriptions > 0);
    const name = topic();
    const { next, sub } = await listen(push, name);
    for (const data of [null, 0.5, [], { größe: "🔔" }, "a text", "cut \ud83d"]) {
      const { epoch, offset, receivers } = await push.publish(name, data);
      const [message, info] = await next("message");
      assert.deepEqual(message, data === "cut \ud83d" ? "cut \ufffd" : data);
      assert.deepEqual(info, { topic: name, epoch, offset, replayed: false });
      assert.equal(receivers, 1);
      assert.deepEqual(sub.position, { epoch, offset });
    }
  });

  test("order, from one page to another, and echo: false", async () => {
    const [one, two] = [connect(undefined, { queue: 1000 }), connect()];
    const name = topic();
    const heard = await listen(two, name);
    const own = await listen(one, name);
    const answers = Array.from({ length: 150 }, (_, i) => one.publish(name, i, { echo: i % 2 === 0 }));
    for (let i = 0; i < 150; i++) assert.equal(await heard.message(), i);
    for (let i = 0; i < 150; i += 2) assert.equal(await own.message(), i);
    const offsets = (await Promise.all(answers)).map((answer) => answer.offset);
    assert.deepEqual(offsets, Array.from({ length: 150 }, (_, i) => offsets[0] + i));
  });

  test("what the server refuses, rejects", async () => {
    const push = connect();
    await event(push, "open");
    await assert.rejects(push.publish("private", 1), { name: "PushError", code: "forbidden" });
    await assert.rejects(push.publish("public/*", 1), { code: "topic" });
    await assert.rejects(push.publish("public/a", "x".repeat(push.hello.max_message_size)), { code: "too_big" });
    const [, error] = await new Promise((resolve) => push.subscribe("", () => {}, { onError: (error) => resolve([0, error]) }));
    assert.equal(error.code, "topic");
    assert.equal(push.readyState, 1);
  });

  test("idempotencyKey: the second time is answered with the place of the first", async () => {
    const push = connect();
    const name = topic();
    const { message, inbox } = await listen(push, name);
    const first = await push.publish(name, 1, { idempotencyKey: "one" });
    const second = await push.publish(name, 2, { idempotencyKey: "one" });
    assert.deepEqual([second.offset, second.repeated], [first.offset, true]);
    await push.publish(name, 3);
    assert.deepEqual([await message(), await message(), inbox.items.length], [1, 3, 0]);
  });

  test("50 cuts while others publish: nothing is missing, nothing comes twice", async () => {
    const way = await Way.to(server.port);
    const push = connect(way.port);
    const other = connect(undefined, { queue: 0 });
    await event(other, "open");
    const name = topic();
    const heard = await listen(push, name, { onRecovered() {} });
    await other.publish(name, 0); // a topic that keeps nothing ends with its last subscriber
    let [going, sent] = [true, 1];
    const publishing = (async () => {
      while (going) {
        await other.publish(name, sent++); // waits for its answer, and where it must for the rate
        await sleep(2); // what one reconnection takes is to be less than what the topic keeps
      }
    })();
    try {
      for (let cuts = 0; cuts < 50; cuts++) {
        way.cut();
        await heard.begun.next("subscribed again");
      }
    } finally {
      going = false;
      await publishing;
    }
    await push.publish(name, "end");
    for (let i = 0; i < sent; i++) assert.equal(await heard.message(), i);
    assert.deepEqual([await heard.message(), heard.inbox.items.length], ["end", 0]);
    assert.ok(sent >= 50, String(sent));
    push.close();
    await way.stop();
  });

  test("who reads too slowly is closed with 1013, comes back, and is told that something is missing", async () => {
    const way = await Way.to(server.port);
    const push = connect(way.port);
    const name = topic();
    const heard = await listen(push, name);
    await post({ topic: name, text: "first" });
    assert.equal(await heard.message(), "first");
    const closed = event(push, "close");
    way.hold();
    const bulk = { topic: name, base64: randomBytes(45_000).toString("base64") }; // what compression makes no smaller
    for (let i = 0; i < 600; i++) assert.equal((await post(bulk)).status, 200); // more than two kernels and the server hold
    way.release();
    assert.equal((await closed)[0].code, 1013);
    let what;
    do [what] = await heard.inbox.next("messages, and then that some are missing"); while (what === "message");
    assert.equal(what, "onLost");
    push.close();
    await way.stop();
  });

  test("publications under cuts: each once, in order", async () => {
    const way = await Way.to(server.port);
    const [push, other] = [connect(way.port), connect()];
    await event(push, "open");
    const name = topic();
    const heard = await listen(other, name);
    const answers = [];
    for (let i = 0; i < 60; i++) {
      answers.push(push.publish(name, i));
      if (i % 5 === 0) {
        way.cut();
        await event(push, "open");
      }
    }
    await Promise.all(answers);
    await other.publish(name, "end");
    for (let i = 0; i < 60; i++) assert.equal(await heard.message(), i);
    assert.deepEqual([await heard.message(), heard.inbox.items.length], ["end", 0]);
    push.close();
    await way.stop();
  });

  test("a name that somebody else chose is never a pattern", async () => {
    const push = connect();
    await event(push, "open");
    for (const name of ["public/*", "/*", "public/a/*"]) {
      assert.throws(() => push.subscribe(name, () => {}), { name: "PushError", code: "topic", message: /subscribePattern/ });
    }
    for (const name of ["public", "public*", "*"]) {
      assert.throws(() => push.subscribePattern(name, () => {}), { name: "PushError", code: "pattern", message: /ticks/ });
    }
    const all = push.subscribePattern("public/*", () => {});
    assert.deepEqual([all.pattern, all.topic, all.position], ["public/*", undefined, null]);
    // A client that says it by itself is refused by the server.
    const answers = new Inbox();
    const socket = new WebSocket(`ws://127.0.0.1:${server.port}/push`, "campanile.v1.json");
    socket.on("message", (text) => answers.push(JSON.parse(text)));
    await new Promise((resolve) => socket.on("open", resolve));
    await answers.next("hello");
    socket.send('{"type":"subscribe","id":1,"topic":"public/*"}');
    assert.equal((await answers.next("an error")).code, "topic");
    socket.close();
  });

  test("patterns, and topics that they match", async () => {
    const push = connect();
    const name = topic();
    const all = await listen(push, `${name}/*`);
    const one = await listen(push, `${name}/one`);
    for (const [i, end] of ["one", "two", "one"].entries()) await push.publish(`${name}/${end}`, i);
    for (const i of [0, 1, 2]) assert.equal(await all.message(), i);
    for (const i of [0, 2]) assert.equal(await one.message(), i);
    one.sub.unsubscribe();
    await push.publish(`${name}/one`, 3);
    assert.equal(await all.message(), 3);
    assert.equal(one.inbox.items.length, 0);
  });

  test("latest, and since", async () => {
    const push = connect();
    const name = topic();
    const places = [];
    for (const [key, data] of [["a", 1], ["b", 2], ["a", 3]]) places.push(await push.publish(name, data, { key }));
    const latest = await listen(push, name, { latest: true });
    assert.deepEqual([await latest.message(), await latest.message()], [2, 3]);
    latest.sub.unsubscribe();
    const { epoch, offset } = places[0];
    const since = await listen(push, name, { since: { epoch, offset } });
    await since.next("onRecovered");
    assert.deepEqual([await since.message(), await since.message()], [2, 3]);
    since.sub.unsubscribe();
    const lost = await listen(push, name, { since: { epoch: "another", offset }, latest: true });
    await lost.next("onLost");
    assert.deepEqual([await lost.message(), await lost.message()], [2, 3]);
  });

  test("last: so many of what is kept, and after a cut what was missed", async () => {
    const way = await Way.to(server.port);
    const [push, other] = [connect(way.port), connect()];
    const name = topic();
    for (let i = 1; i <= 5; i++) await other.publish(name, i);
    const heard = await listen(push, name, { last: 2 });
    const [four, { replayed }] = await heard.next("message");
    assert.deepEqual([four, replayed, await heard.message()], [4, true, 5]);
    way.open = false;
    way.cut();
    await event(push, "close");
    for (let i = 6; i <= 9; i++) await other.publish(name, i);
    way.open = true;
    await heard.begun.next("subscribed again");
    await heard.next("onRecovered");
    for (let i = 6; i <= 9; i++) assert.equal(await heard.message(), i);
    const lost = await listen(other, name, { last: 3, since: { epoch: "another", offset: 8 } });
    await lost.next("onLost");
    for (let i = 7; i <= 9; i++) assert.equal(await lost.message(), i);
    push.close();
    await way.stop();
  });

  test("tags: only what is wanted, live and after a cut", async () => {
    const way = await Way.to(server.port);
    const [push, other] = [connect(way.port), connect()];
    const name = topic();
    const some = await listen(push, name, { tags: ["news", "sport"] });
    const all = await listen(other, name);
    for (const [i, tags] of [["news"], undefined, ["weather"], ["weather", "sport"], ["newsletter"]].entries()) await other.publish(name, i, { tags });
    for (const i of [0, 1, 2, 3, 4]) assert.equal(await all.message(), i);
    for (const i of [0, 3]) assert.equal(await some.message(), i);
    way.open = false;
    way.cut();
    await event(push, "close");
    for (const [data, tags] of [[5, ["weather"]], [6, ["sport"]], [7, undefined], [8, ["news"]]]) await other.publish(name, data, { tags });
    way.open = true;
    await some.begun.next("subscribed again");
    await some.next("onRecovered");
    for (const i of [6, 8]) assert.equal(await some.message(), i);
    await other.publish(name, "end", { tags: ["news"] });
    assert.deepEqual([await some.message(), some.inbox.items.length], ["end", 0]);
    push.close();
    await way.stop();
  });

  test("last and tags that can't be are refused, and named", async () => {
    const push = connect();
    const refused = (name, options) => new Promise((resolve, reject) => {
      const how = name.endsWith("/*") ? "subscribePattern" : "subscribe";
      push[how](name, () => {}, { onError: resolve, onSubscribed: () => reject(new Error(JSON.stringify(options))), ...options });
    });
    const wrong = [
      ["last", { last: 0 }], ["last", { last: 65_537 }], ["last", { last: -1 }], ["last", { last: 1.5 }], ["last", { last: "2" }],
      ["last", { last: 2, latest: true }],
      ...[[], Array(17).fill("a"), [""], ["ü".repeat(33)], [1], "news", null].map((tags) => ["tags", { tags }]),
    ];
    for (const [member, options] of wrong) {
      const error = await refused(topic(), options);
      assert.equal(error.code, "invalid", JSON.stringify(options));
      assert.match(error.message, new RegExp(member));
    }
    assert.equal((await refused(`${topic()}/*`, { last: 2 })).code, "invalid");
    for (const [member, { tags }] of wrong.filter(([, { tags }]) => tags !== undefined)) {
      await assert.rejects(push.publish(topic(), 1, { tags }), { code: "invalid", message: new RegExp(member) });
    }
    const name = topic();
    const most = Array.from({ length: 16 }, (_, i) => `${i}`.padEnd(64, "x"));
    const heard = await listen(push, name, { last: 65_536, tags: most });
    await push.publish(name, "all of them", { tags: most });
    assert.equal(await heard.message(), "all of them");
  });

  test("a burst comes in few frames, and in order", async () => {
    const frames = [];
    class Counting extends WebSocket {
      set onmessage(listener) {
        super.onmessage = (event) => {
          if (String(event.data).startsWith('{"type":"message')) frames.push(event.data);
          listener(event);
        };
      }
    }
    const push = connect(server.port, { WebSocket: Counting });
    const name = topic();
    const heard = [];
    await new Promise((resolve) => {
      push.subscribe(name, (n) => heard.push(n) === 300 && resolve(), {
        onSubscribed: () => {
          const messages = Array.from({ length: 300 }, (_, data) => ({ topic: name, data }));
          fetch(server.http("/api/batch"), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ messages }) });
        },
      });
    });
    assert.deepEqual(heard, Array.from({ length: 300 }, (_, n) => n));
    assert.ok(frames.length < 150, `${frames.length} frames`);
    push.close();
  });

  test("bytes over HTTP arrive as bytes", async () => {
    const push = connect();
    const name = topic();
    const { next } = await listen(push, name);
    const bytes = Buffer.from(Array.from({ length: 40_000 }, (_, i) => i % 251));
    for (const sent of [bytes, Buffer.alloc(0)]) {
      const { status, body } = await post({ topic: name, base64: sent.toString("base64") });
      assert.equal(status, 200, body);
      const [message, { offset }] = await next("message");
      assert.ok(message instanceof Uint8Array);
      assert.ok(Buffer.from(message).equals(sent));
      assert.ok(offset > 0);
    }
  });

  test("the server starts anew: another epoch, lost, and on it goes; what waited goes out", async () => {
    let own = await Server.start();
    try {
      const push = connect(own.port);
      const name = topic();
      const { next, message, begun } = await listen(push, name);
      await push.publish(name, 1);
      assert.equal(await message(), 1);
      const closed = event(push, "close");
      await own.stop();
      assert.equal((await closed)[0].code, 1001);
      const waiting = push.publish(name, 2);
      own = await Server.start({ port: own.port });
      const { recovered } = await begun.next("subscribed again");
      assert.equal(recovered, false);
      await next("onLost");
      assert.equal((await waiting).offset, 1);
      assert.equal(await message(), 2);
      push.close();
    } finally {
      own.kill();
    }
  });

  test("a page sends its connection id, and its backend subscribes and closes it", async () => {
    const push = connect(undefined, { reconnect: () => true });
    const unclaimed = new Inbox();
    push.addEventListener("message", ({ topic, offset, data }) => unclaimed.push([topic, offset, data]));
    const ask = async (what, body) => {
      const headers = { "Content-Type": "application/json" };
      const { status, body: answer } = await get(server.http(`/api/${what}`), { method: "POST", headers, body: JSON.stringify(body) });
      return [status, JSON.parse(answer)];
    };
    const connections = new Set();
    let opened = event(push, "open");
    for (let offset = 1; offset <= 2; offset++) {
      const connection = (await opened)[0].hello.connection;
      connections.add(connection);
      const topic = `users/${connection}`; // pages can't publish there
      assert.deepEqual(await ask("subscribe", { connection, topic }), [200, { subscribed: true }]);
      assert.equal((await post({ topic, data: { unread: 3 } })).status, 200);
      assert.deepEqual(await unclaimed.next(), [topic, 1, { unread: 3 }]);
      assert.deepEqual(await ask("unsubscribe", { connection, topic }), [200, { subscribed: false }]);
      const closed = event(push, "close");
      if (offset < 2) opened = event(push, "open"); // before the close: the client may be back at once
      assert.deepEqual(await ask("close", { connection, code: 4001, reason: "logged out" }), [200, { closed: true }]);
      const [{ code, reason }] = await closed;
      assert.deepEqual([code, reason], [4001, "logged out"]);
      assert.equal((await ask("subscribe", { connection, topic }))[0], 404);
    }
    assert.equal(connections.size, 2, "each connection has its own");
    push.close();
  });

  test("the module and its types are served", async () => {
    const module = await get(server.http("/campanile.js"));
    assert.deepEqual([module.status, module.headers["content-type"]], [200, "text/javascript; charset=utf-8"]);
    assert.match(module.body, /export function connect/);
    assert.match((await get(server.http("/campanile.d.ts"))).body, /export function connect/);
  });
});
