/** One link: what is known of it, what it does, and its end. */

import { Refused, get, post, problem } from "./api.js";
import { Chart, Charts } from "./chart.js";
import {
  bytes,
  count,
  each,
  facts,
  find,
  make,
  mark,
  moment,
  put,
  rate,
  resting,
  span,
} from "./dom.js";
import { endOf } from "./ends.js";
import { stateOf } from "./links.js";
import { Table, askTwice } from "./table.js";

/** Milliseconds from an answer to the next question, */
const EVERY = 1000;

/** and while the link is gone: a game server may come back. */
const SELDOM = 5000;

/** Samples of a link that are kept. */
const KEPT = 400;

/** The far end of one of its virtual connections. */
const peerRow = () => make("li", "", {}, make("a"), make("span", "soft"));

function showPeer(row, { conn_id: conn, side, id }) {
  put(row.children[0], `${side} ${id}`);
  mark(row.children[0], "href", `#links/${side}/${id}`);
  put(row.children[1], `on ${conn}`);
}

/** One link's part of the panel: an id may be that of several servers. */
class Sheet {
  constructor() {
    this.says = make("p", "says", { role: "status" });
    this.facts = make("dl", "facts");
    const counts = make("table", "", {}, make("caption", "unseen", {}, "What went over it"));
    this.counts = new Table(counts, [
      { name: "", of: (one) => one.way },
      { name: "Bytes", of: (one) => one.bytes, number: true },
      { name: "Packets", of: (one) => one.packets, number: true },
      { name: "Packets/s", of: (one) => one.rate, number: true },
    ]);
    this.chart = new Chart("From it", [{ of: "in" }, { of: "out", name: "to it" }], bytes, {
      unit: "/s",
      binary: true,
      least: 1024,
    });
    this.charts = new Charts().add(this.chart);
    this.samples = [];
    this.peers = make("ul", "peers", { "aria-label": "Its virtual connections" });
    this.element = make(
      "div",
      "",
      {},
      ...[this.says, this.chart.element, counts, this.facts, this.peers],
    );
    this.last = null;
  }

  show({ link, peers }) {
    const time = Date.now() / 1000;
    const seconds = this.last ? link.seconds - this.last.seconds : 0;
    const grew = (name) => (seconds > 0 ? (link[name] - this.last[name]) / seconds : 0);
    if (seconds > 0) {
      this.samples.push({ time, gap: false, in: grew("bytes_in"), out: grew("bytes_out") });
      if (this.samples.length > KEPT) this.samples.shift();
    }
    this.charts.show(this.samples);
    const way = (name) => ({
      way: name === "in" ? "From it" : "To it",
      bytes: bytes(link[`bytes_${name}`]),
      packets: count(link[`packets_${name}`]),
      rate: rate(grew(`packets_${name}`)),
    });
    this.counts.fill([way("in"), way("out")]);
    if (seconds > 0 || this.last === null) this.last = link;
    const [state] = stateOf(link);
    const rows = [
      ["State", state],
      ["Address", link.addr],
      ["Proxy", link.via],
      ["Port", link.port],
      ["Player", link.user],
      ["Transport", link.transport],
      ["TLS", link.tls],
      ["Host name", link.sni],
      ["Certificate", link.identity],
      ["Fingerprint", link.sha256],
      ["Connected", `${moment(time - link.seconds)}, for ${span(link.seconds)}`],
      ["Connections", count(link.conns)],
      ["Waiting", `${count(link.waiting_packets)} packets, ${bytes(link.waiting_bytes)}`],
    ];
    facts(
      this.facts,
      rows.filter(([, value]) => value),
    );
    const says = link.lost
      ? `It was lost: ${link.lost.replaceAll("_", " ")}.`
      : link.held
        ? "It is not read from now."
        : "";
    put(this.says, says);
    this.says.hidden = !says;
    each(this.peers, peers, peerRow, showPeer);
    this.peers.hidden = !peers.length;
  }
}

export function linkPanel() {
  const panel = find("panel");
  const place = find("panel-links");
  let open = null;
  let sheets = [];
  let many = 0;
  let timer = 0;
  let before = null;

  const name = () => (open ? `${open.side} ${open.id}` : "");
  const all = () => (many > 1 ? `all ${many} servers of id ${open.id}` : name());
  const kick = askTwice(find("panel-kick"), {
    word: "Kick",
    first: () => `Kick ${all()}?`,
    second: () => `Its connection is closed, and what it does ends. Kick ${all()} now?`,
    act: () => post("v1/kick", { side: open.side, id: open.id }),
    told: problem,
  });

  async function load() {
    clearTimeout(timer);
    const mine = open;
    if (mine === null) return;
    let every = EVERY;
    try {
      if (!resting()) {
        const { links } = await get(`v1/links/${mine.side}/${mine.id}`);
        if (mine !== open) return;
        fill(links);
      }
    } catch (error) {
      if (mine !== open) return;
      gone(error);
      every = SELDOM;
    }
    timer = setTimeout(load, every);
  }

  function fill(links) {
    many = links.length;
    const same = sheets.length === links.length && sheets.every((one) => one.element.isConnected);
    if (!same) {
      sheets = links.map(() => new Sheet());
      place.replaceChildren(...sheets.map((one) => one.element));
    }
    links.forEach((link, number) => sheets[number].show(link));
    kick.disable(false);
  }

  /** It left, or the gateway did. */
  function gone(error) {
    const left = error instanceof Refused && error.status === 404;
    const end = left ? endOf(open.side, open.id) : null;
    let text = left ? "It is not connected." : `${problem(error)}.`;
    if (end) text = `Gone since ${moment(end.time)}: ${end.text}.`;
    if (left) kick.disable(true);
    if (sheets.length) {
      sheets[0].says.hidden = false;
      put(sheets[0].says, text);
    } else {
      each(
        place,
        [text],
        () => make("div"),
        (row, one) => put(row, one),
      );
    }
  }

  return {
    open(link) {
      if (link?.side === open?.side && link?.id === open?.id) return;
      if (open === null) before = document.activeElement;
      open = link;
      sheets = [];
      many = 0;
      place.replaceChildren();
      kick.reset();
      panel.hidden = link === null;
      if (link === null) {
        clearTimeout(timer);
        if (before?.isConnected) before.focus({ preventScroll: true });
        return;
      }
      put(find("panel-title"), `${link.side === "client" ? "Client" : "Server"} ${link.id}`);
      find("panel-title").focus({ preventScroll: true });
      load();
    },
  };
}
