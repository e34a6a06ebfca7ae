// The engine and the model come as packed text in scripts beside the page: these load from a folder as from a server,
// and the page needs no right to fetch anything.

class Refusal extends Error {} // its message is a sentence for the visitor

const nonce = document.currentScript.nonce; // the page's policy lets its own scripts run by it
const pieces = new Map();

globalThis.receivePiece = (path, text) => pieces.set(path, bytesOf(text));

function bytesOf(base64) {
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < letters.length; at += 1) bytes[at] = letters.charCodeAt(at);
  return bytes;
}

function runScript(path) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.nonce = nonce;
    script.src = path;
    script.onload = resolve;
    script.onerror = () => reject(new Refusal(`${path} is missing beside this page. Copy its whole folder, and open it again.`));
    document.head.append(script);
  });
}

async function loadPieces(paths, onPiece) {
  const packed = [];
  for (const path of paths) {
    await runScript(path);
    if (!pieces.has(path)) throw new Refusal(`${path} is damaged. Copy the page's folder again.`);
    packed.push(pieces.get(path));
    pieces.delete(path);
    onPiece();
  }
  return unpacked(new Blob(packed));
}

async function unpacked(blob) {
  const stream = blob.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
