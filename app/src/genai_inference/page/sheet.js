// The sheet that is drawn on. Black is the model's minimum and white its maximum, so strokes are white.

const SIDE = 448;
const MOST_CELLS = 32; // up to this size, one step of the keyboard is one pixel of the model
const STEPS = 16;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Whether a picture can be made for this model, and how: {height, width, colour}, or null. */
export function pictureOf(shape) {
  const [height, width] = shape.slice(-2);
  const channels = shape.length === 3 ? shape[0] : 1;
  return channels === 1 || channels === 3 ? { height, width, colour: channels === 3 } : null;
}

export class Sheet {
  /** `changed()` after every stroke or picture; `says(text)` what the keyboard did. */
  constructor({ canvas, cursor, seen, changed, says }) {
    Object.assign(this, { canvas, cursor, seen, changed, says, ink: "#ffffff", blank: true, fits: true, strokes: false });
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.at = { x: 0, y: 0 };
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#draw(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => this.#end());
    canvas.addEventListener("keydown", (event) => this.#key(event));
    this.setShape({ height: 8, width: 8, colour: false });
  }

  /** Starts a new sheet, a whole multiple of the model's size, so that every pixel of the model is a mean of whole ones. */
  setShape({ height, width, colour }) {
    Object.assign(this, { height, width, colour });
    this.scale = Math.max(1, Math.floor(SIDE / Math.max(height, width)));
    this.canvas.width = width * this.scale;
    this.canvas.height = height * this.scale;
    this.columns = width <= MOST_CELLS ? width : STEPS;
    this.rows = height <= MOST_CELLS ? height : STEPS;
    this.at = { x: Math.floor((this.columns - 1) / 2), y: Math.floor((this.rows - 1) / 2) };
    this.canvas.style.aspectRatio = `${width} / ${height}`;
    this.canvas.setAttribute("aria-label", `Drawing area, ${this.columns} by ${this.rows}`);
    this.clear();
    this.#place();
  }

  clear() {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.blank = true;
    this.strokes = false;
    this.#look();
  }

  /** Whether strokes are enlarged to fill the frame, as the digits did that small models learnt from. */
  fit(fits) {
    this.fits = fits;
    this.#look();
  }

  invert() {
    const { width, height } = this.canvas;
    this.context.globalCompositeOperation = "difference";
    this.context.fillStyle = "#fff";
    this.context.fillRect(0, 0, width, height);
    this.context.globalCompositeOperation = "source-over";
    this.#done();
  }

  /** The whole picture, as large as fits; it may be drawn on. */
  place(picture) {
    const { width, height } = this.canvas;
    const scale = Math.min(width / picture.width, height / picture.height);
    const [w, h] = [picture.width * scale, picture.height * scale];
    this.clear();
    this.context.imageSmoothingEnabled = scale < 1; // a picture of the model's own size arrives as it is
    this.context.imageSmoothingQuality = "high";
    this.context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
    this.#done();
  }

  /** A PNG in the model's own size. */
  png() {
    return new Promise((resolve) => this.seen.toBlob(resolve, "image/png"));
  }

  #begin(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.#point(event);
    this.#stroke(this.last);
  }

  #draw(event) {
    if (!this.last) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const one of passed.length ? passed : [event]) this.#stroke(this.#point(one));
  }

  #end() {
    if (!this.last) return;
    this.last = null;
    this.changed();
  }

  #stroke(to) {
    const { context, last } = this;
    context.strokeStyle = this.ink;
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = (this.canvas.width) / Math.min(this.columns, STEPS);
    context.beginPath();
    context.moveTo(last.x, last.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    this.last = to;
    this.strokes ||= this.blank;
    this.blank = false;
    this.#look();
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * this.canvas.width,
      y: ((event.clientY - box.top) / box.height) * this.canvas.height,
    };
  }

  #key(event) {
    const move = MOVES[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    if (move) {
      this.at.x = Math.min(this.columns - 1, Math.max(0, this.at.x + move[0]));
      this.at.y = Math.min(this.rows - 1, Math.max(0, this.at.y + move[1]));
      this.#place();
      this.says(`row ${this.at.y + 1}, column ${this.at.x + 1}`);
    } else {
      this.#toggle();
    }
  }

  /** Paints the cell under the cursor, or takes the paint away. */
  #toggle() {
    const { context, at, canvas } = this;
    const [w, h] = [canvas.width / this.columns, canvas.height / this.rows];
    const middle = context.getImageData((at.x + 0.5) * w, (at.y + 0.5) * h, 1, 1).data;
    const painted = middle[0] + middle[1] + middle[2] > 0;
    context.fillStyle = painted ? "#000" : this.ink;
    context.fillRect(at.x * w, at.y * h, w, h);
    this.says(`${painted ? "erased" : "painted"}, row ${at.y + 1}, column ${at.x + 1}`);
    this.#done();
  }

  #place() {
    const { style } = this.cursor;
    style.left = `${(this.at.x / this.columns) * 100}%`;
    style.top = `${(this.at.y / this.rows) * 100}%`;
    style.width = `${100 / this.columns}%`;
    style.height = `${100 / this.rows}%`;
  }

  #done() {
    this.blank = false;
    this.strokes = false; // what was placed stays where it is
    this.#look();
    this.changed();
  }

  /** The sheet as the model gets it: itself, or its strokes enlarged. */
  #filled() {
    const { width, height } = this.canvas;
    if (!this.fits || !this.strokes || this.colour) return this.context;
    const box = boxOf(this.context.getImageData(0, 0, width, height).data, width, height);
    if (!box) return this.context;
    const scale = Math.min(width / box.width, height / box.height);
    const [w, h] = [box.width * scale, box.height * scale];
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.fillRect(0, 0, width, height);
    context.drawImage(this.canvas, box.left, box.top, box.width, box.height, (width - w) / 2, (height - h) / 2, w, h);
    return context;
  }

  #look() {
    const { data } = this.#filled().getImageData(0, 0, this.canvas.width, this.canvas.height);
    const pixels = shrink(data, this.width, this.height, this.scale, this.colour);
    this.seen.width = this.width;
    this.seen.height = this.height;
    this.seen.getContext("2d").putImageData(new ImageData(pixels, this.width, this.height), 0, 0);
  }
}

/** The box around all pixels of RGBA that are not black: {left, top, width, height}, or null. */
export function boxOf(data, width, height) {
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at += 4) {
      if (!(data[at] || data[at + 1] || data[at + 2])) continue;
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [top, bottom] = [Math.min(top, y), y];
    }
  }
  return right < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}

/** RGBA of the model's size: each pixel the mean of scale x scale ones, grey unless `colour`. */
export function shrink(data, width, height, scale, colour) {
  const out = new Uint8ClampedArray(width * height * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const sum = [0, 0, 0];
      for (let row = y * scale; row < (y + 1) * scale; row++) {
        let at = (row * width * scale + x * scale) * 4;
        for (let column = 0; column < scale; column++, at += 4) {
          for (let channel = 0; channel < 3; channel++) sum[channel] += data[at + channel];
        }
      }
      const mean = sum.map((value) => value / (scale * scale));
      const grey = 0.299 * mean[0] + 0.587 * mean[1] + 0.114 * mean[2];
      out.set(colour ? [...mean, 255] : [grey, grey, grey, 255], (y * width + x) * 4);
    }
  }
  return out;
}
