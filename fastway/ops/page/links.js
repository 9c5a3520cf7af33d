/**
 * The links, a page of them at a time.
 *
 * Rule: the gateway searches, sorts and counts; here is never more than one page.
 */

import { get, problem } from "./api.js";
import { bytes, count, find, mark, put, resting, span } from "./dom.js";
import { Table } from "./table.js";

/** Links of a page. */
const PAGE = 100;

/** Milliseconds from an answer to the next question, */
const EVERY = 2000;

/** or so many where the gateway has many links, at all of which it looks for each answer. */
const SELDOM = 5000;
const MANY = 2000;

/** Milliseconds after a key in which more may follow. */
const TYPING = 200;

/** What a link's state is, in a word, and how it looks. */
export function stateOf(link) {
  if (link.lost) return ["lost", "bad"];
  if (link.cut !== null) return [`cut ${span(link.cut)}`, "warn"];
  if (link.held) return ["held", "warn"];
  if (!link.link_id) return ["arriving", "dim"];
  return ["open", "dim"];
}

export const carriedBy = (link) => (link.tls ? `${link.transport}, ${link.tls}` : link.transport);

/** Whom it is, as far as anybody knows. */
export const whoIs = (link) => link.user || link.identity;

const COLUMNS = [
  {
    name: "Side",
    of: (one) => one.side,
    width: "5rem",
    at: "mid",
    kind: (one) => (one.side === "client" ? "dim" : ""),
  },
  {
    name: "Id",
    sort: "id",
    of: (one) => String(one.link_id || "–"),
    width: "5.4rem",
    number: true,
  },
  { name: "Address", sort: "addr", of: (one) => one.addr },
  { name: "Who", of: whoIs, title: whoIs },
  { name: "By", sort: "transport", of: carriedBy, width: "8.5rem", at: "wide" },
  {
    name: "Conns",
    sort: "conns",
    of: (one) => count(one.conns),
    width: "4.2rem",
    number: true,
    at: "mid",
  },
  { name: "Age", sort: "seconds", of: (one) => span(one.seconds), width: "5rem", number: true },
  {
    name: "Packets in",
    sort: "packets_in",
    of: (one) => count(one.packets_in),
    width: "6.3rem",
    number: true,
    at: "wide",
  },
  {
    name: "In",
    sort: "bytes_in",
    of: (one) => bytes(one.bytes_in),
    width: "5.6rem",
    number: true,
    at: "mid",
  },
  {
    name: "Packets out",
    sort: "packets_out",
    of: (one) => count(one.packets_out),
    width: "6.5rem",
    number: true,
    at: "wide",
  },
  {
    name: "Out",
    sort: "bytes_out",
    of: (one) => bytes(one.bytes_out),
    width: "5.6rem",
    number: true,
    at: "mid",
  },
  {
    name: "Waiting",
    sort: "waiting_bytes",
    of: (one) => bytes(one.waiting_bytes),
    width: "5.6rem",
    number: true,
    at: "wide",
  },
  {
    name: "State",
    of: (one) => stateOf(one)[0],
    kind: (one) => stateOf(one)[1],
    width: "5.2rem",
    at: "mid",
  },
];

export function linksView(opened) {
  const asked = { side: "", search: "", sort: "id", order: "asc" };
  /** Where this page begins, and those before it. */
  let places = [""];
  let next = null;
  let shown = false;
  let timer = 0;
  let every = EVERY;
  let request = null;

  const table = new Table(find("links-table"), COLUMNS, {
    opened,
    sorted(sort, order) {
      Object.assign(asked, { sort, order });
      begin();
    },
  });
  table.mark(asked.sort, asked.order);

  function begin() {
    places = [""];
    load();
  }

  async function load() {
    clearTimeout(timer);
    request?.abort();
    if (!shown) return;
    if (resting()) {
      timer = setTimeout(load, EVERY);
      return;
    }
    const mine = (request = new AbortController());
    try {
      const words = { ...asked, limit: PAGE, after: places.at(-1) };
      const answer = await get("v1/links", words, mine.signal);
      if (mine !== request) return;
      if (!answer.links.length && places.length > 1) {
        places.pop(); // those of this page have gone
        load();
        return;
      }
      fill(answer);
    } catch (error) {
      if (mine !== request) return;
      put(find("links-found"), problem(error));
    }
    timer = setTimeout(load, every);
  }

  function fill({ links, found, total, next: more }) {
    next = more;
    every = total > MANY ? SELDOM : EVERY;
    table.fill(links, (one) => location.hash === `#links/${one.side}/${one.link_id}`);
    const some = asked.search || asked.side;
    put(
      find("links-found"),
      some ? `${count(found)} of ${count(total)} links` : `${count(total)} links`,
    );
    const first = (places.length - 1) * PAGE;
    put(
      find("links-page"),
      links.length ? `${count(first + 1)} – ${count(first + links.length)}` : "",
    );
    find("links-back").disabled = places.length === 1;
    find("links-next").disabled = next === null;
    find("links-none").hidden = links.length > 0;
    put(find("links-none"), some ? "No link is like that." : "Nobody is connected.");
  }

  find("links-search").addEventListener("input", (event) => {
    asked.search = event.target.value.trim();
    clearTimeout(timer);
    timer = setTimeout(begin, TYPING);
  });
  find("links-side").addEventListener("change", (event) => {
    asked.side = event.target.value;
    begin();
  });
  find("links-next").addEventListener("click", () => {
    if (next === null) return;
    places.push(next);
    next = null;
    load();
  });
  find("links-back").addEventListener("click", () => {
    if (places.length > 1) places.pop();
    load();
  });
  addEventListener("hashchange", () => {
    for (const [number, row] of [...table.body.children].entries()) {
      const one = table.rows[number];
      mark(row, "aria-current", location.hash === `#links/${one.side}/${one.link_id}` || null);
    }
  });

  return {
    show() {
      shown = true;
      load();
    },
    hide() {
      shown = false;
      clearTimeout(timer);
      request?.abort();
      request = null;
    },
  };
}
