/** The demo's page: one connection to the gateway, one to the chat room behind it. */

import { DialRefused, Gateway, GatewayClosed } from "./client/index.js";

const SERVER_ID = 1;
const MOST_LINES = 300;
const PING_EVERY = 5000;
const AGAIN = 500;
const GROUP = 120_000;

const find = (id) => document.getElementById(id);
const [log, people, door, room] = ["log", "people", "door", "room"].map(find);
const [name, text] = ["name", "text"].map(find);

const url = document.querySelector("meta[name=gateway]").content;
find("where").textContent = find("example").textContent = url;

const gateway = new Gateway(url, { reconnect: { first: 300, most: 5000 } });
let conn;
let me = sessionStorage.getItem("name") ?? "";
let here = new Set();
const mine = []; // lines of ours that have not come back yet
let last = { who: "", at: 0 };
let missed = 0;

// The gateway.

let countdown;

function show(state, words) {
  clearInterval(countdown);
  document.body.dataset.state = state;
  find("state").textContent = words;
  find("say").querySelector("button").disabled = state !== "up";
}

gateway.ondown = (error, delay) => {
  if (document.body.dataset.state === "up") tell(error.message, true);
  const until = performance.now() + delay;
  const seconds = () => Math.max(0, Math.ceil((until - performance.now()) / 1000));
  show("down", `back in ${seconds()} s`);
  countdown = setInterval(() => (find("state").textContent = `back in ${seconds()} s`), 250);
};

gateway.onclose = (error) => {
  show("over", "disconnected");
  tell(`${error.message}; reload the page to come again`, true);
};

addEventListener("online", () => gateway.retry());
addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  missed = 0;
  document.title = "fastway chat";
  gateway.retry();
});

async function measure() {
  if (document.body.dataset.state !== "up" || document.hidden) return;
  const trip = await gateway.ping().catch(() => undefined);
  if (trip === undefined || document.body.dataset.state !== "up") return;
  find("state").textContent = `connected, ${trip < 10 ? trip.toFixed(1) : Math.round(trip)} ms`;
}

setInterval(measure, PING_EVERY);

/** Be in the room as long as there is a gateway, whatever happens meanwhile. */
async function live() {
  while (!gateway.closed) {
    try {
      conn = await gateway.dial(SERVER_ID);
      await conn.receiveText(); // the welcome is for people at a terminal
      show("up", "connected");
      gateway.ping().then(measure, () => {}); // the first one is slow, as all is now
      if (me) enter();
      for await (const line of conn.texts()) hear(line);
    } catch (error) {
      if (error instanceof GatewayClosed) return;
      if (error instanceof DialRefused) show("connecting", "the room is closed");
    }
    conn = undefined;
    mine.length = 0;
    if (!gateway.closed) await new Promise((resolve) => setTimeout(resolve, AGAIN));
  }
}

// The room.

function enter() {
  door.hidden = true;
  room.hidden = false;
  say(`/join ${me}`);
  say("/who");
  text.focus();
}

/** Be known by that name. */
function called(given) {
  const wanted = given.replace(/[<>,\s]+/g, " ").trim();
  if (!wanted) return;
  me = [...wanted].slice(0, 32).join("");
  sessionStorage.setItem("name", me);
  if (conn) enter();
}

function say(line) {
  conn?.send(line).catch(() => {}); // its end is told where it is read
}

function hear(line) {
  const said = /^<([^\n]{1,40}?)> ([^]*)$/.exec(line);
  if (said) {
    add(said[1], said[2]);
    return;
  }
  const list = /^\* in the room: (.*)$/.exec(line);
  const move = /^\* (.*) (joined|left)$/.exec(line);
  if (list) here = new Set(list[1].split(", "));
  else tell(line.replace(/^\* /, ""));
  if (move?.[2] === "joined") here.add(move[1]);
  if (move?.[2] === "left") here.delete(move[1]);
  if (list || move) crowd();
}

function element(kind, classes, content = "") {
  const made = document.createElement(kind);
  made.className = classes;
  made.textContent = content;
  return made;
}

function face(who) {
  const made = element("span", "face", [...who][0]?.toUpperCase() ?? "?");
  made.ariaHidden = "true";
  let hue = 0;
  for (const letter of who) hue = (hue * 31 + letter.codePointAt(0)) % 360;
  made.style.setProperty("--hue", hue);
  return made;
}

function crowd() {
  find("count").textContent = `(${here.size})`;
  people.replaceChildren(
    ...[...here].map((who) => {
      const row = element("li", "");
      row.append(face(who), element("span", "", who === me ? `${who} (you)` : who));
      return row;
    }),
  );
}

let low = true; // the newest line is in sight, and is to stay so

function lower() {
  if (low) log.scrollTop = log.scrollHeight;
}

log.addEventListener("scroll", () => {
  low = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
});
new ResizeObserver(lower).observe(log);

function put(line) {
  low ||= line.classList.contains("mine");
  log.append(line);
  while (log.children.length > MOST_LINES) log.firstChild.remove();
  lower();
}

function tell(words, trouble = false) {
  last = { who: "", at: 0 };
  put(element("li", trouble ? "told trouble" : "told", words));
}

function add(who, words) {
  const own = who === me && mine[0] === words;
  if (own) mine.shift();
  const now = Date.now();
  const first = last.who !== `${own}${who}` || now - last.at > GROUP;
  last = { who: `${own}${who}`, at: now };
  const line = element("li", `said${own ? " mine" : ""}${first ? " first" : ""}`);
  line.dataset.who = who;
  if (first) {
    const by = element("div", "by");
    const bold = element("b", "", who);
    const picture = face(who);
    bold.style.setProperty("--hue", picture.style.getPropertyValue("--hue"));
    by.append(bold, element("time", "", new Date(now).toTimeString().slice(0, 5)));
    line.append(picture, by);
  }
  const bubble = element("div", "bubble");
  bubble.append(element("div", "words", words));
  line.append(bubble);
  put(line);
  if (document.hidden) document.title = `(${(missed += 1)}) fastway chat`;
}

// What people do.

find("join").addEventListener("submit", (event) => {
  event.preventDefault();
  called(name.value);
});

find("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const line = text.value.trimEnd();
  if (!line || document.body.dataset.state !== "up") return;
  const command = /^\/(?:who|quit)\b|^\/join +(.+)/.exec(line);
  if (!command) mine.push(line);
  if (command?.[1]) called(command[1]);
  else say(line);
  text.value = "";
});

text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  find("say").requestSubmit();
});

live();
