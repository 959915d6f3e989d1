// The page of topics: tickers, a room and an image, all over one connection of campanile.js.

import { connect } from "./campanile.js";
import { $, element, setText } from "./dom.js";
import { imageType } from "./image.js";

const LINES = 200; // older ones leave the page
const ROWS = 12; // keys that the table shows
const COURSE = 40; // values that a row's curve has
const BEAT = 400; // ms between two prices that this page makes up
const SIDE = 480; // pixels that an image has at most: the API takes 64 KiB
const FRAME = 200; // ms between two images that it draws
const [TICKS, ROOM, IMAGE] = ["public/ticks", "public/room", "public/image"];

// Relative to the page, so that it also works behind a proxy which adds a path.
const here = (path) => new URL(path, document.baseURI);

function curl(id, body) {
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  $(id).textContent = `curl -H 'Content-Type: application/json' \\\n  -d '${quoted}' \\\n  '${here("api/publish")}'`;
}

// ---- the connection ----

const push = connect(here("push"));
let due = 0; // performance.now() of the next attempt

function showState() {
  const state = ["CONNECTING", "OPEN", , "CLOSED"][push.readyState];
  setText($("state"), state);
  document.querySelector(".link").dataset.state = state;
  const left = Math.max(0, due - performance.now()) / 1000;
  setText($("detail"), push.readyState === 0 && due ? `again in ${left.toFixed(1)}\u00a0s` : "");
  setText($("toggle"), ["Connect now", "Disconnect", , "Connect"][push.readyState]);
}

push.addEventListener("open", () => {
  due = 0;
  showState();
});
push.addEventListener("close", ({ retry }) => {
  due = retry === null ? 0 : performance.now() + retry;
  showState();
});
push.addEventListener("error", ({ error }) => note("room-note", error.message));
push.addEventListener("lagged", ({ messages }) => note("room-note", `This page was too slow for ${messages} messages.`));
$("toggle").addEventListener("click", () => {
  if (push.readyState === 1) push.close();
  else push.reconnect();
  showState();
});
setInterval(showState, 100);

const note = (id, text) => setText($(id), text);

// ---- tickers ----

const rows = new Map();

function row(key) {
  const tr = element("tr");
  const [value, course, offset] = [element("td"), element("td"), element("td")];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${COURSE - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const path = svg.appendChild(document.createElementNS(svg.namespaceURI, "path"));
  course.append(svg);
  tr.append(element("th", key, { scope: "row", dir: "auto" }), value, course, offset);
  $("ticks").append(tr);
  return { tr, value, offset, path, values: [] };
}

// What anybody publishes is looked at before it is shown.
function tick(data, { offset }) {
  const key = typeof data?.key === "string" ? data.key.slice(0, 24) : "";
  if (!key || !Number.isFinite(data.value)) return;
  if (!rows.has(key)) {
    if (rows.size >= ROWS) return;
    rows.set(key, row(key));
  }
  const one = rows.get(key);
  one.value.dataset.way = data.value < one.values.at(-1) ? "down" : "up";
  one.values.push(data.value);
  if (one.values.length > COURSE) one.values.shift();
  setText(one.value, data.value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 }));
  setText(one.offset, String(offset));
  const [low, high] = [Math.min(...one.values), Math.max(...one.values)];
  const y = (value) => (high > low ? 19 - ((value - low) / (high - low)) * 18 : 10).toFixed(1);
  const step = (COURSE - 1) / Math.max(1, one.values.length - 1);
  one.path.setAttribute("d", `M${one.values.map((value, i) => `${(i * step).toFixed(1)} ${y(value)}`).join("L")}`);
  $("ticks-empty").hidden = true;
}

push.subscribe(TICKS, tick, {
  latest: true,
  onLost() {
    for (const { tr } of rows.values()) tr.remove();
    rows.clear();
    $("ticks-empty").hidden = false;
  },
});

const prices = new Map([["BEL/EUR", 42], ["TIN/USD", 310], ["ROPE/M", 3.4], ["BRONZE", 97]]);
function makeUpPrice() {
  const keys = [...prices.keys()];
  const key = keys[Math.floor(Math.random() * keys.length)];
  const value = Math.round(prices.get(key) * (0.985 + Math.random() * 0.03) * 100) / 100;
  prices.set(key, value);
  // An old price is worth nothing: one that can't go out now is given up.
  push.publish(TICKS, { key, value }, { key, timeout: BEAT }).catch(() => {});
}

curl("ticks-curl", { topic: TICKS, key: "BEL/EUR", data: { key: "BEL/EUR", value: 42.5 } });

// ---- the room ----

// Storage may be forbidden, as in private windows; then nothing survives a reload but what the server has kept.
function stored(name, value) {
  try {
    if (value === undefined) return JSON.parse(sessionStorage.getItem(name));
    sessionStorage.setItem(name, JSON.stringify(value));
  } catch {}
  return null;
}

let said = [];
const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });

function showLine({ name, text, at }) {
  const li = element("li");
  if (name) li.append(element("b", name, { dir: "auto" }), ": ");
  li.append(element("span", text, { dir: "auto" }), element("small", clock.format(at)));
  const bottom = $("talk").scrollHeight - $("talk").scrollTop - $("talk").clientHeight < 40;
  $("lines").append(li);
  while ($("lines").childElementCount > LINES) $("lines").firstElementChild.remove();
  if (bottom) $("talk").scrollTop = $("talk").scrollHeight;
}

function hear(data) {
  const { name = "", text = data, at = Date.now() } = data ?? {};
  if (typeof text !== "string" || !text) return;
  const line = { name: String(name).slice(0, 40), text: text.slice(0, 2000), at: Number.isFinite(at) ? at : Date.now() };
  said.push(line);
  if (said.length > LINES) said.shift();
  showLine(line);
  note("room-note", "");
}

// What this tab has seen it keeps itself, and goes on from there; a new tab gets what the topic has kept, which is every
// line that was published with a key of its own.
const before = stored("campanile.room");
said = before?.said ?? [];
said.forEach(showLine);
const room = push.subscribe(ROOM, hear, {
  latest: true,
  resume: true,
  since: before?.position,
  onSubscribed({ replayed }) {
    note("room-note", said.length || replayed ? "" : "Nobody has spoken yet.");
  },
  onRecovered({ replayed }) {
    note("room-note", replayed ? `Back: ${replayed} missed, and here.` : "Back: nothing was missed.");
  },
  onLost() {
    said = [];
    $("lines").replaceChildren();
    note("room-note", "The topic no longer has all that was missed: this is what it has.");
  },
});
addEventListener("pagehide", () => {
  const { position } = room;
  stored("campanile.room", position && { said, position });
});

const birds = "Dove Finch Heron Jackdaw Lark Linnet Martin Owl Sparrow Swallow Robin Wren".split(" ");
const name = stored("campanile.bird") ?? birds[Math.floor(Math.random() * birds.length)];
stored("campanile.bird", name);

$("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("words").value.trim();
  if (!text) return;
  $("words").value = "";
  const at = Date.now();
  if (push.readyState === 0) note("room-note", "Not connected: it waits, and goes out when the page is back.");
  try {
    await push.publish(ROOM, { name, text, at }, { key: `${at}-${Math.random()}`, timeout: 60_000 });
  } catch (error) {
    note("room-note", `Not sent: ${error.message}`);
    $("words").value ||= text;
  }
});

curl("room-curl", { topic: ROOM, key: "42", data: { name: "curl", text: "Ding!" } });

// ---- the image ----

let url = null;
let [seen, mark] = [0, performance.now()];

push.subscribe(IMAGE, (bytes, { offset }) => {
  const type = bytes instanceof Uint8Array && imageType(bytes);
  if (!type) return;
  const old = url;
  url = URL.createObjectURL(new Blob([bytes], { type }));
  $("picture").onload = $("picture").onerror = () => URL.revokeObjectURL(old);
  $("picture").src = url;
  $("picture").hidden = false;
  $("picture").dataset.offset = offset;
  $("image-empty").hidden = true;
  seen += 1;
}, { latest: true });

setInterval(() => {
  const passed = (performance.now() - mark) / 1000;
  const rate = seen / passed;
  setText($("image-rate"), rate ? `${rate.toFixed(1)} per second.` : "");
  [seen, mark] = [0, performance.now()];
}, 2000);

// Clients publish no bytes over the socket: they go the way that a program's would.
async function publishImage(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  const body = JSON.stringify({ topic: IMAGE, base64: btoa(text) });
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(here("api/publish"), { method: "POST", headers, body, signal: AbortSignal.timeout(5000) });
  if (answer.ok) return;
  if ([401, 403].includes(answer.status)) $("image-run").dispatchEvent(new Event("stop")); // it would be refused again
  const why = { 401: "this server's API needs a key, and its curl lines -H 'Authorization: Bearer KEY'" };
  throw new Error(why[answer.status] ?? `HTTP ${answer.status}: ${(await answer.text()).slice(0, 200)}`);
}

async function sendImage(drawn) {
  try {
    await publishImage(await drawn);
    note("image-note", "");
  } catch (error) {
    note("image-note", `Not sent: ${error.message}`);
  }
}

const jpeg = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.8));

async function shrunk(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = element("canvas", undefined, { width, height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, width, height);
  return jpeg(canvas);
}

$("file").addEventListener("change", async ({ target }) => {
  if (target.files[0]) await sendImage(shrunk(target.files[0]));
  target.value = ""; // else choosing the same file again would be no change
});

const canvas = element("canvas", undefined, { width: SIDE, height: 270 });

// A bell that swings, and the time of day, so that one sees how late it arrives.
function draw() {
  const g = canvas.getContext("2d");
  const { width: w, height: h } = canvas;
  const now = new Date();
  g.fillStyle = "#1b1e28";
  g.fillRect(0, 0, w, h);
  g.save();
  g.translate(w / 2, 40);
  g.rotate(Math.sin(now / 500) * 0.45);
  g.fillStyle = "#e3aa55";
  g.beginPath();
  g.arc(Math.sin(now / 500 - 0.6) * 16, 138, 13, 0, 7);
  g.fill();
  g.beginPath();
  g.moveTo(0, 0);
  g.bezierCurveTo(-52, 0, -44, 84, -70, 124);
  g.lineTo(70, 124);
  g.bezierCurveTo(44, 84, 52, 0, 0, 0);
  g.fill();
  g.restore();
  g.fillStyle = "#ebe6dc";
  g.font = "20px system-ui, sans-serif";
  g.textAlign = "center";
  g.fillText(`${now.toLocaleTimeString([], { hour12: false })}.${Math.floor(now.getMilliseconds() / 100)}`, w / 2, h - 22);
  return jpeg(canvas);
}

// A bronze disc: the smallest image that one can see.
const DISC =
  "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAABlBMVEUbHijjqlWSbXpEAAAAeUlEQVR42q2RQQqAMAwEKx48+gSf0qfp03yKT/DoQbqSbNkWCiLYXjKQLNtsQuj35isDsHkdgYMdgL0IJIcVQJ7l9GCwU0TZZHBSTb1gMbhriAapBnNwjxfwava94Itp+9V2nXZlpaF8lJgyLKkqZyWvW+g65V4/3gOf++nBAoBsLQAAAABJRU5ErkJggg==";
curl("image-curl", { topic: IMAGE, base64: DISC });

// ---- what this page publishes by itself, while one wants it ----

// One at a time: whoever is slow makes fewer, and does not pile them up.
function running(id, every, action) {
  let on = false;
  const button = $(id);
  const words = button.textContent;
  button.addEventListener("stop", () => on && button.click());
  button.addEventListener("click", async () => {
    on = !on;
    button.textContent = on ? "Stop" : words;
    while (on) {
      const pause = new Promise((resolve) => setTimeout(resolve, every));
      await action();
      await pause;
    }
  });
}

running("ticks-run", BEAT, makeUpPrice);
running("image-run", FRAME, () => sendImage(draw()));

$("example").textContent = `import { connect } from "${here("campanile.js")}";

const push = connect("${here("push")}");
push.subscribe("${TICKS}", ({ key, value }) => console.log(key, value), { latest: true });
await push.publish("${ROOM}", { name: "me", text: "hello" });`;
showState();
