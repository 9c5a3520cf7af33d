/** The limits: what they are, what they did, and other values for them. */

import { get, post, problem } from "./api.js";
import { count, each, facts, find, make, mark, put } from "./dom.js";
import { sum } from "./overview.js";

export function limitsView() {
  const form = find("limits-form");
  const place = find("limits-rows");
  let limits = [];

  function build() {
    return make(
      "div",
      "",
      {},
      make("label"),
      make("p"),
      make("input", "", { spellcheck: "false" }),
    );
  }

  /** What a value is typed or chosen in. */
  function entry(row, value) {
    const flag = value === "true" || value === "false";
    if ((row.lastChild.tagName === "SELECT") !== flag) {
      const words = ["true", "false"].map((word) => make("option", "", {}, word));
      row.lastChild.replaceWith(
        flag ? make("select", "", {}, ...words) : make("input", "", { spellcheck: "false" }),
      );
    }
    return row.lastChild;
  }

  function fill(row, { name, value, help }) {
    const [label, about] = row.children;
    const input = entry(row, value);
    put(label, name);
    mark(label, "for", `set-${name}`);
    mark(input, "id", `set-${name}`);
    mark(input, "name", name);
    put(about, help ?? "");
    input.value = value;
  }

  /** Those that were changed here: name -> value. */
  function changed() {
    const found = {};
    limits.forEach(({ name, value }, number) => {
      const input = place.children[number].lastChild;
      const other = input.value.trim() !== value;
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
      limits = (await get("v1/config")).options.filter((one) => one.live);
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
