// Who somebody is here: a guest, or somebody whom the shop knows.
import { comeIn, leave, request } from "./api.js";
import { carry, count, readCart } from "./cart.js";
import { button, el, field, show } from "./ui.js";

export async function greet(signal) {
  const { body } = await request("GET", "/v1/sessions/current", { signal });
  document.getElementById("you").textContent = body.guest ? "Guest" : "Signed in";
  return body;
}

export async function youView(signal) {
  const session = await greet(signal);
  if (signal.aborted) return;
  if (!session.guest) {
    show(
      "You are signed in",
      el("p", {}, "Your orders are kept with you, on every device."),
      el("p", {}, button("Sign out", async () => (await leave(), location.replace("#/"), await greet(), await count()), { class: "act" })),
    );
    return;
  }
  const form = el("form", { class: "checkout" }, field("Sign-in link", { name: "link", required: true, autocomplete: "off" }), el("button", { class: "act" }, "Sign in"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const token = new FormData(form).get("link").trim().split("#/in/").pop();
    location.replace(`#/in/${encodeURIComponent(token)}`);
  });
  show(
    "You are a guest",
    el("p", {}, "A guest buys like everybody else. What you ordered is known to this browser, and to whoever has its number and your e-mail address."),
    el("p", {}, "This shop has no passwords of its own: its server lets people in whom it knows, by a link. On your own machine ", el("code", {}, "./cartwright up"), " prints one."),
    form,
  );
}

// A link that lets somebody in. It is good once, and leaves the address at once.
export async function inView(signal, token) {
  history.replaceState(null, "", "#/in/");
  const cart = await readCart().catch(() => null);
  const lines = cart?.state === "open" ? cart.lines : [];
  if (!(await comeIn(token))) {
    show("Not signed in", el("p", {}, "This link is not good any more. Ask the shop for another."), el("p", {}, el("a", { href: "#/" }, "Go on as a guest")));
    return;
  }
  await greet();
  await carry(lines);
  await count();
  if (!signal.aborted) location.replace("#/");
}
