"use strict";
// What scripts read stands in data- attributes; without them the page is whole.
// Filters, order and sliders of the gallery.
(() => {
  const form = document.getElementById("filters");
  const list = document.getElementById("cases");
  if (!form || !list) return;
  const count = document.getElementById("count");
  const cases = Array.from(list.children);
  const orders = {
    chosen: null,
    best: ["fit", -1],
    worst: ["fit", 1],
    gain: ["gain", -1],
    loss: ["gain", 1],
  };

  function fits(entry) {
    const { domain, label, judged } = form.elements;
    const [model, verdict] = judged.value.split(":");
    return (
      (!domain.value || entry.dataset.domain === domain.value.slice(1)) &&
      (!label.value || entry.dataset.label === label.value.slice(1)) &&
      (!model || entry.dataset[model] === verdict)
    );
  }

  function ordered() {
    const order = orders[form.elements.order.value];
    if (!order) return cases;
    const [key, sign] = order;
    const known = cases.filter((entry) => entry.dataset[key] !== "");
    const unknown = cases.filter((entry) => entry.dataset[key] === "");
    known.sort((one, other) => sign * (Number(one.dataset[key]) - Number(other.dataset[key])));
    return [...known, ...unknown];
  }

  function update() {
    let shown = 0;
    for (const entry of cases) {
      entry.hidden = !fits(entry);
      shown += entry.hidden ? 0 : 1;
    }
    list.append(...ordered());
    count.textContent = shown ? `${shown} of ${cases.length} images` : `None of ${cases.length} images is like that.`;
    list.classList.toggle("no-outline", !form.elements.outline.checked);
  }

  function wipe(entry, value) {
    entry.style.setProperty("--shown", `${value}%`);
    entry.querySelector("input[type=range]").value = value;
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    for (const entry of cases) wipe(entry, 100);
    setTimeout(update);
  });
  form.addEventListener("input", (event) => {
    if (event.target === form.elements.wipe) {
      for (const entry of cases) wipe(entry, event.target.value);
    } else {
      update();
    }
  });
  list.addEventListener("input", (event) => wipe(event.target.closest(".case"), event.target.value));
  document.documentElement.classList.add("scripted");
  update();
})();
// The page to try PixelCAM on is many megabytes, which load when its fold is opened.
(() => {
  const fold = document.getElementById("try-it-fold");
  if (!fold) return;
  const frame = fold.querySelector("iframe");
  fold.addEventListener("toggle", () => {
    if (fold.open && !frame.src) frame.src = frame.dataset.address;
  });
})();
