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
        DM_TOOLS_IN_SYSTEM,         /* after its first message's text */
        DM_TOOLS_IN_FIRST_USER,     /* before the text */
        DM_TOOLS_BEFORE_FIRST_USER, /* before the turn */
        DM_TOOLS_BEFORE_LAST_USER   /* the same */
    } place;
    const char *system;         /* begins the system's turn where there are functions */
    const char *system_between; /* its text and they */
    dm_chat_turn list;          /* around all functions */
    const char *list_between;   /* two of them */
    enum {
        DM_LIST_TOOLS,     /* JSON as it came */
        DM_LIST_FUNCTIONS, /* JSON of what is in "function" */
        DM_LIST_TAGS       /* the same in tags */
    } list_form;
    size_t indent;        /* of their JSON; 0: on one line */
    dm_chat_turn calls;   /* around a turn of calls */
    dm_chat_turn text;    /* around a text before them; NULL: there is none */
    bool member_ids;      /* calls have their ids as the last member of an object */
    dm_chat_turn results; /* around results that follow each other */
    dm_chat_turn result;  /* around each */
    const char *result_between;
    enum {
        DM_RESULT_TEXT,
        DM_RESULT_STRING,  /* a JSON string */
        DM_RESULT_MEMBERS, /* a JSON object of it and the call's id */
        DM_RESULT_AFTER_ID /* the call's id, id_after, and a text */
    } result_form;
    const char *id_after;
    bool goes_on; /* after results the assistant's turn begins without a mark */
} dm_chat_tools;

extern const dm_chat_tools dm_chat_tools_chatml, dm_chat_tools_qwen_coder, dm_chat_tools_llama, dm_chat_tools_mistral,
    dm_chat_tools_tekken, dm_chat_tools_mistral_v7, dm_chat_tools_tekken_v7, dm_chat_tools_tekken_v11, dm_chat_tools_tekken_v13,
    dm_chat_tools_phi4, dm_chat_tools_deepseek3, dm_chat_tools_deepseek31;

/* Marks, which may hold BOS and EOS; and what a message says, in which no control token is found. */
dm_status dm_chat_append_marks(const dm_tokenizer *tokenizer, const char *text, dm_chat_text *out);
dm_status dm_chat_append_content(const char *text, bool trims, dm_chat_text *out);

/* A value as JSON in a line, or with so many blanks a level. */
dm_status dm_chat_append_json(const json_t *value, size_t indent, dm_chat_text *out);

/* All functions, with what stands around them. */
dm_status dm_chat_write_tools(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const json_t *list, dm_chat_text *out);
/* An assistant's turn of calls; with `goes_on`, without what stands before it. */
dm_status dm_chat_write_calls(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const char *content,
                              const dm_chat_extra *extra, bool goes_on, dm_chat_text *out);
/* A result; whether another one comes before and after it. */
dm_status dm_chat_write_result(const dm_tokenizer *tokenizer, const dm_chat_tools *how, const char *content, const char *call_id,
                               bool first, bool last, dm_chat_text *out);

/* A function, and the arguments of a call, in tags. */
dm_status dm_chat_write_tagged_function(const dm_tokenizer *tokenizer, const json_t *function, dm_chat_text *out);
dm_status dm_chat_write_tagged_arguments(const dm_tokenizer *tokenizer, const json_t *arguments, dm_chat_text *out);

#endif
