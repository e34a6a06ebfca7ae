"use strict";
// What all pages over images share: keys that follow links, filters that apply by themselves, and setting images aside.
(() => {
  const trouble = document.getElementById("trouble");
  const spoken = { leave_out: () => "left out", corrected: (label) => `corrected to ${label}` };

  function say(message) {
    if (!trouble) return;
    trouble.textContent = message;
    trouble.hidden = !message;
  }

  // Write or take back the row of an image; the answer is what is now written, or null where that failed.
  // One after the other: what was asked for last is what stays.
  let written = Promise.resolve(null);
  function setAside(image, row) {
    written = written.then(() => write(image, row));
    return written;
  }

  async function write(image, { verdict, label = "", note = "" }) {
    const body = JSON.stringify({ domain: image.dataset.domain, image: image.dataset.image, verdict, label, note });
    try {
      const response = await fetch("/api/review", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      const type = response.headers.get("Content-Type") || "";
      const answer = type.startsWith("application/json") ? await response.json() : { error: await response.text() };
      if (!response.ok) throw new Error(answer.error);
      say("");
      const count = document.querySelector('[data-count="/review"]');
      if (count) count.textContent = answer.count;
      return answer;
    } catch (error) {
      say(`Not written: ${error.message || "the page does not answer; is 'pixelcam view' still running?"}`);
      return null;
    }
  }

  const describe = ({ verdict, label }) => (verdict ? spoken[verdict](label) : "");

  for (const cell of document.querySelectorAll(".cell")) {
    const button = cell.querySelector("[data-toggle]");
    button?.addEventListener("click", async () => {
      const answer = await setAside(cell, { verdict: button.getAttribute("aria-pressed") === "true" ? "" : "leave_out" });
      if (!answer) return;
      cell.classList.toggle("aside", Boolean(answer.verdict));
      cell.querySelector("[data-verdict]").textContent = describe(answer);
      button.setAttribute("aria-pressed", String(Boolean(answer.verdict)));
      button.textContent = answer.verdict ? "Undo" : "Leave out";
    });
  }

  for (const button of document.querySelectorAll("[data-remove]")) {
    const row = button.closest("tr");
    button.addEventListener("click", async () => {
      if (!(await setAside(row, { verdict: "" }))) return;
      row.querySelector("[data-verdict]").textContent = "taken back";
      button.remove();
    });
  }

  for (const form of document.querySelectorAll("[data-submit-on-change]")) {
    form.addEventListener("change", (event) => {
      if (event.target.matches("select")) form.requestSubmit();
    });
    form.addEventListener("formdata", (event) => {
      for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
    });
  }

  for (const picture of document.querySelectorAll(".thumbnail img")) {
    const broken = () => picture.closest(".thumbnail").classList.add("broken");
    picture.addEventListener("error", broken);
    if (picture.complete && !picture.naturalWidth) broken();
  }

  // Keys, but for those that a control takes itself; Escape leaves the control first.
  const TEXTS = "input:not([type=checkbox], [type=range]), select, textarea";
  const MOVES = /^(Arrow|Home|End|Page)/;
  const links = { ArrowLeft: "a[rel=prev]", ArrowRight: "a[rel=next]", Escape: "a[data-key=Escape]" };

  function isTaken({ key, target }) {
    if (key === "Escape" && target.matches("input, select, textarea")) {
      target.blur();
      return true;
    }
    return target.matches(TEXTS) || (target.matches("[type=range]") && MOVES.test(key));
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented || isTaken(event)) return;
    const selector = links[event.key] || `[data-shortcut="${CSS.escape(event.key)}"]`;
    const control = document.querySelector(selector);
    if (!control) return;
    event.preventDefault();
    control.click();
  });

  window.pixelcamView = { describe, say, setAside };
})();
