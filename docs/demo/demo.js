// A .tflite of tools/export.py in MediaPipe's web runtime. Nothing leaves the browser.
// Addresses after "?": model=FILE (default: model.tflite), image=FILE, threshold=0.3
import { FilesetResolver, ObjectDetector } from './assets/vision_bundle.mjs';

const MAX_RESULTS = 100;
const LEAST_SCORE = 0.01; // of the runtime; the slider chooses among what it gives
const element = (id) => document.getElementById(id);
const canvas = element('canvas');
const context = canvas.getContext('2d');
const video = element('video');
const asked = new URLSearchParams(location.search);

let detector = null;
let mode = 'IMAGE';
let source = null; // an image, or the video while it plays
let found = [];

function say(text, isError = false) {
  element('status').textContent = text;
  element('status').className = isError ? 'error' : '';
}

async function load(options) {
  say('Loading the model');
  const files = await FilesetResolver.forVisionTasks('./assets/wasm');
  const made = await ObjectDetector.createFromOptions(files, {
    baseOptions: { delegate: 'CPU', ...options },
    runningMode: mode,
    maxResults: MAX_RESULTS,
    scoreThreshold: LEAST_SCORE,
  });
  detector?.close();
  detector = made;
  say('Choose an image, a video or the webcam');
}

async function setMode(wanted) {
  if (detector && mode !== wanted) await detector.setOptions({ runningMode: wanted });
  mode = wanted;
}

function colour(name) {
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) % 360;
  return `hsl(${hash} 80% 40%)`;
}

function row(category, box) {
  const cells = [
    category.categoryName,
    category.score.toFixed(4),
    [box.originX, box.originY, box.width, box.height].map((side) => side.toFixed(1)).join(', '),
  ];
  const line = document.createElement('tr');
  for (const text of cells) line.appendChild(document.createElement('td')).textContent = text;
  return line;
}

function draw() {
  if (!source) return;
  const threshold = Number(element('threshold').value);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  const size = Math.max(12, canvas.width / 50);
  context.font = `${size}px sans-serif`;
  context.lineWidth = size / 6;
  context.textBaseline = 'top';
  const lines = [];
  for (const { boundingBox: box, categories } of [...found].reverse()) { // the best on top
    const shown = categories.filter((category) => category.score >= threshold);
    if (!shown.length) continue;
    const text = shown.map((c) => `${c.categoryName} ${c.score.toFixed(2)}`).join(', ');
    const top = Math.max(0, box.originY - size * 1.3);
    context.strokeStyle = context.fillStyle = colour(shown[0].categoryName);
    context.strokeRect(box.originX, box.originY, box.width, box.height);
    context.fillRect(box.originX, top, context.measureText(text).width + size / 2, size * 1.3);
    context.fillStyle = 'white';
    context.fillText(text, box.originX + size / 4, top + size * 0.15);
    lines.unshift(...shown.map((category) => row(category, box)));
  }
  element('detections').replaceChildren(...lines);
}

async function detectImage(address) {
  stopVideo();
  const image = new Image();
  image.src = address;
  await image.decode();
  await setMode('IMAGE');
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  source = image;
  const start = performance.now();
  found = detector.detect(image).detections;
  say(`${found.length} detections in ${(performance.now() - start).toFixed(0)} ms`);
  draw();
}

function stopVideo() {
  video.pause();
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
  source = null;
}

async function play() {
  await video.play();
  await setMode('VIDEO');
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  source = video;
  const step = () => {
    if (source !== video) return;
    if (video.readyState >= 2 && !video.paused) {
      const start = performance.now();
      found = detector.detectForVideo(video, start).detections;
      say(`${found.length} detections in ${(performance.now() - start).toFixed(0)} ms`);
      draw();
    }
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

function onEvent(id, event, action) {
  element(id).addEventListener(event, async () => {
    try {
      await action(element(id));
    } catch (error) {
      say(error.message, true);
    }
  });
}

onEvent('threshold', 'input', (slider) => {
  element('shown').textContent = Number(slider.value).toFixed(2);
  draw();
});
onEvent('model', 'change', async (input) => {
  const [file] = input.files;
  if (file) await load({ modelAssetBuffer: new Uint8Array(await file.arrayBuffer()) });
});
onEvent('media', 'change', async (input) => {
  const [file] = input.files;
  if (!file || !detector) throw new Error('Choose a model first');
  const address = URL.createObjectURL(file);
  if (!file.type.startsWith('video/')) return detectImage(address);
  stopVideo();
  video.src = address;
  return play();
});
onEvent('webcam', 'click', async () => {
  if (!detector) throw new Error('Choose a model first');
  stopVideo();
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
  return play();
});

try {
  if (asked.has('threshold')) element('threshold').value = asked.get('threshold');
  element('shown').textContent = Number(element('threshold').value).toFixed(2);
  await load({ modelAssetPath: asked.get('model') ?? 'model.tflite' });
  if (asked.has('image')) await detectImage(asked.get('image'));
} catch (error) {
  say(`${error.message}; choose a .tflite of tools/export.py`, true);
}
