/** The configuration: each option, its value, and where that is from. Secrets never come here. */

import { get, post, problem } from "./api.js";
import { find, put } from "./dom.js";
import { Table } from "./table.js";

export function configView() {
  let options = [];
  const table = new Table(find("config-table"), [
    {
      name: "Option",
      of: (one) => one.name,
      width: "14rem",
      title: (one) => one.help ?? one.name,
    },
    { name: "Value", of: (one) => one.value, at: "wrap", title: (one) => one.value },
    {
      name: "Default",
      of: (one) => one.default,
      width: "20%",
      kind: () => "dim",
      at: "mid",
      title: (one) => one.default,
    },
    {
      name: "From",
      of: (one) => one.source,
      width: "22%",
      kind: () => "dim",
      at: "mid",
      title: (one) => one.source,
    },
  ]);

  async function load() {
    try {
      options = (await get("v1/config")).options;
      fill();
    } catch (error) {
      put(find("config-said"), problem(error));
    }
  }

  function fill() {
    const words = find("config-search").value.trim().toLowerCase();
    const given = find("config-given").checked;
    const some = options.filter(
      (one) =>
        (!given || one.value !== one.default) &&
        (!words || `${one.name} ${one.value}`.toLowerCase().includes(words)),
    );
    table.fill(some);
    find("config-none").hidden = some.length > 0;
    put(find("config-said"), `${some.length} of ${options.length} options`);
  }

  find("config-search").addEventListener("input", fill);
  find("config-given").addEventListener("change", fill);
  find("config-reload").addEventListener("click", async (event) => {
    event.target.disabled = true;
    try {
      const said = await post("v1/reload", {});
      await load();
      put(find("config-said"), said);
    } catch (error) {
      put(find("config-said"), problem(error));
    }
    event.target.disabled = false;
  });

  return { show: load };
}
