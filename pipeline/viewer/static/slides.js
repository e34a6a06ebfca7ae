"use strict";
// One slide to zoom into: tiles of the scanner's file, maps over it as tiles too, and outlines as lines of even width.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const BAR = 120; // the scale bar is at most so many pixels long
  const place = document.getElementById("deep");
  const trouble = document.getElementById("trouble");
  if (!place) return;
  const { width, height, mpp, tile } = Object.fromEntries(
    ["width", "height", "mpp", "tile"].map((name) => [name, Number(place.dataset[name])]),
  );

  function say(message) {
    if (!trouble.hidden) return; // the first one is the cause
    trouble.textContent = message;
    trouble.hidden = false;
  }

  async function sentence(response) {
    const type = response.headers.get("Content-Type") || "";
    return type.startsWith("application/json") ? (await response.json()).error : response.text();
  }

  // The address of a tile, of what the page says of a picture in tiles.
  function tiles({ address, overlap, lowest, highest }, size) {
    return {
      width: size.width,
      height: size.height,
      tileSize: tile,
      tileOverlap: Number(overlap),
      minLevel: Number(lowest),
      maxLevel: Number(highest),
      getTileUrl: (level, x, y) => `${address}&level=${level}&x=${x}&y=${y}`,
    };
  }

  // OpenSeadragon would write a style into the page, which the page's policy refuses, unless it finds one marked so. This
  // one means nothing to a browser; slides.css says what is needed.
  const mark = document.head.appendChild(document.createElementNS(null, "style"));
  mark.setAttribute("data-openseadragon-mobile-css", "true");

  const viewer = OpenSeadragon({
    element: place,
    tileSources: place.dataset.address ? tiles(place.dataset, { width, height }) : { type: "image", url: place.dataset.overview },
    showNavigationControl: false,
    showNavigator: true,
    navigatorPosition: "BOTTOM_RIGHT",
    navigatorSizeRatio: 0.16,
    navigatorBackground: "#ffffff",
    drawer: "canvas",
    imageLoaderLimit: 4,
    maxZoomPixelRatio: 4,
    visibilityRatio: 0.4,
    animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.6,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  });

  viewer.canvas.setAttribute("role", "application");
  viewer.canvas.setAttribute("aria-label", place.dataset.label);
  viewer.addHandler("canvas-key", (event) => {
    if ("rRfF".includes(event.originalEvent.key)) event.preventDefaultAction = true; // outlines do not turn with it
  });

  // Outlines lie in pixels of the slide; the group that holds them follows the view.
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("aria-hidden", "true");
  const group = drawing.appendChild(document.createElementNS(SVG, "g"));
  viewer.canvas.appendChild(drawing);
  const bar = document.getElementById("bar");
  const length = document.getElementById("length");

  function follow() {
    const [origin, end] = [0, 1].map((x) => viewer.viewport.viewportToViewerElementCoordinates(new OpenSeadragon.Point(x, 0)));
    const perPixel = (end.x - origin.x) / width; // of the slide, those of the screen
    if (!(perPixel > 0)) return;
    group.setAttribute("transform", `translate(${origin.x} ${origin.y}) scale(${perPixel})`);
    const longest = (BAR / perPixel) * mpp; // micrometres
    const step = 10 ** Math.floor(Math.log10(longest));
    const shown = [5, 2, 1].map((times) => times * step).find((micrometres) => micrometres <= longest);
    bar.style.width = `${(shown / mpp) * perPixel}px`;
    length.textContent = shown < 1000 ? `${shown} µm` : `${shown / 1000} mm`;
  }
  for (const event of ["open", "update-viewport", "resize"]) viewer.addHandler(event, follow);

  viewer.addHandler("open-failed", () => say("The slide cannot be shown."));
  viewer.addHandler("tile-load-failed", async ({ tile: failed }) => {
    try {
      const response = await fetch(failed.getUrl());
      if (!response.ok) say(await sentence(response));
    } catch {
      say("The page does not answer; is 'pixelcam view' still running?");
    }
  });

  const path = (shapes) => shapes.map((rings) => rings.map((ring) => `M${ring.map((point) => point.join(" ")).join("L")}Z`).join("")).join("");

  async function outline(layer) {
    const { shapes } = await fetch(layer.dataset.address).then(async (response) => {
      if (!response.ok) throw new Error(await sentence(response));
      return response.json();
    });
    const lines = document.createElementNS(SVG, "g");
    for (const kind of layer.dataset.layer === "annotation" ? ["edge", "annotation"] : [layer.dataset.layer]) {
      const line = lines.appendChild(document.createElementNS(SVG, "path"));
      line.setAttribute("class", `shape-${kind}`);
      line.setAttribute("d", path(shapes));
    }
    group.appendChild(lines);
    const show = (opacity) => {
      lines.style.opacity = opacity;
    };
    return { show, said: shapes.length ? "" : "nothing is outlined" };
  }

  const pictures = (layer) =>
    new Promise((resolve, reject) => {
      const size = { width: Number(layer.dataset.width), height: Number(layer.dataset.height) };
      viewer.addTiledImage({
        tileSource: tiles(layer.dataset, size),
        x: 0,
        y: 0,
        width: layer.dataset.extent / width,
        opacity: 0,
        success: ({ item }) => resolve({ show: (opacity) => item.setOpacity(opacity), said: "" }),
        error: () => reject(new Error("cannot be shown")),
      });
    });

  const base = async () => ({ show: (opacity) => viewer.world.getItemAt(0).setOpacity(opacity), said: "" });
  const makers = { slide: base, tiles: pictures, shapes: outline };

  function layered(row) {
    const box = row.querySelector("input[type=checkbox]");
    const opacity = row.querySelector("input[type=range]");
    const state = row.querySelector(".state");
    let made = null; // a promise of what is drawn, once it was wanted

    async function change() {
      opacity.disabled = !box.checked;
      if (!made && !box.checked) return;
      made = made || makers[row.dataset.kind](row);
      try {
        const { show, said } = await made;
        show(box.checked ? opacity.value / 100 : 0);
        if (state) state.textContent = box.checked ? said : "";
      } catch (error) {
        made = null;
        state.textContent = error.message;
        state.classList.add("told");
      }
    }
    box.addEventListener("change", change);
    opacity.addEventListener("input", change);
    return change();
  }

  viewer.addOnceHandler("open", async () => {
    // One after the other, so that they lie over each other in the order of the list.
    for (const row of document.querySelectorAll("[data-layer]")) await layered(row);
    place.dataset.state = "shown"; // for whoever waits for the layers
  });

  const zoom = (factor) => {
    viewer.viewport.zoomBy(factor);
    viewer.viewport.applyConstraints();
  };
  document.getElementById("in").addEventListener("click", () => zoom(2));
  document.getElementById("out").addEventListener("click", () => zoom(0.5));
  document.getElementById("whole").addEventListener("click", () => viewer.viewport.goHome());
  const full = document.getElementById("full");
  if (document.fullscreenEnabled) {
    full.hidden = false;
    full.addEventListener("click", () => place.requestFullscreen());
  }

  for (const button of document.querySelectorAll("[data-box]")) {
    button.addEventListener("click", () => {
      const [left, top, across, down] = button.dataset.box.split(" ").map((number) => Number(number) / width);
      const around = Math.max(across, down); // so that what lies beside it shows too
      viewer.viewport.fitBounds(new OpenSeadragon.Rect(left - around / 2, top - around / 2, across + around, down + around));
      place.scrollIntoView({ block: "nearest" });
    });
  }

  window.pixelcamSlide = viewer; // for a console, and tests
})();
