/**
 * The last five minutes: what the gateway's counters did from one second to the next.
 *
 * Rule: rates are differences of two statuses over the gateway's own time between them; what came
 * late or not at all is a gap, and never a peak.
 */

/** Seconds that are kept and shown. */
export const SPAN = 300;

/** Seconds between two statuses after which there is a gap. */
const GAP = 3.5;

/** Seconds between two statuses of which no rate is made. */
const SHORT = 0.2;

export class Series {
  constructor() {
    /** {time, gap, ...figures}, the oldest first. */
    this.samples = [];
    this.last = null;
  }

  /** Take a status. */
  add(status) {
    const before = this.last;
    const same = before !== null && before.pid === status.pid && before.uptime <= status.uptime;
    const seconds = same ? status.uptime - before.uptime : 0;
    if (same && seconds < SHORT) return;
    this.last = status;
    const sample = { time: status.time, gap: !same || seconds > GAP };
    sample.memory = status.process.memory || status.memory;
    sample.waiting = status.queues.bytes + status.queues.input;
    if (same && seconds <= GAP) {
      const grew = (of) => Math.max(0, of(status) - of(before)) / seconds;
      sample.packets = grew((one) => one.router.packets);
      sample.bytes = grew((one) => one.router.bytes);
      sample.came = grew((one) => one.clients.since_start + one.servers.since_start);
      sample.dials = grew((one) => one.router.dials);
      sample.cpu = grew((one) => one.process.cpu) * 100;
      Object.assign(sample, turns(status.turns, before.turns));
    }
    this.push(sample);
  }

  push(sample) {
    this.samples.push(sample);
    const oldest = sample.time - SPAN - 2;
    while (this.samples.length > SPAN * 2 || this.samples[0].time < oldest) this.samples.shift();
  }
}

/** The mean and the 99th percentile of the turns between two histograms, in seconds. */
export function turns(now, before) {
  if (!now || !before) return {};
  const counts = now.counts.map((one, number) => Math.max(0, one - before.counts[number]));
  const all = counts.reduce((sum, one) => sum + one, 0);
  if (!all) return { turn: 0, turn99: 0 };
  return {
    turn: Math.max(0, now.total - before.total) / all,
    turn99: quantile(now.bounds, counts, all, 0.99),
  };
}

function quantile(bounds, counts, all, part) {
  let left = part * all;
  for (const [number, one] of counts.entries()) {
    if (left <= one) {
      const low = number ? bounds[number - 1] : 0;
      const high = bounds[number] ?? low * 2;
      return low + ((high - low) * left) / one;
    }
    left -= one;
  }
  return bounds.at(-1);
}
