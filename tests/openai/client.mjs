// OpenAI's own client against a running server: everything that docs/serving.md says an answer has.
//
// usage: node client.mjs PORT KEY MODEL [TEST...]
import assert from "node:assert/strict";
import OpenAI from "openai";

const [port, key, model, ...wanted] = process.argv.slice(2);
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
    async tools() {
        const parameters = {
            type: "object",
            properties: {city: {enum: ["Ankara", "Oslo"]}, days: {type: "array", items: {type: "integer"}, minItems: 1, maxItems: 2}},
            required: ["city", "days"],
        };
        const asked = {
            ...chat, max_tokens: 300, temperature: 1.5, tool_choice: "required", parallel_tool_calls: false,
            tools: [
                {type: "function", function: {name: "get_weather", description: "Weather of a city", parameters}},
                {type: "function", function: {name: "get_time"}},
            ],
        };
        const check = (call) => {
            const made = JSON.parse(call.function.arguments);
            assert.match(call.id, /^[A-Za-z0-9]{9}$/);
            assert.equal(call.type, "function");
            if (call.function.name === "get_time") return assert.deepEqual(made, {});
            assert.equal(call.function.name, "get_weather");
            assert.ok(["Ankara", "Oslo"].includes(made.city) && made.days.every(Number.isInteger));
        };
        const seen = new Set();
        for (let seed = 0; seed < 8; seed++) {
            const whole = (await client.chat.completions.create({...asked, seed})).choices[0];
            assert.equal(whole.finish_reason, "tool_calls");
            assert.equal(whole.message.content, null);
            assert.equal(whole.message.tool_calls.length, 1);
            check(whole.message.tool_calls[0]);
            seen.add(whole.message.tool_calls[0].function.name);
            const streamed = (await client.chat.completions.stream({...asked, seed}).finalChatCompletion()).choices[0];
            assert.equal(streamed.finish_reason, "tool_calls");
            assert.deepEqual(streamed.message.tool_calls[0].function.arguments, whole.message.tool_calls[0].function.arguments);
        }
        assert.equal(seen.size, 2);
        // By name, and what the call said goes back.
        const named = {...asked, tool_choice: {type: "function", function: {name: "get_weather"}}};
        const first = (await client.chat.completions.create(named)).choices[0].message;
        assert.equal(first.tool_calls[0].function.name, "get_weather");
        const messages = [...chat.messages, first, {role: "tool", tool_call_id: first.tool_calls[0].id, content: "-3 degrees"}];
        const second = await client.chat.completions.create({...asked, messages, tool_choice: "auto", max_tokens: 8});
        assert.ok(second.usage.prompt_tokens > (await client.chat.completions.create({...asked, tool_choice: "auto", max_tokens: 8})).usage.prompt_tokens);
        // The client's own loop: it runs the function and asks again until the model says something else.
        const ran = [];
        const runner = client.chat.completions.runTools({
            ...chat, max_tokens: 300, parallel_tool_calls: false, tool_choice: {type: "function", function: {name: "get_weather"}},
            tools: [{type: "function", function: {name: "get_weather", parameters, parse: JSON.parse, function: (made) => { ran.push(made); return "-3"; }}}],
        });
        await runner.done();
        assert.equal(ran.length, 1);
        assert.ok(Array.isArray(ran[0].days));
        for (const wrong of [{tool_choice: "maybe"}, {tools: [{type: "function", function: {name: "a b"}}]}, {tool_choice: {type: "function", function: {name: "x"}}}]) {
            await refused(400, OpenAI.BadRequestError, client.chat.completions.create({...asked, ...wrong}));
        }
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
for (const [name, test] of Object.entries(tests).filter(([name]) => wanted.length === 0 || wanted.includes(name))) {
    try {
        await test();
        console.log(`ok ${name}`);
    } catch (error) {
        failed++;
        console.log(`FAILED ${name}: ${error.stack}`);
    }
}
process.exit(failed === 0 ? 0 : 1);
