// The picture, the map over it, and the outline of what is at or above the threshold.

const LONGER_SIDE = 1200; // pixels of what is shown, whatever the picture has
const LINE = 3;

function drawPicture(canvas, { bitmap, width, height }) {
  const scale = LONGER_SIDE / Math.max(width, height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}

// The map's values at the pixels of a canvas, between those of the image.
function valuesOn(canvas, { map, width, height }) {
  const across = Array.from({ length: canvas.width }, (_, x) => neighbours(x, canvas.width, width));
  const values = new Float32Array(canvas.width * canvas.height);
  for (let y = 0, at = 0; y < canvas.height; y += 1) {
    const [above, below, down] = neighbours(y, canvas.height, height);
    for (let x = 0; x < canvas.width; x += 1, at += 1) {
      const [left, right, along] = across[x];
      const upper = between(map[above * width + left], map[above * width + right], along);
      const lower = between(map[below * width + left], map[below * width + right], along);
      values[at] = between(upper, lower, down);
    }
  }
  return values;
}

// The two pixels of an image's side that a place on a side of another length lies between, and how far along.
function neighbours(place, places, length) {
  const exact = Math.min(Math.max(((place + 0.5) * length) / places - 0.5, 0), length - 1);
  const first = Math.floor(exact);
  return [first, Math.min(first + 1, length - 1), exact - first];
}

function between(one, other, share) {
  return one + (other - one) * share;
}

// Colours over the grey picture: tissue has colours of its own, which would change those of the map.
function drawHeat(canvas, picture, values, colours, share) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  const below = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height).data;
  const context = canvas.getContext("2d");
  const drawn = context.createImageData(canvas.width, canvas.height);
  for (let at = 0; at < values.length; at += 1) {
    const grey = 0.2126 * below[4 * at] + 0.7152 * below[4 * at + 1] + 0.0722 * below[4 * at + 2];
    const colour = colours[Math.round(values[at] * (colours.length - 1))];
    for (let channel = 0; channel < 3; channel += 1) {
      drawn.data[4 * at + channel] = share * colour[channel] + (1 - share) * grey;
    }
    drawn.data[4 * at + 3] = 255;
  }
  context.putImageData(drawn, 0, 0);
}

// A white line within the region and a dark one around it, which show on any ground.
function drawOutline(canvas, { width, height }, values, threshold) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const drawn = context.createImageData(width, height);
  const inside = (x, y) => values[y * width + x] >= threshold;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const own = inside(x, y);
      if (!differsNearby(inside, own, x, y, width, height)) continue;
      drawn.data.set(own ? [255, 255, 255, 255] : [20, 20, 20, 255], 4 * (y * width + x));
    }
  }
  context.putImageData(drawn, 0, 0);
}

function differsNearby(inside, own, x, y, width, height) {
  return (
    (x >= LINE && inside(x - LINE, y) !== own) ||
    (x + LINE < width && inside(x + LINE, y) !== own) ||
    (y >= LINE && inside(x, y - LINE) !== own) ||
    (y + LINE < height && inside(x, y + LINE) !== own)
  );
}

function shareAbove(map, threshold) {
  let count = 0;
  for (let at = 0; at < map.length; at += 1) count += map[at] >= threshold ? 1 : 0;
  return count / map.length;
}
