// An order's story as lanes, one a service: what happened from left to right, and what led to it. The table beside says the same.

import { h, svg, table, when, words } from "./dom.js";

const LEFT = 84;
const STEP = 34;
const HIGH = 46;
const TOP = 26;

function mark(entry, x, y, number) {
  const kind = `${entry.kind}${entry.compensation ? " compensation" : ""}`;
  const title = svg("title", null, `${number}. ${entry.service}: ${words(entry.name)}`);
  if (entry.kind === "provider-call") return svg("rect", { class: kind, x: x - 9, y: y - 6, width: 18, height: 12, rx: 3 }, title);
  if (entry.kind === "event") return svg("circle", { class: kind, cx: x, cy: y, r: 7 }, title);
  return svg("path", { class: kind, d: `M${x} ${y - 8} l8 8 l-8 8 l-8 -8 z` }, title);
}

function link(from, to) {
  if (from.y === to.y) return svg("path", { class: "link", d: `M${from.x} ${from.y} Q${(from.x + to.x) / 2} ${from.y - 20} ${to.x} ${to.y}` });
  const middle = (from.x + to.x) / 2;
  return svg("path", { class: "link", d: `M${from.x} ${from.y} C${middle} ${from.y} ${middle} ${to.y} ${to.x} ${to.y}` });
}

export function drawn(entries) {
  const services = [...new Set(entries.map((entry) => entry.service))];
  const at = (index) => ({ x: LEFT + 20 + index * STEP, y: TOP + services.indexOf(entries[index].service) * HIGH });
  const places = new Map(entries.map((entry, index) => [entry.id, index]));
  const width = LEFT + 40 + entries.length * STEP;
  const height = TOP + services.length * HIGH;
  const links = entries.flatMap((entry, index) => {
    const cause = places.get(entry.cause?.id);
    return cause === undefined ? [] : [link(at(cause), at(index))];
  });
  const label = `The order's way through ${services.length} services in ${entries.length} steps. The table says the same in words.`;
  return svg("svg", { class: "lanes", role: "img", "aria-label": label, width, height, viewBox: `0 0 ${width} ${height}` },
    services.map((service, lane) => [
      svg("line", { class: "lane", x1: LEFT, x2: width, y1: TOP + lane * HIGH, y2: TOP + lane * HIGH }),
      svg("text", { x: 0, y: TOP + lane * HIGH + 4 }, service),
    ]),
    links,
    entries.map((entry, index) => {
      const { x, y } = at(index);
      return [mark(entry, x, y, index + 1), svg("text", { x, y: y + 22, "text-anchor": "middle" }, index + 1)];
    }));
}

const after = (ms) => (ms === null || ms === undefined ? "" : `${new Intl.NumberFormat().format(ms)} ms`);

const told = (details) => Object.entries(details).map(([name, value]) => `${words(name)}: ${value}`).join(", ");

export function story(entries) {
  const numbers = new Map(entries.map((entry, index) => [entry.id, index + 1]));
  const because = (entry) => {
    const number = numbers.get(entry.cause?.id);
    return number ? `${number}${entry.cause.inferred ? " (inferred)" : ""}` : entry.cause ? words(entry.cause.name) : "";
  };
  const what = (entry) => [words(entry.name), entry.retry ? " (again)" : "", entry.compensation ? " (taken back)" : ""];
  return h("div", { class: "story" },
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The order's way, drawn" }, drawn(entries)),
    table("What happened, in order; a cause stands before what it led to", [
      ["#", (entry) => numbers.get(entry.id)],
      ["When", (entry) => when(entry.at)],
      ["Service", (entry) => entry.service],
      ["What", what],
      ["Because of", because],
      ["After", (entry) => after(entry.after_ms), "number"],
      ["Took", (entry) => after(entry.duration_ms), "number"],
      ["Details", (entry) => told(entry.details)],
    ], entries));
}
