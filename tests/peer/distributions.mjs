// The same model file, the same ids: the distributions of the next token by llama.cpp and by `dilmodeli eval` must agree.
// For files of quantized types, which say nothing sensible but differ at once where a block is read otherwise.
//
// usage: node distributions.mjs PROGRAM MODEL...
import path from "node:path";
import {compareModels, logitsOf} from "./common.mjs";

const IDS = Array.from({length: 32}, (_, i) => (i * 71 + 13) % 256);
const SHARE = 0.01; // of what the distributions differ from an even one; both programs round activations to 8 bits

function probabilities(logits) {
    const most = Math.max(...logits);
    const powers = logits.map((logit) => Math.exp(logit - most));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
}

function divergence(p, q) {
    return p.reduce((sum, value, i) => sum + (value > 0 ? value * Math.log(value / q[i]) : 0), 0);
}

await compareModels(async (file, model, context) => {
    const ours = logitsOf(file, IDS).map(probabilities);
    const answers = await context.getSequence().controlledEvaluate(
        IDS.map((id) => [id, {generateNext: {probabilities: true}}]));
    let difference = 0;
    let spread = 0;
    answers.forEach(({next}, i) => {
        const theirs = ours[i].map((_, id) => next.probabilities.get(id) ?? 0);
        difference += divergence(theirs, ours[i]) / IDS.length;
        spread += divergence(theirs, ours[i].map(() => 1 / ours[i].length)) / IDS.length;
    });
    const fine = difference < SHARE * spread;
    console.log(`${fine ? "ok" : "FAILED"} ${path.basename(file)}: mean KL ${difference.toExponential(2)}, `
        + `from an even distribution ${spread.toExponential(2)}`);
    return fine;
});
