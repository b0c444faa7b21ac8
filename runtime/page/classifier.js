// The engine in WebAssembly: csrc/engine/dendritic_bert.h for JavaScript.

const ALIGNMENT = 64; // of a model in memory

export class TextClassifier {
  /** Loads engine.wasm and a model file. Throws an Error that says why if either cannot be loaded. */
  static async load(engineUrl, modelUrl) {
    const [engine, model] = await Promise.all([download(engineUrl), download(modelUrl)]);
    const compiled = await WebAssembly.compile(engine);
    const { exports } = await WebAssembly.instantiate(compiled, importsOf(compiled));
    exports._initialize();
    return new TextClassifier(exports, new Uint8Array(model));
  }

  constructor(engine, file) {
    this.engine = engine;
    const size = Math.ceil(file.length / ALIGNMENT) * ALIGNMENT;
    const place = expectMemory(engine.aligned_alloc(ALIGNMENT, size), size, "a model: load a smaller one");
    this.#bytes(place, file.length).set(file);
    this.model = engine.dendritic_bert_open_memory(place, file.length);
    if (!this.model) throw new Error(this.#error());
    const count = engine.dendritic_bert_num_labels(this.model);
    this.labels = Array.from({ length: count }, (_, i) => this.#string(engine.dendritic_bert_label(this.model, i)));
    // A text's pointer and its length, each of 4 bytes, and behind them a score for each label.
    this.arguments = expectMemory(engine.malloc(8 + 4 * count), 8 + 4 * count, "its scores: load a smaller model");
    this.room = { place: 0, size: 0 };
  }

  /** The scores of a text, as { label, score }, the highest first. */
  classify(text) {
    this.#put(text);
    this.#run();
    const scores = new Float32Array(this.engine.memory.buffer, this.arguments + 8, this.labels.length);
    return this.labels.map((label, i) => ({ label, score: scores[i] })).sort((a, b) => b.score - a.score);
  }

  /** Milliseconds that the engine takes for a text: the mean of calls that together take 5 ms, since clocks of browsers
   * are coarse; at most 512, since some stand still, and one of a text that takes longer. */
  timePerText(text) {
    this.#put(text);
    const start = performance.now();
    let calls = 0, elapsed = 0;
    for (; elapsed < 5 && calls < 512; ++calls) {
      this.#run();
      elapsed = performance.now() - start;
    }
    return elapsed / calls;
  }

  /** Writes a text to the engine's memory. */
  #put(text) {
    const encoded = new TextEncoder().encode(text);
    if (encoded.length > this.room.size) {
      const size = 2 * encoded.length;
      this.engine.free(this.room.place);
      this.room = { place: 0, size: 0 }; // where there is no memory
      this.room = { place: expectMemory(this.engine.malloc(size), size, "a text: shorten it"), size };
    }
    this.#bytes(this.room.place, encoded.length).set(encoded);
    new Uint32Array(this.engine.memory.buffer, this.arguments, 2).set([this.room.place, encoded.length]);
  }

  #run() {
    const [texts, lengths, scores] = [this.arguments, this.arguments + 4, this.arguments + 8];
    if (this.engine.dendritic_bert_classify(this.model, texts, lengths, 1, 1, scores) < 0n) throw new Error(this.#error());
    this.engine.dendritic_bert_scores(this.model, scores, 1, scores);
  }

  // The memory moves when it grows, so that no view of it is kept.
  #bytes(place, size) {
    return new Uint8Array(this.engine.memory.buffer, place, size);
  }

  #string(place) {
    const bytes = new Uint8Array(this.engine.memory.buffer, place);
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
  }

  #error() {
    return this.#string(this.engine.dendritic_bert_error());
  }
}

// A place in memory. Throws an Error, which says what for and what to do, where malloc has found none.
function expectMemory(place, size, what) {
  if (!place) throw new Error(`The engine has no memory for the ${size} bytes of ${what}.`);
  return place;
}

async function download(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} cannot be loaded (status ${answer.status}).`);
  return answer.arrayBuffer();
}

// What C's library asks of a system: to write a message before it ends the program. There is none here to write to.
function importsOf(compiled) {
  const NOT_SUPPORTED = 52;
  const imports = {};
  for (const { module, name } of WebAssembly.Module.imports(compiled))
    (imports[module] ??= {})[name] = () => NOT_SUPPORTED;
  return imports;
}
