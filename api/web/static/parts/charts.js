// Charts by Plotly, whose script is loaded when the first chart is drawn.

import { url } from "./api.js";

// Plotly's script adds the style of its maps unless there is an element with this id; the page has no maps of that kind,
// and its security policy refuses inline styles.
const MAP_STYLE_ID = "9f215cf04c5486422605d13261cb87401f4e7763b6296af81e98efbc0130da53";
export const COLOURS = ["#0d9488", "#d97706", "#7c3aed", "#dc2626", "#2563eb", "#65a30d", "#db2777", "#0891b2", "#a16207", "#64748b"];
let loading = null;

export function loadPlotly() {
  loading ??= new Promise((resolve, reject) => {
    const placeholder = document.createElement("template");
    placeholder.id = MAP_STYLE_ID;
    const script = document.createElement("script");
    script.src = url("page/plotly.min.js");
    script.onload = () => resolve(globalThis.Plotly);
    script.onerror = () => reject(new Error("The script of the charts could not be loaded."));
    document.head.append(placeholder, script);
  });
  return loading;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The layout of a chart in the colours of the theme. */
export function layout(options) {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--ink"), size: 12, family: "system-ui, sans-serif" },
    margin: { l: 48, r: 12, t: 12, b: 40 },
    showlegend: false,
    legend: { orientation: "h", y: 1.15, yanchor: "bottom" },
    hoverlabel: { bgcolor: colour("--panel"), font: { color: colour("--ink") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--dim"), activecolor: colour("--accent") },
    ...options,
    xaxis: { ...axis, ...options.xaxis },
    yaxis: { ...axis, ...options.yaxis },
  };
}

// Plotly offers to upload a chart to its own servers; here nothing leaves the page.
export const CONFIG = { displaylogo: false, responsive: true, plotlyServerURL: "", showSendToCloud: false, modeBarButtonsToRemove: ["toImage", "sendChartToCloud"] };

/** A chart in `element`. `draw(traces, options)` draws or updates it; zoom and visibility stay. */
export class Chart {
  constructor(element, signal) {
    this.element = element;
    this.last = null;
    const redraw = () => this.last && this.draw(...this.last);
    addEventListener("themechange", redraw);
    signal?.addEventListener("abort", () => {
      removeEventListener("themechange", redraw);
      globalThis.Plotly?.purge(element);
    });
  }

  async draw(traces, options = {}) {
    this.last = [traces, options];
    const plotly = await loadPlotly();
    if (!this.element.isConnected) return;
    await plotly.react(this.element, traces, layout({ uirevision: "same", ...options }), { ...CONFIG, scrollZoom: Boolean(options.scrollZoom) });
  }
}

/** The type of a trace of many points: drawn by WebGL, or as SVG where the browser has none. */
export function scatterType() {
  return document.createElement("canvas").getContext("webgl") === null ? "scatter" : "scattergl";
}

/** Exponential moving average; `weight` from 0 (none) to below 1. Starts unbiased; null values stay null. */
export function smooth(values, weight) {
  if (weight === 0) return values;
  let [sum, mass] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}
