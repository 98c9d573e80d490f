#include "model/chat.h"

#include <ctype.h>
#include <stdlib.h>

#include "model/chat_parts.h"
#include "model/vocabulary.h"

typedef struct family {
    const char *name;
    dm_chat_turn system, user, assistant;
    const char *again;          /* instead of user.before from the second user's turn on; NULL: the same */
    const char *answer;         /* invites the assistant */
    bool trims;                 /* white space around a message goes */
    bool inside;                /* a system message is the beginning of the user's next turn */
    const dm_chat_tools *tools; /* NULL: its models are not told of functions */
} family;

/* Turns of families that have functions in some of their versions. */
#define CHATML                                                                                                                   \
    .system = {"<|im_start|>system\n", "<|im_end|>\n"}, .user = {"<|im_start|>user\n", "<|im_end|>\n"},                          \
    .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"}, .answer = "<|im_start|>assistant\n"
#define LLAMA3                                                                                                                   \
    .system = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},                                                  \
    .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},                                                      \
    .assistant = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},                                            \
    .answer = "<|start_header_id|>assistant<|end_header_id|>\n\n", .trims = true
#define TEKKEN                                                                                                                   \
    .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"}, .user = {"[INST]", "[/INST]"}, .assistant = {"", EOS}, .answer = ""
#define DEEPSEEK3                                                                                                                \
    .system = {"", ""}, .user = {"<｜User｜>", ""}, .assistant = {"<｜Assistant｜>", EOS}, .answer = "<｜Assistant｜>"

/* From the models' own published templates. */
static const family families[] = {
    {.name = "chatml", CHATML},
    {.name = "chatml-tools", CHATML, .tools = &dm_chat_tools_chatml},
    {.name = "qwen3-coder", CHATML, .tools = &dm_chat_tools_qwen_coder},
    {.name = "llama2",
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"[INST] ", " [/INST]"},
     .again = BOS "[INST] ",
     .assistant = {" ", " " EOS},
     .answer = "",
     .trims = true,
     .inside = true},
    {.name = "llama3", LLAMA3},
    {.name = "llama3.1", LLAMA3, .tools = &dm_chat_tools_llama},
    {.name = "mistral-v1",
     .system = {"", "\n\n"},
     .user = {" [INST] ", " [/INST]"},
     .assistant = {" ", EOS},
     .answer = "",
     .inside = true},
    {.name = "mistral-v3",
     .system = {"", "\n\n"},
     .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", EOS},
     .answer = "",
     .inside = true,
     .tools = &dm_chat_tools_mistral},
    {.name = "mistral-v3-tekken",
     .system = {"", "\n\n"},
     .user = {"[INST]", "[/INST]"},
     .assistant = {"", EOS},
     .answer = "",
     .inside = true,
     .tools = &dm_chat_tools_tekken},
    {.name = "mistral-v7",
     .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"},
     .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", EOS},
     .answer = "",
     .tools = &dm_chat_tools_mistral_v7},
    {.name = "mistral-v7-tekken", TEKKEN, .tools = &dm_chat_tools_tekken_v7},
    {.name = "mistral-v11-tekken", TEKKEN, .tools = &dm_chat_tools_tekken_v11},
    {.name = "mistral-v13-tekken", TEKKEN, .tools = &dm_chat_tools_tekken_v13},
    {.name = "zephyr",
     .system = {"<|system|>\n", EOS "\n"},
     .user = {"<|user|>\n", EOS "\n"},
     .assistant = {"<|assistant|>\n", EOS "\n"},
     .answer = "<|assistant|>\n"},
    {.name = "gemma",
     .system = {"", "\n\n"},
     .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
     .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
     .answer = "<start_of_turn>model\n",
     .trims = true,
     .inside = true},
    {.name = "phi3",
     .system = {"<|system|>\n", "<|end|>\n"},
     .user = {"<|user|>\n", "<|end|>\n"},
     .assistant = {"<|assistant|>\n", "<|end|>\n"},
     .answer = "<|assistant|>\n"},
    {.name = "phi4-mini",
     .system = {"<|system|>", "<|end|>"},
     .user = {"<|user|>", "<|end|>"},
     .assistant = {"<|assistant|>", "<|end|>"},
     .answer = "<|assistant|>",
     .tools = &dm_chat_tools_phi4},
    {.name = "phi4",
     .system = {"<|im_start|>system<|im_sep|>", "<|im_end|>"},
     .user = {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
     .assistant = {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"},
     .answer = "<|im_start|>assistant<|im_sep|>"},
    {.name = "deepseek-coder",
     .system = {"", ""},
     .user = {"### Instruction:\n", "\n"},
     .assistant = {"### Response:\n", "\n<|EOT|>\n"},
     .answer = "### Response:\n"},
    {.name = "deepseek2",
     .system = {"", "\n\n"},
     .user = {"User: ", "\n\n"},
     .assistant = {"Assistant: ", EOS},
     .answer = "Assistant:"},
    {.name = "deepseek3", DEEPSEEK3},
    {.name = "deepseek3-tools", DEEPSEEK3, .tools = &dm_chat_tools_deepseek3},
    {.name = "deepseek3.1",
     .system = {"", ""},
     .user = {"<｜User｜>", ""},
     .assistant = {"<｜Assistant｜></think>", EOS},
     .answer = "<｜Assistant｜></think>",
     .tools = &dm_chat_tools_deepseek31},
    {.name = "plain", .system = {"", "\n"}, .user = {"", ""}, .assistant = {"", "\n"}, .answer = ""},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

/* The marks of a family's templates, tried in order: all of `has`, none of `lacks`. */
static const struct {
    const char *name, *has[3], *lacks[2];
} marks[] = {
    {"phi4", {"<|im_start|>", "<|im_sep|>"}, {NULL}},
    {"chatml-tools", {"<|im_start|>", "<|im_end|>", "<tool_call>"}, {"<function="}},
    {"qwen3-coder", {"<|im_start|>", "<function=", "<name>"}, {NULL}},
    {"chatml", {"<|im_start|>", "<|im_end|>"}, {NULL}},
    {"llama3.1", {"<|start_header_id|>", "<|eot_id|>", "ipython"}, {NULL}},
    {"llama3", {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}, {NULL}},
    {"gemma", {"<start_of_turn>", "<end_of_turn>"}, {NULL}},
    {"llama2", {"[INST]", "<<SYS>>"}, {NULL}},
    {"mistral-v11-tekken", {"[INST]", "[CALL_ID]", "[ARGS]"}, {NULL}},
    {"mistral-v13-tekken", {"[INST]", "[TOOL_CALLS]", "[ARGS]"}, {NULL}},
    {"mistral-v7", {"[INST]", "[SYSTEM_PROMPT] "}, {NULL}},
    {"mistral-v7-tekken", {"[INST]", "[SYSTEM_PROMPT]"}, {NULL}},
    {"mistral-v3-tekken", {"\"[INST]\"", "[AVAILABLE_TOOLS]"}, {NULL}},
    {"mistral-v3-tekken", {"'[INST]'", "[AVAILABLE_TOOLS]"}, {NULL}},
    {"mistral-v3", {"[INST]", "[AVAILABLE_TOOLS]"}, {" [INST]"}},
    {"mistral-v1", {"[INST]", "[/INST]"}, {NULL}},
    {"phi4-mini", {"<|tool|>", "<|/tool|>", "<|end|>"}, {NULL}},
    {"phi3", {"<|assistant|>", "<|end|>"}, {NULL}},
    {"zephyr", {"<|user|>", "<|assistant|>", "+ eos_token"}, {"content'] + '\\n'", "content'] + '\n'"}},
    {"zephyr", {"<|user|>", "<|assistant|>", "<|endoftext|>"}, {"[gMASK]"}},
    {"deepseek-coder", {"### Instruction:", "### Response:", "<|EOT|>"}, {NULL}},
    {"deepseek3-tools", {"<｜User｜>", "<｜tool▁sep｜>", "```json"}, {NULL}},
    {"deepseek3.1", {"<｜User｜>", "<｜tool▁sep｜>", "</think>"}, {NULL}},
    {"deepseek3", {"<｜User｜>", "<｜Assistant｜>"}, {NULL}},
    {"deepseek2", {"'User: '", "'Assistant: '", "eos_token"}, {NULL}},
};

const char *dm_chat_family(size_t index) {
    return index < N_FAMILIES ? families[index].name : NULL;
}

/* ---- Recognising ---- */

const char *dm_chat_recognise(const char *chat_template) {
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        bool fits = true;
        for (size_t k = 0; k < 3 && marks[i].has[k] != NULL; k++) {
            fits = fits && strstr(chat_template, marks[i].has[k]) != NULL;
        }
        for (size_t k = 0; k < 2 && marks[i].lacks[k] != NULL; k++) {
            fits = fits && strstr(chat_template, marks[i].lacks[k]) == NULL;
        }
        if (fits) {
            return marks[i].name;
        }
    }
    return NULL;
}

const char *dm_tokenizer_chat_family(const dm_tokenizer *tokenizer) {
    return tokenizer->chat_template != NULL ? dm_chat_recognise(tokenizer->chat_template) : NULL;
}

bool dm_tokenizer_has_chat_template(const dm_tokenizer *tokenizer) {
    return tokenizer->chat_template != NULL;
}

static void list_families(char *text, size_t size) {
    size_t used = 0;
    for (size_t i = 0; i < N_FAMILIES && used < size; i++) {
        int wrote = snprintf(text + used, size - used, "%s%s", i > 0 ? ", " : "", families[i].name);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
}

static const family *named(const char *name) {
    for (size_t i = 0; name != NULL && i < N_FAMILIES; i++) {
        if (strcmp(families[i].name, name) == 0) {
            return &families[i];
        }
    }
    return NULL;
}

const dm_chat_dialect *dm_chat_dialect_of(const dm_tokenizer *tokenizer, const char *family_name) {
    const family *f = named(family_name != NULL ? family_name : dm_tokenizer_chat_family(tokenizer));
    return f != NULL && f->tools != NULL ? &f->tools->dialect : NULL;
}

static dm_status find_family(const dm_tokenizer *tokenizer, const char *name, const family **out) {
    *out = named(name != NULL ? name : dm_tokenizer_chat_family(tokenizer));
    if (*out != NULL) {
        return DM_OK;
    }
    char known[512];
    list_families(known, sizeof known);
    if (name != NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "no chat template is called '%.40s'; known are %s", name, known);
    }
    return dm_fail(DM_ERR_UNSUPPORTED, "the model has %s; choose one of %s",
                   tokenizer->chat_template != NULL ? "a chat template that is not known here" : "no chat template", known);
}

/* ---- Writing ---- */

static dm_status append(dm_chat_text *out, const char *bytes, size_t length) {
    size_t needed = out->length + length + 1;
    DM_TRY(dm_reserve(&out->text, &out->room, needed, 1));
    memcpy(out->text + out->length, bytes, length);
    out->length += length;
    out->text[out->length] = '\0';
    return DM_OK;
}

/* The text of a vocabulary's token; of SentencePiece's usual one where it has none. */
static const char *token_text(const dm_tokenizer *tokenizer, int32_t id, const char *usual, size_t *length) {
    *length = strlen(usual);
    return id >= 0 ? dm_strings_at(&tokenizer->texts, (uint32_t)id, length) : usual;
}

dm_status dm_chat_append_marks(const dm_tokenizer *tokenizer, const char *text, dm_chat_text *out) {
    while (*text != '\0') {
        size_t n = strcspn(text, EOS BOS), length;
        DM_TRY(append(out, text, n));
        text += n;
        if (*text != '\0') {
            const char *token = *text == EOS[0] ? token_text(tokenizer, tokenizer->eos, "</s>", &length)
                                                : token_text(tokenizer, tokenizer->bos, "<s>", &length);
            DM_TRY(append(out, token, length));
            text++;
        }
    }
    return DM_OK;
}

dm_status dm_chat_append_content(const char *text, bool trims, dm_chat_text *out) {
    size_t length = strlen(text);
    while (trims && length > 0 && isspace((unsigned char)text[length - 1])) {
        length--;
    }
    while (trims && length > 0 && isspace((unsigned char)*text)) {
        text++;
        length--;
    }
    DM_TRY(dm_reserve(&out->spans, &out->spans_room, out->n_spans + 1, sizeof *out->spans));
    size_t start = out->length;
    DM_TRY(append(out, text, length));
    out->spans[out->n_spans] = (dm_span){start, out->length};
    out->n_spans += length > 0;
    return DM_OK;
}

static dm_status append_turn(const dm_tokenizer *tokenizer, const dm_chat_turn *around, const char *content, bool trims,
                             dm_chat_text *out) {
    DM_TRY(dm_chat_append_marks(tokenizer, around->before, out));
    DM_TRY(dm_chat_append_content(content, trims, out));
    return dm_chat_append_marks(tokenizer, around->after, out);
}

static bool is_role(const dm_chat_message *message, const char *role) {
    return strcmp(message->role, role) == 0;
}

/* ---- Conversations ---- */

typedef struct writer {
    const dm_tokenizer *tokenizer;
    const family *family;
    const dm_chat_message *messages; /* [n] */
    size_t n;
    const dm_chat_functions *functions;
    size_t tools_at; /* the message that functions stand at; SIZE_MAX: none */
    bool user_spoke;
    dm_chat_text *out;
} writer;

static const dm_chat_extra *extra_of(const writer *w, size_t i) {
    static const dm_chat_extra none = {0};
    return w->functions->extras != NULL ? &w->functions->extras[i] : &none;
}

static bool has_role(const writer *w, size_t i, const char *role) {
    return i < w->n && is_role(&w->messages[i], role);
}

static bool has_tools(const writer *w) {
    return json_array_size(w->functions->tools) > 0;
}

static dm_status write_tools(writer *w) {
    return dm_chat_write_tools(w->tokenizer, w->family->tools, w->functions->tools, w->out);
}

/* Where the functions stand. */
static dm_status place_tools(writer *w) {
    w->tools_at = SIZE_MAX;
    if (!has_tools(w)) {
        return DM_OK;
    }
    if (w->family->tools->place == DM_TOOLS_IN_SYSTEM) {
        w->tools_at = 0;
        return DM_OK;
    }
    const bool last = w->family->tools->place == DM_TOOLS_BEFORE_LAST_USER;
    for (size_t i = 0; i < w->n && (last || w->tools_at == SIZE_MAX); i++) {
        w->tools_at = has_role(w, i, "user") ? i : w->tools_at;
    }
    return w->tools_at != SIZE_MAX
               ? DM_OK
               : dm_fail(DM_ERR_ARGUMENT, "the model's chat template has functions at a user's message: there is none");
}

/* The system's turn, with what stands there of functions; `content` is NULL where nobody gave one. */
static dm_status write_system(writer *w, const char *content, bool first) {
    const dm_chat_turn *around = &w->family->system;
    const dm_chat_tools *tools = first && has_tools(w) ? w->family->tools : NULL;
    DM_TRY(dm_chat_append_marks(w->tokenizer, around->before, w->out));
    DM_TRY(dm_chat_append_marks(w->tokenizer, tools != NULL ? tools->system : "", w->out));
    DM_TRY(dm_chat_append_content(content != NULL ? content : "", w->family->trims, w->out));
    if (tools != NULL && tools->place == DM_TOOLS_IN_SYSTEM) {
        DM_TRY(dm_chat_append_marks(w->tokenizer, content != NULL ? tools->system_between : "", w->out));
        DM_TRY(write_tools(w));
    }
    return dm_chat_append_marks(w->tokenizer, around->after, w->out);
}

/* A user's turn that begins with the `n_system` messages at number `i`; `content` follows them. */
static dm_status write_user(writer *w, size_t i, size_t n_system, const char *content) {
    const family *f = w->family;
    bool tools = w->tools_at == i + n_system && f->tools->place != DM_TOOLS_IN_SYSTEM;
    bool inside = tools && f->tools->place == DM_TOOLS_IN_FIRST_USER;
    DM_TRY(tools && !inside ? write_tools(w) : DM_OK);
    DM_TRY(dm_chat_append_marks(w->tokenizer, w->user_spoke && f->again != NULL ? f->again : f->user.before, w->out));
    w->user_spoke = true;
    for (size_t k = 0; k < n_system; k++) {
        DM_TRY(append_turn(w->tokenizer, &f->system, w->messages[i + k].content, f->trims, w->out));
    }
    DM_TRY(inside ? write_tools(w) : DM_OK);
    DM_TRY(dm_chat_append_content(content, f->trims, w->out));
    return dm_chat_append_marks(w->tokenizer, f->user.after, w->out);
}

/* Whether the assistant's turn at number `i` goes on from results, without a mark. */
static bool goes_on_at(const writer *w, size_t i) {
    return i > 0 && has_role(w, i - 1, "tool") && w->family->tools->goes_on;
}

/* Any other message than a user's. */
static dm_status write_other(writer *w, size_t i) {
    const family *f = w->family;
    const char *content = w->messages[i].content;
    if (has_role(w, i, "system")) {
        return write_system(w, content, i == 0);
    }
    if (has_role(w, i, "tool")) {
        return dm_chat_write_result(w->tokenizer, f->tools, content, extra_of(w, i)->call_id,
                                    i == 0 || !has_role(w, i - 1, "tool"), !has_role(w, i + 1, "tool"), w->out);
    }
    bool goes_on = goes_on_at(w, i);
    const dm_chat_turn around = {goes_on ? "" : f->assistant.before, f->assistant.after};
    return extra_of(w, i)->n_calls > 0 ? dm_chat_write_calls(w->tokenizer, f->tools, content, extra_of(w, i), goes_on, w->out)
                                       : append_turn(w->tokenizer, &around, content, f->trims, w->out);
}

static dm_status write_messages(writer *w) {
    const family *f = w->family;
    DM_TRY(place_tools(w));
    const bool system = has_tools(w) && (f->tools->place == DM_TOOLS_IN_SYSTEM || *f->tools->system != '\0');
    if (system && !has_role(w, 0, "system")) {
        DM_TRY(write_system(w, NULL, true));
    }
    for (size_t i = 0; i < w->n; i++) {
        size_t n_system = 0;
        while (f->inside && has_role(w, i + n_system, "system")) {
            n_system++;
        }
        bool user = has_role(w, i + n_system, "user");
        if (n_system > 0 || user) {
            DM_TRY(write_user(w, i, n_system, user ? w->messages[i + n_system].content : ""));
            i += n_system - (user ? 0 : 1);
        } else {
            DM_TRY(write_other(w, i));
        }
    }
    return DM_OK;
}

/* Roles that are known, and functions only where the family's template has them. */
static dm_status check_messages(const writer *w) {
    bool functions = has_tools(w);
    for (size_t i = 0; i < w->n; i++) {
        bool result = has_role(w, i, "tool") && extra_of(w, i)->call_id != NULL;
        if (!has_role(w, i, "system") && !has_role(w, i, "user") && !has_role(w, i, "assistant") && !result) {
            return dm_fail(DM_ERR_ARGUMENT, "message %zu is by '%.40s'; expected system, user or assistant", i + 1,
                           w->messages[i].role);
        }
        functions = functions || result || extra_of(w, i)->n_calls > 0;
    }
    return functions && w->family->tools == NULL
               ? dm_fail(DM_ERR_UNSUPPORTED, "the model's chat template, of the family '%s', has no functions to call (tools)",
                         w->family->name)
               : DM_OK;
}

dm_status dm_chat_write(const dm_tokenizer *tokenizer, const char *family_name, const dm_chat_message *messages, size_t n,
                        const dm_chat_functions *functions, bool answer, dm_chat_text *out) {
    static const dm_chat_functions none = {0};
    writer w = {
        .tokenizer = tokenizer, .messages = messages, .n = n, .functions = functions != NULL ? functions : &none, .out = out};
    DM_TRY(find_family(tokenizer, family_name, &w.family));
    DM_TRY(check_messages(&w));
    DM_TRY(append(out, "", 0));
    DM_TRY(write_messages(&w));
    DM_TRY(answer && !goes_on_at(&w, n) ? dm_chat_append_marks(tokenizer, w.family->answer, out) : DM_OK);
    bool call = w.functions->call && has_tools(&w);
    return call ? dm_chat_append_marks(tokenizer, w.family->tools->dialect.mark, out) : DM_OK;
}

void dm_chat_text_free(dm_chat_text *text) {
    free(text->text);
    free(text->spans);
    *text = (dm_chat_text){0};
}

dm_status dm_chat_render(const dm_tokenizer *tokenizer, const char *family_name, const dm_chat_message *messages, size_t n,
                         bool answer, char **text) {
    *text = NULL;
    dm_chat_text out = {0};
    dm_status status = dm_chat_write(tokenizer, family_name, messages, n, NULL, answer, &out);
    if (status == DM_OK) {
        *text = out.text;
        out.text = NULL;
    }
    dm_chat_text_free(&out);
    return status;
}

static dm_status encode(const dm_tokenizer *tokenizer, const char *family_name, const dm_chat_message *messages, size_t n,
                        const dm_chat_functions *functions, bool answer, int32_t **ids, size_t *count) {
    *ids = NULL;
    *count = 0;
    dm_chat_text text = {0};
    dm_encoder *encoder = NULL;
    dm_status status = dm_chat_write(tokenizer, family_name, messages, n, functions, answer, &text);
    if (status == DM_OK) {
        status = dm_encoder_create(tokenizer, &encoder);
    }
    if (status == DM_OK) {
        status = dm_encoder_take(encoder, text.text, text.length, DM_ENCODE_SPECIAL | DM_ENCODE_BOS | DM_ENCODE_TEMPLATE,
                                 text.spans, text.n_spans, ids, count);
    }
    dm_encoder_free(encoder);
    dm_chat_text_free(&text);
    return status;
}

dm_status dm_chat_encode(const dm_tokenizer *tokenizer, const char *family_name, const dm_chat_message *messages, size_t n,
                         bool answer, int32_t **ids, size_t *count) {
    return encode(tokenizer, family_name, messages, n, NULL, answer, ids, count);
}

dm_status dm_chat_encode_functions(const dm_tokenizer *tokenizer, const char *family_name, const dm_chat_message *messages,
                                   size_t n, const dm_chat_functions *functions, int32_t **ids, size_t *count) {
    return encode(tokenizer, family_name, messages, n, functions, true, ids, count);
}
