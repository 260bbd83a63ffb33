// View: one job: how it goes, its curves, events, files and place among others, and its steering.

import { download, get, post, stream } from "../parts/api.js";
import { Chart, COLOURS, smooth } from "../parts/charts.js";
import { facts, h, notify, panel, replace, table } from "../parts/dom.js";
import { TERMINAL, bytes, clock, count, duration, inline, jobTitle, number, percent, status, time } from "../parts/format.js";
import { load } from "../parts/images.js";
import { lineage } from "../parts/lineage.js";
import { deleteButton } from "../parts/removal.js";
import { KeptSeries } from "../parts/series.js";
import { judge } from "../parts/verdict.js";

const DRAW_MILLISECONDS = 500;
const CURVES = [
  ["Loss", ["train/loss"]],
  ["Accuracy on held-out images", ["online/knn", "online/linear", "online/top1", "linear/top1", "knn/top1"]],
  ["Std of the embeddings", ["train/std"]],
  ["Effective rank (RankMe)", ["train/rankme"]],
  ["Learning rate", ["train/lr"]],
  ["Images per second", ["train/images_per_second"]],
];
const STEERING = [
  ["pause", "Pause", ["queued", "running", "waiting"]],
  ["resume", "Resume", ["paused", "pausing"]],
  ["retry", "Retry", ["failed", "cancelled"]],
  ["cancel", "Cancel", ["waiting", "queued", "running", "pausing", "paused"]],
];

export async function show(main, { id, signal }) {
  const job = await get(`/jobs/${id}`, { signal });
  const parts = {
    actions: h("div", { class: "actions" }), state: h("div", {}), verdict: h("div", {}), error: h("div", {}),
    curves: h("div", { class: "curves" }), files: h("div", {}), log: h("ol", { class: "log", tabindex: "0", "aria-label": "Events" }),
    lineage: h("div", {}), summary: h("div", {}),
  };
  const view = new JobView(job, parts, signal);
  const title = h("div", { class: "head" }, h("h1", {}, jobTitle(job)), parts.actions);
  replace(
    main,
    h("p", { class: "crumbs" }, h("a", { href: "#/jobs" }, "Jobs"), ` / ${id}`,
      job.sweep && [", a trial of ", h("a", { href: `#/sweeps/${job.sweep}` }, job.sweep)]),
    title,
    parts.error,
    h("div", { class: "columns" },
      h("div", {}, parts.state, parts.verdict, view.curvePanel(), parts.summary, parts.files),
      h("div", {}, panel("Lineage", parts.lineage), panel("Config", view.config()), panel("Events", parts.log))),
  );
  view.render();
  view.renderFiles();
  lineage(job, signal).then((tree) => replace(parts.lineage, tree)).catch(() => replace(parts.lineage, h("p", { class: "dim" }, "Unavailable.")));
  view.follow();
}

class JobView {
  constructor(job, parts, signal) {
    Object.assign(this, { job, parts, signal });
    this.series = new Map();
    this.codes = new Set();
    this.charts = new Map();
    this.options = { smoothing: 0, log: false, epochs: true };
    this.drawing = null;
  }

  follow() {
    const { id } = this.job;
    this.read(`/jobs/${id}/metrics/stream`, (message) => this.addPoints(message.data.series));
    this.read(`/jobs/${id}/events/stream`, (message) => this.addEvent(message.data));
    this.poll();
  }

  async read(path, onMessage) {
    try {
      for await (const message of stream(path, this.signal)) {
        if (message.event === "done") await this.refresh();
        else onMessage(message);
      }
    } catch (error) {
      if (!this.signal.aborted) notify(error.message, "bad");
    }
  }

  async poll() {
    while (!this.signal.aborted && !TERMINAL.includes(this.job.status)) {
      await new Promise((resolve) => setTimeout(resolve, 2000));
      if (this.signal.aborted || document.hidden) continue;
      try {
        await this.refresh();
      } catch (error) {
        if (error.status !== 404) continue; // away for a moment, or signed out
        if (!this.signal.aborted) notify("This job was deleted.", "bad");
        return;
      }
    }
  }

  async refresh() {
    const before = this.job.status;
    this.job = await get(`/jobs/${this.job.id}`, { signal: this.signal });
    this.render();
    if (before !== this.job.status) await this.renderFiles();
  }

  async steer(verb) {
    try {
      this.job = await post(`/jobs/${this.job.id}/${verb}`, verb === "retry" ? {} : undefined);
      this.render();
      if (verb === "retry") this.restart();
    } catch (error) {
      notify(error.message, "bad");
    }
  }

  /** Follow a retried job from the start: its streams have ended, and it may have fewer points. */
  restart() {
    this.series.clear();
    this.codes.clear();
    replace(this.parts.log);
    this.follow();
  }

  render() {
    const { job, parts } = this;
    const verbs = STEERING.filter(([, , statuses]) => statuses.includes(job.status));
    replace(parts.actions,
      verbs.map(([verb, label]) => h("button", { type: "button", "data-verb": verb, class: verb === "cancel" ? "danger" : null, onclick: () => this.steer(verb) }, label)),
      job.dataset && h("a", { class: "button", href: `#/new?clone=${job.id}` }, "Clone"),
      h("a", { class: "button", href: `#/compare?ids=${job.id}` }, "Compare"),
      TERMINAL.includes(job.status) && deleteButton(`/jobs/${job.id}`, "Delete this job with its checkpoints, metrics and files?", "#/jobs"));
    replace(parts.error, job.error && h("div", { class: "note bad", role: "alert" }, h("strong", {}, job.error.code ?? "failed"), " ", job.error.detail ?? job.error.message ?? ""));
    replace(parts.state, panel("Progress", this.progress()));
    this.renderVerdict();
    replace(parts.summary, job.summary && panel("Results", results(job)));
  }

  progress() {
    const { job } = this;
    const { progress } = job;
    const queue = job.queue && `Place ${job.queue.position} in the queue` + (job.queue.estimated_start ? "" : "; the start cannot be estimated yet");
    return [
      h("p", {}, status(job.status), " ", job.status_detail ?? ""),
      job.queue && h("p", { class: "dim" }, queue, job.queue.estimated_start && ["; starts about ", time(job.queue.estimated_start)]),
      progress && h("progress", { max: "100", value: String(progress.percent), "aria-label": "Progress" }),
      progress && h("p", { class: "dim", id: "progress-text" },
        `Epoch ${number(progress.epoch)} of ${count(progress.epochs)}, step ${count(progress.step)} of ${count(progress.total_steps)}, `,
        `${progress.percent.toFixed(1)} %`, TERMINAL.includes(job.status) ? "" : `, ${duration(progress.eta_seconds)} left`, `, ${count(Math.round(progress.images_per_second))} images/s`),
      facts([
        ["Kind", job.kind],
        ["Dataset", job.dataset && h("a", { href: `#/datasets/${job.dataset}` }, job.dataset)],
        ["Model made", job.model_id && h("a", { href: `#/models/${job.model_id}` }, job.model_id)],
        ["Attempt", job.attempt > 1 ? job.attempt : null],
        ["Created", time(job.created_at)],
        ["Started", job.started_at && time(job.started_at)],
        ["Finished", job.finished_at && time(job.finished_at)],
      ]),
    ];
  }

  renderVerdict() {
    if (this.series.get("train/loss") === undefined) return;
    const { kind, word, reason } = judge(this.series, this.codes);
    replace(this.parts.verdict, h("div", { class: `note ${kind}`, id: "verdict" }, h("strong", {}, `${word}: `), reason));
  }

  curvePanel() {
    const { options } = this;
    const redraw = () => this.draw();
    const smoothing = h("input", { type: "range", id: "smoothing", min: "0", max: "0.99", step: "0.01", value: "0",
      oninput: (event) => ((options.smoothing = Number(event.target.value)), redraw()) });
    const log = h("input", { type: "checkbox", id: "log-axis", onchange: (event) => ((options.log = event.target.checked), redraw()) });
    const axis = h("select", { id: "axis", onchange: (event) => ((options.epochs = event.target.value === "epoch"), redraw()) },
      h("option", { value: "epoch" }, "epochs"), h("option", { value: "step" }, "steps"));
    const waiting = h("p", { class: "dim", id: "no-curves" }, TERMINAL.includes(this.job.status) ? "This job left no metrics." : "The first points appear when the job runs.");
    return panel("Curves",
      h("div", { class: "row" },
        h("div", { class: "field" }, h("label", { for: "smoothing" }, "Smoothing"), smoothing),
        h("div", { class: "field" }, h("label", { for: "axis" }, "Horizontal axis"), axis),
        h("div", { class: "field" }, h("label", {}, log, " logarithmic"))),
      waiting, this.parts.curves);
  }

  addPoints(columns) {
    for (const column of columns) {
      if (!this.series.has(column.name)) this.series.set(column.name, new KeptSeries());
      this.series.get(column.name).add(column);
    }
    this.renderVerdict();
    this.drawing ??= setTimeout(() => ((this.drawing = null), this.draw()), DRAW_MILLISECONDS);
  }

  draw() {
    if (this.signal.aborted) return;
    for (const [title, names] of CURVES) {
      const found = names.filter((name) => this.series.has(name));
      if (found.length > 0) this.chart(title).draw(this.traces(found), this.layout(title, found));
    }
    const waiting = document.getElementById("no-curves");
    if (waiting && this.charts.size > 0) waiting.hidden = true;
  }

  chart(title) {
    if (!this.charts.has(title)) {
      const plot = h("div", { class: "plot", role: "img", "aria-label": `Chart: ${title}` });
      this.parts.curves.append(h("div", {}, h("h3", {}, title), plot));
      this.charts.set(title, new Chart(plot, this.signal));
    }
    return this.charts.get(title);
  }

  traces(names) {
    return names.map((name, place) => {
      const series = this.series.get(name);
      return { type: "scatter", mode: series.step.length < 40 ? "lines+markers" : "lines", name, line: { color: COLOURS[place], width: 2 },
        x: this.options.epochs ? series.epoch : series.step, y: smooth(series.value, this.options.smoothing) };
    });
  }

  layout(title, names) {
    const isRatio = title.startsWith("Accuracy");
    return { showlegend: names.length > 1, hovermode: "x unified", yaxis: { type: this.options.log ? "log" : "linear", tickformat: isRatio ? ".0%" : null },
      xaxis: { title: { text: this.options.epochs ? "epoch" : "step" } } };
  }

  addEvent(event) {
    this.codes.add(event.code);
    const entry = h("li", {}, clock(event.time), event.level !== "info" && h("span", { class: `tag ${event.level === "error" ? "bad" : "warn"}` }, event.level), " ", event.message);
    this.parts.log.prepend(entry);
    this.renderVerdict();
  }

  async renderFiles() {
    const { data } = await get(`/jobs/${this.job.id}/artifacts`, { signal: this.signal });
    const pictures = data.filter((file) => file.media_type === "image/png" && file.name !== "curves.png"); // they are drawn above
    replace(this.parts.files,
      pictures.map((file) => panel(file.name, h("div", { class: "figure" }, this.picture(file)))),
      data.length > 0 && panel("Files", table("Files", [["Name"], ["Size", "number"], [""]], data.map((file) => [
        file.name, bytes(file.size_bytes), h("button", { type: "button", "aria-label": `Download ${file.name}`, onclick: () => download(file.url, file.name).catch((error) => notify(error.message, "bad")) }, "Download")]))),
      data.some((file) => file.name === "coordinates.json") && h("p", {}, h("a", { class: "button primary", href: `#/map?job=${this.job.id}` }, "Open the map")));
  }

  picture(file) {
    const image = h("img", { alt: `${file.name} of ${jobTitle(this.job)}` });
    load(image, file.url, this.signal);
    return image;
  }

  config() {
    const shown = Object.entries(this.job.resolved ?? this.job.config);
    const asked = this.job.config;
    return [
      facts(shown.filter(([, value]) => value !== null && typeof value !== "object").map(([name, value]) =>
        [name, [h("code", {}, inline(value)), asked[name] === "auto" && value !== "auto" ? h("span", { class: "hint" }, " from auto") : null]])),
      h("details", {}, h("summary", {}, "The whole config as JSON"), h("pre", { tabindex: "0" }, JSON.stringify(this.job.resolved ?? this.job.config, null, 2))),
    ];
  }
}

function results(job) {
  const plain = Object.entries(job.summary).filter(([, value]) => value !== null && typeof value !== "object");
  const ratio = (name, value) => typeof value === "number" && /^(top\d|knn|linear|ece)/.test(name) && value <= 1;
  return [
    facts(plain.map(([name, value]) => [name, ratio(name, value) ? percent(value) : typeof value === "number" ? number(value) : inline(value)])),
    h("details", {}, h("summary", {}, "All results as JSON"), h("pre", { tabindex: "0" }, JSON.stringify(job.summary, null, 2))),
  ];
}

