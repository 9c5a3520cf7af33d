/** The limits: what they are, what they did, and other values for them. */

import { get, post, problem } from "./api.js";
import { count, each, facts, find, make, mark, put } from "./dom.js";
import { sum } from "./overview.js";

/** Options that are limits, and those of them that are read at the start only. */
const LIMIT = /^limit-|^client-(packet|byte|dial)-rate$/;
const FIXED = /^limit-ipv6-prefix$/;

export function limitsView() {
  const form = find("limits-form");
  const place = find("limits-rows");
  let limits = [];

  function build() {
    const row = make("div", "", {}, make("label"), make("p"), make("input"));
    row.lastChild.spellcheck = false;
    return row;
  }

  function fill(row, { name, value, help }) {
    const fixed = FIXED.test(name);
    const [label, about, input] = row.children;
    put(label, name);
    mark(label, "for", `set-${name}`);
    mark(input, "id", `set-${name}`);
    mark(input, "name", name);
    put(about, fixed ? `${help ?? ""} (read at the start only)` : (help ?? ""));
    input.disabled = fixed;
    input.value = value;
  }

  /** Those that were changed here: name -> value. */
  function changed() {
    const found = {};
    limits.forEach(({ name, value }, number) => {
      const input = place.children[number].lastChild;
      const other = !input.disabled && input.value.trim() !== value;
      place.children[number].classList.toggle("changed", other);
      if (other) found[name] = input.value.trim();
    });
    const some = Object.keys(found).length;
    find("limits-apply").disabled = find("limits-undo").disabled = !some;
    put(find("limits-apply"), some > 1 ? `Apply ${some} changes` : "Apply");
    return found;
  }

  function say(text, bad = false) {
    put(find("limits-said"), text);
    find("limits-said").classList.toggle("problem", bad);
  }

  async function load() {
    try {
      limits = (await get("v1/config")).options.filter((one) => LIMIT.test(one.name));
      each(place, limits, build, fill);
      changed();
    } catch (error) {
      say(problem(error), true);
    }
  }

  form.addEventListener("input", () => changed());
  find("limits-undo").addEventListener("click", () => {
    each(place, limits, build, fill);
    changed();
    say("As they were.");
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const values = changed();
    if (!Object.keys(values).length) return;
    try {
      await post("v1/limits", values);
      await load();
      say(`In use until the next start: ${Object.keys(values).join(", ")}.`);
    } catch (error) {
      say(problem(error), true);
    }
  });

  function draw({ limits: gate }) {
    const rows = [
      ["Connections counted", count(gate.connections)],
      ["Refused", count(sum(gate.refused)), gate.refused.map((one) => one.text).join("; ")],
      ["Times a port waited", count(gate.rests)],
      ["Slowed now", count(gate.slowed), "Links that are not read from for their rates"],
      ["Slowed in all", count(gate.slows)],
    ];
    if (gate.dry_run || sum(gate.dry)) rows.push(["Dry run: would refuse", count(sum(gate.dry))]);
    facts(find("limits-figures"), rows);
  }

  return {
    draw,
    show(status) {
      draw(status);
      if (!Object.keys(limits.length ? changed() : {}).length) load();
    },
  };
}
