/* Functions in conversations: what is there to be called, calls and their results, as the models' published templates word them.
 */
#include <stdlib.h>
#include <string.h>

#include "model/chat_parts.h"
#include "model/vocabulary.h"

/* ---- The families' ways ---- */

/* A call as a JSON object. */
#define OBJECT(key) .before = "{\"name\": \"", .middle = "\", \"" key "\": ", .arguments_key = key

const dm_chat_tools dm_chat_tools_chatml =
    {/* Qwen 2.5 and 3, Hermes */
     .dialect = {.mark = "<tool_call>",
                 .open = "\n",
                 OBJECT("arguments"),
                 .after = "}\n</tool_call>",
                 .between = "\n<tool_call>\n",
                 .close = "",
                 .marks = {"<tool_call>", "</tool_call>"}},
     .place = DM_TOOLS_IN_SYSTEM,
     .system = "",
     .system_between = "\n\n",
     .list = {"# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
              "signatures within <tools></tools> XML tags:\n<tools>\n",
              "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
              "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n"
              "</tool_call>"},
     .list_between = "\n",
     .calls = {"<|im_start|>assistant\n", "<|im_end|>\n"},
     .text = {"", "\n"},
     .results = {"<|im_start|>user\n", "<|im_end|>\n"},
     .result = {"<tool_response>\n", "\n</tool_response>"},
     .result_between = "\n"};

const dm_chat_tools dm_chat_tools_qwen_coder = {
    .dialect = {.mark = "<tool_call>",
                .open = "\n",
                .before = "<function=",
                .middle = ">\n",
                .tagged = true,
                .after = "</function>\n</tool_call>",
                .between = "\n<tool_call>\n",
                .close = "",
                .marks = {"<tool_call>", "</tool_call>"}},
    .place = DM_TOOLS_IN_SYSTEM,
    .system = "",
    .system_between = "\n\n",
    .list =
        {"# Tools\n\nYou have access to the following functions:\n\n<tools>\n",
         "\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n<tool_call>\n"
         "<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
         "<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n"
         "</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n- Function calls MUST follow the specified format: "
         "an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags\n- Required parameters "
         "MUST be specified\n- You may provide optional reasoning for your function call in natural language BEFORE the function "
         "call, but NOT after\n- If there is no function call available, answer the question like normal with your current "
         "knowledge and do not tell the user about function calls\n</IMPORTANT>"},
    .list_between = "\n",
    .list_form = DM_LIST_TAGS,
    .calls = {"<|im_start|>assistant\n", "<|im_end|>\n"},
    .text = {"", "\n\n"},
    .results = {"<|im_start|>user\n", "<|im_end|>\n"},
    .result = {"<tool_response>\n", "\n</tool_response>\n"},
    .result_between = ""};

/* Llama 3.1 to 3.3. The template would also tell the date. */
const dm_chat_tools dm_chat_tools_llama = {
    .dialect = {.mark = "", .open = "", OBJECT("parameters"), .after = "}", .close = "", .between = NULL},
    .place = DM_TOOLS_IN_FIRST_USER,
    .system = "Environment: ipython\n\n",
    .list =
        {"Given the following functions, please respond with a JSON for a function call with its proper arguments that best "
         "answers the given prompt.\n\nRespond in the format {\"name\": function name, \"parameters\": dictionary of argument "
         "name and its value}.Do not use variables.\n\n",
         "\n\n"},
    .list_between = "\n\n",
    .indent = 4,
    .calls = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
    .results = {"<|start_header_id|>ipython<|end_header_id|>\n\n", "<|eot_id|>"},
    .result = {"", ""},
    .result_between = "<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n",
    .result_form = DM_RESULT_STRING};

/* Mistral's versions 3 and 7, whose calls are a list; SentencePiece's vocabularies have a space after a mark, Tekken's none. */
#define MISTRAL(space)                                                                                                           \
    .dialect = {.mark = "[TOOL_CALLS]",                                                                                          \
                .open = space "[",                                                                                               \
                OBJECT("arguments"),                                                                                             \
                .after = "}",                                                                                                    \
                .between = ", ",                                                                                                 \
                .close = "]",                                                                                                    \
                .marks = {"[TOOL_CALLS]"}},                                                                                      \
    .place = DM_TOOLS_BEFORE_LAST_USER, .system = "", .list = {"[AVAILABLE_TOOLS]" space "[", "][/AVAILABLE_TOOLS]"},            \
    .list_between = ", ", .calls = {"", EOS}, .member_ids = true, .results = {"", ""},                                           \
    .result = {"[TOOL_RESULTS]" space, "[/TOOL_RESULTS]"}, .result_between = ""
#define MISTRAL_V7(space)                                                                                                        \
    MISTRAL(space), .text = {space, ""}, .result_form = DM_RESULT_AFTER_ID, .id_after = "[TOOL_CONTENT]" space

const dm_chat_tools dm_chat_tools_mistral = {MISTRAL(" "), .result_form = DM_RESULT_MEMBERS};
const dm_chat_tools dm_chat_tools_tekken = {MISTRAL(""), .result_form = DM_RESULT_MEMBERS};
const dm_chat_tools dm_chat_tools_mistral_v7 = {MISTRAL_V7(" ")};
const dm_chat_tools dm_chat_tools_tekken_v7 = {MISTRAL_V7("")};

/* Versions 11 and 13: each call has a mark of its own. */
#define MISTRAL_V11                                                                                                              \
    .system = "", .list = {"[AVAILABLE_TOOLS][", "][/AVAILABLE_TOOLS]"}, .list_between = ", ", .calls = {"", EOS},               \
    .text = {"", ""}, .results = {"", ""}, .result = {"[TOOL_RESULTS]", "[/TOOL_RESULTS]"}, .result_between = ""

const dm_chat_tools dm_chat_tools_tekken_v11 = {.dialect = {.mark = "[TOOL_CALLS]",
                                                            .open = "",
                                                            .before = "",
                                                            .id = "[CALL_ID]",
                                                            .middle = "[ARGS]",
                                                            .after = "",
                                                            .between = "[TOOL_CALLS]",
                                                            .close = "",
                                                            .marks = {"[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"}},
                                                .place = DM_TOOLS_BEFORE_LAST_USER,
                                                .result_form = DM_RESULT_AFTER_ID,
                                                .id_after = "[TOOL_CONTENT]",
                                                MISTRAL_V11};
const dm_chat_tools dm_chat_tools_tekken_v13 = {.dialect = {.mark = "[TOOL_CALLS]",
                                                            .open = "",
                                                            .before = "",
                                                            .middle = "[ARGS]",
                                                            .after = "",
                                                            .between = "[TOOL_CALLS]",
                                                            .close = "",
                                                            .marks = {"[TOOL_CALLS]", "[ARGS]"}},
                                                .place = DM_TOOLS_BEFORE_FIRST_USER,
                                                MISTRAL_V11};

/* Phi-4-mini. Its template has the functions; calls and results are what its vocabulary has tokens for. */
const dm_chat_tools dm_chat_tools_phi4 = {.dialect = {.mark = "<|tool_call|>",
                                                      .open = "[",
                                                      OBJECT("arguments"),
                                                      .after = "}",
                                                      .between = ", ",
                                                      .close = "]<|/tool_call|>",
                                                      .marks = {"<|tool_call|>", "<|/tool_call|>"}},
                                          .place = DM_TOOLS_IN_SYSTEM,
                                          .system = "",
                                          .system_between = "",
                                          .list = {"<|tool|>[", "]<|/tool|>"},
                                          .list_between = ", ",
                                          .list_form = DM_LIST_FUNCTIONS,
                                          .calls = {"<|assistant|>", "<|end|>"},
                                          .text = {"", ""},
                                          .results = {"", ""},
                                          .result = {"<|tool_response|>", "<|end|>"},
                                          .result_between = ""};

/* DeepSeek's templates have calls and results; how functions are told is ours. */
#define DEEPSEEK_MARKS                                                                                                           \
    .marks = {"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"}
#define DEEPSEEK                                                                                                                 \
    .place = DM_TOOLS_IN_SYSTEM, .system = "", .system_between = "\n\n", .list_between = "\n", .list_form = DM_LIST_FUNCTIONS,   \
    .text = {"", ""}, .result = {"<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"}, .goes_on = true

/* V3 and R1. */
const dm_chat_tools dm_chat_tools_deepseek3 = {
    .dialect = {.mark = "<｜tool▁calls▁begin｜>",
                .open = "",
                .before = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                .middle = "\n```json\n",
                .after = "\n```<｜tool▁call▁end｜>",
                .between = "\n",
                .close = "<｜tool▁calls▁end｜>",
                DEEPSEEK_MARKS},
    .list =
        {"## Tools\n\nThese functions can be called:\n",
         "\n\nCalls are written like this, one after another:\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>"
         "name\n```json\n{\"parameter\": \"value\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
    .calls = {"<｜Assistant｜>", EOS},
    .results = {"<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"},
    .result_between = "\n",
    DEEPSEEK};

const dm_chat_tools dm_chat_tools_deepseek31 = {
    .dialect = {.mark = "<｜tool▁calls▁begin｜>",
                .open = "",
                .before = "<｜tool▁call▁begin｜>",
                .middle = "<｜tool▁sep｜>",
                .after = "<｜tool▁call▁end｜>",
                .between = "",
                .close = "<｜tool▁calls▁end｜>",
                DEEPSEEK_MARKS},
    .list = {"## Tools\n\nThese functions can be called:\n",
             "\n\nCalls are written like this, one after another:\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>name<｜tool▁sep｜>"
             "{\"parameter\": \"value\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
    .calls = {"<｜Assistant｜></think>", EOS},
    .results = {"", ""},
    .result_between = "",
    DEEPSEEK};

void dm_chat_mark_tokens(const dm_tokenizer *tokenizer, const dm_chat_dialect *dialect, int32_t out[DM_CHAT_MARKS]) {
    for (size_t i = 0; i < DM_CHAT_MARKS; i++) {
        const char *text = dialect->marks[i];
        uint32_t id = text != NULL ? dm_strings_find(&tokenizer->texts, text, strlen(text)) : DM_TABLE_NONE;
        size_t length = 0;
        bool silent = id != DM_TABLE_NONE && dm_tokenizer_bytes(tokenizer, (int32_t)id, &length) != NULL && length == 0;
        out[i] = silent ? (int32_t)id : -1;
    }
}

/* ---- Writing ---- */

/* JSON is what somebody else says. */
dm_status dm_chat_append_json(const json_t *value, size_t indent, dm_chat_text *out) {
    char *text = json_dumps(value, JSON_INDENT(indent) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    dm_status status =
        text != NULL ? dm_chat_append_content(text, false, out) : dm_fail(DM_ERR_MEMORY, "out of memory for a conversation");
    free(text);
    return status;
}

dm_status dm_chat_write_tools(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const json_t *list, dm_chat_text *out) {
    DM_TRY(dm_chat_append_marks(tokenizer, how->list.before, out));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *tool = json_array_get(list, i), *function = json_object_get(tool, "function");
        DM_TRY(dm_chat_append_marks(tokenizer, i > 0 ? how->list_between : "", out));
        DM_TRY(how->list_form == DM_LIST_TAGS
                   ? dm_chat_write_tagged_function(tokenizer, function, out)
                   : dm_chat_append_json(how->list_form == DM_LIST_TOOLS ? tool : function, how->indent, out));
    }
    return dm_chat_append_marks(tokenizer, how->list.after, out);
}

static dm_status append_string(const char *text, dm_chat_text *out) {
    json_t *value = json_string(text);
    dm_status status = dm_chat_append_json(value, 0, out);
    json_decref(value);
    return status;
}

static dm_status append_call(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const dm_chat_call *call,
                             dm_chat_text *out) {
    const dm_chat_dialect *dialect = &how->dialect;
    DM_TRY(dm_chat_append_marks(tokenizer, dialect->before, out));
    DM_TRY(dm_chat_append_content(call->name, false, out));
    if (dialect->id != NULL) {
        DM_TRY(dm_chat_append_marks(tokenizer, dialect->id, out));
        DM_TRY(dm_chat_append_content(call->id, false, out));
    }
    DM_TRY(dm_chat_append_marks(tokenizer, dialect->middle, out));
    DM_TRY(dialect->tagged ? dm_chat_write_tagged_arguments(tokenizer, call->arguments, out)
                           : dm_chat_append_json(call->arguments, 0, out));
    if (how->member_ids) {
        DM_TRY(dm_chat_append_marks(tokenizer, ", \"id\": ", out));
        DM_TRY(append_string(call->id, out));
    }
    return dm_chat_append_marks(tokenizer, dialect->after, out);
}

dm_status dm_chat_write_calls(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const char *content,
                              const dm_chat_extra *extra, bool goes_on, dm_chat_text *out) {
    const dm_chat_dialect *dialect = &how->dialect;
    if (extra->n_calls > 1 && dialect->between == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "the model's chat template has one call at a time, and a message has %zu",
                       extra->n_calls);
    }
    DM_TRY(dm_chat_append_marks(tokenizer, goes_on ? "" : how->calls.before, out));
    if (how->text.before != NULL && *content != '\0') {
        DM_TRY(dm_chat_append_marks(tokenizer, how->text.before, out));
        DM_TRY(dm_chat_append_content(content, false, out));
        DM_TRY(dm_chat_append_marks(tokenizer, how->text.after, out));
    }
    DM_TRY(dm_chat_append_marks(tokenizer, dialect->mark, out));
    DM_TRY(dm_chat_append_marks(tokenizer, dialect->open, out));
    for (size_t i = 0; i < extra->n_calls; i++) {
        DM_TRY(dm_chat_append_marks(tokenizer, i > 0 ? dialect->between : "", out));
        DM_TRY(append_call(tokenizer, how, &extra->calls[i], out));
    }
    DM_TRY(dm_chat_append_marks(tokenizer, dialect->close, out));
    return dm_chat_append_marks(tokenizer, how->calls.after, out);
}

/* JSON where the result is that, else a string. */
static dm_status append_members(const char *content, const char *call_id, dm_chat_text *out) {
    json_t *value = json_loads(content, JSON_DECODE_ANY, NULL);
    json_t *object = json_pack("{s:o, s:s}", "content", value != NULL ? value : json_string(content), "call_id", call_id);
    dm_status status = dm_chat_append_json(object, 0, out);
    json_decref(object);
    return status;
}

static dm_status append_result(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const char *content, const char *call_id,
                               dm_chat_text *out) {
    if (how->result_form == DM_RESULT_MEMBERS) {
        return append_members(content, call_id, out);
    }
    if (how->result_form == DM_RESULT_STRING) {
        return append_string(content, out);
    }
    if (how->result_form == DM_RESULT_AFTER_ID) {
        DM_TRY(dm_chat_append_content(call_id, false, out));
        DM_TRY(dm_chat_append_marks(tokenizer, how->id_after, out));
    }
    return dm_chat_append_content(content, false, out);
}

dm_status dm_chat_write_result(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const char *content, const char *call_id,
                               bool first, bool last, dm_chat_text *out) {
    DM_TRY(dm_chat_append_marks(tokenizer, first ? how->results.before : how->result_between, out));
    DM_TRY(dm_chat_append_marks(tokenizer, how->result.before, out));
    DM_TRY(append_result(tokenizer, how, content, call_id, out));
    DM_TRY(dm_chat_append_marks(tokenizer, how->result.after, out));
    return last ? dm_chat_append_marks(tokenizer, how->results.after, out) : DM_OK;
}
