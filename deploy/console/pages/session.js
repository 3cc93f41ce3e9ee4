// Who is signed in, and every call that is made for them. Tokens stand in this module's variables and nowhere else.

const CONSOLE = "00000000000000000000000000000001"; // what the console's client id ends in, in every tenant
const AWAY = "console.away"; // what waits while the browser is at the page where people sign in
const HERE = new URL("./", location.href).origin + new URL("./", location.href).pathname;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

let session = null; // {access, refresh, scope, until, clientId, shop, isPlatform}
let renewing = null;
let ended = () => {};

export const current = () => session;
export const may = (permission) => session?.scope.has(permission) ?? false;
export const onEnd = (listener) => { ended = listener; };

export class Problem extends Error {
  constructor(status, body, headers) {
    super(body.detail ?? body.error_description ?? body.title ?? "");
    Object.assign(this, { status, detail: this.message, code: body.code ?? body.error, errors: body.errors ?? [] });
    this.requestId = body.request_id ?? headers?.get("x-request-id");
    this.retryAfter = headers?.get("retry-after");
  }
}

// Without cookies: what a shop at this address keeps is nothing of the console's. And so the browser asks nobody for a password
// of its own when one was wrong.
async function sent(path, options) {
  try {
    return await fetch(path, { cache: "no-store", credentials: "omit", ...options });
  } catch {
    const isOnce = options?.method === "POST" && !options.headers?.["Idempotency-Key"];
    throw Object.assign(new Problem(0, { detail: "The network gave no answer." }), { isOnce });
  }
}

async function body(answer) {
  const text = await answer.text();
  try {
    return text ? JSON.parse(text) : {};
  } catch {
    return { detail: `An answer came that nobody expected (${answer.status}).` };
  }
}

const encoded = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = (count) => encoded(crypto.getRandomValues(new Uint8Array(count)));

// --- Coming and going -----------------------------------------------------------------------------------------------

export async function shopOf(name) {
  if (UUID.test(name)) return { tenant_id: name, slug: name, name: "" };
  const answer = await sent(`/v1/storefronts/${encodeURIComponent(name)}`);
  if (answer.status === 404) throw new Problem(404, { detail: `There is no shop called ${name}, or it is not open. Staff of a shop that is not open come in with its id.` });
  const found = await body(answer);
  if (!answer.ok) throw new Problem(answer.status, found, answer.headers);
  return found;
}

// Go to the page where people sign in. The verifier waits for the way back, worth nothing without the code.
export async function leave(shop, view) {
  const verifier = random(48);
  const state = random(24);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
  const clientId = `cl_${shop.tenant_id.replaceAll("-", "")}_${CONSOLE}`;
  sessionStorage.setItem(AWAY, JSON.stringify({ verifier, state, clientId, shop: { slug: shop.slug, name: shop.name }, view }));
  location.assign(`/oauth/authorize?${new URLSearchParams({
    response_type: "code", client_id: clientId, redirect_uri: HERE, state,
    code_challenge: encoded(digest), code_challenge_method: "S256",
  })}`);
}

// Whether the browser has just come back, and with what. What waited is gone before anything else is done.
export async function back() {
  const waiting = JSON.parse(sessionStorage.getItem(AWAY) ?? "null");
  sessionStorage.removeItem(AWAY);
  const told = new URLSearchParams(location.search);
  if (!told.has("state")) return null;
  history.replaceState(null, "", `${location.pathname}${waiting ? `?shop=${encodeURIComponent(waiting.shop.slug)}` : ""}`);
  if (!waiting || waiting.state !== told.get("state")) throw new Problem(400, { detail: "This is no way back to a log-in of this tab." });
  if (told.has("error")) throw new Problem(400, { detail: told.get("error_description") ?? told.get("error") });
  await token({
    grant_type: "authorization_code", client_id: waiting.clientId, code: told.get("code"), redirect_uri: HERE,
    code_verifier: waiting.verifier,
  }, { clientId: waiting.clientId, shop: waiting.shop });
  return waiting.view ?? "";
}

// An operator of the platform. The secret goes to the token endpoint, and is not kept.
export async function operate(clientId, secret) {
  await token({ grant_type: "client_credentials", client_id: clientId, client_secret: secret },
    { clientId, shop: { slug: "", name: "Platform" } });
}

async function token(form, known) {
  const answer = await sent("/oauth/token", { method: "POST", body: new URLSearchParams(form) });
  const got = await body(answer);
  if (!answer.ok) throw new Problem(answer.status, got, answer.headers);
  const scope = new Set((got.scope ?? "").split(" ").filter(Boolean));
  session = {
    ...known, scope, access: got.access_token, refresh: got.refresh_token, until: Date.now() + got.expires_in * 1000,
    subject: got.subject_id, isPlatform: scope.has("tenants:manage"),
  };
}

export async function leaveForGood() {
  if (session?.refresh) await call("DELETE", "/v1/sessions/current").catch(() => {});
  end("You are signed out.");
}

function end(why) {
  session = null;
  ended(why);
}

// One renewal at a time: a refresh token is good once.
function renewed() {
  renewing ??= (async () => {
    const { clientId, shop, refresh } = session;
    await token({ grant_type: "refresh_token", client_id: clientId, refresh_token: refresh }, { clientId, shop });
  })().finally(() => { renewing = null; });
  return renewing;
}

async function fresh() {
  if (!session) throw new Problem(401, { detail: "You are signed out." });
  if (session.until - Date.now() > 20_000 || !session.refresh) return;
  try {
    await renewed();
  } catch (error) {
    if (error.status === 400 || error.status === 401) end("Your session is over. Sign in again.");
    throw error;
  }
}

// --- Calls ----------------------------------------------------------------------------------------------------------

// What a call comes to, as JSON. Raises Problem. `key` is the Idempotency-Key, the same for every try of one act.
export async function call(method, path, asked = {}) {
  await fresh();
  let answer = await tried(method, path, asked);
  if (answer.status === 401 && session?.refresh) { // rights that were taken away end a token, and what is left comes with the next
    await renewed().catch(() => {});
    answer = await tried(method, path, asked);
  }
  const got = await body(answer);
  if (answer.ok) return got;
  if (answer.status === 401) end("Your session is over. Sign in again.");
  throw new Problem(answer.status, got, answer.headers);
}

function tried(method, path, { json, key, match, wait }) {
  const headers = { Authorization: `Bearer ${session.access}`, Accept: "application/json" };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  if (match) headers["If-Match"] = match;
  if (wait) headers.Prefer = `wait=${wait}`;
  return sent(path, { method, headers, body: json === undefined ? undefined : JSON.stringify(json) });
}

export const get = (path, query) => {
  const asked = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return call("GET", asked.length ? `${path}?${new URLSearchParams(asked)}` : path);
};
