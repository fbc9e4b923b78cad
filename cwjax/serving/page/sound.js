// Sound in the browser: a recording from the microphone, and files that the server cannot read, as WAV at 16 kHz.
import { BLOCK } from "./pauses.js";

const RATE = 16000;
const COLUMN = 400; // samples of a column of a waveform

export function wav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((one, place) => view.setUint8(at + place, one.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, place) => {
    view.setInt16(44 + 2 * place, Math.round(32767 * Math.max(-1, Math.min(1, value))), true);
  });
  return new Blob([view], { type: "audio/wav" });
}

// The samples of a file that the browser can decode, its channels mixed.
async function samplesOf(file) {
  const sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
  const mix = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((value, place) => (mix[place] += value / sound.numberOfChannels));
  }
  return mix;
}

export async function decoded(file) {
  return new File([wav(await samplesOf(file))], `${file.name}.wav`, { type: "audio/wav" });
}

// Lowest and highest sample of every column, in 127ths of the loudest.
export async function waveform(file) {
  const samples = await samplesOf(file);
  const [low, high] = [[], []];
  for (let at = 0; at < samples.length; at += COLUMN) {
    const column = samples.subarray(at, at + COLUMN);
    low.push(column.reduce((one, other) => Math.min(one, other)));
    high.push(column.reduce((one, other) => Math.max(one, other)));
  }
  const loudest = [...low, ...high].reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6);
  const scaled = (values) => values.map((value) => Math.round((127 * value) / loudest));
  return { seconds: COLUMN / RATE, low: scaled(low), high: scaled(high) };
}

const seconds = (blocks) => (blocks * BLOCK) / RATE;

function joined(blocks, name) {
  const samples = new Float32Array(BLOCK * blocks.length);
  blocks.forEach((block, place) => samples.set(block, BLOCK * place));
  return new File([wav(samples)], name, { type: "audio/wav" });
}

// Records until `stop` is called, which gives a file. `heard` is told the loudness of every block, and `cut` is given
// the recording piece by piece, with the second at which each begins, the last of them when it stops.
export async function record(heard, cut) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  const context = new AudioContext({ sampleRate: RATE });
  const blocks = [];
  let begun = 0; // blocks of pieces that are over
  const end = (length) => {
    const piece = blocks.slice(begun, begun + length);
    if (piece.length || !begun) cut(joined(piece, "piece.wav"), seconds(begun));
    begun += length;
  };
  try {
    await context.audioWorklet.addModule("/static/recorder.js");
  } catch (error) {
    stream.getTracks().forEach((track) => track.stop());
    throw error;
  }
  const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  node.port.onmessage = ({ data: { block, cut: length } }) => {
    blocks.push(block);
    heard(block.reduce((most, value) => Math.max(most, Math.abs(value)), 0));
    if (length) end(length);
  };
  context.createMediaStreamSource(stream).connect(node);
  return async function stop() {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    node.port.onmessage = null;
    end(blocks.length - begun);
    return joined(blocks, "recording.wav");
  };
}
