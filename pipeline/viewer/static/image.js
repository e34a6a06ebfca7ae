"use strict";
// One image: its layers, labels that are cut anew while a slider moves, and setting it aside.
(() => {
  const { describe, say, setAside } = window.pixelcamView;
  const COLOURED = ["cam", "labels", "pixelcam"]; // layers that are read best over grey
  const MADE = ["cam", "pixelcam"]; // layers that a model makes
  const WAIT = 60; // milliseconds without a move, after which labels are asked for
  const one = document.querySelector(".one");
  const stage = document.getElementById("stage");
  const KEPT = `pixelcam-${stage.dataset.kind}`; // how layers and sliders stand, for the next image of this tab

  function remembered() {
    try {
      return JSON.parse(sessionStorage.getItem(KEPT)) || {};
    } catch {
      return {};
    }
  }
  const kept = { layers: {}, sliders: {}, ...remembered() };
  const remember = () => sessionStorage.setItem(KEPT, JSON.stringify(kept));

  stage.style.setProperty("--ratio", stage.dataset.width / stage.dataset.height);

  async function sentence(response) {
    const type = response.headers.get("Content-Type") || "";
    return type.startsWith("application/json") ? (await response.json()).error : response.text();
  }

  // Pictures are fetched, not linked, so that what goes wrong can be told in the server's words.
  async function load(layer) {
    const { picture, state } = layer;
    if (layer.isLoading || picture.src) return;
    layer.isLoading = true;
    state.textContent = "one moment …";
    try {
      const response = await fetch(picture.dataset.src);
      if (!response.ok) throw new Error(await sentence(response));
      picture.src = URL.createObjectURL(await response.blob());
      state.textContent = "";
      show(layer);
    } catch (error) {
      state.textContent = error.message;
      state.classList.add("told");
    } finally {
      layer.isLoading = false;
    }
    if (!layers.some((each) => each.isLoading)) anticipate();
  }

  // A model takes seconds where there is no GPU: the maps of the next image are asked for while this one is looked at.
  let isAnticipated = false;
  function anticipate() {
    const next = document.querySelector("a[rel=next]");
    if (!next || isAnticipated) return;
    isAnticipated = true;
    const { searchParams } = new URL(next.href);
    for (const { key, box, picture } of layers) {
      if (!MADE.includes(key) || !box.checked) continue;
      const address = new URL(picture.dataset.src, location.href);
      address.search = new URLSearchParams({ in: searchParams.get("in"), image: searchParams.get("image") });
      fetch(address, { priority: "low" })
        .then((response) => response.blob())
        .catch(() => {}); // the next page tells what goes wrong
    }
  }

  const layers = Array.from(document.querySelectorAll("[data-layer]"), (row) => ({
    key: row.dataset.layer,
    box: row.querySelector("input[type=checkbox]"),
    opacity: row.querySelector("input[type=range]"),
    state: row.querySelector(".state"),
    picture: document.getElementById(`picture-${row.dataset.layer}`),
  }));

  const grey = document.getElementById("grey");
  if (kept.grey === false) grey.checked = false;
  grey.addEventListener("change", () => {
    kept.grey = grey.checked;
    remember();
    layers.forEach(show);
  });

  function show(layer) {
    const { key, box, opacity, state, picture } = layer;
    picture.style.opacity = opacity.value / 100;
    opacity.disabled = !box.checked;
    picture.hidden = !box.checked || !picture.src;
    stage.classList.toggle("grey", grey.checked && layers.some((each) => COLOURED.includes(each.key) && each.box.checked));
    if (box.checked && key !== "labels") load(layer);
  }

  for (const layer of layers) {
    const before = kept.layers[layer.key];
    if (before) {
      layer.box.checked = before.on;
      layer.opacity.value = before.opacity;
    }
    const change = () => {
      kept.layers[layer.key] = { on: layer.box.checked, opacity: layer.opacity.value };
      remember();
      show(layer);
    };
    layer.box.addEventListener("change", change);
    layer.opacity.addEventListener("input", change);
    show(layer);
  }

  // Labels and their quality.
  const labels = layers.find((layer) => layer.key === "labels");
  const form = document.getElementById("labels");
  const quality = document.getElementById("quality");
  const said = document.getElementById("quality-said");
  const changed = document.getElementById("changed");
  const sliders = form ? Array.from(form.querySelectorAll("input[type=range]")) : [];
  let asked = null;
  let timer = 0;

  const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)} %`);
  const isChanged = (slider) => Number(slider.value) !== Number(slider.dataset.run);

  function tell({ share, precision, recall }) {
    for (const row of quality.querySelectorAll("[data-label]")) {
      const cells = row.querySelectorAll("td");
      const name = row.dataset.label;
      cells[0].textContent = percent(share[name]);
      if (name === "ignore") continue;
      cells[1].textContent = percent(precision[name]);
      cells[2].textContent = percent(recall[name]);
    }
    const unknown = Object.values(precision).concat(Object.values(recall)).every((value) => value === null);
    said.textContent = unknown ? "There is no mask to compare with: only shares can be told." : "Against the mask, in per cent of pixels.";
  }

  async function cut() {
    asked?.abort();
    asked = new AbortController();
    const address = new URL(quality.dataset.address, location.href);
    for (const slider of sliders) if (isChanged(slider)) address.searchParams.set(slider.name, slider.value);
    if (!labels.picture.src) labels.state.textContent = "…";
    try {
      const response = await fetch(address, { signal: asked.signal });
      if (!response.ok) throw new Error(await sentence(response));
      const found = await response.json();
      labels.picture.src = found.picture;
      labels.state.textContent = "";
      tell(found.quality);
      show(labels);
    } catch (error) {
      if (error.name === "AbortError") return;
      labels.state.textContent = "";
      said.textContent = error.message;
    }
  }

  function moved() {
    for (const slider of sliders) {
      form.querySelector(`output[for="${slider.id}"]`).textContent = Number(slider.value).toFixed(2);
      kept.sliders[slider.name] = isChanged(slider) ? slider.value : undefined;
    }
    remember();
    const different = sliders.filter(isChanged).map((slider) => `-S extract_pseudo_labels.${slider.name}=${slider.value}`);
    if (changed) changed.textContent = different.length ? `To train with these: dvc exp run ${different.join(" ")}` : "";
    clearTimeout(timer);
    timer = setTimeout(cut, WAIT);
  }

  for (const slider of sliders) {
    if (kept.sliders[slider.name]) slider.value = kept.sliders[slider.name];
    slider.addEventListener("input", moved);
  }
  form?.addEventListener("submit", (event) => event.preventDefault());
  form?.addEventListener("reset", () => setTimeout(moved));
  if (sliders.length) moved();
  else cut();

  // Setting aside.
  const aside = document.getElementById("aside");
  const other = document.getElementById("other");
  const note = document.getElementById("note");
  const now = document.getElementById("now");

  function mark(answer) {
    aside.dataset.verdict = answer.verdict;
    aside.dataset.label = answer.label;
    now.textContent = describe(answer) || "not set aside";
    now.classList.toggle("is-aside", Boolean(answer.verdict));
    for (const button of aside.querySelectorAll("[data-set]")) {
      if (button.dataset.set) button.setAttribute("aria-pressed", String(button.dataset.set === answer.verdict));
      else button.disabled = !answer.verdict;
    }
  }

  async function write(verdict) {
    const label = verdict === "corrected" ? other.value : "";
    const answer = await setAside(one, { verdict, label, note: verdict ? note.value : "" });
    if (answer) mark(answer);
  }

  for (const button of aside.querySelectorAll("[data-set]")) button.addEventListener("click", () => write(button.dataset.set));
  other?.addEventListener("change", () => aside.dataset.verdict === "corrected" && write("corrected"));
  note.addEventListener("change", () => aside.dataset.verdict && write(aside.dataset.verdict));
  aside.addEventListener("submit", (event) => {
    event.preventDefault();
    note.blur();
  });
  mark({ verdict: aside.dataset.verdict, label: aside.dataset.label });
  say("");
})();
