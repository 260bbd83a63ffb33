// A map of many points, drawn by WebGL in a sandboxed frame (see frame.js).

import { url } from "./api.js";
import { CONFIG, layout } from "./charts.js";
import { h } from "./dom.js";

export class MapFrame {
  /** `on` has a handler for each of hover(row, x, y), unhover(), click(row) and selected(rows); x and y are in the page. */
  constructor(element, label, on, signal) {
    this.frame = h("iframe", { src: url("page/frame.html"), sandbox: "allow-scripts", title: label });
    this.isReady = false;
    this.last = null;
    const receive = (message) => message.source === this.frame.contentWindow && this.receive(message.data, on);
    const redraw = () => this.last && this.draw(...this.last);
    addEventListener("message", receive);
    addEventListener("themechange", redraw);
    signal.addEventListener("abort", () => {
      removeEventListener("message", receive);
      removeEventListener("themechange", redraw);
    });
    element.append(this.frame);
  }

  draw(traces, options) {
    this.last = [traces, options];
    const message = { traces, layout: layout(options), config: { ...CONFIG, scrollZoom: true } };
    if (this.isReady) this.frame.contentWindow.postMessage(message, "*"); // its origin is opaque
  }

  receive({ name, rows, x, y }, on) {
    const box = this.frame.getBoundingClientRect();
    if (name === "ready") {
      this.isReady = true;
      if (this.last !== null) this.draw(...this.last);
    } else if (name === "drawn") this.frame.dataset.drawn = "true";
    else if (name === "hover") on.hover(rows[0], box.left + x, box.top + y);
    else if (name === "unhover") on.unhover();
    else if (name === "click") on.click(rows[0]);
    else if (name === "selected" && rows.length > 0) on.selected(rows);
  }
}
