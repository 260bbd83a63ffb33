// View: one dataset: its classes, splits, sizes, warnings and images.

import { get, getAll, pause } from "../parts/api.js";
import { empty, facts, h, heading, panel, replace, table } from "../parts/dom.js";
import { bytes, count, jobTitle, number, status, time } from "../parts/format.js";
import { gallery } from "../parts/images.js";
import { leaderboard } from "../parts/leaderboard.js";
import { deleteButton } from "../parts/removal.js";

const POLL_MILLISECONDS = 1000;
const SAMPLE = 48;
const BARS = 12;

export async function show(main, { id, signal }) {
  const dataset = await get(`/datasets/${id}`, { signal });
  const actions = [
    dataset.status === "ready" && h("a", { class: "button primary", href: `#/new?dataset=${id}` }, "Train on it"),
    deleteButton(`/datasets/${id}`, `Delete ${dataset.name} for ever?`, "#/datasets"),
  ];
  replace(
    main,
    h("p", { class: "crumbs" }, h("a", { href: "#/datasets" }, "Datasets"), ` / ${id}`),
    heading(dataset.name, actions),
    dataset.status === "failed" && h("div", { class: "note bad", role: "alert" }, dataset.error?.detail ?? "It could not be read."),
    dataset.status === "validating" && h("p", { class: "wait", role: "status" }, "The upload is being read: every image is opened once."),
  );
  if (dataset.status === "validating") {
    await pause(POLL_MILLISECONDS, signal);
    if (!signal.aborted) await show(main, { id, signal });
    return;
  }
  const [jobs, ranking] = await Promise.all([getAll(`/jobs?dataset=${id}`, { most: 100, signal }), leaderboard(id, signal)]);
  main.append(summary(dataset));
  if (dataset.report) main.append(warnings(dataset.report), images(dataset, signal), charts(dataset.report));
  if (ranking !== null) main.append(ranking);
  main.append(panel("Jobs on it", jobs.length === 0 ? h("p", { class: "dim" }, "None yet.")
    : table("Jobs", [["Name"], ["Kind"], ["Status"], ["Created"]], jobs.map((job) => [
      h("a", { href: `#/jobs/${job.id}` }, jobTitle(job)), job.kind, status(job.status), time(job.created_at)]))));
}

function summary(dataset) {
  const report = dataset.report ?? {};
  return panel("Summary", facts([
    ["Status", status(dataset.status)],
    ["Images", dataset.report && count(countImages(report))],
    ["Classes", count(report.classes?.length)],
    ["Channels", report.channels],
    ["Left out", report.skipped_count > 0 ? `${count(report.skipped_count)} damaged files` : null],
    ["Upload", bytes(dataset.size_bytes)],
    ["SHA-256", h("code", {}, dataset.sha256)],
    ["Mean", report.mean?.map(number).join(", ")],
    ["Std", report.std?.map(number).join(", ")],
    ["Ready", dataset.ready_at && time(dataset.ready_at)],
  ]));
}

export function countImages(report) {
  return Object.values(report?.splits ?? {}).reduce((sum, split) => sum + split.images, 0);
}

function warnings(report) {
  const found = report.warnings ?? [];
  if (found.length === 0) return h("div", { class: "note good" }, "Everything in the upload was understood: there are no warnings.");
  return h("div", { class: "note warn" }, h("h2", {}, `${found.length} ${found.length === 1 ? "warning" : "warnings"}`),
    h("ul", {}, found.map((warning) => h("li", {}, warning.detail, ` (${warning.code}, ${count(warning.count)})`,
      warning.examples?.length ? h("div", { class: "hint mono" }, warning.examples.slice(0, 5).join(" · ")) : null))));
}

function charts(report) {
  const splits = Object.entries(report.splits).filter(([, split]) => split.images > 0);
  return h("div", { class: "grid gap" },
    panel("Images of each split", bars(splits.map(([name, split]) => [name, split.images]))),
    report.classes.length > 0 && panel("Images of each class", bars(countClasses(report))),
    panel("Sizes in pixels", bars(report.sizes.map((size) => [`${size.width} × ${size.height}`, size.images]))));
}

function countClasses(report) {
  const splits = Object.values(report.splits);
  const total = (place) => splits.reduce((sum, split) => sum + (split.per_class[place] ?? 0), 0);
  return report.classes.map((name, place) => [name, total(place)]).sort((a, b) => b[1] - a[1]);
}

function bars(entries) {
  const most = Math.max(1, ...entries.map(([, images]) => images));
  const shown = entries.slice(0, BARS);
  const left = entries.length - shown.length;
  return [
    h("div", { class: "bars" }, shown.map(([name, images]) => [
      h("span", { class: "name", title: name }, name),
      h("meter", { min: "0", max: String(most), value: String(images), "aria-label": `${name}: ${images} images` }),
      h("span", { class: "count" }, count(images))])),
    left > 0 && h("p", { class: "hint" }, `and ${count(left)} more.`),
  ];
}

function images(dataset, signal) {
  const grid = h("div", {}, h("p", { class: "wait" }, "Loading images …"));
  const select = (id, label, options) => [
    h("div", { class: "field" }, h("label", { for: id }, label),
      h("select", { id, onchange: draw }, h("option", { value: "" }, "All"), options.map((name) => h("option", { value: name }, name))))];
  const splits = Object.entries(dataset.report.splits).filter(([, split]) => split.images > 0).map(([name]) => name);
  const controls = h("div", { class: "row" },
    select("image-split", "Split", splits),
    dataset.report.classes?.length ? select("image-class", "Class", dataset.report.classes) : null,
    h("button", { type: "button", onclick: () => (seed += 1, draw()) }, "Draw others"));
  let seed = 0;

  async function draw() {
    const query = new URLSearchParams({ sample: String(SAMPLE), limit: String(SAMPLE), seed: String(seed) });
    const [split, name] = ["image-split", "image-class"].map((id) => controls.querySelector(`#${id}`)?.value);
    if (split) query.set("split", split);
    if (name) query.set("class", name);
    try {
      const page = await get(`/datasets/${dataset.id}/images?${query}`, { signal });
      replace(grid, page.data.length === 0 ? empty("No images", "None has this split and class.") : gallery(page.data, { signal }));
    } catch (error) {
      if (error.name !== "AbortError") replace(grid, h("div", { class: "note bad" }, error.message));
    }
  }
  draw();
  return panel("Images", controls, grid);
}
