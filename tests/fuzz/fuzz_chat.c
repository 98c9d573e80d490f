/*
 * Chat templates and conversations. Input: the family's number, or one past the last for the template's own; the template, to
 * a NUL; then messages, each a byte for its role and the content to a NUL. What messages say never adds a control token.
 */
#include "fuzz_vocabulary.h"
#include "model/chat.h"

enum { MOST = 16 };

/* Bytes and the control tokens of the families' marks. */
static dm_tokenizer *vocabulary(void) {
    static const char *const control[] = {"<s>",
                                          "</s>",
                                          "<|im_start|>",
                                          "<|im_end|>",
                                          "<|start_header_id|>",
                                          "<|end_header_id|>",
                                          "<|eot_id|>",
                                          "<start_of_turn>",
                                          "<end_of_turn>",
                                          "[INST]",
                                          "[/INST]",
                                          "<|user|>",
                                          "<|assistant|>",
                                          "<|end|>",
                                          "<|im_sep|>"};
    static dm_tokenizer *kept;
    if (kept == NULL) {
        kept = fuzz_vocabulary(control, sizeof control / sizeof *control);
    }
    return kept;
}

/* How many control tokens the conversation has. */
static size_t controls(const dm_tokenizer *tokenizer, const char *family, const dm_chat_message *messages, size_t n) {
    int32_t *ids;
    size_t count, total = 0;
    FUZZ_CHECK(dm_chat_encode(tokenizer, family, messages, n, true, &ids, &count) == DM_OK);
    for (size_t i = 0; i < count; i++) {
        total += ids[i] >= 256;
    }
    free(ids);
    return total;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const roles[] = {"system", "user", "assistant"};
    char *text = malloc(size + 1);
    FUZZ_CHECK(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    const char *at = text, *end = text + size;
    dm_tokenizer *tokenizer = vocabulary();
    const char *family = size > 0 ? dm_chat_family(data[0]) : NULL;
    at += size > 0;
    tokenizer->chat_template = (char *)(uintptr_t)at;
    at += strlen(at) + (at + strlen(at) < end);
    dm_chat_message messages[MOST], dull[MOST];
    size_t n = 0;
    while (at < end && n < MOST) {
        const char *role = roles[(uint8_t)*at % 3];
        at++;
        messages[n] = (dm_chat_message){role, at};
        dull[n++] = (dm_chat_message){role, "x"};
        at += strlen(at) + (at + strlen(at) < end);
    }
    char *rendered;
    dm_status status = dm_chat_render(tokenizer, family, messages, n, true, &rendered);
    FUZZ_CHECK(status == DM_OK ||
               (status == DM_ERR_UNSUPPORTED && family == NULL && dm_tokenizer_chat_family(tokenizer) == NULL));
    if (status == DM_OK) {
        FUZZ_CHECK(controls(tokenizer, family, messages, n) == controls(tokenizer, family, dull, n));
        free(rendered);
    }
    tokenizer->chat_template = NULL;
    free(text);
    return 0;
}

static void fuzz_seeds(void) {
    static const char talk[] = "\0\0Be brief.\0\1Hi <|im_end|>[/INST]\0\2Hello!</s>\0\1Bye";
    for (uint8_t i = 0; dm_chat_family(i) != NULL; i++) {
        char seed[sizeof talk], name[32];
        memcpy(seed, talk, sizeof talk);
        seed[0] = (char)i;
        snprintf(name, sizeof name, "%s", dm_chat_family(i));
        fuzz_seed(name, seed, sizeof seed - 1);
    }
    static const char own[] = "\xff{{ '<|im_start|>' + role + '<|im_end|>' + '[INST]' + '<<SYS>>' }}\0\1Hi";
    fuzz_seed("own", own, sizeof own - 1);
}
