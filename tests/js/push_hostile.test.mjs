// campanile.js against a server that sends anything: random and mutated messages, times out of range, refusals at the
// worst moment. No network and no clock: see push_socket.mjs.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";
import { FakeSocket, connect, dice, go, pass, stop } from "./push_socket.mjs";

const DAY = 86_400_000;
const SEEDS = 1_000;

beforeEach(stop);
afterEach(go);

/** Connected, with one live subscription whose messages are collected. */
function listening(topic = "t", options) {
  const client = connect();
  const heard = [];
  const told = [];
  const sub = client.push[topic.endsWith("/*") ? "subscribePattern" : "subscribe"](topic, (message) => heard.push(message), { onError: (error) => told.push(error), ...options });
  const socket = FakeSocket.last.hello();
  subscribed(socket);
  return { ...client, socket, heard, told, sub };
}

/** Answers the last subscription that was asked for. */
function subscribed(socket, more) {
  const [{ id, topic, pattern }] = socket.asked("subscribe");
  const place = topic === undefined ? {} : { epoch: "e", offset: 3 };
  socket.tell({ type: "subscribed", id, topic, pattern, ...place, recovered: false, replayed: 0, ...more });
}

describe("what can't be read", () => {
  // What came before it is undisturbed, and what comes next is read.
  const broken = [
    "null", "true", "7", '"hello"', "[]", "{}", "", "{", '{"type":7}', '{"type":null}', '{"type":["message"]}', "[".repeat(1e6),
    '{"type":"messages","topic":"t"}', '{"type":"messages","topic":"t","messages":7}', '{"type":"messages","topic":"t","messages":[null]}',
    '{"type":"messages","topic":"t","messages":[{"data":1}]}', '{"type":"messages","messages":[{"offset":9,"data":1}]}',
    '{"type":"message"}', '{"type":"message","topic":7,"offset":9,"data":1}', '{"type":"message","topic":null,"offset":9,"data":1}',
    '{"type":"message","topic":"t","offset":"9","data":1}', '{"type":"message","topic":"t","offset":-1,"data":1}',
    '{"type":"message","topic":"t","offset":9007199254740992,"data":1}', '{"type":"message","topic":"t","offset":9,"text":5}',
    '{"type":"lagged"}', '{"type":"lagged","messages":[]}', '{"type":"error","code":7}', '{"type":"error","id":"1"}', '{"type":"error","retry":-1}',
    '{"type":"subscribed","id":{}}', '{"type":"published","epoch":7}', '{"type":"unsubscribed","id":1.5}',
  ];
  for (const text of broken) {
    test(`is an error event: ${text.slice(0, 60)}`, () => {
      const { push, socket, heard, events, count } = listening();
      events.length = 0;
      socket.tell(text);
      assert.deepEqual(events.map(([type, { error }]) => [type, error instanceof Error]), [["error", true]]);
      socket.tell({ type: "message", topic: "t", offset: 4, data: "next" });
      assert.deepEqual([heard, count("error"), push.readyState], [["next"], 1, 1]);
      push.close();
    });
  }

  test("bytes: cut, with a name that is no UTF-8, with an offset that JavaScript can't hold", () => {
    const { push, socket, heard, count } = listening();
    const whole = [1, 1, 116, 0, 0, 0, 0, 0, 0, 0, 9, 255];
    for (let length = 1; length < 11; length++) socket.tell(Uint8Array.from(whole.slice(0, length)).buffer);
    socket.tell(Uint8Array.from(whole.with?.(2, 255) ?? [1, 1, 255, ...whole.slice(3)]).buffer);
    socket.tell(Uint8Array.from([1, 1, 116, 255, ...whole.slice(4)]).buffer);
    for (const data of [undefined, null, {}, 7]) socket.onmessage({ data }); // as no WebSocket has it
    assert.equal(count("error"), 12);
    socket.tell(new ArrayBuffer(0)); // of no version
    socket.tell(Uint8Array.from([2, ...whole.slice(1)]).buffer);
    socket.tell(Uint8Array.from(whole).buffer);
    assert.deepEqual([count("error"), heard.map((bytes) => [...bytes])], [12, [[255]]]);
    push.close();
  });

  test("a hello that is none is no beginning, and the attempt ends in time", () => {
    const { push, count } = connect();
    FakeSocket.last.hello({ heartbeat: "soon" });
    assert.deepEqual([push.readyState, count("open"), count("error")], [0, 0, 1]);
    pass(10_000);
    assert.equal(count("close"), 1);
    push.close();
  });

  test("an answer of another kind, without a place, or to what was not sent yet, is none", () => {
    const { push, socket, events, count } = listening("a/*");
    const sub = push.subscribe("b", () => {}); // and its place is to be known
    const [{ id }] = socket.asked("subscribe");
    let settled = false;
    push.publish("b", 1).then(() => (settled = true), () => (settled = true));
    for (const type of ["published", "unsubscribed"]) for (const n of [id, id + 1]) socket.tell({ type, id: n, receivers: 0 });
    socket.tell({ type: "error", id: id + 1, code: "forbidden", message: "no" });
    assert.deepEqual([sub.position, events.at(-1)[0]], [null, "open"]);
    socket.tell({ type: "subscribed", id, topic: "b", recovered: true, replayed: 1 });
    assert.deepEqual([sub.position, count("error")], [null, 1]);
    subscribed(socket);
    assert.deepEqual([sub.position, settled, socket.asked("publish").length], [{ epoch: "e", offset: 3 }, false, 1]);
    push.close();
  });

  test("a topic that is named as a pattern reaches the pattern", () => {
    const { push, socket, heard } = listening("a/*");
    socket.tell({ type: "message", topic: "a/*", offset: 1, data: 1 });
    assert.deepEqual(heard, [1]);
    push.close();
  });
});

describe("random and mutated messages", () => {
  const honest = (id) => [
    { type: "hello", protocol: "campanile.v1.json", connection: "1", time: 1, heartbeat: 25_000, retry: 1_000, max_message_size: 65_536, max_subscriptions: 128 },
    { type: "subscribed", id, topic: "t", epoch: "e", offset: 3, recovered: true, replayed: 1 },
    { type: "subscribed", id, pattern: "p/*", recovered: false, replayed: 0 },
    { type: "unsubscribed", id, topic: "t" },
    { type: "message", topic: "t", offset: 4, data: { a: [1] } },
    { type: "message", topic: "p/*", offset: 4, text: "x" },
    { type: "messages", topic: "t", messages: [{ offset: 5, data: null }, { offset: 6, text: "y" }] },
    { type: "published", id, epoch: "e", offset: 4, receivers: 1, repeated: true },
    { type: "lagged", messages: 12 },
    { type: "pong", id },
    { type: "error", id, code: "rate_limited", message: "wait", retry: 20 },
    { type: "error", code: "binary", message: "no" },
  ];
  const odd = [null, true, false, 0, -1, 1.5, 1e308, 2 ** 53, 2 ** 31, "", "t", "p/*", "message", "__proto__", "x".repeat(300), [], {}, [[]], [null], { type: {} }, { length: 1e9 }];

  function mutated(message, roll) {
    const all = [message];
    for (const one of message.messages?.map ? message.messages : []) all.push(one);
    for (let times = roll.below(3); times >= 0; times--) {
      const object = roll.one(all);
      const names = Object.keys(object);
      const name = roll.one(names);
      if (roll.chance(0.3)) delete object[name];
      else if (roll.chance(0.2)) object[roll.one(["id", "topic", "offset", "messages", "__proto__x", "toString"])] = roll.one(odd);
      else if (name) object[name] = roll.one(odd);
    }
    let text = JSON.stringify(message);
    if (roll.chance(0.1)) text = text.slice(0, roll.below(text.length));
    if (roll.chance(0.1)) {
      const at = roll.below(text.length);
      text = text.slice(0, at) + String.fromCharCode(roll.below(128)) + text.slice(at + 1);
    }
    return text;
  }

  function bytes(roll) {
    const all = Uint8Array.from({ length: roll.below(24) }, () => roll.below(256));
    if (all.length > 1 && roll.chance(0.7)) [all[0], all[1]] = [1, roll.below(12)];
    return all.buffer;
  }

  test("none ends the client, and all that it was told to do it still does", () => {
    let errors = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      const roll = dice(seed);
      const { push, events, count } = connect();
      const heard = [];
      const ended = [];
      const hears = (name) => [name, (message) => heard.push(message), { onError: () => ended.push(name) }];
      push.subscribe(...hears("t"));
      push.subscribePattern(...hears("p/*"));
      try {
        FakeSocket.last.hello();
        for (let n = 0; n < 30; n++) {
          if (roll.chance(0.1)) push.publish("t", n, { timeout: 1_000 }).catch(() => {});
          const id = 1 + roll.below(5);
          const kind = roll.below(10);
          if (kind === 0) FakeSocket.last.tell(bytes(roll));
          else if (kind === 1) FakeSocket.last.tell(JSON.stringify(roll.one(odd)));
          else if (kind === 2) FakeSocket.last.tell(roll.one(honest(id)));
          else FakeSocket.last.tell(mutated(roll.one(honest(id)), roll));
          if (roll.chance(0.2)) pass(roll.below(2_000));
          if (roll.chance(0.02)) FakeSocket.last.cut();
        }
        errors += count("error");
        // Another connection, to a server that is in order.
        push.reconnect();
        pass(1);
        const opened = count("open");
        const socket = FakeSocket.last.hello();
        assert.equal(count("open"), opened + 1);
        const again = socket.asked("subscribe").map(({ topic, pattern }) => topic ?? pattern);
        assert.deepEqual([...again, ...ended].sort(), ["p/*", "t"], "each goes on, or the page was told that it has ended");
        for (const { id, topic, pattern } of socket.asked("subscribe")) {
          const place = topic ? { epoch: "another", offset: 8 } : {};
          socket.tell({ type: "subscribed", id, topic, pattern, ...place, recovered: false, replayed: 0 });
        }
        heard.length = 0;
        for (const topic of ["t", "p/x"]) socket.tell({ type: "message", topic, offset: 9, data: topic });
        assert.equal(heard.length, again.length);
      } catch (error) {
        error.message = `seed ${seed}: ${error.message}\n${events.map(([type]) => type)}`;
        throw error;
      }
      push.close();
      pass(120_000);
    }
    assert.ok(errors > SEEDS, String(errors));
  });
});

describe("a second hello", () => {
  test("says nothing: no event, no subscription, no other heartbeat", () => {
    const { push, socket, events, count } = listening();
    const { length } = socket.sent;
    for (let n = 0; n < 1_000; n++) socket.hello({ connection: "2", heartbeat: 1_000, retry: 50_000, max_message_size: 1 });
    assert.deepEqual([count("open"), events.length, socket.sent.length, push.hello.connection], [1, 1, length, "1"]);
    pass(24_000);
    assert.equal(socket.asked("ping").length, 0);
    push.close();
  });
});

describe("a close frame that only `readyState` shows", () => {
  test("nothing is sent from then on, and the connection is replaced in time, also without a heartbeat", async () => {
    for (const heartbeat of [0, 1_000, 25_000]) {
      const { push, events, count } = connect({ reconnectionDelayMax: 1 });
      const socket = FakeSocket.last.hello({ heartbeat });
      const { length } = socket.sent;
      socket.readyState = 2;
      const published = push.publish("t", 1);
      push.subscribe("t", () => {});
      pass(2_999);
      assert.deepEqual([socket.sent.length, count("close")], [length, 0], "the browser may still report it, with its code");
      pass(1);
      pass(100);
      const [, { code, retry }] = events.at(-1);
      assert.deepEqual([code, retry !== null, push.readyState], [1006, true, 0]);
      pass(1);
      const next = FakeSocket.last.hello({ heartbeat });
      const [{ id: asked }] = next.asked("subscribe");
      next.tell({ type: "subscribed", id: asked, topic: "t", epoch: "e", offset: 0, recovered: false, replayed: 0 });
      const [{ id }] = next.asked("publish");
      next.tell({ type: "published", id, epoch: "e", offset: 1, receivers: 1 });
      assert.equal((await published).offset, 1);
      push.close();
    }
  });

  test("it is noticed without a request", () => {
    for (const heartbeat of [0, 1_000, DAY]) {
      const { push, count } = connect();
      const socket = FakeSocket.last.hello({ heartbeat });
      socket.readyState = 2;
      for (const ms of [3_000, 3_000, 100]) pass(ms);
      assert.equal(count("close"), 1, String(heartbeat));
      push.close();
    }
  });

  test("TCP is ended where that is possible, and the server's code counts", () => {
    const { push, events } = connect();
    const socket = FakeSocket.last.hello();
    socket.terminate = () => socket.onclose({ code: 4001, reason: "go", wasClean: true });
    socket.readyState = 2;
    for (const ms of [3_000, 3_000]) pass(ms);
    const [, { code, retry }] = events.at(-1);
    assert.deepEqual([code, retry, push.readyState], [4001, null, 3]);
  });
});

describe("times that a server gives", () => {
  /** Pings in so many milliseconds from a server that answers. */
  function pings(heartbeat, ms) {
    const { push } = connect();
    const socket = FakeSocket.last.hello({ heartbeat });
    for (let at = 0; at < ms; at += 100) {
      const { length } = socket.sent;
      pass(100);
      if (socket.sent.length > length) socket.tell({ type: "pong" });
    }
    push.close();
    return socket.asked("ping").length;
  }

  test("heartbeat: no more than a ping in a second, none for 0, and one in a day at least", () => {
    const often = pings(1, 60_000);
    assert.ok(often > 4 && often <= 60, String(often));
    assert.equal(pings(0, 60_000), 0);
    for (const heartbeat of [2 ** 31, 2 ** 53 - 1]) {
      const { push } = connect();
      const socket = FakeSocket.last.hello({ heartbeat });
      pass(DAY - 1);
      assert.equal(socket.asked("ping").length, 0, String(heartbeat));
      pass(1);
      assert.equal(socket.asked("ping").length, 1, String(heartbeat));
      push.close();
    }
  });

  test("retry of hello: at least 10 ms, at most a day", () => {
    for (const [retry, least, most] of [[0, 0, 10], [1, 0, 10], [2 ** 31, 3_600_000, DAY], [2 ** 53 - 1, 3_600_000, DAY]]) {
      const { push, events } = connect();
      let longest = 0;
      for (let n = 0; n < 20; n++) {
        FakeSocket.last.hello({ retry });
        const socket = FakeSocket.last;
        socket.cut();
        const [type, close] = events.at(-1);
        assert.equal(type, "close");
        longest = Math.max(longest, close.retry);
        assert.equal(FakeSocket.last, socket, "not at once");
        push.reconnect();
      }
      assert.ok(longest > least && longest <= most, `${retry}: ${longest}`);
      push.close();
    }
  });

  test("retry of an error: at least 10 ms, more each time, at most a minute", () => {
    const { push } = connect();
    push.subscribe("t", () => {});
    const socket = FakeSocket.last.hello({ heartbeat: 0 });
    const refuse = (retry) => socket.tell({ type: "error", id: socket.asked("subscribe")[0].id, code: "busy", message: "no", retry });
    refuse(2 ** 31);
    pass(59_999);
    assert.equal(socket.sent.length, 1);
    pass(1);
    assert.equal(socket.sent.length, 2);
    for (let ms = 0; ms < 60_000; ms++) {
      const { length } = socket.sent;
      if (length > (refuse.seen ?? 0)) refuse(0);
      refuse.seen = length;
      pass(1);
    }
    assert.ok(socket.sent.length > 8 && socket.sent.length < 16, String(socket.sent.length));
    push.close();
  });
});

describe("publications that are put off", () => {
  // A server that takes requests when the test says so and refuses some of them. What it has published it knows again by
  // its `idempotency_key`, until it is started again.
  class Model {
    #roll;
    #known = new Map();
    #next = 1;
    #answers = []; // on their way to the client
    #read = 0; // requests of this connection that it has taken
    log = []; // what was published since the start, in order
    unheard = new Set(); // put off, and the client was cut off before it heard that
    doubtful = new Set(); // the same of what was published

    constructor(roll) {
      this.#roll = roll;
    }

    connect() {
      this.#answers = [];
      this.#read = 0;
      FakeSocket.last.hello({ heartbeat: 0 });
    }

    cut() {
      for (const { put, published } of this.#answers) {
        this.unheard.add(put);
        this.doubtful.add(published);
      }
      FakeSocket.last.cut();
    }

    restart() {
      this.cut();
      this.#known.clear();
      this.log = [];
    }

    /** Takes the next requests; one that has come whole may be refused all the same. */
    take(requests, refuses) {
      const { sent } = FakeSocket.last;
      for (; requests > 0 && this.#read < sent.length; requests--) {
        const { type, id, topic, text, idempotency_key: key } = sent[this.#read++];
        if (this.#roll.chance(refuses)) {
          const retry = this.#roll.one([0, 1, 20, 300]);
          this.#answers.push({ put: type === "publish" && text, message: { type: "error", id, code: "rate_limited", message: "wait", retry } });
        } else if (type === "subscribe") {
          this.#answers.push({ message: { type: "subscribed", id, topic, epoch: "e", offset: 0, recovered: false, replayed: 0 } });
        } else if (type === "publish") {
          const repeated = this.#known.has(key);
          const offset = this.#known.get(key) ?? this.#next++;
          this.#known.set(key, offset);
          if (!repeated) this.log.push({ topic, text });
          this.#answers.push({ published: text, message: { type: "published", id, epoch: "e", offset, receivers: 1, repeated } });
        }
      }
    }

    answer(answers) {
      for (const { message } of this.#answers.splice(0, answers)) FakeSocket.last.tell(message);
    }
  }

  /** Where a publication comes after a later one, and the client could know it. */
  function disorder({ log, unheard }) {
    for (const topic of ["a", "b"]) {
      const all = log.filter((one) => one.topic === topic).map(({ text }) => text);
      let most = 0;
      for (const text of all) {
        if (Number(text) < most && !unheard.has(text)) return `${text} after ${most} in ${topic}: ${all}`;
        most = Math.max(most, Number(text));
      }
    }
    return null;
  }

  const settled = () => new Promise((resolve) => setImmediate(resolve));

  test("keep their order under refusals, cuts and restarts, and each one is answered once", async () => {
    let [refused, published] = [0, 0];
    for (let seed = 1; seed <= 200; seed++) {
      const roll = dice(seed);
      const server = new Model(roll);
      const { push } = connect({ queue: 1_000, timeout: 60_000, reconnectionDelay: 10, reconnectionDelayMax: 10 });
      const fates = new Map();
      const publish = (topic, text) => push.publish(topic, text).then(() => "published", ({ code }) => code)
        .then((fate) => fates.set(text, [...(fates.get(text) ?? []), fate]));
      push.subscribe("a", () => {});
      server.connect();
      let made = 0;
      for (let step = 0; step < 200; step++) {
        const what = roll.below(10);
        if (what < 3) for (let n = roll.below(8); n > 0; n--) publish(roll.one(["a", "b"]), String(++made));
        else if (what < 6) server.take(roll.below(12), roll.one([0, 0.1, 0.5]));
        else if (what < 9) server.answer(roll.below(12));
        else pass(roll.below(100));
        if (roll.chance(0.02)) {
          if (roll.chance(0.3)) server.restart();
          else server.cut();
          pass(10);
          server.connect();
        }
        assert.equal(disorder(server), null, `seed ${seed}`);
      }
      for (let round = 0; round < 2_000 && fates.size < made; round++) {
        server.take(1_000, 0);
        server.answer(1_000);
        pass(60);
        if (round % 50 === 0) await settled();
      }
      await settled();
      assert.equal(disorder(server), null, `seed ${seed}`);
      assert.equal(fates.size, made, `seed ${seed}: all have an answer`);
      const published_ = new Set(server.log.map(({ text }) => text));
      for (const [text, all] of fates) {
        assert.equal(all.length, 1);
        const never = !published_.has(text) || server.doubtful.has(text);
        assert.ok(all[0] === "published" || (all[0] === "rate_limited" && never), `seed ${seed}: ${text} ${all}`);
        all[0] === "published" ? published++ : refused++;
      }
      push.close();
    }
    assert.ok(published > 10 * refused && refused > 0, `${published} published, ${refused} refused`);
  });

  test("what was put off when a later one is published is rejected with the server's code, and no other", async () => {
    const { push } = connect();
    const socket = FakeSocket.last.hello();
    const fates = [1, 2, 3].map((n) => push.publish("t", n).then(() => "published", ({ code, retry }) => [code, retry]));
    const [third, second, first] = socket.asked("publish").map(({ id }) => id);
    socket.tell({ type: "error", id: first, code: "rate_limited", message: "wait", retry: 20 });
    socket.tell({ type: "error", id: second, code: "busy", message: "wait", retry: 30 });
    socket.tell({ type: "published", id: third, receivers: 0 });
    assert.deepEqual(await Promise.all(fates), [["rate_limited", 20], ["busy", 30], "published"]);
    pass(1_000);
    assert.equal(socket.asked("publish").length, 3, "neither is sent again");
    push.close();
  });

  test("what is made behind one that was put off waits for it, and other topics do not", () => {
    const { push } = connect();
    const socket = FakeSocket.last.hello();
    const publish = (topic, n) => push.publish(topic, n).catch(() => {});
    publish("t", 1);
    socket.tell({ type: "error", id: socket.asked("publish")[0].id, code: "rate_limited", message: "wait", retry: 20 });
    publish("t", 2);
    publish("u", 3);
    publish("t", 4);
    assert.deepEqual(socket.asked("publish").map(({ data }) => data), [3, 1]);
    pass(20);
    assert.deepEqual(socket.asked("publish").map(({ data }) => data), [1, 3, 1]);
    for (const n of [1, 2, 4]) {
      const [{ id, data }] = socket.asked("publish");
      assert.equal(data, n, "one at a time");
      socket.tell({ type: "published", id, receivers: 0 });
    }
    push.close();
  });

  test("no more than 32 to one topic are without an answer", () => {
    const { push } = connect();
    const socket = FakeSocket.last.hello();
    for (let n = 0; n < 100; n++) push.publish("t", n).catch(() => {});
    assert.equal(socket.asked("publish").length, 32);
    socket.tell({ type: "published", id: socket.asked("publish").at(-1).id, receivers: 0 });
    assert.equal(socket.asked("publish").length, 33);
    push.close();
  });
});
