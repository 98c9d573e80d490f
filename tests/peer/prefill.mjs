// How fast llama.cpp reads a prompt: tokens a second for each length, the median of several, as one JSON object.
//
// usage: node prefill.mjs MODEL THREADS LENGTH...
import path from "node:path";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const ROUNDS = 5;

const [file, threads, ...lengths] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: Number(threads)});
const model = await llama.loadModel({modelPath: path.resolve(file)});
const most = Math.max(...lengths.map(Number));
const context = await model.createContext({contextSize: Math.max(most + 8, 256), batchSize: most, threads: Number(threads)});
const sequence = context.getSequence();
const speeds = {};
for (const length of lengths.map(Number)) {
    const ids = Array.from({length}, (_, i) => (i * 71 + 13) % 256);
    const seconds = [];
    for (let round = 0; round <= ROUNDS; round++) {
        await sequence.clearHistory();
        const start = performance.now();
        await sequence.evaluateWithoutGeneratingNewTokens(ids);
        seconds.push((performance.now() - start) / 1000);
    }
    seconds.shift(); // the first one warms the caches
    seconds.sort((a, b) => a - b);
    speeds[length] = length / seconds[ROUNDS >> 1];
}
console.log(JSON.stringify(speeds));
process.exit(0);
