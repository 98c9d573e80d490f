// Folders that `convert` writes, read by Hugging Face's own tokenizers: each text must have the same ids there as the model
// has here. usage: node tokenizers.mjs PROGRAM FOLDER_FOR_WORK VOCABULARY.gguf... -- TEXT...
import { Tokenizer } from "@huggingface/tokenizers";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";

const [program, work, ...rest] = process.argv.slice(2);
const split = rest.indexOf("--");
const run = (...args) => execFileSync(program, args, { encoding: "utf8", maxBuffer: 1 << 28 });
const json = (path) => JSON.parse(readFileSync(path, "utf8"));
let failed = 0;

for (const vocabulary of rest.slice(0, split)) {
    const name = basename(vocabulary, ".gguf");
    const model = join(work, `${name}-tiny.gguf`), folder = join(work, `${name}-folder`);
    run("new", model, "--arch", "llama", "--layers", "1", "--dim", "32", "--heads", "2", "--ffn-dim", "32", "--tokenizer", vocabulary);
    run("convert", model, folder);
    const peer = new Tokenizer(json(join(folder, "tokenizer.json")), json(join(folder, "tokenizer_config.json")));
    let tokens = 0;
    for (const path of rest.slice(split + 1)) {
        const ours = JSON.parse(run("tokenize", model, "--file", path, "--no-bos", "--json")).ids;
        const theirs = peer.encode(readFileSync(path, "utf8"), { add_special_tokens: false }).ids;
        const at = ours.findIndex((id, i) => id !== theirs[i]);
        tokens += ours.length;
        if (at >= 0 || ours.length !== theirs.length) {
            console.error(`${name}: ${path} differs at token ${at}: ${ours[at]} here, ${theirs[at]} there`);
            failed++;
        }
    }
    console.log(`${name}: ${tokens} tokens, ${failed === 0 ? "the same as" : "others than"} those of Hugging Face's tokenizers`);
}
process.exit(failed === 0 ? 0 : 1);
