// Thumbnails of a dataset's images: fetched with the key when they come into sight, at most a few at a time.

import { getBlob } from "./api.js";
import { h } from "./dom.js";

const AT_A_TIME = 6;
const waiting = [];
let running = 0;

/** A thumbnail; `path` is an address of the API. */
export function thumbnail(path, label, { signal, small = false } = {}) {
  const image = h("img", { alt: label, class: small ? "small" : null });
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    enqueue(() => load(image, path, signal));
  }, { rootMargin: "200px" });
  observer.observe(image);
  signal?.addEventListener("abort", () => observer.disconnect(), { once: true });
  return image;
}

export async function load(image, path, signal) {
  if (signal?.aborted) return;
  try {
    const address = URL.createObjectURL(await getBlob(path, signal));
    image.onload = image.onerror = () => URL.revokeObjectURL(address); // the picture stays
    image.src = address;
  } catch (error) {
    if (error.name !== "AbortError") image.alt = `${image.alt} (${error.message})`;
  }
}

/** A list of images as figures with captions; `onPick` gets an image when its button is pressed. */
export function gallery(images, { signal, onPick = null, caption = (image) => image.label ?? image.split } = {}) {
  return h("ul", { class: "images" }, images.map((image) => {
    const small = Math.max(image.width ?? 0, image.height ?? 0) <= 64 && image.width !== undefined;
    const picture = image.url ? thumbnail(image.url, image.name ?? `image ${image.row}`, { signal, small })
      : h("div", { class: "blank", role: "img", "aria-label": `${image.name ?? `image ${image.row}`}, whose dataset was deleted` });
    const figure = h("figure", { title: image.name }, picture, h("figcaption", {}, caption(image)));
    return h("li", {}, onPick === null ? figure : h("button", { type: "button", onclick: () => onPick(image) }, figure));
  }));
}

function enqueue(task) {
  waiting.push(task);
  next();
}

async function next() {
  if (running >= AT_A_TIME || waiting.length === 0) return;
  running += 1;
  await waiting.shift()();
  running -= 1;
  next();
}
