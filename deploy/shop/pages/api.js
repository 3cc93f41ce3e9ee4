// The shop's door: a session that is renewed before it ends, and requests that are repeated until somebody answers.
// Only what may be repeated is sent: reads, whole states, and what carries an Idempotency-Key.
import { pause } from "./ui.js";

const FIRST_PAUSE_MS = 400;
const LONGEST_PAUSE_MS = 6000;
const PATIENCE_MS = 20000;
const BUSY = new Set([429, 502, 503, 504]);
const WANTED = ["cart", "paying", "after", "email"];

export const slug = new URLSearchParams(location.search).get("shop") ?? "";

// Kept for all tabs of this shop: the cart's id, what is being paid, and that somebody came in. No token is: the access token
// is in this module's memory, and the refresh token in a cookie that is the token endpoint's alone (see ADR 0040).
export const kept = {
  get: (name) => JSON.parse(localStorage.getItem(`shop:${slug}:${name}`)),
  set: (name, value) => localStorage.setItem(`shop:${slug}:${name}`, JSON.stringify(value)),
  drop: (...names) => names.forEach((name) => localStorage.removeItem(`shop:${slug}:${name}`)),
};

export class Refused extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail ?? String(status));
    Object.assign(this, { status, problem, retryAfter, detail: problem.detail, code: problem.code ?? problem.error });
  }
}

let shop = null;
let access = "";
let renewAt = 0;
let renewing = null;

export async function openShop() {
  shop = (await send("GET", `/v1/storefronts/${encodeURIComponent(slug)}`)).body;
  return shop;
}

function token() {
  if (Date.now() < renewAt) return access;
  renewing ??= alone(renewed).finally(() => (renewing = null));
  return renewing;
}

// Two tabs must not use one refresh token twice.
function alone(act) {
  return navigator.locks ? navigator.locks.request(`shop:${slug}:session`, act) : act();
}

async function renewed() {
  if (kept.get("in")) {
    try {
      return await refreshed();
    } catch (error) {
      if (error.status !== 400) throw error;
      forget();
    }
  }
  const body = { tenant_id: shop.tenant_id, refresh_token_in: "cookie" };
  return take((await send("POST", "/v1/sessions", { body })).body);
}

// Of the token in the cookie, or of one that takes its place there.
async function refreshed(given = {}) {
  const asked = { grant_type: "refresh_token", refresh_token_in: "cookie", tenant_id: shop.tenant_id };
  return take((await send("POST", "/oauth/token", { form: new URLSearchParams({ ...asked, ...given }) })).body);
}

function take(granted) {
  kept.set("in", true);
  access = granted.access_token;
  renewAt = Date.now() + granted.expires_in * 800;
  return access;
}

export function forget() {
  kept.drop("in", ...WANTED);
  access = "";
  renewAt = 0;
}

// Comes in by a link that the shop's own server made for somebody it knows; not by one that is good no more.
export async function comeIn(refresh) {
  try {
    await alone(() => refreshed({ refresh_token: refresh }));
  } catch (error) {
    if (error.status !== 400) throw error;
    return false;
  }
  kept.drop(...WANTED);
  kept.set("changed", Date.now());
  return true;
}

export async function leave() {
  await request("DELETE", "/v1/sessions/current").catch(() => null);
  forget();
  kept.set("changed", Date.now());
}

// Who somebody is, they are in every tab.
addEventListener("storage", (event) => {
  if (event.key === `shop:${slug}:changed`) location.reload();
});

export async function request(method, path, { signal, ...asked } = {}) {
  let mayRenew = true;
  for (;;) {
    try {
      return await send(method, path, { ...asked, signal, bearer: await token() });
    } catch (error) {
      if (error.status !== 401 || !mayRenew) throw error;
      [mayRenew, renewAt] = [false, 0];
    }
  }
}

// Until it is answered: the same request, the same key. What the page shows meanwhile is that nobody answers.
async function send(method, path, { body, form, key, prefer, tag, bearer, signal } = {}) {
  const headers = new Headers();
  if (bearer) headers.set("Authorization", `Bearer ${bearer}`);
  if (key) headers.set("Idempotency-Key", key);
  if (prefer) headers.set("Prefer", prefer);
  if (tag) headers.set("If-None-Match", tag);
  if (body !== undefined) headers.set("Content-Type", "application/json");
  const content = form ?? (body === undefined ? undefined : JSON.stringify(body));
  for (let wait = FIRST_PAUSE_MS; ; wait = Math.min(wait * 2, LONGEST_PAUSE_MS)) {
    const outcome = await tried(path, { method, headers, body: content, signal: within(signal) }, signal);
    if (!outcome.again) return outcome.answer;
    await Promise.race([pause(Math.max(wait, outcome.again), signal), woken()]);
    signal?.throwIfAborted();
  }
}

// An answer; or `{again}`, the least milliseconds until it is worth asking once more.
async function tried(path, options, signal) {
  let response;
  try {
    response = await fetch(path, options);
    const text = response.status === 304 ? "" : await response.text();
    const parsed = text && response.headers.get("Content-Type")?.includes("json") ? JSON.parse(text) : {};
    if (response.ok || response.status === 304) {
      reach(true);
      return { answer: { status: response.status, body: parsed, tag: response.headers.get("ETag") } };
    }
    const after = Number(response.headers.get("Retry-After")) || 0;
    if (parsed.code === "request-in-flight" || (BUSY.has(response.status) && parsed.code !== "too-many-declines")) {
      reach(response.status === 429 || response.status === 409);
      return { again: after * 1000 + 1 };
    }
    reach(true);
    throw new Refused(response.status, parsed, after);
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof Refused) throw error;
    reach(false);
    return { again: 1 };
  }
}

function within(signal) {
  const timeout = AbortSignal.timeout(PATIENCE_MS + 15000);
  return signal ? AbortSignal.any([signal, timeout]) : timeout;
}

function woken() {
  return new Promise((resolve) => addEventListener("online", resolve, { once: true }));
}

// Says that nobody answers, for as long as that is so.
export function reach(answered) {
  const banner = document.getElementById("connection");
  if (banner.hidden !== answered) {
    banner.textContent = answered ? "" : "No connection. Nothing is lost, and nothing happens twice: trying again.";
    banner.hidden = answered;
  }
}

export async function everything(path, signal, most = 2000) {
  const items = [];
  let cursor = "";
  do {
    const { body } = await request("GET", `${path}?limit=200${cursor}`, { signal });
    items.push(...body.items);
    cursor = body.next_cursor ? `&cursor=${encodeURIComponent(body.next_cursor)}` : "";
  } while (cursor && items.length < most);
  return items;
}

// A checkout's steps as they happen; comes back where it left off when the stream breaks.
export async function follow(checkoutId, told, signal) {
  let seen = "";
  while (!signal.aborted) {
    try {
      const headers = { Authorization: `Bearer ${await token()}`, Accept: "text/event-stream", "Last-Event-ID": seen };
      const response = await fetch(`/v1/checkouts/${checkoutId}/events`, { headers, signal });
      if (response.status === 204) return;
      if (response.status === 401) renewAt = 0;
      if (!response.ok && response.status < 500 && response.status !== 401 && response.status !== 429) {
        throw new Refused(response.status, await response.json(), 0);
      }
      if (response.ok) {
        reach(true);
        for await (const event of events(response.body)) {
          seen = event.id;
          if (told(JSON.parse(event.data))) return;
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused) throw error;
      reach(false);
    }
    await Promise.race([pause(1000, signal), woken()]);
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const event = Object.fromEntries(text.slice(0, end).split("\n").map((line) => line.split(/:\s?(.*)/s, 2)));
      text = text.slice(end + 2);
      if (event.data) yield event;
    }
  }
}
