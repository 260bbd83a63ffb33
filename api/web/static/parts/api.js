// The HTTP API: requests with the session's key, problems as errors, uploads with progress, streams of events.

import { getKey } from "./session.js";

const ROOT = new URL(".", document.baseURI);
const RETRY_MILLISECONDS = 2000;

/** An error of the API (RFC 9457), or `status` 0 when there was no response. */
export class Problem extends Error {
  constructor(content, status) {
    super(content.detail || content.title || `The service answered ${status}.`);
    this.status = status;
    this.code = content.code ?? "";
    this.errors = content.errors ?? [];
  }
}

export function url(path) {
  return new URL(path.replace(/^\//, ""), ROOT);
}

export async function request(method, path, { body, signal, headers = {} } = {}) {
  const options = { method, signal, headers: { ...authorization(), ...headers }, cache: "no-store" };
  if (body !== undefined) {
    options.body = body instanceof FormData ? body : JSON.stringify(body);
    if (!(body instanceof FormData)) options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(url(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ detail: "The service cannot be reached. Is it running?" }, 0);
  }
  if (response.status === 401 && getKey() !== null) dispatchEvent(new Event("signedout"));
  if (!response.ok) throw await toProblem(response);
  return response;
}

export async function get(path, options) {
  return (await request("GET", path, options)).json();
}

/** `key` is the Idempotency-Key: the same for a request that is repeated. */
export async function post(path, body, { key = makeKey(), signal } = {}) {
  return (await request("POST", path, { body, signal, headers: { "Idempotency-Key": key } })).json();
}

export function makeKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export async function send(method, path, body) {
  const response = await request(method, path, { body });
  return response.status === 204 ? null : response.json();
}

/** All pages of a list, at most `most` entries. */
export async function getAll(path, { most = 500, signal } = {}) {
  const entries = [];
  let after = null;
  do {
    const joined = `${path}${path.includes("?") ? "&" : "?"}limit=100${after === null ? "" : `&after=${encodeURIComponent(after)}`}`;
    const page = await get(joined, { signal });
    entries.push(...page.data);
    after = page.has_more ? page.next : null;
  } while (after !== null && entries.length < most);
  return entries;
}

/** A file of the API as a blob; an image element cannot send the key. */
export async function getBlob(path, signal) {
  return (await request("GET", path, { signal })).blob();
}

export async function download(path, name) {
  const address = URL.createObjectURL(await getBlob(path));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

/** Upload a form; `onProgress` gets the fraction sent. Fetch has no progress of uploads, XMLHttpRequest has. */
export function upload(path, form, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const sender = new XMLHttpRequest();
    sender.open("POST", url(path));
    for (const [name, value] of Object.entries(authorization())) sender.setRequestHeader(name, value);
    sender.responseType = "json";
    sender.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    sender.onerror = () => reject(new Problem({ detail: "The connection was lost while the file was sent." }, 0));
    sender.onabort = () => reject(new DOMException("The upload was cancelled.", "AbortError"));
    sender.onload = () =>
      sender.status < 300 ? resolve(sender.response) : reject(new Problem(sender.response ?? {}, sender.status));
    signal?.addEventListener("abort", () => sender.abort());
    sender.send(form);
  });
}

/**
 * Messages {event, data} of a stream of Server-Sent Events, until `done` has been received.
 * A lost connection is opened again with the id of the last message.
 */
export async function* stream(path, signal) {
  let lastId = null;
  while (!signal.aborted) {
    try {
      const headers = { Accept: "text/event-stream", ...(lastId === null ? {} : { "Last-Event-ID": lastId }) };
      const response = await request("GET", path, { signal, headers });
      for await (const message of parse(response.body)) {
        if (message.id !== undefined) lastId = message.id;
        if (message.event === undefined) continue;
        yield { event: message.event, data: JSON.parse(message.data) };
        if (message.event === "done") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && ![0, 429, 503].includes(error.status)) throw error;
    }
    await pause(RETRY_MILLISECONDS, signal);
  }
}

async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value.replaceAll("\r\n", "\n");
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) yield parseMessage(block);
  }
}

function parseMessage(block) {
  const message = {};
  for (const line of block.split("\n")) {
    const match = /^(event|data|id): ?(.*)$/.exec(line);
    if (match !== null) message[match[1]] = match[1] in message ? `${message[match[1]]}\n${match[2]}` : match[2];
  }
  return message;
}

export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

function authorization() {
  const key = getKey();
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

async function toProblem(response) {
  let content = {};
  try {
    content = await response.json();
  } catch {
    // a proxy answered
  }
  return new Problem(content, response.status);
}
