"use strict";
(() => {
  const source = document.getElementById("gallery-data");
  if (!source) return;
  const PRINTED = 24;
  const data = JSON.parse(source.textContent);
  const place = Object.fromEntries(data.columns.map((name, index) => [name, index]));
  const byId = (id) => document.getElementById(id);
  const list = byId("cards"), filters = byId("filters"), viewer = byId("viewer"), layers = byId("layers");
  const stage = byId("stage");
  const cards = [...list.children].map((item, rank) => ({ item, rank, number: Number(item.dataset.i), ...data.images[item.dataset.i] }));
  const byNumber = new Map(cards.map((card) => [card.number, card]));
  let shown = cards, current = 0;

  const value = (card, name) => (name in place ? card.row[place[name]] : null);
  const number = (card, name) => (typeof value(card, name) === "number" ? value(card, name) : null);

  // Orders: what sorts first; null, not known, comes last.
  const keys = {
    trust: (card) => card.rank,
    worst: (card) => number(card, "dice"),
    best: (card) => (number(card, "dice") === null ? null : -number(card, "dice")),
    confused: (card) => (value(card, "correct") === 0 ? -number(card, "confidence") : null),
    outside: (card) => number(card, "evidence_in_lungs"),
    unsure: (card) => number(card, "confidence"),
    number: (card) => card.number,
  };
  const sorted = (chosen, key) => {
    const pairs = chosen.map((card) => [key(card), card]);
    const rank = (a) => (a === null ? Infinity : a);
    return pairs.sort(([a, x], [b, y]) => (rank(a) === rank(b) ? x.rank - y.rank : rank(a) - rank(b))).map((pair) => pair[1]);
  };
  const wanted = (name) => (filters.elements[name] ? filters.elements[name].value : "*");
  const fits = (card) => {
    const text = (name) => String(value(card, name) ?? "");
    return (wanted("true") === "*" || text("label") === wanted("true"))
      && (wanted("predicted") === "*" || text("predicted") === wanted("predicted"))
      && (wanted("correct") === "*" || text("correct") === wanted("correct"))
      && (wanted("sign") === "*" || card.signs.includes(wanted("sign")));
  };

  function refresh() {
    shown = sorted(cards.filter(fits), keys[wanted("order")]);
    shown.forEach((card, rank) => card.item.classList.toggle("later", rank >= PRINTED));
    list.replaceChildren(...shown.map((card) => card.item));
    byId("count").textContent = `${shown.length} of ${cards.length} images`;
    reach(0, false);
  }

  // One card takes part in the order of the Tab key, arrows move from card to card.
  function reach(rank, focus = true) {
    if (!shown.length) return;
    const before = list.querySelector('button[tabindex="0"]');
    if (before) before.tabIndex = -1;
    current = Math.min(Math.max(rank, 0), shown.length - 1);
    const button = shown[current].item.firstElementChild;
    button.tabIndex = 0;
    if (focus) button.focus();
  }
  const columns = () => getComputedStyle(list).gridTemplateColumns.split(" ").length;
  const steps = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: columns, ArrowUp: () => -columns(),
    Home: () => -shown.length, End: () => shown.length };
  list.addEventListener("keydown", (event) => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    reach(current + steps[event.key]());
  });
  list.addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (!item) return;
    reach(shown.indexOf(byNumber.get(Number(item.dataset.i))), false);
    open();
  });

  function open() {
    const card = shown[current], [width, height] = card.size;
    const stem = `${data.folder}/${String(card.number).padStart(4, "0")}`;
    byId("missing").hidden = true;
    stage.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const pictures = { thumb: card.item.querySelector("img").src, image: `${stem}.jpg`, map: `${stem}-map.webp` };
    for (const layer of stage.querySelectorAll("[data-layer]")) {
      const name = layer.dataset.layer;
      if (layer.tagName === "image") {
        layer.setAttribute("width", width);
        layer.setAttribute("height", height);
        layer.setAttribute("href", pictures[name]);
      } else {
        layer.setAttribute("d", card.outlines[name] || "");
        layer.setAttribute("transform", "translate(.5 .5)");
        const label = layers.elements[name].parentElement, words = label.querySelector("span");
        label.hidden = !(name in card.outlines);
        words.dataset.name ??= words.textContent;
        words.textContent = words.dataset.name + (card.outlines[name] ? "" : ": none");
      }
    }
    byId("crop-path").setAttribute("d", card.outlines.predicted_lung || "");
    describe(card);
    blend();
    if (!viewer.open) viewer.showModal();
  }
  stage.querySelector('[data-layer="image"]').addEventListener("error", () => { byId("missing").hidden = false; });

  const told = (x) => (typeof x === "number" ? String(x) : x ?? "-");
  function describe(card) {
    const label = value(card, "label"), correct = value(card, "correct");
    const verdict = correct === 1 ? " (right)" : correct === 0 ? " (wrong)" : "";
    byId("viewer-title").textContent = `Image ${card.number} — true: ${told(label ?? "unknown")}, predicted: ${told(value(card, "predicted") ?? "none")}${verdict}`;
    const lines = [`${current + 1} of ${shown.length} in this order and filter`];
    const facts = { confidence: "confidence", dice: "lung dice", infection_dice: "infection dice", evidence_in_lungs: "evidence in lungs", lung_area: "lungs' share of the picture" };
    for (const [name, words] of Object.entries(facts)) if (number(card, name) !== null) lines.push(`${words}: ${number(card, name).toFixed(3)}`);
    const probs = data.columns.filter((name) => name.startsWith("prob_") && number(card, name) !== null);
    if (probs.length) lines.push(`probabilities: ${probs.map((name) => `${name.slice(5)} ${number(card, name).toFixed(3)}`).join(", ")}`);
    lines.push(`warning signs: ${card.signs.map((name) => data.signs[name]).join("; ") || "none"}`);
    byId("facts").textContent = lines.join("\n");
    byId("row").replaceChildren(...data.columns.map((name, index) => {
      const row = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
      head.scope = "row";
      head.textContent = name;
      cell.textContent = told(card.row[index]);
      row.append(head, cell);
      return row;
    }));
  }

  function blend() {
    for (const layer of stage.querySelectorAll("[data-layer]")) {
      const slider = layers.elements[layer.dataset.layer];
      layer.style.opacity = slider ? slider.value / 100 : 0;
    }
    byId("cropped").setAttribute("clip-path", layers.elements.crop.checked ? "url(#crop)" : "none");
  }
  const outlines = ["lung", "predicted_lung", "infection", "predicted_infection"];
  function toggle(names, start) {
    const on = names.some((name) => Number(layers.elements[name].value) > 0);
    for (const name of names) layers.elements[name].value = on ? 0 : start;
    blend();
  }
  const step = (by) => { reach(current + by, false); open(); };
  const actions = {
    ArrowRight: () => step(1), ArrowLeft: () => step(-1), Home: () => step(-shown.length), End: () => step(shown.length),
    m: () => toggle(["map"], 75), o: () => toggle(outlines, 100),
    c: () => { layers.elements.crop.checked = !layers.elements.crop.checked; blend(); },
  };
  viewer.addEventListener("keydown", (event) => {
    const moves = event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End";
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in actions)) return;
    if (moves && event.target.type === "range") return;
    event.preventDefault();
    actions[event.key]();
  });
  viewer.addEventListener("close", () => reach(current));
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  byId("close").addEventListener("click", () => viewer.close());
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  layers.addEventListener("input", blend);
  layers.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("change", refresh);
  filters.addEventListener("reset", () => setTimeout(refresh));

  for (const cell of document.querySelectorAll(".confusion button")) {
    cell.addEventListener("click", () => {
      filters.reset();
      for (const name of ["true", "predicted"]) if (filters.elements[name]) filters.elements[name].value = cell.dataset[name];
      refresh();
      byId("gallery").scrollIntoView();
    });
  }
  for (const card of cards) card.item.firstElementChild.tabIndex = -1;
  refresh();
})();
