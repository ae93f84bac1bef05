// Classifies photographs with a network of `python -m fixed_head_jax.export`, in the browser.
//
// The address may name another network (?model=NAME: NAME.onnx and NAME.json) and a photograph to
// begin with (?image=FILE).
import * as ort from "./ort/ort.wasm.bundle.min.mjs";

const SHOWN = 5; // classes
const SIDE = 1024; // of what is shown, in pixels
// Of a map, from nothing to its largest value: red, green, blue, opacity.
const COLOURS = [[20, 10, 60, 90], [130, 30, 110, 150], [240, 100, 30, 180], [255, 240, 130, 200]];
const query = new URLSearchParams(location.search);
const byId = (id) => document.getElementById(id);

ort.env.wasm.numThreads = 1; // more need headers that a plain server of files does not send

/** Loads the network and the description beside it. */
async function load(name) {
  const answer = await fetch(`${name}.json`);
  if (!answer.ok) throw new Error(`${name}.json is not there; export a run as README.md says`);
  const described = await answer.json();
  const session = await ort.InferenceSession.create(`${name}.onnx`);
  return { session, ...described };
}

/** Draws what the network takes of a photograph, the middle of it, on a canvas of that form. */
function draw(bitmap, { image_shape: [height, width], resize_size }, canvas) {
  const enlarged = canvas.width / width;
  const side = Math.max(resize_size, height, width) * enlarged;
  const scale = side / Math.min(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  const [w, h] = [bitmap.width * scale, bitmap.height * scale];
  context.drawImage(bitmap, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
  return context;
}

/** Returns the levels of a photograph as the network takes it, 4 a place. */
function fit(bitmap, network) {
  const [height, width] = network.image_shape;
  const canvas = new OffscreenCanvas(width, height);
  return draw(bitmap, network, canvas).getImageData(0, 0, width, height).data;
}

/** Shows a photograph, finer than the network sees it. */
function show(bitmap, network) {
  const [height, width] = network.image_shape;
  const canvas = byId("photograph");
  canvas.width = SIDE;
  canvas.height = Math.round((SIDE * height) / width);
  draw(bitmap, network, canvas);
  byId("drop").style.aspectRatio = width / height;
  byId("drop").classList.add("filled");
}

/** Returns the tensor of an image: its levels, or normalised where the network wants that. */
function toTensor(rgba, { image_shape, mean, std, input }) {
  const [height, width, channels] = image_shape;
  const values = new (input === "uint8" ? Uint8Array : Float32Array)(height * width * channels);
  for (let place = 0; place < height * width; place++) {
    const [r, g, b] = rgba.subarray(4 * place, 4 * place + 3);
    const levels = channels === 1 ? [Math.round(0.299 * r + 0.587 * g + 0.114 * b)] : [r, g, b];
    levels.forEach((level, c) => {
      const normalised = (level / 255 - mean[c % mean.length]) / std[c % std.length];
      values[place * channels + c] = input === "uint8" ? level : normalised;
    });
  }
  return new ort.Tensor(input, values, [1, ...image_shape]);
}

/** Returns the colour of a value in 0 ... 1. */
function colour(value) {
  const place = value * (COLOURS.length - 1);
  const below = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[below].map((c, i) => c + (place - below) * (COLOURS[below + 1][i] - c));
}

/** Draws the map of a class, which lies over the photograph: bright where the network sees it. */
function drawMap(canvas, maps, index, largest) {
  const [, height, width, classes] = maps.dims;
  const pixels = new ImageData(width, height);
  for (let place = 0; place < height * width; place++) {
    const value = Math.max(0, maps.data[place * classes + index]) / largest;
    pixels.data.set(colour(value), 4 * place);
  }
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(pixels, 0, 0);
  canvas.width = canvas.height = SIDE / 2;
  // As an image of its pixels' centres; the browser smooths between them.
  canvas.getContext("2d").drawImage(small, 0, 0, canvas.width, canvas.height);
}

/** Lists the most probable classes; those with maps can be pressed. */
function list(network, probabilities, maps) {
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const largest = maps && maps.data.reduce((a, b) => Math.max(a, b), 1e-12);
  const buttons = order.slice(0, SHOWN).map((index) => {
    const button = document.createElement("button");
    const [bar, name, share] = ["i", "b", "span"].map((tag) => document.createElement(tag));
    bar.style.width = `${100 * probabilities[index]}%`;
    name.textContent = network.class_names[index];
    share.textContent = `${(100 * probabilities[index]).toFixed(1)} %`;
    button.append(bar, name, share);
    button.disabled = !maps;
    button.setAttribute("aria-pressed", false);
    button.onclick = () => {
      const isShown = button.getAttribute("aria-pressed") === "true"; // pressed again: no map
      buttons.forEach((other) => other.setAttribute("aria-pressed", other === button && !isShown));
      drawMap(byId("map"), maps, index, largest);
      byId("drop").classList.toggle("mapped", !isShown);
    };
    return button;
  });
  byId("classes").replaceChildren(...buttons.map((button) => {
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
  byId("drop").classList.remove("mapped");
  if (maps) buttons[0].click();
}

function say(text, isBad = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("bad", isBad);
}

async function classify(network, file) {
  say("looking ...");
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name ?? "this file"} is no image that this browser can read`);
  });
  show(bitmap, network);
  const images = toTensor(fit(bitmap, network), network);
  const started = performance.now();
  const outputs = await network.session.run({ images });
  const milliseconds = Math.round(performance.now() - started);
  list(network, outputs.probabilities.data, outputs.class_maps);
  const hint = outputs.class_maps ? " Choose a class to see where the network sees it." : "";
  say(`${milliseconds} ms for ${network.image_shape.slice(0, 2).join(" x ")} pixels.${hint}`);
}

/** Does something, and says what went wrong. */
const guarded = (action) => async (...given) => {
  try {
    return await action(...given);
  } catch (error) {
    say(error.message, true);
  }
};

const start = guarded(async () => {
  const network = await load(query.get("model") ?? "model");
  const take = guarded(async (files) => files.length && (await classify(network, files[0])));
  const drop = byId("drop");
  byId("file").onchange = (event) => take(event.target.files);
  drop.ondragover = (event) => event.preventDefault();
  drop.ondragenter = () => drop.classList.add("over");
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  };
  say(`ready: ${network.class_names.length} classes`);
  if (query.has("image")) await take([await (await fetch(query.get("image"))).blob()]);
});

await start();
document.body.dataset.done = byId("status").textContent;
