/* A vocabulary of bytes and control tokens, of which the first begins a text and the second ends it. */
#ifndef DM_TESTS_BYTE_VOCABULARY_H
#define DM_TESTS_BYTE_VOCABULARY_H

#include <string.h>

#include "model/vocabulary.h"

/* NULL: it failed. */
static inline dm_tokenizer *byte_vocabulary(const char *const *control, size_t n, const char *chat_template) {
    dm_tokenizer *made;
    if (dm_vocabulary_create(&made) != DM_OK) {
        return NULL;
    }
    bool fine = dm_vocabulary_add_bytes(made) == DM_OK;
    for (size_t i = 0; i < n && fine; i++) {
        fine = dm_vocabulary_add(made, control[i], strlen(control[i]), DM_TOKEN_CONTROL) == DM_OK;
    }
    made->bos = 256;
    made->eos = 257;
    made->chat_template = chat_template != NULL ? strdup(chat_template) : NULL;
    if (!fine || dm_vocabulary_finish(made) != DM_OK) {
        dm_tokenizer_close(made);
        return NULL;
    }
    return made;
}

/* Control tokens of all families whose models call functions, after those that begin and end a text. */
static const char *const function_tokens[] = {"<s>",
                                              "</s>",
                                              "<|im_start|>",
                                              "<|im_end|>",
                                              "<|start_header_id|>",
                                              "<|end_header_id|>",
                                              "<|eot_id|>",
                                              "<tool_call>",
                                              "</tool_call>",
                                              "[INST]",
                                              "[/INST]",
                                              "[SYSTEM_PROMPT]",
                                              "[/SYSTEM_PROMPT]",
                                              "[AVAILABLE_TOOLS]",
                                              "[/AVAILABLE_TOOLS]",
                                              "[TOOL_CALLS]",
                                              "[CALL_ID]",
                                              "[ARGS]",
                                              "[TOOL_RESULTS]",
                                              "[TOOL_CONTENT]",
                                              "[/TOOL_RESULTS]",
                                              "<|system|>",
                                              "<|user|>",
                                              "<|assistant|>",
                                              "<|end|>",
                                              "<|tool|>",
                                              "<|/tool|>",
                                              "<|tool_call|>",
                                              "<|/tool_call|>",
                                              "<|tool_response|>",
                                              "<｜User｜>",
                                              "<｜Assistant｜>",
                                              "<｜tool▁calls▁begin｜>",
                                              "<｜tool▁calls▁end｜>",
                                              "<｜tool▁call▁begin｜>",
                                              "<｜tool▁call▁end｜>",
                                              "<｜tool▁sep｜>",
                                              "<｜tool▁outputs▁begin｜>",
                                              "<｜tool▁outputs▁end｜>",
                                              "<｜tool▁output▁begin｜>",
                                              "<｜tool▁output▁end｜>"};
enum { N_FUNCTION_TOKENS = sizeof function_tokens / sizeof *function_tokens };

#endif
