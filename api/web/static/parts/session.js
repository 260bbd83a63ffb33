// The session: the key, kept for this tab until it is closed, and the way to it by a one-time token.

const KEY = "twoviews.key";
const KEY_ID = "twoviews.key_id";

export function getKey() {
  return sessionStorage.getItem(KEY);
}

/** The id of the key, if it was made for this session; null for a key that the user has typed in. */
export function getKeyId() {
  return sessionStorage.getItem(KEY_ID);
}

export function begin(key, id = null) {
  sessionStorage.setItem(KEY, key);
  if (id !== null) sessionStorage.setItem(KEY_ID, id);
}

export function end() {
  sessionStorage.removeItem(KEY);
  sessionStorage.removeItem(KEY_ID);
}

/** Take the token out of the address, so that neither history nor a bookmark keeps it. */
export function takeToken() {
  const match = /^#token=([\w-]+)$/.exec(location.hash);
  if (match === null) return null;
  history.replaceState(null, "", location.pathname + location.search);
  return match[1];
}
