/**
 * The page: who may see it, which view is shown, and what the gateway says each second.
 *
 * Rule: there is one stream of events. A view gets what comes, is drawn only while it is shown, and
 * asks the gateway for more by itself only then.
 */

import { Refused, events, get, hasToken, problem, setToken } from "./api.js";
import { addressesView } from "./addresses.js";
import { configView } from "./config.js";
import { drainView } from "./drain.js";
import { count, find, mark, put, span } from "./dom.js";
import { endsView } from "./ends.js";
import { limitsView } from "./limits.js";
import { linksView } from "./links.js";
import { logView } from "./log.js";
import { overview } from "./overview.js";
import { linkPanel } from "./panel.js";

/** Seconds until the next attempt to reach the gateway, by the number of attempts before. */
const AGAIN = [1, 1, 2, 4, 8, 15];

/** Seconds between questions where the gateway has no room for one more stream. */
const POLL = 2;

const panel = linkPanel();
const views = {
  overview: overview(),
  links: linksView((row) => go(`links/${row.side}/${row.link_id}`)),
  ends: endsView(),
  addresses: addressesView(),
  limits: limitsView(),
  drain: drainView(),
  log: logView(),
  config: configView(),
};
const parts = [...Object.values(views), panel];

let shown = "";
let status = null;
/** Calls that end a wait before its time. */
let hurry = () => {};

// Where one is.

function go(place) {
  if (location.hash !== `#${place}`) location.hash = place;
}

function takeToken() {
  const words = new URLSearchParams(location.hash.slice(1));
  if (!words.has("token")) return false;
  setToken(words.get("token").trim());
  history.replaceState(null, "", `${location.pathname}${location.search}#overview`);
  return true;
}

function route() {
  const [name, side, id] = location.hash.slice(1).split("/");
  const view = Object.hasOwn(views, name) ? name : "overview";
  if (view !== shown) {
    views[shown]?.hide?.();
    shown = view;
    for (const one of Object.keys(views)) find(`view-${one}`).hidden = one !== view;
    for (const link of find("nav").children) {
      const here = link.hash === `#${view}`;
      mark(link, "aria-current", here ? "page" : null);
      if (here) link.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    scrollTo(0, 0);
    if (status) views[view].show?.(status);
  }
  const link = view === "links" && /^(client|server)$/.test(side ?? "") && /^\d+$/.test(id ?? "");
  panel.open(link && status ? { side, id: Number(id) } : null);
}

addEventListener("hashchange", () => {
  if (takeToken()) hurry();
  route();
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  find("main").focus();
});

find("panel-close").addEventListener("click", () => go("links"));

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea");
  if (event.key === "Escape" && !find("panel").hidden) go("links");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !status) return;
  if (event.key === "/") {
    event.preventDefault();
    if (!find(`${shown}-search`)) go("links");
    setTimeout(() => find(`${shown}-search`)?.focus());
  } else if (/^[1-8]$/.test(event.key)) {
    go(Object.keys(views)[Number(event.key) - 1]);
  }
});

// Colours.

const THEMES = { auto: ["◐", "as the system"], light: ["○", "light"], dark: ["●", "dark"] };

function theme(name) {
  const [sign, word] = THEMES[name];
  mark(document.documentElement, "data-theme", name);
  put(find("theme"), sign);
  mark(find("theme"), "aria-label", `Colours: ${word}`);
  mark(find("theme"), "title", `Colours: ${word}`);
}

function stored(name) {
  try {
    if (name) localStorage.setItem("fastway-theme", name);
    return localStorage.getItem("fastway-theme");
  } catch {
    return null; // a browser that keeps nothing
  }
}

find("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const now = names.indexOf(document.documentElement.dataset.theme);
  const next = names[(now + 1) % names.length];
  theme(next);
  stored(next);
});

// The door.

function askToken(text) {
  phase("door", "locked");
  find("door").hidden = false;
  for (const name of Object.keys(views)) find(`view-${name}`).hidden = true;
  find("notes").hidden = true;
  find("nav").hidden = true;
  panel.open(null);
  put(find("token-problem"), text);
  find("token").value = "";
  find("token").focus();
  return new Promise((resolve) => (hurry = resolve));
}

function letIn() {
  find("door").hidden = true;
  find("notes").hidden = false;
  find("nav").hidden = false;
  shown = "";
  route();
}

find("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  // A header has visible ASCII; whatever else was typed is no token.
  setToken(
    find("token")
      .value.trim()
      .replace(/[^\x21-\x7e]/g, "?"),
  );
  put(find("token-problem"), "");
  hurry();
});

// The stream.

function phase(name, text) {
  document.body.dataset.phase = name;
  put(find("state-text"), text);
}

function take(fresh) {
  const first = status === null;
  status = fresh;
  for (const part of parts) part.status?.(status);
  if (first || !find("door").hidden) letIn();
  if (!document.hidden) draw();
}

function draw() {
  const { ready, state } = status;
  const fine = ready.ok && state === "running";
  phase(fine ? "live" : "warn", state === "running" && !ready.ok ? "not ready" : state);
  find("lost").hidden = true;
  find("unready").hidden = ready.ok || Boolean(status.drain);
  put(find("unready"), ready.ok ? "" : `Not ready: ${ready.why}`);
  put(find("where"), `${location.host || "gateway"} · ${status.version}`);
  mark(find("where"), "title", `${status.path}, process ${status.pid}, up ${span(status.uptime)}`);
  document.title = `${fine ? "" : "! "}${count(status.clients.connected)} clients · fastway`;
  views[shown]?.draw?.(status);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && status && document.body.dataset.phase !== "lost") draw();
});

function deliver({ kind, data }) {
  if (kind === "status") take(data);
  else for (const part of parts) part[kind]?.(data);
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1);

function lost(text, seconds) {
  phase("lost", "not connected");
  document.title = "✕ fastway";
  const left = ["draining", "stopping"].includes(status?.state);
  const why = left ? `The gateway was ${status.state} and has stopped` : sentence(text);
  find("lost").hidden = false;
  find("unready").hidden = find("draining").hidden = true;
  put(find("lost-text"), `${why}.`);
  put(find("lost-wait"), `Trying again in ${seconds} s.`);
}

/** Wait; resolves to whether somebody had no patience. */
function pause(seconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000, false);
    hurry = () => {
      clearTimeout(timer);
      resolve(true);
    };
  });
}

find("again").addEventListener("click", () => hurry());
addEventListener("online", () => hurry());

/** Say that it is gone, and wait for the next attempt. */
async function away(seconds, text) {
  for (let left = seconds; left > 0; left -= 1) {
    lost(text, left);
    if (await pause(1)) return;
  }
}

async function follow(heard) {
  const end = new AbortController();
  try {
    let begun = false;
    for await (const event of events(end.signal)) {
      heard();
      if (!begun) for (const part of parts) part.start?.();
      begun = true;
      deliver(event);
    }
  } finally {
    end.abort();
  }
}

async function watch() {
  let tries = 0;
  for (;;) {
    let text = "the gateway ended the stream";
    try {
      await follow(() => (tries = 0));
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        await askToken(hasToken() ? "That token is not taken." : "");
        continue;
      }
      if (error instanceof Refused && [429, 503].includes(error.status)) {
        if (await poll()) continue;
      }
      text = problem(error);
    }
    await away(AGAIN[Math.min(tries, AGAIN.length - 1)], text);
    tries += 1;
  }
}

/** Ask a few times for what a stream would say; whether that went well. */
async function poll() {
  try {
    for (const part of parts) part.start?.();
    for (let times = 0; times < 10; times += 1) {
      take(await get("v1/status"));
      phase("live", "asking: too many watch");
      await pause(POLL);
    }
    return true;
  } catch {
    return false;
  }
}

theme(Object.hasOwn(THEMES, stored() ?? "") ? stored() : "auto");
takeToken();
watch();
