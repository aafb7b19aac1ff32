// What every panel has: elements, a channel to the kernel, a place to say things, charts. A panel's own program follows in the same
// module. Text that people or documents wrote goes through text nodes only, never through innerHTML.

const SILENCE_MS = 3000; // after which an answer that has not come is reported
const COLOURS = ["#3b82c4", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7f7f7f"]; // of charts, as in reports

/** An element with attributes, listeners (on...) and children. */
function make(tag, attributes = {}, ...children) {
  const svg = tag === "svg" || tag === "rect";
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** The face of an anywidget whose screen is an object with close(). */
const face = (Screen) => ({
  render({ model, el }) {
    const screen = new Screen(model, el);
    const deafen = overhear(screen);
    return () => {
      deafen();
      screen.close();
    };
  },
});

/** The kernel could not do what was asked of it, and why; the screen has said so. */
class Refusal extends Error {}

function confess(screen, problem) {
  screen.say(`The panel made a mistake: ${problem.message}. Reload the page; what was not saved may have to be done again.`, true);
}

/** Do what a message asks for. JupyterLab would swallow what goes wrong there, so the screen says it in a line. */
async function safely(screen, act) {
  try {
    await act();
  } catch (problem) {
    console.error(problem);
    confess(screen, problem);
  }
}

/** Have the screen say what goes wrong in this module after a click or a key, too; gives the function that ends it. */
function overhear(screen) {
  const here = import.meta.url;
  const thrown = ({ error, filename }) => error && filename === here && confess(screen, error);
  const rejected = ({ reason }) => {
    if (reason?.stack?.includes(here) && !(reason instanceof Refusal)) confess(screen, reason);
  };
  addEventListener("error", thrown);
  addEventListener("unhandledrejection", rejected);
  return () => {
    removeEventListener("error", thrown);
    removeEventListener("unhandledrejection", rejected);
  };
}

let plotly = null; // a promise of plotly's program, which comes from the kernel once for each page

/** The screen of a panel: `ask` the kernel and await its answer, hear what it tells unasked, `say` things, draw charts. */
class Panel {
  constructor(model, host, { name, label }) {
    Object.assign(this, { model, name, asked: new Map(), hearers: {}, early: [], charts: new Map(), count: 0 });
    this.uid = Math.random().toString(36).slice(2, 8);
    this.alert = make("div", { class: "alert", role: "alert" });
    this.status = make("div", { class: "status", role: "status" });
    this.root = make("div", { class: `ocr-sprint-panel ocr-sprint-${name}`, "data-lm-suppress-shortcuts": "true", role: "region", "aria-label": label }, this.alert);
    for (const kind of ["keydown", "keyup", "keypress"]) this.root.addEventListener(kind, (event) => event.stopPropagation());
    this.onMessage = (message, buffers) => safely(this, () => this.hear(message, buffers));
    model.on("msg:custom", this.onMessage);
    this.themes = new MutationObserver(() => this.redraw());
    this.themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
    host.append(this.root);
  }

  close() {
    this.model.off("msg:custom", this.onMessage);
    this.themes.disconnect();
    for (const [node, { sizes }] of this.charts) {
      sizes.disconnect();
      window.Plotly?.purge(node);
    }
  }

  /** Send a question; gives the answer's body, with its `buffers`. Refusals are said and thrown; silence is said, and waited through. */
  ask(kind, body = {}) {
    const id = `${this.uid}-${(this.count += 1)}`;
    const timer = setTimeout(() => this.say("The kernel does not answer. It may be busy; otherwise run the notebook's cells again.", true), SILENCE_MS);
    return new Promise((resolve, reject) => {
      this.asked.set(id, { resolve, reject, timer });
      this.model.send({ id, kind, body });
    });
  }

  /** Ask, and hear nothing more of a question of the same kind that was asked before: only the latest answer counts. */
  async latest(kind, body = {}) {
    this.newest ??= {};
    const turn = (this.newest[kind] = (this.newest[kind] ?? 0) + 1);
    const answer = await this.ask(kind, body);
    return turn === this.newest[kind] ? answer : new Promise(() => {});
  }

  hear({ id, kind, body, error }, buffers) {
    if (kind && this.early) return this.early.push([kind, body, buffers]);
    if (kind) return this.hearers[kind]?.(body, buffers);
    const question = this.asked.get(id);
    if (!question) return undefined; // another view of the panel asked
    this.asked.delete(id);
    clearTimeout(question.timer);
    this.say(error ?? "", true);
    return error ? question.reject(new Refusal(error)) : question.resolve({ ...body, buffers });
  }

  /** Hear what the kernel tells unasked. It may tell before there is anything to show it in: that waits until this is called. */
  listen() {
    const told = this.early;
    this.early = null;
    for (const [kind, body, buffers] of told) this.hearers[kind]?.(body, buffers);
  }

  say(text, urgent = false) {
    (urgent ? this.alert : this.status).textContent = text;
  }

  /** Copy text that a node shows; whether that was done. A page without TLS may not: then the node is marked, so that Ctrl+C does it. */
  async copied(text, node = null) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      if (node) getSelection().selectAllChildren(node);
      return false;
    }
  }

  /** Draw a figure ({data, layout} of plotly) into an element; `title` is what a screen reader says. Gives the element. */
  async chart(node, figure, title) {
    plotly ??= this.ask("plotly").then(({ buffers: [program] }) => new Promise((resolve, reject) => {
      const script = make("script", { src: URL.createObjectURL(new Blob([program], { type: "text/javascript" })), onload: resolve, onerror: reject });
      document.head.append(script);
    })).catch((problem) => { plotly = null; throw problem; });
    await plotly;
    if (!this.charts.has(node)) {
      const sizes = new ResizeObserver(() => node.clientWidth && window.Plotly.Plots.resize(node));
      sizes.observe(node);
      this.charts.set(node, { sizes });
    }
    this.charts.get(node).figure = figure;
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", title);
    return this.draw(node, figure);
  }

  draw(node, figure) {
    const colour = (name) => getComputedStyle(this.root).getPropertyValue(`--${name}`).trim();
    const axis = { gridcolor: colour("rule"), linecolor: colour("line"), zerolinecolor: colour("line"), automargin: true };
    const axes = Object.fromEntries(Object.entries(figure.layout).filter(([key]) => /^[xy]axis\d*$/.test(key)).map(([key, value]) => [key, { ...axis, ...value }]));
    const layout = { height: 340, margin: { l: 60, r: 20, t: 20, b: 50 }, colorway: COLOURS, ...figure.layout, xaxis: { ...axis, ...figure.layout.xaxis }, yaxis: { ...axis, ...figure.layout.yaxis }, ...axes, autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { ...figure.layout.font, color: colour("ink") } };
    return window.Plotly.react(node, structuredClone(figure.data), layout, { displayModeBar: false, responsive: false }).then(() => node);
  }

  redraw() {
    for (const [node, { figure }] of this.charts) this.draw(node, figure);
  }
}

