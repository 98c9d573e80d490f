// OpenAI's own client against a running server: everything that docs/serving.md says an answer has.
//
// usage: node client.mjs PORT KEY MODEL
import assert from "node:assert/strict";
import OpenAI from "openai";

const [port, key, model] = process.argv.slice(2);
const client = new OpenAI({baseURL: `http://127.0.0.1:${port}/v1`, apiKey: key, maxRetries: 0});
const chat = {model, messages: [{role: "user", content: "Once upon a time"}], seed: 7, max_tokens: 24};
const completion = {model, prompt: "Once upon a time", seed: 7, max_tokens: 24};

async function text(stream) {
    let all = "";
    let finish = null;
    let usage = null;
    for await (const part of stream) {
        const choice = part.choices[0];
        all += choice?.delta?.content ?? choice?.text ?? "";
        finish = choice?.finish_reason ?? finish;
        usage = part.usage ?? usage;
    }
    return {all, finish, usage};
}

async function refused(status, type, request) {
    await assert.rejects(request, (error) => error.status === status && error instanceof type && error.message.length > 10);
}

const tests = {
    async models() {
        const list = await client.models.list();
        assert.deepEqual(list.data.map((one) => one.id), [model]);
        assert.equal((await client.models.retrieve(model)).id, model);
        await refused(404, OpenAI.NotFoundError, client.models.retrieve("another"));
    },
    async chat() {
        const answer = await client.chat.completions.create(chat);
        assert.equal(answer.object, "chat.completion");
        assert.equal(answer.choices[0].message.role, "assistant");
        assert.ok(["length", "stop"].includes(answer.choices[0].finish_reason));
        assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
        const again = await client.chat.completions.create(chat);
        assert.equal(again.choices[0].message.content, answer.choices[0].message.content);
    },
    async chatStream() {
        const whole = await client.chat.completions.create(chat);
        const parts = await text(await client.chat.completions.create(
            {...chat, stream: true, stream_options: {include_usage: true}}));
        assert.equal(parts.all, whole.choices[0].message.content);
        assert.equal(parts.finish, whole.choices[0].finish_reason);
        assert.equal(parts.usage.completion_tokens, whole.usage.completion_tokens);
    },
    async streamHelper() {
        const whole = await client.chat.completions.create(chat);
        const final = await client.chat.completions.stream(chat).finalChatCompletion();
        assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
    },
    async completions() {
        const whole = await client.completions.create(completion);
        const parts = await text(await client.completions.create({...completion, stream: true}));
        assert.equal(parts.all, whole.choices[0].text);
        const echoed = await client.completions.create({...completion, echo: true});
        assert.equal(echoed.choices[0].text, completion.prompt + whole.choices[0].text);
        const several = await client.completions.create({...completion, n: 2, prompt: ["a", "b"], max_tokens: 3});
        assert.deepEqual(several.choices.map((one) => one.index), [0, 1, 2, 3]);
    },
    async stops() {
        const whole = (await client.completions.create(completion)).choices[0].text;
        const stops = Array.from({length: whole.length - 2}, (_, at) => whole.slice(at, at + 3))
            .filter((stop) => !stop.includes("\ufffd")); // which stands for bytes that are no text
        assert.ok(stops.length > 3);
        for (const stop of stops) {
            const parts = await text(await client.completions.create({...completion, stop, stream: true}));
            assert.equal(parts.all, whole.slice(0, whole.indexOf(stop)));
            assert.equal(parts.finish, "stop");
        }
    },
    async logprobs() {
        const answer = await client.chat.completions.create(
            {...chat, temperature: 0, max_tokens: 5, logprobs: true, top_logprobs: 3});
        for (const token of answer.choices[0].logprobs.content) {
            assert.equal(token.top_logprobs.length, 3);
            assert.equal(token.token, token.top_logprobs[0].token);
            assert.ok(token.logprob <= 0 && token.logprob === token.top_logprobs[0].logprob);
        }
    },
    async sampling() {
        const one = await client.chat.completions.create(
            {...chat, temperature: 0, max_tokens: 3, presence_penalty: 0.5, frequency_penalty: 0.5, top_p: 0.5});
        assert.equal(one.usage.completion_tokens, 3);
        const ids = await client.post("/../tokenize", {body: {content: "z"}});
        const forced = await client.completions.create({...completion, max_tokens: 4, logit_bias: {[ids.tokens[0]]: 100}});
        assert.equal(forced.choices[0].text, "zzzz");
    },
    async structured() {
        const schema = {
            type: "object",
            properties: {
                name: {type: "string", maxLength: 8},
                kind: {enum: ["cat", "dog"]},
                legs: {type: "array", items: {type: "integer"}, minItems: 1, maxItems: 3},
            },
            required: ["name", "kind", "legs"],
            additionalProperties: false,
        };
        const answer = await client.chat.completions.create(
            {...chat, max_tokens: 300, response_format: {type: "json_schema", json_schema: {name: "pet", strict: true, schema}}});
        const pet = JSON.parse(answer.choices[0].message.content);
        assert.deepEqual(Object.keys(pet), ["name", "kind", "legs"]);
        assert.ok(schema.properties.kind.enum.includes(pet.kind) && pet.legs.every(Number.isInteger));
        const any = await client.chat.completions.create({...chat, max_tokens: 2, response_format: {type: "json_object"}});
        assert.match(any.choices[0].message.content, /^\{/);
    },
    async embeddings() {
        const input = ["a cat", "a dog"];
        const coded = await client.embeddings.create({model, input}); // as base64, which the client decodes
        const plain = await client.embeddings.create({model, input, encoding_format: "float"});
        const [ours, theirs] = [coded, plain].map((answer) => answer.data.map((one) => [...one.embedding]));
        assert.equal(ours.length, 2);
        ours.forEach((vector, i) => vector.forEach((value, k) => assert.ok(Math.abs(value - theirs[i][k]) < 1e-6)));
    },
    async errors() {
        const stranger = new OpenAI({baseURL: client.baseURL, apiKey: "wrong", maxRetries: 0});
        await refused(401, OpenAI.AuthenticationError, stranger.models.list());
        await refused(400, OpenAI.BadRequestError, client.chat.completions.create({...chat, temperature: -1}));
        await refused(400, OpenAI.BadRequestError, client.chat.completions.create({...chat, messages: []}));
        await refused(404, OpenAI.NotFoundError, client.post("/nowhere", {body: {}}));
        const error = await client.completions.create({...completion, top_p: 7}).catch((one) => one);
        assert.equal(error.param, "top_p");
    },
    async abort() {
        const stream = await client.completions.create({...completion, max_tokens: 400, stream: true, ignore_eos: true, n: 8});
        for await (const part of stream) {
            assert.ok(part.id);
            break; // which closes the connection
        }
        for (let busy = 1, i = 0; busy > 0; i++) {
            assert.ok(i < 200);
            await new Promise((resolve) => setTimeout(resolve, 25));
            const health = await client.get("/../health");
            busy = health.busy + health.waiting;
        }
    },
    async many() {
        const alone = await client.chat.completions.create(chat);
        const all = await Promise.all(Array.from({length: 16}, () => client.chat.completions.create(chat)));
        all.forEach((one) => assert.equal(one.choices[0].message.content, alone.choices[0].message.content));
    },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
    try {
        await test();
        console.log(`ok ${name}`);
    } catch (error) {
        failed++;
        console.log(`FAILED ${name}: ${error.stack}`);
    }
}
process.exit(failed === 0 ? 0 : 1);
