// The same model, the same prompts, greedily: `dilmodeli run` and llama.cpp must go on with the same tokens. A first
// difference is allowed only where the two best logits lie so near that rounding decides.
//
// usage: node greedy.mjs PROGRAM MODEL...
import {compareModels, dilmodeli, logitsOf} from "./common.mjs";

const TOKENS = 64;
const NEAR = 1e-2;
const PROMPTS = ["static ", "The number of", "/* Returns", "for (size_t i = 0;", "struct", "çok güzel 你好"];

// True where the two choices are the two best and nearly equal.
function nearlyEqual(model, ids, ours, theirs) {
    const logits = logitsOf(model, ids).at(-1);
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

await compareModels(async (file, model, context) => {
    console.log(file);
    let fine = true;
    for (const prompt of PROMPTS) {
        fine = (await comparePrompt(file, model, context, prompt)) && fine;
    }
    return fine;
});
