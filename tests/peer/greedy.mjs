// The same model, the same prompts, greedily: `dilmodeli run` and llama.cpp must go on with the same tokens. A first
// difference is allowed only where the two best logits lie so near that rounding decides.
//
// usage: node greedy.mjs PROGRAM MODEL...
import {execFileSync} from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const TOKENS = 64;
const NEAR = 1e-2;
const PROMPTS = ["static ", "The number of", "/* Returns", "for (size_t i = 0;", "struct", "çok güzel 你好"];

const [program, ...models] = process.argv.slice(2);
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "dilmodeli-peer-"));

function dilmodeli(...args) {
    return execFileSync(program, [...args, "--threads", "1"], {encoding: "utf8", maxBuffer: 1 << 26});
}

// Logits of the position after `ids`, from the last row of the array that eval writes.
function nextLogits(model, ids) {
    const idsFile = path.join(scratch, "ids.txt");
    const logitsFile = path.join(scratch, "logits.npy");
    fs.writeFileSync(idsFile, ids.join(" "));
    dilmodeli("eval", model, "--ids", idsFile, "--logits", logitsFile, "--json");
    const bytes = fs.readFileSync(logitsFile);
    const columns = Number(/\(\d+, (\d+)\)/.exec(bytes.toString("latin1", 0, 128))[1]);
    const last = bytes.subarray(bytes.length - 4 * columns);
    return Array.from({length: columns}, (_, i) => last.readFloatLE(4 * i));
}

// True where the two choices are the two best and nearly equal.
function nearlyEqual(model, ids, ours, theirs) {
    const logits = nextLogits(model, ids);
    const [first, second] = logits.map((logit, id) => ({logit, id})).sort((a, b) => b.logit - a.logit);
    const same = [first.id, second.id].includes(ours) && [first.id, second.id].includes(theirs);
    console.log(`  token ${ids.length}: ${ours} and ${theirs}; the two best are ${first.logit - second.logit} apart`);
    return same && first.logit - second.logit < NEAR;
}

async function peerGreedy(context, ids) {
    const sequence = context.getSequence();
    const made = [];
    for await (const token of sequence.evaluate(ids, {temperature: 0})) {
        made.push(token);
        if (made.length === TOKENS) {
            break;
        }
    }
    sequence.dispose();
    return made;
}

async function comparePrompt(file, model, context, prompt) {
    const ids = JSON.parse(dilmodeli("tokenize", file, "-p", prompt, "--json")).ids;
    if (ids.join() !== [...model.tokenize(prompt)].join()) {
        console.log(`FAILED "${prompt}": token ids differ: ${ids} and ${model.tokenize(prompt)}`);
        return false;
    }
    const ours = JSON.parse(dilmodeli("run", file, "-p", prompt, "-n", `${TOKENS}`, "--temp", "0", "--json")).ids;
    const theirs = await peerGreedy(context, ids);
    const length = Math.max(ours.length, theirs.length);
    let at = 0;
    while (at < length && ours[at] === theirs[at]) {
        at++;
    }
    const fine = at === length || nearlyEqual(file, [...ids, ...ours.slice(0, at)], ours[at], theirs[at]);
    console.log(`${fine ? "ok" : "FAILED"} "${prompt}": ${at} of ${length} tokens the same`);
    return fine;
}

async function compareModel(llama, file) {
    console.log(file);
    const model = await llama.loadModel({modelPath: path.resolve(file)});
    const context = await model.createContext({
        contextSize: 256, // the peer's own smallest
        threads: 1, // the models are small, and threads that wait for each other on a busy machine are slow
        experimentalKvCacheKeyType: "F32",
        experimentalKvCacheValueType: "F32",
    });
    let fine = true;
    for (const prompt of PROMPTS) {
        fine = (await comparePrompt(file, model, context, prompt)) && fine;
    }
    await context.dispose();
    await model.dispose();
    return fine;
}

const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});
let fine = models.length > 0;
for (const file of models) {
    fine = (await compareModel(llama, file)) && fine;
}
fs.rmSync(scratch, {recursive: true});
process.exit(fine ? 0 : 1);
