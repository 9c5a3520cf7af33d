/** Who left, when and why: the counts since the start, and the last ends one by one. */

import { get, problem } from "./api.js";
import { bytes, clock, count, find, moment, put, span } from "./dom.js";
import { bars } from "./overview.js";
import { Table } from "./table.js";

/** Ends that the gateway keeps, and so does the page. */
const KEPT = 1000;

/** Ends that are asked for at a time, and rows of the table. */
const PAGE = 100;

/** The newest first. */
let kept = [];

/** The last end of that link, if it is known. */
export const endOf = (side, id) => kept.find((one) => one.side === side && one.id === id) ?? null;

const who = (one) => one.user || one.identity;

const known = (one) => `${one.time} ${one.side} ${one.id} ${one.addr}`;

export function endsView() {
  let next = null;
  let rows = PAGE;
  let shown = false;
  let pending = null;
  let last = null;

  const table = new Table(find("ends-table"), [
    {
      name: "Time",
      of: (one) => clock(one.time),
      title: (one) => moment(one.time),
      width: "6rem",
    },
    {
      name: "Side",
      of: (one) => one.side,
      width: "5rem",
      kind: (one) => (one.side === "client" ? "dim" : ""),
      at: "mid",
    },
    { name: "Id", of: (one) => String(one.id || "–"), width: "5rem", number: true },
    { name: "Address", of: (one) => one.addr },
    { name: "Who", of: who, width: "15%", at: "wide", title: who },
    { name: "Lasted", of: (one) => span(one.seconds), width: "5rem", number: true, at: "mid" },
    { name: "In", of: (one) => bytes(one.bytes_in), width: "5.6rem", number: true, at: "wide" },
    { name: "Out", of: (one) => bytes(one.bytes_out), width: "5.6rem", number: true, at: "wide" },
    { name: "Reason", of: (one) => one.text, at: "wrap", title: (one) => one.detail || one.text },
  ]);

  async function start() {
    pending = [];
    try {
      const answer = await get("v1/closed", { limit: PAGE });
      next = answer.next ?? null;
      merge(answer.closed);
    } catch (error) {
      put(find("ends-found"), problem(error));
    }
    const came = pending;
    pending = null;
    merge(came);
  }

  function merge(ends) {
    const seen = new Set(kept.map(known));
    kept = [...ends.filter((one) => !seen.has(known(one))), ...kept];
    kept.sort((one, other) => other.time - one.time);
    kept = kept.slice(0, KEPT);
    fill();
  }

  async function older() {
    rows = Math.min(KEPT, rows + PAGE);
    if (next !== null && kept.length < rows) {
      try {
        const answer = await get("v1/closed", { limit: PAGE, after: next });
        next = answer.next ?? null;
        merge(answer.closed);
      } catch (error) {
        put(find("ends-found"), problem(error));
      }
    }
    fill();
  }

  function fill() {
    if (!shown || document.hidden) return;
    const words = find("ends-search").value.trim().toLowerCase();
    const like = (one) => [one.addr, one.user, one.identity, one.text, one.side, String(one.id)];
    const some = words
      ? kept.filter((one) => like(one).some((text) => (text ?? "").toLowerCase().includes(words)))
      : kept;
    table.fill(some.slice(0, rows));
    put(
      find("ends-found"),
      words ? `${some.length} of the last ${kept.length}` : `the last ${kept.length}`,
    );
    find("ends-more").disabled = next === null && kept.length <= rows;
    find("ends-none").hidden = some.length > 0;
    put(find("ends-none"), words ? "No end is like that." : "Nobody has left.");
  }

  function draw(status) {
    last = status;
    const all = bars(find("ends-reasons"), status.lost, Infinity, "Nobody has left.");
    put(find("ends-count"), all ? count(all) : "");
    fill();
  }

  find("ends-search").addEventListener("input", fill);
  find("ends-more").addEventListener("click", older);

  return {
    start,
    draw,
    closed({ closed }) {
      if (pending) pending.push(...closed);
      else merge(closed);
    },
    show(status) {
      shown = true;
      draw(status ?? last);
    },
    hide() {
      shown = false;
    },
  };
}
