// Times ONNX files with ONNX Runtime's WebAssembly or WebGPU. tasks/target_browser.py opens one page for each provider
// and number of threads, calls start(NAME, ARGUMENTS), and reads window.answer when there is one.
"use strict";
import { frames } from "/frames.js";

const asked = new URLSearchParams(location.search);
const provider = asked.get("provider");
const ort = await import(provider === "webgpu" ? "/ort/ort.webgpu.min.mjs" : "/ort/ort.wasm.min.mjs");
ort.env.logLevel = "error";
ort.env.wasm.wasmPaths = "/ort/";
ort.env.wasm.numThreads = Number(asked.get("threads"));

const opened = new Map(); // file -> {session, size, feeds}

async function about() {
  const adapter = navigator.gpu ? await navigator.gpu.requestAdapter() : null;
  const info = adapter?.info;
  const named = [info?.vendor, info?.architecture, info?.description].filter(Boolean).join(" ") || "unnamed";
  return {
    runtime: ort.env.versions?.web ?? "",
    cores: navigator.hardwareConcurrency,
    isolated: crossOriginIsolated,
    webgpu: adapter ? named : null,
    webgpu_absent: navigator.gpu ? "no adapter (no graphics processor that the browser may use)" : "no navigator.gpu",
    software: Boolean(info?.isFallbackAdapter ?? adapter?.isFallbackAdapter) || /swiftshader/i.test(named),
  };
}

// The size of a file's pictures, once it is open; throws for a file that is no model or has another contract. `gives`
// says what it gives: a picture as large as its own, or logits.
async function open(file, gives) {
  const bytes = new Uint8Array(await (await fetch(`/models/${file}`)).arrayBuffer());
  const session = await ort.InferenceSession.create(bytes, { executionProviders: [provider] });
  const [input] = session.inputMetadata, [output] = session.outputMetadata;
  const told = one => `${one.type} [${one.shape}]`;
  const size = input?.shape?.[2];
  const floats = one => one?.isTensor && one.type === "float32";
  const picture = one => floats(one) && String(one.shape) === String([1, 3, size, size]);
  const logits = one => floats(one) && one.shape.length === 2 && one.shape[0] === 1;
  const right = picture(input) && (gives === "logits" ? logits(output) : picture(output));
  if (!right || session.inputNames.length !== 1 || session.outputNames.length !== 1) {
    await session.release();
    const wanted = gives === "logits" ? "takes float32 [1,3,S,S] and gives [1,C]" : "takes and gives float32 [1,3,S,S]";
    throw new Error(`takes ${told(input)} and gives ${told(output)}; a student ${wanted}`);
  }
  opened.set(file, { session, size, feeds: {} });
  return size;
}

function load(file, values) {
  const { session, size, feeds } = opened.get(file);
  feeds[session.inputNames[0]] = new ort.Tensor("float32", values, [1, 3, size, size]);
}

// Resolves to the output's values, on the CPU: WebGPU is only done when they have come back.
async function run(file) {
  const { session, feeds } = opened.get(file);
  const output = (await session.run(feeds))[session.outputNames[0]];
  return await output.getData();
}

async function pictures() {
  return new Float32Array(await (await fetch("/pictures.bin")).arrayBuffer());
}

function base64(values) {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

// Outputs of a file on all pictures, one after the other, as float32 in base64.
async function outputs(file) {
  const { size } = opened.get(file), values = await pictures(), one = 3 * size * size;
  let all = null;
  for (let at = 0; at < values.length; at += one) {
    load(file, values.slice(at, at + one));
    const given = await run(file);
    all ??= new Float32Array(given.length * (values.length / one));
    all.set(given, given.length * (at / one));
  }
  return base64(all);
}

async function warm(files, times) {
  for (const file of files) {
    const { size } = opened.get(file);
    load(file, Float32Array.from({ length: 3 * size * size }, (_, at) => (at * 0.618034) % 1));
    for (let turn = 0; turn < times; turn++) await run(file);
  }
}

// Milliseconds by file; round by round each file runs once.
async function time(files, turns) {
  const taken = Object.fromEntries(files.map(file => [file, []]));
  for (let turn = 0; turn < turns; turn++) {
    for (const file of files) {
      const started = performance.now();
      await run(file);
      taken[file].push(performance.now() - started);
    }
  }
  return taken;
}

// One file without a pause: milliseconds of each run, and when it ended, in seconds since the start.
async function sustain(file, seconds) {
  const times = [], ends = [], began = performance.now();
  let previous = began;
  while (previous - began < 1000 * seconds || !times.length) {
    await run(file);
    const now = performance.now();
    times.push(now - previous);
    ends.push((now - began) / 1000);
    previous = now;
  }
  return { times, ends };
}

const network = { size: file => opened.get(file).size, run: (file, values) => (load(file, values), run(file)) };
const calls = { about, open, outputs, warm, time, sustain, frames: (file, count) => frames(network, file, count) };

window.start = (name, words) => {
  window.answer = null;
  calls[name](...words).then(
    value => { window.answer = { value }; },
    error => { window.answer = { error: String(error?.message ?? error) }; },
  );
};
window.answer = null;
window.ready = true;
