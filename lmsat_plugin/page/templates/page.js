"use strict";

const byName = new Intl.Collator("en", { numeric: true });
const counted = (number) => number.toLocaleString("en");
const textOf = (cell) => (typeof cell === "string" ? cell : cell[0]);

// Rows become elements only while they are shown: large tables open and sort fast.
const elementOf = (row, isNumber) => {
  const element = document.createElement("tr");
  row.forEach((cell, column) => {
    const place = element.insertCell();
    if (isNumber[column]) place.className = "n";
    if (typeof cell === "string") {
      place.textContent = cell;
    } else {
      const link = place.appendChild(document.createElement("a"));
      [link.textContent, link.href] = cell;
    }
  });
  return element;
};

// A tap on a word that is explained shows what it means: there is no pointing at it.
document.addEventListener("click", (event) => {
  document.querySelector(".meaning")?.remove();
  const word = event.target.closest("abbr[title]");
  if (!word) return;
  const place = word.getBoundingClientRect();
  const meaning = document.body.appendChild(document.createElement("div"));
  meaning.className = "meaning";
  meaning.setAttribute("role", "status");
  meaning.textContent = word.title;
  meaning.style.left = `${Math.max(4, Math.min(place.left, innerWidth - meaning.offsetWidth - 8)) + scrollX}px`;
  meaning.style.top = `${place.bottom + 4 + scrollY}px`;
});

for (const section of document.querySelectorAll("section.table")) {
  const size = Number(section.dataset.rows);
  const rows = JSON.parse(section.querySelector("script").textContent);
  const body = section.querySelector("tbody");
  const headings = [...section.querySelectorAll("th")];
  const isNumber = headings.map((heading) => heading.classList.contains("n"));
  const input = section.querySelector("input");
  const count = section.querySelector(".count");
  const previous = section.querySelector(".previous");
  const next = section.querySelector(".next");
  let kept = rows;
  let first = 0;

  const tell = () => {
    const last = Math.min(first + size, kept.length);
    const range = kept.length > size ? `${counted(first + 1)} to ${counted(last)} of ` : "";
    const all = kept.length < rows.length ? ` (of ${counted(rows.length)})` : "";
    count.textContent = `${range}${counted(kept.length)} ${kept.length === 1 ? "row" : "rows"}${all}`;
    previous.disabled = first === 0;
    next.disabled = last === kept.length;
  };

  // The address keeps by what a table is sorted and filtered: a heading's number, below 0 if falling, and the words.
  const name = `table.${section.id}`;
  const keep = () => {
    const place = headings.findIndex((heading) => heading.hasAttribute("aria-sort"));
    const sign = place >= 0 && headings[place].getAttribute("aria-sort") === "descending" ? "-" : "";
    const text = `${place < 0 ? "" : `${sign}${place + 1}`}~${input.value}`;
    document.dispatchEvent(new CustomEvent("tablechange", { detail: { name, text: text === "~" ? "" : text } }));
  };

  const show = (from) => {
    first = from;
    body.replaceChildren(...kept.slice(first, first + size).map((row) => elementOf(row, isNumber)));
    tell();
  };

  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const holds = (row) => {
      const text = row.map(textOf).join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    };
    kept = words.length ? rows.filter(holds) : rows;
    show(0);
    keep();
  };

  const sort = (place, heading) => {
    const rising = heading.getAttribute("aria-sort") !== "ascending";
    const byNumber = isNumber[place];
    const keyOf = (text) => (byNumber ? parseFloat(text.replaceAll(",", "")) : text);
    const compare = byNumber ? (a, b) => a - b : byName.compare;
    const isEmpty = (key) => key === "" || Number.isNaN(key);
    const keyed = rows.map((row) => [keyOf(textOf(row[place])), row]);
    keyed.sort(([a], [b]) => isEmpty(a) - isEmpty(b) || (isEmpty(a) ? 0 : (rising ? 1 : -1) * compare(a, b)));
    rows.splice(0, rows.length, ...keyed.map(([, row]) => row));
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
    filter();
  };

  headings.forEach((heading, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    if (heading.title) button.setAttribute("aria-description", heading.title);
    button.addEventListener("click", () => sort(place, heading));
    heading.replaceChildren(button);
  });
  input.addEventListener("input", filter);
  previous.addEventListener("click", () => show(first - size));
  next.addEventListener("click", () => show(first + size));
  previous.hidden = next.hidden = rows.length <= size;
  section.querySelector(".tools").hidden = false;
  const [place, words] = (new URLSearchParams(location.hash.slice(1)).get(name) ?? "~").split(/~(.*)/s);
  input.value = words ?? "";
  const sorted = headings[Math.abs(Number(place)) - 1];
  if (sorted) {
    if (place.startsWith("-")) sorted.setAttribute("aria-sort", "ascending");
    sort(headings.indexOf(sorted), sorted);
  } else if (input.value) {
    filter();
  }
  tell();
}
