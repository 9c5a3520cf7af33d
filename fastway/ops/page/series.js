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

/**
 * The mean of the turns between two histograms, and what the longest took at most, in seconds: the
 * end of its class, or as long as all together.
 */
function turns(now, before) {
  if (!now || !before) return {};
  const counts = now.counts.map((one, number) => one - before.counts[number]);
  const all = counts.reduce((sum, one) => sum + one, 0);
  const total = Math.max(0, now.total - before.total);
  const last = counts.findLastIndex((one) => one > 0);
  if (last < 0) return { turn: 0, longest: 0 };
  return { turn: total / all, longest: Math.min(now.bounds[last] ?? Infinity, total) };
}
