// How tokens came: colours, legend, tooltip. Text enters as text, never as HTML.

const DEEPEST = 4;
const SOURCES = { bita: "BiTA", ngram: "n-grams", prediction: "the prediction", grammar: "the grammar" };
const LEGEND = [
  ["model", "chosen by the model (plain, bonus)"],
  ["bita-1", "BiTA at depth 1"],
  ["bita-2", "depth 2"],
  ["bita-3", "depth 3"],
  ["bita-4", "depth 4 and deeper"],
  ["ngram", "n-grams"],
  ["prediction", "the prediction"],
  ["grammar", "the grammar"],
];

/** The class of a token; of several sources the first one counts, in the order of SOURCES. */
function kindOf({ sources, depth }) {
  const source = Object.keys(SOURCES).find((name) => sources.includes(name));
  if (!source) return "model";
  return source === "bita" ? `bita-${Math.min(depth, DEEPEST)}` : source;
}

function describe({ sources, depth }) {
  if (!sources.length) return "chosen by the model";
  const names = sources.map((name) => SOURCES[name] ?? name).join(" and ");
  return `drafted by ${names} at depth ${depth}`;
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function fillLegend(legend) {
  for (const [kind, words] of LEGEND) {
    const item = make("span", "");
    item.append(make("span", `token ${kind}`, "token"), ` ${words}`);
    legend.append(item);
  }
}

/** The tokens of one answer; the arrow keys walk through them. */
class TokenView {
  constructor(tooltip, announce) {
    this.element = make("div", "said");
    this.element.tabIndex = 0;
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", "Answer by token; the arrow keys walk through it");
    this.entries = [];
    this.decoder = new TextDecoder();
    this.chosen = -1;
    this.tooltip = tooltip;
    this.announce = announce;
    this.element.addEventListener("keydown", (event) => this.walk(event));
    this.element.addEventListener("blur", () => this.choose(-1));
    this.element.addEventListener("pointerover", ({ target }) => {
      const place = [...this.element.children].indexOf(target);
      if (place >= 0) this.show(place);
    });
    this.element.addEventListener("pointerleave", () => { this.tooltip.hidden = true; });
  }

  add(entries) {
    for (const entry of entries) {
      // Parts of a character are text once its last byte is there.
      const text = entry.bytes
        ? this.decoder.decode(new Uint8Array(entry.bytes), { stream: true })
        : this.decoder.decode() + entry.text;
      const span = make("span", `token ${kindOf(entry)}`, text);
      if (/^\n+$/.test(text)) span.dataset.sign = "↵";
      if (!text) span.dataset.sign = "·";
      this.entries.push({ ...entry, text });
      this.element.append(span);
    }
  }

  /** The token that ended the answer is no part of its text: it is shown as a sign. */
  end(content) {
    const last = this.element.lastElementChild;
    if (!last || content.endsWith(last.textContent)) return;
    last.textContent = "";
    last.dataset.sign = "■";
    this.entries.at(-1).text = "end of the answer";
  }

  /** How many tokens came which way, in words. */
  tally() {
    const counts = new Map();
    for (const entry of this.entries) {
      const names = entry.sources.map((name) => SOURCES[name] ?? name).join(" and ");
      const name = names || "the model itself";
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    const parts = [...counts].map(([name, count]) => `${count} by ${name}`);
    return `${this.entries.length} tokens: ${parts.join(", ")}`;
  }

  walk(event) {
    const last = this.entries.length - 1;
    const places = {
      ArrowRight: Math.min(this.chosen + 1, last),
      ArrowLeft: Math.max(this.chosen - 1, 0),
      Home: 0,
      End: last,
      Escape: -1,
    };
    if (!(event.key in places) || last < 0) return;
    event.preventDefault();
    this.choose(places[event.key]);
  }

  choose(place) {
    this.element.children[this.chosen]?.classList.remove("chosen");
    this.chosen = place;
    this.tooltip.hidden = true;
    if (place < 0) return;
    this.element.children[place].classList.add("chosen");
    this.show(place);
    const { text } = this.entries[place];
    this.announce(`Token ${place + 1} of ${this.entries.length}: ${JSON.stringify(text)}, `
      + describe(this.entries[place]));
  }

  show(place) {
    const { left, bottom } = this.element.children[place].getBoundingClientRect();
    this.tooltip.textContent = `Token ${place + 1}, ${describe(this.entries[place])}`;
    this.tooltip.hidden = false;
    const most = document.documentElement.clientWidth - this.tooltip.offsetWidth;
    this.tooltip.style.left = `${Math.max(0, Math.min(left, most)) + scrollX}px`;
    this.tooltip.style.top = `${bottom + 6 + scrollY}px`;
  }
}
