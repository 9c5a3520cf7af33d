/** The addresses that limits tell apart: those with the most connections, and those refused. */

import { get } from "./api.js";
import { count, facts, find, resting } from "./dom.js";
import { sum } from "./overview.js";
import { Table } from "./table.js";

const MOST = 50;

const EVERY = 3000;

export function addressesView() {
  let shown = false;
  let timer = 0;
  const tables = ["count", "refused"].map((sort) => ({
    sort,
    place: find(`addresses-${sort}`),
    table: new Table(find(`addresses-${sort}`), [
      { name: "Address", of: (one) => one.address },
      { name: "Connections", of: (one) => count(one.count), width: "7rem", number: true },
      { name: "Refused", of: (one) => count(one.refused), width: "6rem", number: true },
    ]),
  }));

  async function load() {
    clearTimeout(timer);
    if (!shown) return;
    try {
      for (const { sort, place, table } of resting() ? [] : tables) {
        const { addresses } = await get("v1/addresses", { sort, limit: MOST });
        const rows = addresses.filter((one) => one[sort] > 0);
        table.fill(rows);
        place.hidden = !rows.length;
        place.nextElementSibling.hidden = rows.length > 0;
      }
    } catch {
      // The head of the page says that the gateway is away.
    }
    timer = setTimeout(load, EVERY);
  }

  function draw({ limits: gate }) {
    facts(find("addresses-figures"), [
      ["Connections counted", count(gate.connections)],
      ["Addresses told apart", count(gate.entries), `of ${count(gate.table)}`],
      ["Found no room", count(gate.overflowed)],
      ["Refused", count(sum(gate.refused))],
      ["Times a port waited", count(gate.rests)],
    ]);
  }

  return {
    draw,
    show(status) {
      shown = true;
      draw(status);
      load();
    },
    hide() {
      shown = false;
      clearTimeout(timer);
    },
  };
}
