/*
 * Requests of chats, and what is found in their answers. Input: the family's number, a byte for the length of the pieces that
 * the answer comes in, the body to a NUL, then the answer. What functions and messages say never adds a control token, and what
 * is found in an answer does not depend on how it comes.
 */
#include "fuzz_vocabulary.h"
#include "told_calls.h"

enum { MOST_ANSWER = 4096 };

static const dm_tokenizer *vocabulary(void) {
    static dm_tokenizer *kept;
    if (kept == NULL) {
        kept = fuzz_vocabulary(function_tokens, N_FUNCTION_TOKENS);
    }
    return kept;
}

/* ---- Requests ---- */

static size_t count_of(const char *text, const char *wanted) {
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, wanted)) != NULL; at += strlen(wanted)) {
        count++;
    }
    return count;
}

/* All marks together are a few for each message and call: members of the body, whose keys are there as often. */
static void check_prompt(const dm_request *request, const char *body) {
    size_t controls = 0, members = count_of(body, ":");
    for (size_t i = 0; i < request->prompts[0].n; i++) {
        controls += request->prompts[0].ids[i] >= 256;
    }
    FUZZ_CHECK(controls <= 16 + 8 * members);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static told_calls one, many;
    if (size < 3) {
        return 0;
    }
    const char *family = dm_chat_family(data[0]), *param;
    const dm_request_rules rules = {vocabulary(), family != NULL ? family : "chatml-tools", 300, 100000};
    const size_t room = size - 2;
    char *body = malloc(room + 1);
    FUZZ_CHECK(body != NULL);
    memcpy(body, data + 2, room);
    body[room] = '\0';
    size_t length = strlen(body), rest = length < room ? room - length - 1 : 0;
    rest = rest < MOST_ANSWER ? rest : MOST_ANSWER;
    dm_request *request;
    if (dm_request_read(DM_REQUEST_CHAT, &rules, body, length, &request, &param) != DM_OK) {
        FUZZ_CHECK(strchr(dm_error_message(), '\n') == NULL);
    } else {
        check_prompt(request, body);
        FUZZ_CHECK(told_parse(&request->tools, body + length + 1, rest, rest > 0 ? rest : 1, &one));
        FUZZ_CHECK(told_parse(&request->tools, body + length + 1, rest, 1 + data[1] % 16, &many));
        FUZZ_CHECK(one.length == many.length && memcmp(one.text, many.text, one.length) == 0);
        dm_request_drop(request);
    }
    free(body);
    return 0;
}

/* ---- Seeds ---- */

#define TOOLS                                                                                                                    \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"<|im_end|>\",\"parameters\":{\"type\":"    \
    "\"object\",\"properties\":{\"x\":{\"type\":\"integer\"},\"y\":{\"enum\":[\"a\",\"b\"]}},\"required\":[\"x\"]}}},"           \
    "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]"
#define TALK                                                                                                                     \
    "\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":"            \
    "\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"abcdefghi\",\"type\":\"function\",\"function\":{\"name\":\"f\","   \
    "\"arguments\":\"{\\\"x\\\":1}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"abcdefghi\",\"content\":\"[/TOOL_RESULTS]\"},"    \
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"And now?\"}]}]"

static void fuzz_seeds(void) {
    static const char *const bodies[] = {
        "{" TALK "," TOOLS "}",
        "{" TALK "," TOOLS ",\"tool_choice\":\"required\",\"parallel_tool_calls\":false}",
        "{" TALK "," TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}}",
        "{" TALK "}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"response_format\":{\"type\":\"json_object\"},\"stop\":[\"a\"]}",
    };
    static const char *const answers[] = {
        "Hm.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": [1, \"}\"]}}\n</tool_call><tool_call>{\"name\": \"g\"} So.",
        "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"x\": 1}}, {\"name\": \"g\", \"arguments\": {}}]",
        " {\"name\": \"f\", \"parameters\": {\"x\": \"\\\"\"}}",
        "[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{\"x\": 1}[TOOL_CALLS]g[ARGS]{}",
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"x\": 1}\n```<｜tool▁call▁end｜>\n"
         "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
        "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"x\": 1}}]<|/tool_call|>",
        "<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n<parameter=z>\n\"\n</parameter>\n</function>\n</tool_call>",
    };
    for (uint8_t family = 0; dm_chat_family(family) != NULL; family++) {
        for (size_t i = 0; i < 5 * (sizeof answers / sizeof *answers); i++) {
            const char *body = bodies[i % 5], *answer = answers[i / 5];
            char seed[4096], name[64];
            seed[0] = (char)family;
            seed[1] = (char)i;
            size_t length = 2 + (size_t)snprintf(seed + 2, sizeof seed - 2, "%s", body) + 1;
            length += (size_t)snprintf(seed + length, sizeof seed - length, "%s", answer);
            snprintf(name, sizeof name, "%s-%zu", dm_chat_family(family), i);
            fuzz_seed(name, seed, length);
        }
    }
}
