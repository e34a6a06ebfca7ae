// The model on this machine: on its graphics processor where there is one that gets the check right, else on the
// processor.

const ENGINES = { webgpu: "the graphics processor (WebGPU)", wasm: "the processor (WebAssembly)" };

function checkBrowser() {
  if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function") {
    throw new Refusal("This browser is too old for this page, or WebAssembly is switched off in it. Use one of 2023 or later.");
  }
}

async function startRuntime(script, wasm) {
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const runtime = await import(address);
  runtime.env.logLevel = "error";
  runtime.env.wasm.wasmBinary = wasm.buffer;
  runtime.env.wasm.numThreads = globalThis.crossOriginIsolated ? 0 : 1; // 0: as many as it finds useful
  return runtime;
}

async function hasGraphicsProcessor() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return Boolean(adapter) && !(adapter.isFallbackAdapter || adapter.info?.isFallbackAdapter); // that is slow software
  } catch {
    return false;
  }
}

// `start` gives a runtime of its own to each engine: one that has failed cannot be asked again.
class Model {
  constructor(start, bytes, example) {
    this.start = start;
    this.bytes = bytes;
    this.example = example;
    this.last = Promise.resolve();
  }

  async open() {
    if (await hasGraphicsProcessor()) {
      try {
        return await this.openOn("webgpu");
      } catch (error) {
        console.warn(error);
      }
    }
    return this.openOn("wasm");
  }

  async openOn(engine) {
    this.runtime = await this.start();
    this.session = await this.runtime.InferenceSession.create(this.bytes, {
      executionProviders: [engine],
      logSeverityLevel: 3, // errors alone
    });
    this.engine = engine;
    this.off = furthest(await this.run(exampleImage(this.example)), this.example);
    if (!(this.off <= this.example.tolerance)) {
      throw new Refusal(`On ${ENGINES[engine]} of this machine the model is off by ${this.off}. Use another browser.`);
    }
  }

  // One image after the other: an engine does not take two at a time.
  ask(image) {
    this.last = this.last.catch(() => {}).then(() => this.runAnywhere(image));
    return this.last;
  }

  async runAnywhere(image) {
    try {
      return await this.run(image);
    } catch (error) {
      if (this.engine !== "webgpu") throw error;
      console.warn(error); // such as an image too large for its memory
      await this.openOn("wasm");
      return this.run(image);
    }
  }

  async run({ pixels, width, height }) {
    const image = new this.runtime.Tensor("uint8", pixels, [1, height, width, 3]);
    const said = await this.session.run({ image });
    return {
      probabilities: Array.from(said.probabilities.data),
      map: said.map.data,
      classMaps: said.class_maps ? split(said.class_maps.data, said.class_maps.dims[1]) : [],
    };
  }
}

function split(values, count) {
  const length = values.length / count;
  return Array.from({ length: count }, (_, at) => values.subarray(at * length, (at + 1) * length));
}

// The same pixels as in pipeline/export/web.py, whose answers the page knows.
function exampleImage({ width, height }) {
  const pixels = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      for (let channel = 0; channel < 3; channel += 1) {
        pixels[(y * width + x) * 3 + channel] = (7 * x + 13 * y + 29 * channel + x * y) % 256;
      }
    }
  }
  return { pixels, width, height };
}

function furthest(said, expected) {
  const ofClasses = expected.probabilities.map((value, at) => Math.abs(said.probabilities[at] - value));
  const ofPixels = expected.map.map((value, at) => Math.abs(said.map[at] - value));
  return Math.max(...ofClasses, ...ofPixels);
}
