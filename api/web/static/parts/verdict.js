// A line in plain words on how a run goes, and why that is said. docs/watch.md describes the metrics.

const COLLAPSED_STD = 0.1; // of the unit-length embeddings scaled by √d: near 1 is healthy
const COLLAPSED_RANK = 2; // RankMe: 1 is collapse
const MIN_POINTS = 5;
const FLAT = 0.01; // relative change of the loss between the first and the last fifth

/**
 * Judge the series of a run, by name: {kind: "good"|"warn"|"bad"|"", word, reason}.
 * `codes` are the codes of the job's events.
 */
export function judge(series, codes = new Set()) {
  const last = (name) => series.get(name)?.value.findLast((value) => value !== null);
  const loss = (series.get("train/loss")?.value ?? []).filter((value) => value !== null);
  const [std, rank] = [last("train/std"), last("train/rankme")];
  if (codes.has("diverging")) return say("bad", "Diverging", "the loss exploded while it was still a number; lower the learning rate.");
  if (codes.has("collapse")) return say("bad", "Collapsing", "the service reported that the embeddings of different images have become alike.");
  if (std !== undefined && std < COLLAPSED_STD) return say("bad", "Collapsing", `the std of the embeddings is ${std.toFixed(3)}: near 1 is healthy, 0 is collapse.`);
  if (rank !== undefined && rank < COLLAPSED_RANK) return say("bad", "Collapsing", `the effective rank (RankMe) is ${rank.toFixed(1)}: the embeddings lie on a line.`);
  if (loss.length < MIN_POINTS) return say("", "Starting", "there are too few points of the loss to tell.");
  const accuracy = improvement(series.get("online/knn") ?? series.get("online/top1"));
  if (accuracy !== null && accuracy > 0.01) return say("good", "Learning", `accuracy on held-out images rose by ${(100 * accuracy).toFixed(1)} points${spread(std)}.`);
  const change = relativeChange(loss);
  if (change < -FLAT) return say("good", "Learning", `the loss fell by ${Math.abs(100 * change).toFixed(0)} %${spread(std)}.`);
  if (change > FLAT) return say("warn", "Getting worse", `the loss rose by ${(100 * change).toFixed(0)} %.`);
  return say("warn", "Flat", "the loss has hardly changed between the first and the last fifth of the run.");
}

function say(kind, word, reason) {
  return { kind, word, reason };
}

function spread(std) {
  return std === undefined ? "" : `, and the embeddings are spread out (std ${std.toFixed(2)})`;
}

function improvement(series) {
  const values = (series?.value ?? []).filter((value) => value !== null);
  return values.length < 2 ? null : values.at(-1) - values[0];
}

function relativeChange(values) {
  const fifth = Math.max(1, Math.floor(values.length / 5));
  const mean = (part) => part.reduce((sum, value) => sum + value, 0) / part.length;
  const [first, last] = [mean(values.slice(0, fifth)), mean(values.slice(-fifth))];
  return first === 0 ? 0 : (last - first) / Math.abs(first);
}
