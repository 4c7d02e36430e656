// The frame budget in a browser: decode (WebCodecs) -> resize (canvas) -> network -> composite (canvas), step by step.
// Canvases live in memory (willReadFrequently) and are read after each step, as drawing would else only be queued.
"use strict";

// clip.json: {width, height, codec, lengths}; clip.bin: one encoded frame after the other.
async function clip() {
  const told = await (await fetch("/clip.json")).json();
  const bytes = await (await fetch("/clip.bin")).arrayBuffer();
  let at = 0;
  const chunks = told.lengths.map((length, number) => {
    const data = bytes.slice(at, at += length);
    return new EncodedVideoChunk({ type: number ? "delta" : "key", timestamp: number * 33333, data });
  });
  return { ...told, chunks };
}

// A decoder that hands out one frame a chunk.
function decoder({ codec, width, height }) {
  const frames = [];
  let failed = null, wake = () => {};
  const video = new VideoDecoder({
    output: frame => { frames.push(frame); wake(); },
    error: error => { failed = error; wake(); },
  });
  // Somebody must hold it: what only waits for a frame is garbage to Chromium, which then never comes.
  window.video = video;
  const hardwareAcceleration = "prefer-software"; // the processor's own time, on every machine
  video.configure({ codec, codedWidth: width, codedHeight: height, optimizeForLatency: true, hardwareAcceleration });
  return async chunk => {
    video.decode(chunk);
    while (!frames.length && !failed) await new Promise(resolve => { wake = resolve; });
    if (failed) throw failed;
    return frames.shift();
  };
}

function canvas(width, height) {
  return new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
}

// A soft oval in the middle is where the effect is seen, as around a face.
function mask(width, height) {
  const drawing = canvas(width, height);
  drawing.setTransform(width / 2, 0, 0, height / 2, width / 2, height / 2);
  const fade = drawing.createRadialGradient(0, 0, 0.6, 0, 0, 0.9);
  fade.addColorStop(0, "#000f");
  fade.addColorStop(1, "#0000");
  drawing.fillStyle = fade;
  drawing.fillRect(-1, -1, 2, 2);
  return drawing.canvas;
}

// RGBA bytes -> three planes of floats in [0,1].
function toPlanes(data, planes) {
  const area = data.length / 4;
  for (let at = 0; at < area; at++) {
    planes[at] = data[4 * at] / 255;
    planes[at + area] = data[4 * at + 1] / 255;
    planes[at + 2 * area] = data[4 * at + 2] / 255;
  }
}

function toPicture(planes, picture) {
  const data = picture.data, area = data.length / 4; // clamped bytes: they round, and limit
  for (let at = 0; at < area; at++) {
    data[4 * at] = 255 * planes[at];
    data[4 * at + 1] = 255 * planes[at + area];
    data[4 * at + 2] = 255 * planes[at + 2 * area];
    data[4 * at + 3] = 255;
  }
}

// Milliseconds of every step of every frame.
export async function frames(network, file, count) {
  if (!("VideoDecoder" in window)) throw new Error("this browser has no VideoDecoder");
  const { chunks, ...told } = await clip();
  const supported = await VideoDecoder.isConfigSupported({ codec: told.codec });
  if (!supported.supported) throw new Error(`this browser does not decode ${told.codec}`);
  const decode = decoder(told), size = network.size(file), { width, height } = told;
  const small = canvas(size, size), effect = canvas(width, height), shown = canvas(width, height);
  const soft = mask(width, height), picture = small.createImageData(size, size);
  const steps = { decode: [], resize: [], network: [], composite: [] };
  for (const chunk of chunks.slice(0, count)) {
    const marks = [performance.now()];
    const frame = await decode(chunk);
    marks.push(performance.now());
    small.drawImage(frame, 0, 0, size, size);
    const planes = new Float32Array(3 * size * size);
    toPlanes(small.getImageData(0, 0, size, size).data, planes);
    marks.push(performance.now());
    const output = await network.run(file, planes);
    marks.push(performance.now());
    toPicture(output, picture);
    small.putImageData(picture, 0, 0);
    effect.globalCompositeOperation = "copy";
    effect.drawImage(small.canvas, 0, 0, width, height);
    effect.globalCompositeOperation = "destination-in";
    effect.drawImage(soft, 0, 0);
    shown.drawImage(frame, 0, 0, width, height);
    shown.drawImage(effect.canvas, 0, 0);
    shown.getImageData(0, 0, 1, 1);
    marks.push(performance.now());
    frame.close();
    Object.keys(steps).forEach((step, at) => steps[step].push(marks[at + 1] - marks[at]));
  }
  window.shown = shown; // the last frame, to be looked at
  return steps;
}
