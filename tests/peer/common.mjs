// What the comparisons share: running the program, reading its logits, and the peer.
import {execFileSync} from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

export const [program, ...models] = process.argv.slice(2);
export const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "dilmodeli-peer-"));

export function dilmodeli(...args) {
    return execFileSync(program, [...args, "--threads", "1"], {encoding: "utf8", maxBuffer: 1 << 26});
}

// Logits of the position after each of `ids`: one array for each.
export function logitsOf(model, ids) {
    const idsFile = path.join(scratch, "ids.txt");
    const logitsFile = path.join(scratch, "logits.npy");
    fs.writeFileSync(idsFile, ids.join(" "));
    dilmodeli("eval", model, "--ids", idsFile, "--logits", logitsFile, "--json");
    const bytes = fs.readFileSync(logitsFile);
    const columns = Number(/\(\d+, (\d+)\)/.exec(bytes.toString("latin1", 0, 128))[1]);
    const start = bytes.length - 4 * columns * ids.length;
    return ids.map((_, row) => Array.from({length: columns}, (__, i) => bytes.readFloatLE(start + 4 * (row * columns + i))));
}

// Calls compare(file, model, context) for each model; the process ends with 0 if all of them say true.
export async function compareModels(compare) {
    const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});
    let fine = models.length > 0;
    for (const file of models) {
        const model = await llama.loadModel({modelPath: path.resolve(file)});
        const context = await model.createContext({
            contextSize: 256, // the peer's own smallest
            threads: 1, // the models are small, and threads that wait for each other on a busy machine are slow
            experimentalKvCacheKeyType: "F32",
            experimentalKvCacheValueType: "F32",
        });
        fine = (await compare(file, model, context)) && fine;
        await context.dispose();
        await model.dispose();
    }
    fs.rmSync(scratch, {recursive: true});
    process.exit(fine ? 0 : 1);
}
