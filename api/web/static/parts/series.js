// Series of metrics of a long run, in bounded memory.

const MAX_POINTS = 4000; // of each series
const FIELDS = ["step", "epoch", "value"];

/** Points of a metric, evenly thinned: above MAX_POINTS every second one is dropped, and from then on of the new ones too. */
export class KeptSeries {
  constructor() {
    Object.assign(this, { step: [], epoch: [], value: [], stride: 1, seen: 0 });
  }

  add(column) {
    for (let place = 0; place < column.step.length; place += 1) {
      if (this.seen % this.stride === 0) for (const field of FIELDS) this[field].push(column[field][place]);
      this.seen += 1;
    }
    while (this.step.length > MAX_POINTS) {
      for (const field of FIELDS) this[field] = this[field].filter((_, place) => place % 2 === 0);
      this.stride *= 2;
    }
  }
}
