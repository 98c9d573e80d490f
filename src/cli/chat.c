#include "cli/chat.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/line_editor.h"

bool cli_chat_family(const dm_tokenizer *tokenizer, const char *name, bool any, const char **family) {
    *family = name;
    if (name == NULL && any && !dm_tokenizer_has_chat_template(tokenizer)) {
        *family = "plain";
        fprintf(stderr, "The model has no chat template: it goes on from what you type. --chat-template chooses one.\n");
        return true;
    }
    char *nothing;
    if (dm_chat_render(tokenizer, name, NULL, 0, false, &nothing) != DM_OK) { /* says what is wrong with the name */
        cli_fail("%s (--chat-template NAME)", dm_error_message());
        return false;
    }
    free(nothing);
    *family = name != NULL ? name : dm_tokenizer_chat_family(tokenizer);
    return true;
}

/* What was said, the system's instructions first if there are any; contents are owned. */
typedef struct history {
    dm_chat_message *messages;
    size_t count, room;
    size_t fixed; /* messages at the beginning that are never forgotten */
} history;

static bool add(history *h, const char *role, const char *content) {
    if (h->count == h->room) {
        size_t room = 2 * h->room + 8;
        dm_chat_message *grown = realloc(h->messages, room * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        h->messages = grown;
        h->room = room;
    }
    char *copy = strdup(content);
    h->messages[h->count] = (dm_chat_message){role, copy};
    h->count += copy != NULL;
    return copy != NULL;
}

/* Removes messages [from, to). */
static void drop(history *h, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) {
        free((void *)(uintptr_t)h->messages[i].content);
    }
    if (from < to) {
        memmove(h->messages + from, h->messages + to, (h->count - to) * sizeof *h->messages);
        h->count -= to - from;
    }
}

/* ---- Answering ---- */

typedef struct reply {
    FILE *text; /* what came, kept in memory */
    bool begun; /* white space before the first word is the marks', not the answer's */
} reply;

static bool on_text(void *user, const char *bytes, size_t length) {
    reply *r = user;
    while (!r->begun && length > 0 && (*bytes == ' ' || *bytes == '\n')) {
        bytes++;
        length--;
    }
    r->begun = r->begun || length > 0;
    fwrite(bytes, 1, length, r->text);
    return fwrite(bytes, 1, length, stdout) == length && fflush(stdout) == 0;
}

/* Encodes what was said, forgetting the oldest turns until an answer fits. False after printing why not. */
static bool encode(const cli_chat *chat, history *h, int32_t **ids, size_t *n) {
    size_t before = h->count;
    for (;;) {
        if (dm_chat_encode(chat->tokenizer, chat->family, h->messages, h->count, true, ids, n) != DM_OK) {
            cli_fail_status();
            return false;
        }
        if (*n > 0 && *n < (size_t)chat->context) {
            break;
        }
        free(*ids);
        if (*n == 0 || h->count <= h->fixed + 1) {
            cli_fail("the message's %zu tokens do not fit: the context holds %d", *n, chat->context);
            return false;
        }
        drop(h, h->fixed, h->fixed + 2 < h->count ? h->fixed + 2 : h->count - 1); /* a user's turn and its answer */
    }
    if (h->count < before) {
        fprintf(stderr, "(the context is full: the oldest turns are forgotten)\n");
    }
    return true;
}

static double per_second(int32_t tokens, double seconds) {
    return tokens > 0 && seconds > 0.0 ? tokens / seconds : 0.0;
}

static dm_status generate(const cli_chat *chat, const int32_t *ids, size_t n, uint64_t turn, char **text) {
    reply r = {.begun = strcmp(chat->family, "plain") == 0};
    size_t length;
    r.text = open_memstream(text, &length);
    if (r.text == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_sampling how = chat->sampling;
    how.seed += turn; /* the same line twice may get another answer */
    size_t kept = (size_t)dm_session_keep(chat->session, ids, (int32_t)n);
    int32_t room = chat->context - (int32_t)n;
    dm_generate_result result;
    dm_status status =
        dm_generate(chat->session, ids + kept, n - kept, chat->most < room ? chat->most : room, &how, on_text, &r, NULL, &result);
    fclose(r.text);
    printf("\n");
    if (status == DM_OK && isatty(STDERR_FILENO)) {
        fprintf(stderr, "(%zu tokens known, %d read at %.1f a second, %d made at %.1f)\n", kept, result.prompt_tokens,
                per_second(result.prompt_tokens, result.prompt_s), result.tokens, per_second(result.tokens - 1, result.decode_s));
    }
    return status;
}

/* Answers the last message. What cannot be answered is as if it had not been said; false when nothing can be any more. */
static bool answer(const cli_chat *chat, history *h, uint64_t turn) {
    int32_t *ids = NULL;
    size_t n;
    char *text = NULL;
    if (!encode(chat, h, &ids, &n)) {
        drop(h, h->count - 1, h->count);
        return true;
    }
    dm_interrupt_clear();
    cli_catch_signals();
    dm_status status = generate(chat, ids, n, turn, &text);
    free(ids);
    dm_interrupt_clear();
    cli_catch_signals();
    bool fine = status == DM_OK && add(h, "assistant", text);
    if (!fine) {
        cli_fail("%s", status != DM_OK && text != NULL ? dm_error_message() : "out of memory");
    }
    free(text);
    return fine;
}

/* ---- Reading ---- */

/* The next line; NULL at the end of the input. Ctrl-C takes back what was typed. */
static const char *read_line(cli_line_editor *editor) {
    for (;;) {
        const char *line = cli_line_editor_read(editor);
        if (line != NULL || cli_signal() != SIGINT) {
            if (line == NULL && cli_line_editor_is_terminal(editor)) {
                printf("\n");
            }
            return line;
        }
        dm_interrupt_clear();
        cli_catch_signals();
        printf("\n(/quit or Ctrl-D ends)\n");
    }
}

static bool talk(const cli_chat *chat, history *h) {
    cli_line_editor *editor = cli_line_editor_open("> ", chat->keep);
    bool fine = editor != NULL;
    const char *line;
    if (fine && cli_line_editor_is_terminal(editor)) {
        fprintf(stderr, "/reset forgets, /quit or Ctrl-D ends, Ctrl-C stops an answer.\n");
    }
    for (uint64_t turn = 0; fine && (line = read_line(editor)) != NULL; turn++) {
        if (strcmp(line, "/quit") == 0) {
            break;
        }
        if (strcmp(line, "/reset") == 0) {
            drop(h, h->fixed, h->count);
            fprintf(stderr, "(forgotten)\n");
        } else if (*line != '\0') {
            fine = add(h, "user", line) && answer(chat, h, turn);
        }
    }
    cli_line_editor_close(editor);
    return fine;
}

int cli_chat_talk(const cli_chat *chat) {
    history h = {0};
    bool fine = chat->system == NULL || add(&h, "system", chat->system);
    h.fixed = h.count;
    fine = fine && talk(chat, &h);
    drop(&h, 0, h.count);
    free(h.messages);
    return fine ? CLI_DONE : CLI_FAILED;
}
