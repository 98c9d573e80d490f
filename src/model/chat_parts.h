/* What the files that write conversations share. */
#ifndef DM_MODEL_CHAT_PARTS_H
#define DM_MODEL_CHAT_PARTS_H

#include "model/chat.h"

/* In marks: the vocabulary's own tokens that end and begin a text. */
#define EOS "\1"
#define BOS "\2"

/* What stands around a message. */
typedef struct dm_chat_turn {
    const char *before, *after;
} dm_chat_turn;

/* How functions, calls and results stand in a conversation. */
typedef struct dm_chat_tools {
    dm_chat_dialect dialect;
    enum {
        DM_TOOLS_IN_SYSTEM,       /* after its first message's text */
        DM_TOOLS_IN_FIRST_USER,   /* before the text */
        DM_TOOLS_BEFORE_LAST_USER /* before the turn */
    } place;
    const char *system;       /* begins the system's turn where there are functions */
    dm_chat_turn list;        /* around all functions */
    const char *list_between; /* two of them */
    size_t indent;            /* of their JSON; 0: on one line */
    dm_chat_turn calls;       /* around a turn of calls, mark included */
    bool texts;               /* which may have a text before them */
    bool ids;                 /* calls and results name theirs */
    dm_chat_turn results;     /* around results that follow each other */
    dm_chat_turn result;      /* around each */
    const char *result_between;
    bool quotes; /* a result is a JSON string */
} dm_chat_tools;

extern const dm_chat_tools dm_chat_tools_chatml, dm_chat_tools_llama, dm_chat_tools_mistral, dm_chat_tools_tekken;

/* Marks, which may hold BOS and EOS; and what a message says, in which no control token is found. */
dm_status dm_chat_append_marks(const dm_tokenizer *tokenizer, const char *text, dm_chat_text *out);
dm_status dm_chat_append_content(const char *text, bool trims, dm_chat_text *out);

/* All functions, with what stands around them. */
dm_status dm_chat_write_tools(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const json_t *list, dm_chat_text *out);
/* An assistant's turn of calls. */
dm_status dm_chat_write_calls(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const char *content,
                              const dm_chat_extra *extra, dm_chat_text *out);
/* A result; whether another one comes before and after it. */
dm_status dm_chat_write_result(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const char *content, const char *call_id,
                               bool first, bool last, dm_chat_text *out);

#endif
