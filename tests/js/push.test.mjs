// campanile.js against a server that can be made to misbehave: what it does with every message of the protocol, and with
// cuts. push_return.test.mjs has how it comes back, push_server.test.mjs the real server.

import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { Inbox, event } from "./harness.mjs";
import { Way } from "./push_fake.mjs";
import { connect, ending, listen, rejected, server, serving, test } from "./push_listen.mjs";

describe("topics", () => {
  before(serving());
  after(ending);

  test("subscribe, publish, and what comes with a message", async () => {
    const push = connect(server.url());
    const { sub, next } = listen(push, "a");
    assert.equal(sub.position, null);
    const [{ epoch, offset }] = await next("onSubscribed");
    assert.deepEqual(sub.position, { epoch, offset });
    const place = await push.publish("a", { bell: "St Mary" }, { key: "k", ttl: 5 });
    assert.deepEqual({ ...place, id: 0 }, { type: "published", id: 0, epoch, offset: offset + 1, receivers: 1 });
    const [message, info] = await next("message");
    assert.deepEqual(message, { bell: "St Mary" });
    assert.deepEqual(info, { topic: "a", epoch, offset: offset + 1, replayed: false });
    assert.deepEqual(sub.position, { epoch, offset: offset + 1 });
    const { key, ttl } = server.requests.at(-1);
    assert.deepEqual([key, ttl], ["k", 5]);
  });

  test("every kind of JSON, texts, and half an emoji", async () => {
    const push = connect(server.url());
    const { next, message } = listen(push, "kinds");
    await next("onSubscribed");
    for (const data of [null, false, 0, [], "", "größte 🔔", '\\ud83d "\\\\', [{ a: ["b", null] }]]) {
      await push.publish("kinds", data);
      assert.deepEqual(await message(), data);
    }
    await push.publish("kinds", "cut \ud83d");
    assert.equal(await message(), "cut \ufffd");
    await assert.rejects(push.publish("kinds", 1n), TypeError);
    await assert.rejects(push.publish("kinds", new Uint8Array(1)), TypeError);
  });

  test("binary payloads, and of another version none", async () => {
    const push = connect(server.url());
    const { next } = listen(push, "bilder/größe");
    await next("onSubscribed");
    for (const socket of server.sockets) for (const odd of [[], [1], [1, 200, 65], [2, 1, 65, 0, 0, 0, 0, 0, 0, 0, 9, 1]]) socket.send(Buffer.from(odd));
    server.publish("bilder/größe", { bytes: Buffer.from([0xff, 0xd8, 0]) });
    server.publish("bilder/größe", { bytes: Buffer.alloc(0) });
    const [bytes, { offset }] = await next("message");
    assert.ok(bytes instanceof Uint8Array);
    assert.deepEqual([...bytes, offset], [0xff, 0xd8, 0, 1]);
    assert.equal((await next("message"))[0].length, 0);
  });

  test("several messages of a topic in one", async () => {
    const push = connect(server.url());
    const { next } = listen(push, "several");
    await next("onSubscribed");
    const messages = [{ offset: 1, data: [1] }, { offset: 2, text: "two" }, { offset: 3, data: null }];
    for (const socket of server.sockets) server.tell(socket, { type: "messages", topic: "several", messages });
    for (const [offset, expected] of [[1, [1]], [2, "two"], [3, null]]) {
      const [data, given] = await next("message");
      assert.deepEqual([data, given.offset], [expected, offset]);
    }
  });

  test("order, and types and members that are yet to come", async () => {
    const push = connect(server.url());
    const { next, message } = listen(push, "order");
    await next("onSubscribed");
    for (const socket of server.sockets) {
      server.tell(socket, { type: "news", topic: "order", offset: 99 });
      server.tell(socket, { type: "message", topic: "nobody asked", offset: 1, data: 1 });
      server.tell(socket, { type: "published", id: 12345 });
    }
    for (let i = 0; i < 500; i++) server.publish("order", { data: i });
    for (let i = 0; i < 500; i++) assert.equal(await message(), i);
  });

  test("patterns, beside a topic that they match", async () => {
    const push = connect(server.url());
    const [all, one] = [listen(push, "p/*"), listen(push, "p/one")];
    await all.next("onSubscribed");
    await one.next("onSubscribed");
    server.publish("p/one", { data: 1 });
    server.publish("p/two", { data: 2 });
    server.publish("px", { data: 3 });
    server.publish("p/one", { data: 4 });
    for (const data of [1, 2, 4]) assert.equal(await all.message(), data);
    for (const data of [1, 4]) assert.equal(await one.message(), data);
    assert.equal(all.sub.position, null);
  });

  test("history goes to who asked for it, and not to the pattern beside", async () => {
    const push = connect(server.url());
    const all = listen(push, "h/*");
    await all.next("onSubscribed");
    for (let i = 1; i <= 3; i++) server.publish("h/x", { data: i });
    for (let i = 1; i <= 3; i++) assert.equal(await all.message(), i);
    const { epoch } = server.topic("h/x");
    const one = listen(push, "h/x", { since: { epoch, offset: 1 } });
    await one.next("onSubscribed");
    await one.next("onRecovered");
    assert.deepEqual([await one.message(), await one.message()], [2, 3]);
    server.publish("h/x", { data: 4 });
    assert.equal(await one.message(), 4);
    assert.equal(await all.message(), 4);
  });

  test("an offset that is not above the last one is dropped, until another epoch", async () => {
    const push = connect(server.url());
    const { next, message } = listen(push, "twice");
    await next("onSubscribed");
    for (const data of [1, 2]) server.publish("twice", { data });
    const [socket] = [...server.sockets].slice(-1);
    for (const offset of [1, 2]) server.tell(socket, { type: "message", topic: "twice", offset, data: "again" });
    server.publish("twice", { data: 3 });
    for (const data of [1, 2, 3]) assert.equal(await message(), data);
  });

  test("latest: the newest of each key, after a cut again, and only what is new", async () => {
    for (const [key, data] of [["a", 1], ["b", 2], ["a", 3]]) server.publish("ticks", { data }, { key });
    const way = await Way.to(server.port);
    const push = connect(`http://127.0.0.1:${way.port}/push`);
    const { next, message, sub } = listen(push, "ticks", { latest: true });
    await next("onSubscribed");
    assert.deepEqual([await message(), await message()], [2, 3]);
    way.open = false;
    way.cut();
    await event(push, "close");
    for (const [key, data] of [["c", 4], ["c", 5], ["b", 6]]) server.publish("ticks", { data }, { key });
    way.open = true;
    await next("onSubscribed");
    await next("onRecovered");
    assert.deepEqual([await message(), await message()], [5, 6]);
    assert.equal(sub.position.offset, 6);
    push.close();
    await way.stop();
  });

  test("latest where since is lost; resume gets what was missed", async () => {
    const push = connect(server.url());
    for (const [key, data] of [["a", 1], ["b", 2], ["a", 3]]) server.publish("room", { data }, { key });
    const room = listen(push, "room", { latest: true, since: { epoch: "forgotten", offset: 7 } });
    await room.next("onSubscribed");
    await room.next("onLost");
    assert.deepEqual([await room.message(), await room.message()], [2, 3]);
    server.cut();
    await event(push, "close");
    for (const data of [4, 5]) server.publish("room", { data }, { key: "a" });
    await room.next("onSubscribed");
    await room.next("onRecovered");
    assert.deepEqual([await room.message(), await room.message()], [4, 5]);
  });

  test("last: so many at first, and after a cut what was missed", async () => {
    for (let i = 1; i <= 5; i++) server.publish("entered", { data: i });
    const way = await Way.to(server.port);
    const push = connect(`ws://127.0.0.1:${way.port}/push`);
    const { next, message, sub } = listen(push, "entered", { last: 2 });
    await next("onSubscribed");
    const asked = server.requests.at(-1);
    assert.deepEqual(asked, { type: "subscribe", id: asked.id, topic: "entered", last: 2 });
    const [four, { replayed }] = await next("message");
    assert.deepEqual([four, replayed, await message()], [4, true, 5]);
    way.open = false;
    way.cut();
    await event(push, "close");
    for (let i = 6; i <= 9; i++) server.publish("entered", { data: i });
    way.open = true;
    await next("onSubscribed");
    const { epoch } = server.topic("entered");
    const again = server.requests.at(-1);
    assert.deepEqual(again, { type: "subscribe", id: again.id, topic: "entered", since: { epoch, offset: 5 } });
    await next("onRecovered");
    for (let i = 6; i <= 9; i++) assert.equal(await message(), i);
    assert.equal(sub.position.offset, 9);
    push.close();
    await way.stop();
  });

  test("last where since is lost: again so many, after onLost", async () => {
    for (let i = 1; i <= 5; i++) server.publish("left", { data: i });
    const push = connect(server.url());
    const { next, message } = listen(push, "left", { last: 3, since: { epoch: "forgotten", offset: 4 } });
    await next("onSubscribed");
    await next("onLost");
    for (const data of [3, 4, 5]) assert.equal(await message(), data);
    const asked = server.requests.filter(({ topic }) => topic === "left").map(({ type, since, last }) => [type, !!since, last]);
    assert.deepEqual(asked, [["subscribe", true, undefined], ["unsubscribe", false, undefined], ["subscribe", false, 3]]);
    server.restart();
    await next("onSubscribed");
    await next("onLost");
    server.publish("left", { data: "new" });
    assert.equal(await message(), "new");
    const both = listen(push, "both", { last: 1, latest: true });
    assert.equal((await both.next("onError"))[0].code, "invalid");
  });

  test("tags: with the subscription, again after a cut, and with what is published", async () => {
    const push = connect(server.url());
    const all = listen(push, "sorted/*");
    const some = listen(push, "sorted/a", { tags: ["news", "sport"] });
    const one = listen(push, "tagged", { tags: ["news"] });
    for (const { next } of [all, some, one]) await next("onSubscribed");
    const of = (name) => server.requests.filter(({ type, topic, pattern }) => type === "subscribe" && (topic ?? pattern) === name).map(({ tags }) => tags);
    assert.deepEqual([of("sorted/*"), of("sorted/a")], [[undefined], [["news", "sport"]]]);
    await push.publish("tagged", 1, { tags: ["sport", "news"] });
    assert.deepEqual(server.requests.at(-1).tags, ["sport", "news"]);
    await push.publish("tagged", 2, { tags: ["sport"] });
    await push.publish("tagged", 3);
    assert.equal("tags" in server.requests.at(-1), false);
    await push.publish("tagged", 4, { tags: ["news"] });
    assert.deepEqual([await one.message(), await one.message()], [1, 4]);
    server.cut();
    await event(push, "close");
    for (const [data, tags] of [[5, ["sport"]], [6, ["news"]]]) server.publish("tagged", { data }, { tags });
    await one.next("onSubscribed");
    await one.next("onRecovered");
    assert.equal(await one.message(), 6);
    assert.deepEqual(of("tagged"), [["news"], ["news"]]);
  });

  test("what the application subscribed comes as an event, and nothing else does", async () => {
    const push = connect(server.url());
    const unclaimed = new Inbox();
    push.addEventListener("message", ({ topic, offset, data }) => unclaimed.push([topic, offset, data]));
    const [all, one] = [listen(push, "claimed/*"), listen(push, "claimed")];
    await all.next("onSubscribed");
    await one.next("onSubscribed");
    const [socket] = [...server.sockets].slice(-1);
    for (const topic of ["of/the/application", "claimed", "claimed/b"]) socket.topics.set(topic);
    for (const topic of ["claimed", "of/the/application", "claimed/b"]) server.publish(topic, { data: topic });
    assert.deepEqual([await one.message(), await all.message()], ["claimed", "claimed/b"]);
    assert.deepEqual(unclaimed.items, [["of/the/application", 1, "of/the/application"]]);
  });

  test("unsubscribe, again, and at once anew", async () => {
    const push = connect(server.url());
    const one = listen(push, "u");
    assert.throws(() => push.subscribe("u", () => {}), { code: "already" });
    await one.next("onSubscribed");
    one.sub.unsubscribe();
    one.sub.unsubscribe();
    const two = listen(push, "u");
    server.publish("u", { data: "not live yet" });
    await two.next("onSubscribed");
    one.sub.unsubscribe(); // is not the other's
    server.publish("u", { data: "live" });
    assert.equal(await two.message(), "live");
    assert.equal(one.inbox.items.length, 0);
  });

  test("an exception in a callback reaches nobody else", async () => {
    const reported = new Inbox();
    const own = globalThis.reportError;
    globalThis.reportError = (error) => reported.push(error.message);
    try {
      const push = connect(server.url());
      push.subscribe("x/y", () => { throw new Error("mine"); }, { onSubscribed() { throw new Error("mine too"); } });
      const all = listen(push, "x/*");
      await all.next("onSubscribed");
      server.publish("x/y", { data: 1 });
      assert.equal(await all.message(), 1);
      assert.deepEqual([await reported.next(), await reported.next()], ["mine too", "mine"]);
    } finally {
      globalThis.reportError = own;
    }
  });
});

describe("cuts", () => {
  before(serving({ history: 10_000 }));
  after(ending);

  test("50 cuts while others publish: nothing is missing, nothing comes twice", async () => {
    const way = await Way.to(server.port);
    const push = connect(`ws://127.0.0.1:${way.port}/push`);
    const { next, inbox } = listen(push, "cut", { onSubscribed() {}, onRecovered() {} });
    await event(push, "open");
    await push.publish("cut", 0);
    let sent = 1;
    const publishing = setInterval(() => { for (let i = 0; i < 7; i++) server.publish("cut", { data: sent++ }); }, 1);
    for (let cuts = 0; cuts < 50; cuts++) {
      way.cut();
      await event(push, "open");
    }
    clearInterval(publishing);
    assert.ok(sent > 100, String(sent));
    for (let i = 0; i < sent; i++) assert.equal((await next("message"))[0], i);
    await push.publish("cut", "end");
    assert.equal((await next("message"))[0], "end");
    assert.equal(inbox.items.length, 0);
    push.close();
    await way.stop();
  });

  test("publications under cuts: each once, in order", async () => {
    const way = await Way.to(server.port);
    const push = connect(`ws://127.0.0.1:${way.port}/push`, { queue: 1000 });
    await event(push, "open");
    const answers = [];
    for (let i = 0; i < 100; i++) {
      answers.push(push.publish("mine", i));
      if (i % 5 === 0) {
        way.cut();
        await event(push, "open");
      }
    }
    await Promise.all(answers);
    assert.deepEqual(server.topic("mine").kept.map((one) => one.data), Array.from({ length: 100 }, (_, i) => i));
    push.close();
    await way.stop();
  });

  test("a publication whose answer was lost is not published twice", async () => {
    const push = connect(server.url());
    let lost = false;
    server.refuse = ({ type, topic, data, idempotency_key: idempotencyKey }, socket) => {
      if (type !== "publish" || lost) return undefined;
      lost = true;
      server.publish(topic, { data }, { idempotencyKey });
      socket.terminate();
      return true;
    };
    const answer = await push.publish("once", 1);
    assert.deepEqual([answer.offset, answer.repeated], [1, true]);
    assert.equal(server.topic("once").kept.length, 1);
    server.refuse = () => undefined;
  });

  test("another epoch, and a history that is too short: lost, once", async () => {
    const push = connect(server.url());
    const { next, message } = listen(push, "epoch");
    const pattern = listen(push, "epo/*");
    await next("onSubscribed");
    await pattern.next("onSubscribed");
    server.publish("epoch", { data: 1 });
    assert.equal(await message(), 1);
    server.restart();
    const [{ recovered }] = await next("onSubscribed");
    assert.equal(recovered, false);
    await next("onLost");
    await pattern.next("onSubscribed");
    await pattern.next("onLost"); // a pattern has no place to come back to
    server.publish("epoch", { data: "offset 1 of another life" });
    assert.equal(await message(), "offset 1 of another life");
    server.cut();
    await event(push, "close");
    Object.assign(server.topic("epoch"), { next: 7, kept: [] });
    await next("onSubscribed");
    await next("onLost");
  });

  test("offline: waits up to its bound, goes out in order, gives up in time", async () => {
    const way = await Way.to(server.port);
    way.open = false;
    const push = connect(`ws://127.0.0.1:${way.port}/push`, { queue: 2 });
    const two = [push.publish("offline", 1), push.publish("offline", 2)];
    await rejected(push.publish("offline", 3), "queue");
    way.open = true;
    await Promise.all(two);
    assert.deepEqual(server.topic("offline").kept.map((one) => one.data), [1, 2]);
    way.open = false;
    way.cut();
    await event(push, "close");
    await rejected(push.publish("offline", 4, { timeout: 20 }), "timeout");
    const last = push.publish("offline", 5);
    push.close();
    await rejected(last, "closed");
    await rejected(push.publish("offline", 6), "closed");
    await way.stop();
  });

  test("a publication waits for the subscriptions before it", async () => {
    const push = connect(server.url());
    // Each is refused up to three times; the waits between double.
    let requests = 0;
    server.refuse = ({ type }) => type === "subscribe" && ++requests % 4 !== 0 && { code: "busy", retry: 1 };
    for (let i = 0; i < 10; i++) {
      const { next, message } = listen(push, `early/${i}`);
      const answer = push.publish(`early/${i}`, i);
      await next("onSubscribed");
      assert.equal(await message(), i);
      assert.equal((await answer).receivers, 1);
    }
    server.refuse = () => undefined;
  });

  test("nothing may wait with queue: 0", async () => {
    const push = connect(server.url(), { queue: 0 });
    await rejected(push.publish("now", 1), "queue");
    await event(push, "open");
    await push.publish("now", 2);
  });

  test("a silent way is noticed by a ping without an answer", async () => {
    server.heartbeat = 1;
    const way = await Way.to(server.port);
    const push = connect(`ws://127.0.0.1:${way.port}/push`, { pongTimeout: 200 });
    await event(push, "open");
    for (let pings = 0; pings < 3; pings++) await event(server, "ping");
    assert.equal(push.readyState, 1);
    const { next } = listen(push, "quiet");
    await next("onSubscribed");
    way.freeze();
    const [{ code, wasClean }] = await event(push, "close");
    assert.deepEqual([code, wasClean], [1006, false]);
    await next("onSubscribed");
    await next("onRecovered");
    push.close();
    await way.stop();
    server.heartbeat = 25_000;
  });

  test("an attempt that hangs is given up", async () => {
    const push = connect(() => new Promise(() => {}), { connectTimeout: 20 });
    const [{ code, retry }] = await event(push, "close");
    assert.equal(code, 1006);
    assert.ok(retry >= 0);
  });
});
