/* A conversation on a terminal or through a pipe, a line a message. */
#ifndef DM_CLI_CHAT_H
#define DM_CLI_CHAT_H

#include "dilmodeli.h"

typedef struct cli_chat {
    dm_session *session;
    const dm_tokenizer *tokenizer;
    const char *family; /* of marks, see dm_chat_family() */
    const char *system; /* instructions before the first message; NULL: none */
    int32_t context;    /* positions that the session holds */
    int32_t most;       /* tokens in an answer */
    dm_sampling sampling;
    bool keep; /* what is typed at a terminal, in a file of the user's (cli/line_editor.h) */
} cli_chat;

/* Chooses the family: `name` if there is one, else the model's own. With `any`, a model without a template gets "plain".
 * False after printing why there is none. */
bool cli_chat_family(const dm_tokenizer *tokenizer, const char *name, bool any, const char **family);

/* Reads messages from standard input and answers them until it ends. */
int cli_chat_talk(const cli_chat *chat);

#endif
