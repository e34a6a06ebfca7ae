// From a file to pixels, upright, as a decoder gives them; whatever is no such picture gets a sentence.

const MOST_PIXELS = 50e6;
const SMALLEST_SIDE = 16;
const STRIP = 4e6; // pixels that are read at a time: phones give up on larger canvases
const KINDS = "JPEG, PNG, WebP, GIF and BMP can be read";

async function readPicture(file) {
  await refuseOtherKinds(file);
  const { width, height } = await sizeOf(file);
  if (width * height > MOST_PIXELS) {
    const came = Math.round((width * height) / 1e6);
    throw new Refusal(`“${file.name}” has ${came} megapixels, and this page takes up to ${MOST_PIXELS / 1e6}. Cut out the part that you mean, or make it smaller.`);
  }
  if (Math.min(width, height) < SMALLEST_SIDE) {
    throw new Refusal(`“${file.name}” has ${width} × ${height} pixels; there must be at least ${SMALLEST_SIDE} on each side.`);
  }
  const bitmap = await decode(file);
  return { name: file.name, width: bitmap.width, height: bitmap.height, bitmap, pixels: pixelsOf(bitmap) };
}

async function refuseOtherKinds(file) {
  const start = new Uint8Array(await file.slice(0, 4).arrayBuffer().catch(() => unreadable(file)));
  const begins = (...bytes) => bytes.every((byte, at) => start[at] === byte);
  if (start.length === 0) throw new Refusal(`“${file.name}” is empty, or a folder. Choose a picture.`);
  if (begins(0x25, 0x50, 0x44, 0x46)) {
    throw new Refusal(`“${file.name}” is a PDF, not a picture. Save what you mean as PNG or JPEG.`);
  }
  if (begins(0x49, 0x49) || begins(0x4d, 0x4d, 0x00)) {
    throw new Refusal(`“${file.name}” is a TIFF or a whole slide, which browsers do not read. Save the part that you mean as PNG or JPEG.`);
  }
}

function unreadable(file) {
  throw new Refusal(`“${file.name}” cannot be read as a picture: it is broken or of another kind. ${KINDS}.`);
}

// What the header says, so that no picture is decoded that is too large.
async function sizeOf(file) {
  const image = new Image();
  const address = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = reject;
      image.src = address;
    });
    return { width: image.naturalWidth, height: image.naturalHeight };
  } catch {
    return unreadable(file);
  } finally {
    URL.revokeObjectURL(address);
  }
}

async function decode(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    return unreadable(file);
  }
}

function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const rows = Math.max(1, Math.floor(STRIP / width));
  const pixels = new Uint8Array(width * height * 3);
  for (let top = 0; top < height; top += rows) {
    copyColours(strip(bitmap, top, Math.min(rows, height - top)), pixels, top * width * 3);
  }
  return pixels;
}

function strip(bitmap, top, rows) {
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = rows;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // beneath what is transparent
  context.fillRect(0, 0, canvas.width, rows);
  context.drawImage(bitmap, 0, -top);
  return context.getImageData(0, 0, canvas.width, rows).data;
}

function copyColours(rgba, rgb, start) {
  for (let from = 0, to = start; from < rgba.length; from += 4, to += 3) {
    rgb[to] = rgba[from];
    rgb[to + 1] = rgba[from + 1];
    rgb[to + 2] = rgba[from + 2];
  }
}
