// View: jobs over each other: their curves, results, and the fields in which their configs differ.

import { get, getAll } from "../parts/api.js";
import { COLOURS, Chart, smooth } from "../parts/charts.js";
import { empty, h, heading, panel, replace, table } from "../parts/dom.js";
import { inline, jobTitle, percent, status } from "../parts/format.js";
import { result } from "./jobs.js";

const NAMES = ["train/loss", "online/knn", "online/linear", "online/top1", "train/std", "train/rankme", "train/lr"];
const MAX_POINTS = 1000;
const MAX_JOBS = 20;

export async function show(main, { parameters, signal }) {
  const chosen = (parameters.get("ids") ?? "").split(",").filter(Boolean).slice(0, MAX_JOBS);
  const jobs = (await getAll("/jobs", { most: 200, signal })).filter((job) => ["pretrain", "supervised", "finetune", "distill"].includes(job.kind) || chosen.includes(job.id));
  const toggle = (id, on) => {
    lastToggled = id;
    const ids = on ? [...chosen, id] : chosen.filter((other) => other !== id);
    location.hash = `#/compare?ids=${ids.join(",")}`;
  };
  const picker = jobs.length === 0 ? empty("No runs to compare yet", h("p", {}, "Start a ", h("a", { href: "#/new" }, "new job"), " or two."))
    : panel("Runs", table("Runs", [["Compare"], ["Name"], ["Kind"], ["Status"], ["Accuracy", "number"]], jobs.slice(0, 60).map((job) => [
      h("input", { type: "checkbox", value: job.id, checked: chosen.includes(job.id), "aria-label": `Compare ${jobTitle(job)} ${job.id.slice(-6)}`, onchange: (event) => toggle(job.id, event.target.checked) }),
      [chosen.includes(job.id) && h("span", { class: "swatch", "data-colour": String(chosen.indexOf(job.id) % COLOURS.length) }, "● "), h("a", { href: `#/jobs/${job.id}` }, jobTitle(job)), h("span", { class: "hint" }, ` ${job.id.slice(-6)}`)],
      job.kind, status(job.status), percent(result(job))])));
  const body = h("div", {});
  replace(main, heading("Compare"), body, picker);
  for (const swatch of picker.querySelectorAll(".swatch")) swatch.style.color = COLOURS[Number(swatch.dataset.colour)];
  [...picker.querySelectorAll("input")].find((box) => box.value === lastToggled)?.focus();
  if (chosen.length === 0) return;
  await compare(body, chosen, signal).catch((error) => {
    if (!signal.aborted) replace(body, h("div", { class: "note bad", role: "alert" }, error.message));
  });
}

let lastToggled = null; // its box gets the focus again

async function compare(body, ids, signal) {
  const query = new URLSearchParams({ ids: ids.join(","), max_points: String(MAX_POINTS) });
  const comparison = await get(`/jobs/compare?${query}`, { signal });
  const curves = h("div", { class: "curves" });
  const state = { smoothing: 0 };
  const slider = h("input", { type: "range", id: "smoothing", min: "0", max: "0.99", step: "0.01", value: "0", oninput: () => ((state.smoothing = Number(slider.value)), draw()) });
  const charts = new Map();
  replace(body,
    panel("Curves", h("div", { class: "row" }, h("div", { class: "field" }, h("label", { for: "smoothing" }, "Smoothing"), slider)), curves),
    panel("Differences of the configs", differences(comparison)));

  function draw() {
    for (const name of NAMES) {
      const found = comparison.jobs.map((job, place) => [job, place, job.series.find((series) => series.name === name)]).filter(([, , series]) => series !== undefined);
      if (found.length === 0) continue;
      if (!charts.has(name)) {
        const plot = h("div", { class: "plot", role: "img", "aria-label": `Chart: ${name}` });
        curves.append(h("div", {}, h("h3", {}, name), plot));
        charts.set(name, new Chart(plot, signal));
      }
      charts.get(name).draw(found.map(([job, place, series]) => ({
        type: "scatter", mode: series.step.length < 40 ? "lines+markers" : "lines", name: `${title(job)} ${job.id.slice(-6)}`.replaceAll("<", "&lt;"),
        x: series.epoch, y: smooth(series.value, state.smoothing), line: { color: COLOURS[place % COLOURS.length], width: 2 },
      })), { hovermode: "x unified", showlegend: found.length > 1, xaxis: { title: { text: "epoch" } } });
    }
  }
  draw();
}

function differences(comparison) {
  const jobs = comparison.jobs;
  if (jobs.length < 2) return h("p", { class: "dim" }, "Choose a second run to see in which fields they differ.");
  if (comparison.differences.length === 0) return h("p", { class: "dim" }, "Their configs are the same.");
  return table("Differences", [["Field"], ...jobs.map((job) => [`${title(job)} ${job.id.slice(-6)}`])], comparison.differences.map((difference) => [
    h("code", {}, difference.pointer), ...jobs.map((job) => (difference.values[job.id] === undefined ? "–" : h("code", {}, inline(difference.values[job.id]))))]));
}

function title(job) {
  return job.name || [job.kind, job.method].filter(Boolean).join(" · ");
}
