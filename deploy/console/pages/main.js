// The frame of the console: who is signed in, the menu of what they may see, and the view that the address names.

import { field, h, input, problem } from "./dom.js";
import { back, current, leave, leaveForGood, may, onEnd, operate, shopOf } from "./session.js";
// [the address's first part, heading, permission, module, the view in it, the view of one]. A module is read when it is needed.
const TENANT = [
  ["", "Overview", "orders:read", "repairs", "overview"],
  ["orders", "Orders", "orders:read", "orders", "orders", "order"],
  ["reviews", "Waits for a person", "ledger:read", "repairs", "reviews"],
  ["payments", "Payments", "payments:read", "repairs", "payments"],
  ["parked", "Parked messages", "parked:read", "repairs", "parked"],
  ["reconciliations", "Reconciliation", "ledger:read", "repairs", "reconciliations", "reconciliation"],
  ["stock", "Stock", "stock:read", "shop", "stock"],
  ["promotions", "Promotions", "promotions:write", "promotions", "promotions"],
  ["members", "Members", "members:manage", "people", "members"],
  ["roles", "Roles", "members:manage", "people", "roles"],
  ["keys", "Keys and clients", "clients:manage", "people", "keys"],
  ["audit", "Audit trail", "audit:read", "shop", "audit"],
  ["me", "My log-in", null, "shop", "myself"],
];
const PLATFORM = [["", "Tenants", "tenants:manage", "platform", "tenants"]];
const NOWHERE = [null, "Not here", null, "shop", "nowhere"];

const content = document.getElementById("content");
let shown = 0;

const views = () => (current().isPlatform ? PLATFORM : TENANT).filter(([, , permission]) => !permission || may(permission));

function asked() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  return { name, id: rest.length ? decodeURIComponent(rest.join("/")) : null, query: new URLSearchParams(query ?? "") };
}

function drawFrame() {
  const who = current();
  document.body.classList.toggle("out", !who);
  const menu = document.getElementById("menu");
  menu.hidden = !who;
  document.getElementById("bar").replaceChildren(h("strong", null, "Console"),
    ...(who ? [h("span", { class: "who" }, who.shop.name || who.shop.slug), h("button", { type: "button", onclick: leaveForGood }, "Sign out")] : []));
  if (!who) return;
  const { name } = asked();
  menu.replaceChildren(h("ul", null, views().map(([path, heading]) =>
    h("li", null, h("a", { href: `#/${path}`, "aria-current": path === name ? "page" : null }, heading)))));
}

// `isAgain`: the same view after something was done, or as time goes by; the reader stays where they are.
async function draw(isAgain = false) {
  drawFrame();
  if (!current()) return drawLogIn();
  const mine = ++shown;
  const { name, id, query } = asked();
  const found = views().find(([path]) => path === name) ?? NOWHERE;
  const again = () => mine === shown && draw(true);
  if (!isAgain) content.replaceChildren(h("p", { class: "empty" }, "Reading …"));
  let parts;
  try {
    const [, , , module, many, one] = found;
    const view = (await import(`./${module}.js`))[id ? one ?? many : many];
    parts = await view({ id, query, again, isShown: () => mine === shown && current() !== null });
  } catch (error) {
    if (!current()) return undefined;
    parts = [h("h1", null, found[1]), problem(error), h("button", { type: "button", onclick: () => draw() }, "Try again")];
  }
  if (mine !== shown) return undefined;
  content.replaceChildren(...[parts].flat(Infinity).filter(Boolean));
  const heading = content.querySelector("h1");
  document.title = `${heading?.textContent ?? found[1]} – Console`;
  content.dataset.view = location.hash;
  heading?.setAttribute("tabindex", "-1");
  if (!isAgain) heading?.focus();
  else if (document.activeElement === document.body) heading?.focus({ preventScroll: true }); // what had the focus is gone
  return undefined;
}

function drawLogIn(why) {
  shown += 1;
  drawFrame();
  document.title = "Sign in – Console";
  const wrong = h("div");
  const shop = input("shop", { required: true, autocapitalize: "none", spellcheck: "false", maxlength: 63,
    value: new URLSearchParams(location.search).get("shop") ?? "" });
  const trying = (act) => async (event) => {
    event.preventDefault();
    try {
      await act(new FormData(event.target));
    } catch (error) {
      wrong.replaceChildren(problem(error));
    }
  };
  const signIn = trying(async (form) => leave(await shopOf(form.get("shop").trim()), location.hash));
  const asOperator = trying(async (form) => {
    await operate(form.get("client").trim(), form.get("secret"));
    location.hash = "#/";
    await draw();
  });
  content.replaceChildren(
    h("h1", { tabindex: -1 }, "Sign in"),
    why ? h("p", { class: "bad", role: "alert" }, why) : "",
    wrong,
    h("section", null, h("form", { onsubmit: signIn },
      field("Shop", shop, "Its short name, as in its address. You sign in on the next page, with your second factor if you have one."),
      h("button", { type: "submit", class: "main" }, "Go on"))),
    h("section", null, h("details", null, h("summary", null, "I run the platform"),
      h("form", { onsubmit: asOperator },
        h("p", null, "Operators have a client instead of an account. Its secret is sent once and kept nowhere: after five minutes you are asked again."),
        field("Client id", input("client", { required: true, value: "platform", autocapitalize: "none" })),
        field("Secret", input("secret", { required: true, type: "password" })),
        h("button", { type: "submit" }, "Sign in as operator")))));
  (why ? content.querySelector("h1") : shop).focus();
}

onEnd((why) => drawLogIn(why));
addEventListener("hashchange", () => current() && draw());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  content.focus();
});

try {
  const view = await back();
  if (view === null) drawLogIn();
  else {
    if (view) history.replaceState(null, "", view);
    await draw();
  }
} catch (error) {
  drawLogIn();
  content.prepend(problem(error));
}
