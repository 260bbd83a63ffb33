// Formats of numbers, times and statuses.

import { h } from "./dom.js";

export function count(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en-US");
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${units[unit]}`;
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return count(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const hours = Math.floor(whole / 3600);
  return hours < 48 ? `${hours} h ${Math.floor((whole % 3600) / 60)} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function time(text) {
  if (!text) return "–";
  const date = new Date(text);
  return h("time", { datetime: text, title: text }, date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }));
}

export function clock(text) {
  return h("time", { datetime: text, title: text }, new Date(text).toLocaleTimeString("en-GB"));
}

const KINDS = {
  ready: "good", succeeded: "good", failed: "bad", cancelled: "warn", cancelling: "warn", paused: "warn", pausing: "warn",
};

export function status(value) {
  return h("span", { class: `tag ${KINDS[value] ?? ""}` }, value);
}

export const TERMINAL = ["succeeded", "failed", "cancelled"];

export function jobTitle(job) {
  return job.name || [job.kind, job.config?.method?.name].filter(Boolean).join(" · ");
}

/** A value of a config, in one line. */
export function inline(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}
