// What the pages build themselves of. Texts are set as texts, never as HTML.

export function part(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

/** A text of the document, in which `this` is code. */
export function said(text, name = "p") {
  const pieces = String(text ?? "").split("`");
  return part(name, {}, ...pieces.map((piece, index) => (index % 2 ? part("code", {}, piece) : piece)));
}

export function table(head, rows) {
  const row = (cells, kind) => part("tr", {}, ...cells.map((cell) => part(kind, kind === "th" ? { scope: "col" } : {}, cell)));
  return part("table", {}, part("thead", {}, row(head, "th")), part("tbody", {}, ...rows.map((cells) => row(cells, "td"))));
}

export async function fetched(file) {
  const answer = await fetch(file);
  if (!answer.ok) throw new Error(`${file}: ${answer.status}`);
  return answer.json();
}

/** Show only what has all the words in it. */
export function searchable(field, items) {
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const { node, text } of items) node.hidden = !words.every((word) => text.includes(word));
  });
}
