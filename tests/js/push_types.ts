// Read by tsc and run by nobody: the types of campanile.js, used as they are meant, and as they are not.

import { connect, PushError, type PatternSubscription, type Position, type Push, type Subscription } from "../../js/campanile.js";

const push: Push = connect();
connect("/push", { WebSocket, reconnectionDelay: 1, reconnectionDelayMax: 2, connectTimeout: 3, pongTimeout: 4, timeout: 5, queue: 0 });
connect(new URL("wss://example.com/push"), { reconnect: (code, reason) => code === 4401 && reason !== "" });
connect(async () => `/push?token=${await Promise.resolve("x")}`);

const sub: Subscription = push.subscribe<{ value: number }>("ticks/eur", (message, info) => {
  const sum: number = message.value + info.offset;
  const epoch: string | undefined = info.epoch;
  console.log(sum, epoch);
}, { latest: true, onLost: (how) => console.log(how.recovered) });
const position: Position | null = sub.position;
const all: PatternSubscription = push.subscribePattern("ticks/*", (message) => console.log(message), { tags: ["eur"] });
console.log(all.pattern.length, all.position === null);
push.subscribe("room", (message) => console.log(message.text), { since: position, resume: true });
push.subscribe("entered", () => {}, { last: 50, tags: ["news", "sport"] as const });
sub.unsubscribe();

push.publish("room", { a: [1] }, { key: "k", tags: ["news"], idempotencyKey: "d", ttl: 1, echo: false, timeout: 1 }).then(
  ({ offset, epoch, receivers }) => console.log(offset ?? 0, epoch ?? "", receivers + 1),
  (error: unknown) => error instanceof PushError && console.log(error.code.length, error.retry ?? 0),
);

push.addEventListener("open", ({ hello }) => console.log(hello.heartbeat + 1));
push.addEventListener("close", ({ code, retry }) => console.log(code + 1, retry === null ? 0 : retry + 1));
push.addEventListener("error", ({ error }) => console.log(error.message));
push.addEventListener("lagged", ({ messages }) => console.log(messages + 1), { once: true });
push.addEventListener("message", ({ topic, offset, data }) => console.log(topic.length, offset + 1, data));
const state: 0 | 1 | 3 = push.readyState;
push.reconnect();
push.close(4000, String(state + push.bufferedAmount));

// @ts-expect-error a topic is a string
push.subscribe(1, () => {});
// @ts-expect-error there is no such option
push.subscribe("a", () => {}, { history: true });
// @ts-expect-error it says how many
push.subscribe("a", () => {}, { last: true });
// @ts-expect-error a pattern has no history
push.subscribePattern("a/*", () => {}, { latest: true });
// @ts-expect-error tags are several
push.subscribe("a", () => {}, { tags: "news" });
// @ts-expect-error a place has an epoch
push.subscribe("a", () => {}, { since: { offset: 1 } });
// @ts-expect-error it can't be written
push.readyState = 1;
// @ts-expect-error nobody can wait half a time
connect("/push", { timeout: "1s" });
