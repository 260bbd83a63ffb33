// View: a map of a model's features: colours, thumbnails under the pointer, selections, neighbours.

import { get, getAll } from "../parts/api.js";
import { COLOURS, scatterType } from "../parts/charts.js";
import { empty, h, heading, panel, replace } from "../parts/dom.js";
import { count, jobTitle } from "../parts/format.js";
import { gallery, load } from "../parts/images.js";
import { MapFrame } from "../parts/map_frame.js";

const NEIGHBOURS = 12;
const MAX_SHOWN = 60;
const HOVER_MILLISECONDS = 60;

export async function show(main, { parameters, signal }) {
  const jobs = (await getAll("/jobs?kind=project&status=succeeded", { most: 100, signal }))
    .filter((job) => !parameters.get("dataset") || job.dataset === parameters.get("dataset"));
  if (jobs.length === 0) {
    replace(main, heading("Map"), empty("No map yet", h("p", {}, "A job of the kind `project` arranges images by their features."),
      h("p", {}, h("a", { class: "button primary", href: "#/new?kind=project" }, "Make one"))));
    return;
  }
  const job = jobs.find((candidate) => candidate.id === parameters.get("job")) ?? jobs[0];
  const [coordinates, indexes] = await Promise.all([
    get(`/jobs/${job.id}/artifacts/coordinates.json`, { signal }), getAll(`/indexes?status=ready&dataset=${job.dataset}`, { signal }).catch(() => [])]);
  const rows = new Set((parameters.get("rows") ?? "").split(",").filter(Boolean).map(Number));
  const index = indexes.find((candidate) => candidate.model === job.model && candidate.layer === coordinates.layer) ?? null;
  new FeatureMap(main, { jobs, job, coordinates, index, rows }, signal).show();
}

class FeatureMap {
  constructor(main, data, signal) {
    Object.assign(this, { main, signal }, data);
    this.points = data.coordinates.points;
    this.methods = Object.keys(data.coordinates.methods);
    this.method = this.methods[0];
    this.type = scatterType();
    this.colours = data.rows.size > 0 ? "rows" : data.coordinates.classes.length > 0 ? "label" : "split";
    this.card = h("div", { class: "hover-card", hidden: true, "aria-hidden": "true" });
    this.details = h("div", { "aria-live": "polite" });
  }

  show() {
    const option = (value, text) => h("option", { value }, text);
    const choose = (id, label, options, value, onChange) => {
      const control = h("select", { id, onchange: () => onChange(control.value) }, options.map(([key, text]) => option(key, text)));
      control.value = value;
      return h("div", { class: "field" }, h("label", { for: id }, label), control);
    };
    const colours = [["label", "class"], ["split", "split"], ...(this.rows.size > 0 ? [["rows", "search result"]] : [])];
    const plot = h("div", { class: "plot tall", id: "map" });
    replace(this.main, heading("Map"),
      panel("Options", h("div", { class: "row" },
        choose("map-job", "Map", this.jobs.map((job) => [job.id, `${jobTitle(job)} (${job.id.slice(-6)})`]), this.job.id, (id) => (location.hash = `#/map?job=${id}`)),
        choose("map-method", "Method", this.methods.map((name) => [name, name]), this.method, (name) => ((this.method = name), this.draw())),
        choose("map-colour", "Colour by", colours, this.colours, (name) => ((this.colours = name), this.draw())), this.rowForm())),
      panel(`${count(this.points.length)} images`, plot, h("p", { class: "hint" }, "Drag to select images with the lasso, click a point for its neighbours, scroll to zoom.")),
      this.details, this.card);
    this.byRow = new Map(this.points.map((point) => [point.row, point]));
    this.frame = new MapFrame(plot, `Map of ${count(this.points.length)} images`, {
      hover: (row, x, y) => this.hover(this.byRow.get(row), x, y),
      unhover: () => this.unhover(),
      click: (row) => this.neighbours(this.byRow.get(row)),
      selected: (rows) => this.selected(rows.map((row) => this.byRow.get(row))),
    }, this.signal);
    this.signal.addEventListener("abort", () => this.card.remove());
    this.draw();
  }

  /** What a click on a point does, by the keyboard. */
  rowForm() {
    const row = h("input", { id: "map-row", type: "number", min: "0", placeholder: "Enter shows its neighbours" });
    const submit = (event) => {
      event.preventDefault();
      const point = this.byRow.get(Number(row.value));
      if (point === undefined || row.value === "") replace(this.details, h("div", { class: "note warn" }, "This row is not on the map."));
      else this.neighbours(point);
    };
    return h("form", { class: "field", onsubmit: submit }, h("label", { for: "map-row" }, "Row"), row);
  }

  draw() {
    const axis = { showgrid: false, zeroline: false, showticklabels: false, showline: false };
    const groups = this.groups();
    this.frame.draw(groups.map(([name, points], place) => this.trace(name, points, place, groups.length)), {
      dragmode: "lasso", hovermode: "closest", showlegend: groups.length <= 30, uirevision: this.method,
      xaxis: axis, yaxis: axis, margin: { l: 8, r: 8, t: 8, b: 8 }, legend: { orientation: "h", y: -0.02 },
    });
  }

  groups() {
    const name = { label: (point) => (point.label === null ? "no label" : this.coordinates.classes[point.label]), split: (point) => point.split,
      rows: (point) => (this.rows.has(point.row) ? "found" : "others") }[this.colours];
    const groups = new Map();
    for (const point of this.points) {
      const key = name(point);
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(point);
    }
    return [...groups].sort(([a], [b]) => (this.colours === "rows" ? b.length - a.length : a.localeCompare(b, "en", { numeric: true })));
  }

  trace(name, points, place, of) {
    const colour = of <= COLOURS.length ? COLOURS[place] : `hsl(${Math.round((360 * place) / of)} 65% ${place % 2 ? 45 : 60}%)`;
    const [faint, isFound] = ["others", "found"].map((group) => this.colours === "rows" && name === group);
    return {
      type: this.type, mode: "markers", name: escape(name), x: points.map((point) => point[this.method][0]), y: points.map((point) => point[this.method][1]),
      customdata: points.map((point) => point.row), hoverinfo: "none",
      marker: { size: isFound ? 11 : this.points.length > 20000 ? 3 : 6, color: faint ? "#94a3b8" : colour, opacity: faint ? 0.35 : 0.85 },
    };
  }

  image(point) {
    const label = point.label === null ? "no label" : this.coordinates.classes[point.label];
    return { row: point.row, label, split: point.split, url: `/datasets/${this.job.dataset}/images/${point.row}?size=128` };
  }

  hover(point, x, y) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const { label, split, url } = this.image(point);
      const image = h("img", { alt: "" });
      this.hovered?.abort();
      this.hovered = new AbortController();
      load(image, url, AbortSignal.any([this.hovered.signal, this.signal]));
      replace(this.card, image, h("div", {}, `${label} · ${split} · row ${point.row}`));
      this.card.hidden = false;
      this.card.style.left = `${Math.min(x + 14, innerWidth - 190)}px`;
      this.card.style.top = `${Math.min(y + 14, innerHeight - 200)}px`;
    }, HOVER_MILLISECONDS);
  }

  unhover() {
    clearTimeout(this.timer);
    this.card.hidden = true;
  }

  selected(points) {
    const rows = points.map((point) => point.row).sort((a, b) => a - b);
    replace(this.details, panel(`${count(points.length)} selected`,
      gallery(points.slice(0, MAX_SHOWN).map((point) => this.image(point)), { signal: this.signal }),
      points.length > MAX_SHOWN && h("p", { class: "hint" }, `The first ${MAX_SHOWN} are shown.`),
      h("details", {}, h("summary", {}, "Their rows"), h("pre", { tabindex: "0", id: "selected-rows" }, rows.join(", ")))));
  }

  async neighbours(point) {
    const label = `Neighbours of row ${point.row}`;
    if (this.index === null) {
      const near = this.nearest(point);
      replace(this.details, panel(label, h("p", { class: "hint" }, "The nearest on this map; build an index under Search for the nearest in the features themselves."),
        gallery([point, ...near].map((other) => this.image(other)), { signal: this.signal })));
      return;
    }
    location.hash = `#/search?index=${this.index.id}&row=${point.row}`;
  }

  nearest(point) {
    const [x, y] = point[this.method];
    const distance = (other) => (other[this.method][0] - x) ** 2 + (other[this.method][1] - y) ** 2;
    return this.points.filter((other) => other !== point).sort((a, b) => distance(a) - distance(b)).slice(0, NEIGHBOURS);
  }
}

/** Plotly reads a few tags in names; a class called `<b>` is shown as it is. */
function escape(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
