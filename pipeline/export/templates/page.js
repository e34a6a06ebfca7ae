// What the visitor does, and what the page says. Names reach the page as text alone.

const facts = JSON.parse(document.getElementById("facts").textContent);
const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;

let asked = 0; // images so far: only the last one is shown
let shown = null;
let redrawing = 0;

function say(text) {
  element("status").textContent = text;
}

function refuse(error) {
  console.warn(error);
  const known = error instanceof Refusal;
  element("alarm").textContent = known ? error.message : `That did not work (${error.message}). Open this page again, or use another browser.`;
  element("alarm").hidden = false;
  element("result").hidden = true;
  say("");
}

async function load() {
  checkBrowser();
  const { runtime, wasm, model } = facts.files;
  const bar = element("progress");
  bar.max = runtime.length + wasm.length + model.length + 1; // the last step is the check
  const step = () => {
    bar.value += 1;
    say(`Loading the model, ${Math.round((100 * bar.value) / bar.max)} %`);
  };
  const [script, binary, bytes] = [await loadPieces(runtime, step), await loadPieces(wasm, step), await loadPieces(model, step)];
  const opened = new Model(() => startRuntime(script, binary), bytes, facts.example);
  await opened.open();
  bar.hidden = true;
  tellEngine(opened);
  return opened;
}

function tellEngine({ engine, off }) {
  element("engine").textContent = `on ${ENGINES[engine]} of this machine; off by at most ${off.toExponential(0)} on a test image`;
}

// Lets the browser paint what was said before it is busy.
function painted() {
  return new Promise((resolve) => {
    requestAnimationFrame(() => setTimeout(resolve));
  });
}

async function take(file) {
  asked += 1;
  const number = asked;
  element("alarm").hidden = true;
  try {
    const picture = await readPicture(file);
    const opened = await model;
    if (number !== asked) return;
    say(`Looking at ${picture.name} …`);
    await painted();
    const begun = performance.now();
    const answer = await look(opened, picture);
    if (number !== asked) return;
    tellEngine(opened);
    show(picture, answer, performance.now() - begun);
    document.dispatchEvent(new CustomEvent("looked", { detail: answer })); // for whoever wants the numbers
  } catch (error) {
    if (number === asked) refuse(error);
  }
}

async function look(opened, picture) {
  try {
    return await opened.ask(picture);
  } catch (error) {
    const size = `${picture.width} × ${picture.height}`;
    throw new Refusal(`The model could not look at “${picture.name}” (${size} pixels): ${error.message}. There may not be enough memory; make the picture smaller.`);
  }
}

function show(picture, answer, milliseconds) {
  shown = { ...picture, ...answer, whole: answer.map };
  const best = answer.probabilities.indexOf(Math.max(...answer.probabilities));
  element("class").textContent = facts.classes[best];
  element("confidence").textContent = percent(answer.probabilities[best]);
  listClasses(answer.probabilities, best);
  element("whose").value = "";
  element("result").hidden = false;
  element("drop").classList.add("compact");
  element("choose").textContent = "Choose another image";
  drawPicture(element("picture"), picture);
  drawMap();
  const seconds = (milliseconds / 1000).toFixed(1);
  const share = percent(shareAbove(shown.map, threshold()));
  say(`${picture.name}, ${picture.width} × ${picture.height} pixels: ${facts.classes[best]}, ${percent(answer.probabilities[best])}; ${share} of it at or above the threshold. Took ${seconds} s.`);
}

function listClasses(probabilities, best) {
  const rows = probabilities.map((value, at) => {
    const row = document.createElement("li");
    row.classList.toggle("best", at === best);
    row.append(textIn("span", facts.classes[at]), textIn("span", percent(value)), document.createElement("i"));
    row.lastChild.style.setProperty("--share", value);
    return row;
  });
  element("classes").replaceChildren(...rows);
}

function textIn(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function threshold() {
  return Number(element("threshold").value);
}

function drawMap() {
  const whose = element("whose").value;
  shown.map = whose === "" ? shown.whole : shown.classMaps[Number(whose)];
  shown.values = valuesOn(element("picture"), shown);
  drawHeat(element("heat"), element("picture"), shown.values, facts.colours, facts.share);
  update();
}

function update() {
  const cut = threshold();
  const share = percent(shareAbove(shown.map, cut));
  const opacity = Number(element("opacity").value);
  drawOutline(element("outline"), element("picture"), shown.values, cut);
  element("heat").style.opacity = opacity / 100;
  element("share").textContent = share;
  element("cut").textContent = cut.toFixed(3);
  element("threshold").setAttribute("aria-valuetext", `${cut.toFixed(3)}, ${share} of the image`);
  element("seen").textContent = `${opacity} %`;
  element("stack").setAttribute("aria-label", `${shown.name} under its map; outlined: ${share} of it, at or above ${cut.toFixed(3)}`);
}

function updateSoon() {
  cancelAnimationFrame(redrawing);
  redrawing = requestAnimationFrame(update);
}

function takeFirst(files) {
  const [first] = Array.from(files);
  if (first) take(first);
  else refuse(new Refusal(`That was no file. Save the picture first, and choose or drop it then; ${KINDS}.`));
}

function listenToFiles() {
  for (const [button, input] of [["choose", "file"], ["photograph", "camera"]]) {
    element(button).addEventListener("click", () => element(input).click());
    element(input).addEventListener("change", ({ target }) => {
      if (target.files.length) take(target.files[0]);
      target.value = ""; // the same file may be chosen again
    });
  }
  document.addEventListener("paste", (event) => takeFirst(event.clipboardData.files));
}

function listenToDrops() {
  const over = (is) => document.documentElement.classList.toggle("over", is);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) over(false);
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    takeFirst(event.dataTransfer.files);
  });
}

function listenToControls() {
  element("threshold").addEventListener("input", updateSoon);
  element("opacity").addEventListener("input", updateSoon);
  element("whose").addEventListener("change", drawMap);
  element("back").addEventListener("click", () => {
    element("threshold").value = facts.threshold;
    update();
  });
}

listenToFiles();
listenToDrops();
listenToControls();
const model = load();
model.then(
  () => say("Ready."),
  (error) => {
    element("progress").hidden = true;
    refuse(error);
  },
);
