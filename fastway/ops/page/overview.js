/** The overview: figures, charts of the last five minutes, ports, ends, the end of the log. */

import { Chart, Charts } from "./chart.js";
import { bytes, count, each, facts, find, make, millis, percent, put, rate, span } from "./dom.js";
import { logLine, recent } from "./log.js";
import { Series } from "./series.js";
import { Table } from "./table.js";

/** Lines of the log that it shows. */
const LINES = 14;

/** Rows of a list of reasons. */
const REASONS = 8;

/** The sum of counts {text, count}. */
export const sum = (counts) => counts.reduce((all, one) => all + one.count, 0);

/** Counts {text, count} by their texts, the most first, each with a bar; returns their sum. */
export function bars(place, counts, most = Infinity, none = "None.") {
  const byText = new Map();
  for (const { text, count: one } of counts) byText.set(text, (byText.get(text) ?? 0) + one);
  const rows = [...byText].filter(([, one]) => one > 0).sort((one, other) => other[1] - one[1]);
  const all = sum(counts);
  const first = rows.slice(0, most);
  const rest = rows.slice(most).reduce((left, [, one]) => left + one, 0);
  if (rest) first.push(["others", rest]);
  const build = () => make("li", "", {}, make("i"), make("span"), make("b"));
  each(place, first.length ? first : [[none, null]], build, (row, [name, number]) => {
    row.children[0].style.width = number === null ? "0" : `${(100 * number) / all}%`;
    row.className = number === null ? "soft" : "";
    put(row.children[1], name);
    row.children[1].title = name;
    put(row.children[2], number === null ? "" : count(number));
  });
  return all;
}

export function overview() {
  const series = new Series();
  const charts = new Charts().add(
    new Chart("Packets", [{ of: "packets" }], rate, { unit: "/s" }),
    new Chart("Traffic", [{ of: "bytes" }], bytes, { unit: "/s", binary: true, least: 1024 }),
    new Chart("Connections", [{ of: "came" }], rate, { unit: "/s" }),
    new Chart("Dials", [{ of: "dials" }], rate, { unit: "/s" }),
    new Chart("Reactor turn", [{ of: "turn" }, { of: "longest", name: "up to" }], millis, {
      least: 0.001,
    }),
    new Chart("CPU", [{ of: "cpu" }], percent, { least: 10 }),
    new Chart("Memory", [{ of: "memory" }], bytes, { binary: true, least: 1048576 }),
    new Chart("Waiting to be sent", [{ of: "waiting" }], bytes, { binary: true, least: 1024 }),
  );
  find("charts").append(...charts.all.map((one) => one.element));
  const ports = new Table(find("ports"), [
    { name: "Port", of: (port) => port.name, width: "6.4rem" },
    { name: "Side", of: (port) => port.side, width: "4.5rem", at: "mid" },
    { name: "Address", of: (port) => port.addr },
    {
      name: "With",
      of: (port) => port.layers.join(", "),
      title: (port) => port.told,
      width: "8rem",
      at: "mid",
    },
    { name: "Open", of: (port) => port.open, width: "4rem", number: true },
    { name: "Arriving", of: (port) => port.arriving, width: "4.5rem", number: true, at: "mid" },
    {
      name: "State",
      of: (port) => port.state,
      width: "5.5rem",
      number: true,
      kind: (port) => port.looks,
    },
  ]);

  function rows(status) {
    const told = (name) => status.layers.filter((one) => one.port === name);
    const open = status.ports.map((port) => ({
      ...port,
      told: told(port.name)
        .map((one) => `${one.name}: ${one.text}`)
        .join("\n"),
      open: count(port.links),
      arriving: count(port.handshakes),
      state: "listens",
      looks: "good",
    }));
    const shut = status.shut.map((name) => ({
      ...{ name, side: "", addr: "", layers: [], open: "", arriving: "" },
      state: "shut",
      looks: status.drain ? "warn" : "bad",
    }));
    return [...open, ...shut];
  }

  function tell(status) {
    const { router, queues, limits, process } = status;
    const files = process.max_files ? ` of ${count(process.max_files)}` : "";
    facts(find("figures"), [
      ["Clients", count(status.clients.connected)],
      ["Game servers", count(status.servers.connected), `${status.server_ids} different ids`],
      ["Virtual connections", count(router.open)],
      ["Clients in all", count(status.clients.since_start)],
      ["Packets in all", count(router.packets)],
      ["Traffic in all", bytes(router.bytes)],
      ["Turned away", count(sum(limits.refused) + status.turned_away), "Connections at the door"],
      ["Not read from", count(queues.held + limits.slowed), `held ${queues.holds} times`],
      ["Descriptors", process.files ? count(process.files) : "–", `open${files}`],
      ["Up for", span(status.uptime)],
    ]);
    ports.fill(rows(status));
    const ended = bars(find("reasons"), status.lost, REASONS, "Nobody has left.");
    put(find("lost-count"), ended ? count(ended) : "");
    const carried = status.transports.filter((one) => one.side === "client");
    const by = carried.map((one) => ({ text: one.transport, count: one.connected }));
    bars(find("transports"), by, REASONS, "Nobody is connected.");
    const refused = bars(find("refusals"), router.refused, REASONS, "None was refused.");
    put(find("refused-count"), refused ? `${count(refused)} of ${count(router.dials)}` : "");
  }

  function draw(status) {
    tell(status);
    charts.show(series.samples);
    each(
      find("brief-log"),
      recent(LINES),
      () => logLine(),
      (row, line) => logLine(line, row),
    );
  }

  return { status: (status) => series.add(status), draw, show: draw };
}
