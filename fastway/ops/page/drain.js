/** The drain: how far it is, its beginning, and that it is taken back. */

import { get, post, problem } from "./api.js";
import { clock, count, each, facts, find, make, mark, put, span } from "./dom.js";
import { askTwice } from "./table.js";

const STEPS = [
  ["delay", "Told: nobody should be sent here any more; ports are still open."],
  ["grace", "Ports are closed; who is connected keeps everything."],
  ["spread", "Clients are lost one by one, those without virtual connections first."],
  ["servers", "No client is left, or the time is over: all others are lost."],
  ["done", "Nobody is left, and the gateway stops."],
];

const IDLE = "A drain empties the gateway without an outage, then stops it.";

export function drainView() {
  let last = null;
  const begin = askTwice(find("drain-begin"), {
    word: "Drain",
    first: () => `Drain this gateway of ${count(last?.clients.connected ?? 0)} clients?`,
    second: () => "Everybody is lost in the end, and the gateway stops. Drain it now?",
    act: () => post("v1/drain", find("drain-again").checked ? { again: true } : {}),
    told: problem,
  });
  const undo = askTwice(find("drain-undo"), {
    word: "Undrain",
    first: () => "Go on as before?",
    second: () => "It is told that players may be sent here again. Take the drain back?",
    act: () => post("v1/undrain", {}),
    told: problem,
    kind: "benign",
  });
  const step = () => make("li", "", {}, make("span"), make("small"));
  each(find("drain-steps"), STEPS, step, (row, [, text]) => put(row.firstChild, text));

  /** How long each step takes, as the options say. */
  async function times() {
    try {
      const { options } = await get("v1/config");
      [...find("drain-steps").children].forEach((row, number) => {
        const [name] = STEPS[number];
        const option = options.find((one) => one.name === `drain-${name}`);
        put(row.lastChild, option ? option.value.replace(/^0$/, "by their number") : "");
      });
    } catch {
      // They are only told.
    }
  }

  function bar(element, drain) {
    element.max = Math.max(1, drain?.clients ?? 1);
    element.value = drain ? drain.clients - drain.left : 0;
  }

  function status(fresh) {
    const drain = fresh.drain;
    if (Boolean(drain) !== Boolean(last?.drain)) {
      begin.reset();
      undo.reset();
    }
    last = fresh;
    find("draining").hidden = !drain;
    if (!drain) return;
    const number = STEPS.findIndex(([name]) => name === drain.state);
    const what =
      drain.state === "spread"
        ? `${count(drain.left)} of ${count(drain.clients)} clients left, `
        : "";
    const text = `Draining, step ${number + 1} of ${STEPS.length}: ${what}over within ${span(drain.seconds)}`;
    put(find("draining-text"), text);
    bar(find("draining-bar"), drain);
  }

  function draw({ drain, clients, servers }) {
    const step = STEPS.findIndex(([name]) => name === drain?.state);
    put(find("drain-title"), drain ? `Draining: ${drain.state}` : "Not draining");
    put(find("drain-text"), drain ? (STEPS[step]?.[1] ?? "") : IDLE);
    bar(find("drain-bar"), drain);
    facts(find("drain-figures"), [
      ["Clients", count(drain ? drain.left : clients.connected)],
      ["Of", drain ? count(drain.clients) : "–"],
      ["Game servers", count(servers.connected)],
      ["Over within", drain ? span(drain.seconds) : "–"],
      ["At the latest at", drain ? clock(drain.until) : "–"],
    ]);
    [...find("drain-steps").children].forEach((row, number) => {
      const is = number < step ? "past" : number === step ? "now" : "";
      mark(row, "data-is", drain ? is : "");
      mark(row, "aria-current", drain && number === step ? "step" : null);
    });
    find("drain-begin").hidden = Boolean(drain);
    find("drain-again").closest("label").hidden = Boolean(drain);
    find("drain-undo").hidden = drain?.state !== "delay";
  }

  return {
    status,
    draw,
    show(fresh) {
      draw(fresh);
      times();
    },
  };
}
