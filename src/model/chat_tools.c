/* Functions in conversations: what is there to be called, calls and their results, as the models' published templates word them.
 */
#include <stdlib.h>
#include <string.h>

#include "model/chat_parts.h"
#include "model/vocabulary.h"

/* ---- The families' ways ---- */

const dm_chat_tools dm_chat_tools_chatml =
    {/* Qwen 2.5 and 3, Hermes */
     .dialect = {.mark = "<tool_call>",
                 .open = "\n",
                 .close = "\n</tool_call>",
                 .between = "\n</tool_call>\n<tool_call>\n",
                 .arguments_key = "arguments"},
     .place = DM_TOOLS_IN_SYSTEM,
     .system = "",
     .list = {"# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
              "signatures within <tools></tools> XML tags:\n<tools>\n",
              "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
              "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n"
              "</tool_call>"},
     .list_between = "\n",
     .calls = {"<|im_start|>assistant\n", "<|im_end|>\n"},
     .texts = true,
     .results = {"<|im_start|>user\n", "<|im_end|>\n"},
     .result = {"<tool_response>\n", "\n</tool_response>"},
     .result_between = "\n"};

/* Llama 3.1 to 3.3. The template would also tell the date. */
const dm_chat_tools dm_chat_tools_llama = {
    .dialect = {.mark = "", .open = "", .close = "", .between = NULL, .arguments_key = "parameters"},
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
    .quotes = true};

const dm_chat_tools dm_chat_tools_mistral = {
    .dialect = {.mark = "[TOOL_CALLS]", .open = " [", .close = "]", .between = ", ", .arguments_key = "arguments"},
    .place = DM_TOOLS_BEFORE_LAST_USER,
    .system = "",
    .list = {"[AVAILABLE_TOOLS] [", "][/AVAILABLE_TOOLS]"},
    .list_between = ", ",
    .calls = {"", EOS},
    .ids = true,
    .results = {"", ""},
    .result = {"[TOOL_RESULTS] ", "[/TOOL_RESULTS]"},
    .result_between = ""};

const dm_chat_tools dm_chat_tools_tekken = {
    .dialect = {.mark = "[TOOL_CALLS]", .open = "[", .close = "]", .between = ", ", .arguments_key = "arguments"},
    .place = DM_TOOLS_BEFORE_LAST_USER,
    .system = "",
    .list = {"[AVAILABLE_TOOLS][", "][/AVAILABLE_TOOLS]"},
    .list_between = ", ",
    .calls = {"", EOS},
    .ids = true,
    .results = {"", ""},
    .result = {"[TOOL_RESULTS]", "[/TOOL_RESULTS]"},
    .result_between = ""};

int32_t dm_chat_mark_token(const dm_tokenizer *tokenizer, const dm_chat_dialect *dialect) {
    uint32_t id = dm_strings_find(&tokenizer->texts, dialect->mark, strlen(dialect->mark));
    size_t length = 0;
    bool silent = id != DM_TABLE_NONE && dm_tokenizer_bytes(tokenizer, (int32_t)id, &length) != NULL && length == 0;
    return silent ? (int32_t)id : -1;
}

/* ---- Writing ---- */

/* JSON is what somebody else says. */
static dm_status append_json(const json_t *value, size_t indent, dm_chat_text *out) {
    char *text = json_dumps(value, JSON_INDENT(indent) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    dm_status status =
        text != NULL ? dm_chat_append_content(text, false, out) : dm_fail(DM_ERR_MEMORY, "out of memory for a conversation");
    free(text);
    return status;
}

dm_status dm_chat_write_tools(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const json_t *list, dm_chat_text *out) {
    DM_TRY(dm_chat_append_marks(tokenizer, how->list.before, out));
    for (size_t i = 0; i < json_array_size(list); i++) {
        DM_TRY(dm_chat_append_marks(tokenizer, i > 0 ? how->list_between : "", out));
        DM_TRY(append_json(json_array_get(list, i), how->indent, out));
    }
    return dm_chat_append_marks(tokenizer, how->list.after, out);
}

static dm_status append_call(const dm_chat_tools *how, const dm_chat_call *call, dm_chat_text *out) {
    json_t *object = json_pack("{s:s, s:O}", "name", call->name, how->dialect.arguments_key, call->arguments);
    if (how->ids) {
        json_object_set_new(object, "id", json_string(call->id));
    }
    dm_status status = append_json(object, 0, out);
    json_decref(object);
    return status;
}

dm_status dm_chat_write_calls(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const char *content,
                              const dm_chat_extra *extra, dm_chat_text *out) {
    const dm_chat_dialect *dialect = &how->dialect;
    if (extra->n_calls > 1 && dialect->between == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "the model's chat template has one call at a time, and a message has %zu",
                       extra->n_calls);
    }
    DM_TRY(dm_chat_append_marks(tokenizer, how->calls.before, out));
    if (how->texts && *content != '\0') {
        DM_TRY(dm_chat_append_content(content, false, out));
        DM_TRY(dm_chat_append_marks(tokenizer, "\n", out));
    }
    DM_TRY(dm_chat_append_marks(tokenizer, dialect->mark, out));
    DM_TRY(dm_chat_append_marks(tokenizer, dialect->open, out));
    for (size_t i = 0; i < extra->n_calls; i++) {
        DM_TRY(dm_chat_append_marks(tokenizer, i > 0 ? dialect->between : "", out));
        DM_TRY(append_call(how, &extra->calls[i], out));
    }
    DM_TRY(dm_chat_append_marks(tokenizer, dialect->close, out));
    return dm_chat_append_marks(tokenizer, how->calls.after, out);
}

/* JSON where the result is that, else a string. */
static dm_status append_named_result(const char *content, const char *call_id, dm_chat_text *out) {
    json_t *value = json_loads(content, JSON_DECODE_ANY, NULL);
    json_t *object = json_pack("{s:o, s:s}", "content", value != NULL ? value : json_string(content), "call_id", call_id);
    dm_status status = append_json(object, 0, out);
    json_decref(object);
    return status;
}

static dm_status append_quoted(const char *content, dm_chat_text *out) {
    json_t *value = json_string(content);
    dm_status status = append_json(value, 0, out);
    json_decref(value);
    return status;
}

dm_status dm_chat_write_result(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const char *content, const char *call_id,
                               bool first, bool last, dm_chat_text *out) {
    DM_TRY(dm_chat_append_marks(tokenizer, first ? how->results.before : how->result_between, out));
    DM_TRY(dm_chat_append_marks(tokenizer, how->result.before, out));
    DM_TRY(how->ids      ? append_named_result(content, call_id, out)
           : how->quotes ? append_quoted(content, out)
                         : dm_chat_append_content(content, false, out));
    DM_TRY(dm_chat_append_marks(tokenizer, how->result.after, out));
    return last ? dm_chat_append_marks(tokenizer, how->results.after, out) : DM_OK;
}
