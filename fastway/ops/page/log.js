/**
 * The end of the gateway's log.
 *
 * Rule: so many lines are kept, here and in the document; a line is text, whatever it says.
 */

import { get, post, problem } from "./api.js";
import { clock, each, find, make, mark, moment, put } from "./dom.js";

const KEPT = 500;

const LEVELS = ["debug", "info", "warn", "error", "critical"];

let kept = [];

/** The newest lines, the newest last. */
export const recent = (most) => kept.slice(-most);

/** A line's element, or a line shown in one. */
export function logLine(
  line = null,
  row = make("li", "", {}, make("span"), make("b"), make("p")),
) {
  if (line === null) return row;
  mark(row, "data-level", line.level);
  put(row.children[0], clock(line.time));
  mark(row.children[0], "title", moment(line.time));
  put(row.children[1], line.level);
  put(row.children[2], line.text);
  mark(row.children[2], "title", line.system ?? "");
  return row;
}

export function logView() {
  const list = find("log-lines");
  let pending = null;
  let stale = true;
  let shown = false;

  async function start() {
    pending = [];
    try {
      const { lines } = await get("v1/log", { limit: KEPT });
      const known = new Set(lines.map((one) => `${one.time} ${one.text}`));
      kept = [...lines, ...pending.filter((one) => !known.has(`${one.time} ${one.text}`))];
    } catch (error) {
      kept = [...kept, ...pending];
      put(find("log-said"), problem(error));
    }
    pending = null;
    kept = kept.slice(-KEPT);
    stale = true;
  }

  function log({ lines, missed }) {
    if (missed && lines.length) {
      const text = `${missed} lines are not here: more came than the gateway sends in a second`;
      lines = [{ time: lines[0].time, level: "warn", system: "", text }, ...lines];
    }
    if (pending) {
      pending.push(...lines);
      return;
    }
    kept = [...kept, ...lines].slice(-KEPT);
    stale = true;
    if (shown && !document.hidden) requestAnimationFrame(draw);
  }

  function draw() {
    if (!stale || !shown) return;
    stale = false;
    const least = LEVELS.indexOf(find("log-least").value);
    const words = find("log-search").value.trim().toLowerCase();
    const lines = kept.filter(
      (one) =>
        LEVELS.indexOf(one.level) >= least && (!words || one.text.toLowerCase().includes(words)),
    );
    each(
      list,
      lines,
      () => logLine(),
      (row, line) => logLine(line, row),
    );
    const all = lines.length === kept.length ? "" : ` of ${kept.length}`;
    put(find("log-said"), `${lines.length}${all} lines`);
    if (find("log-follow").checked) list.scrollTop = list.scrollHeight;
  }

  function again() {
    stale = true;
    draw();
  }

  find("log-least").addEventListener("change", again);
  find("log-search").addEventListener("input", again);
  find("log-follow").addEventListener("change", again);
  // Who reads what is above does not want it to move.
  list.addEventListener("scroll", () => {
    const end = list.scrollHeight - list.scrollTop - list.clientHeight < 24;
    if (end !== find("log-follow").checked) find("log-follow").checked = end;
  });
  find("log-level").addEventListener("change", async () => {
    const level = find("log-level").value;
    if (!level) return;
    try {
      put(find("log-said"), await post("v1/loglevel", { level }));
    } catch (error) {
      put(find("log-said"), problem(error));
    }
  });

  return {
    start,
    log,
    draw,
    status(status) {
      if (status.log_level && document.activeElement !== find("log-level")) {
        find("log-level").value = status.log_level;
      }
    },
    show() {
      shown = true;
      again();
    },
    hide() {
      shown = false;
    },
  };
}
