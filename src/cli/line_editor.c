#include "cli/line_editor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>
#if DM_LIBEDIT
#include <histedit.h>
#endif

#include "cli/cli.h"

enum { REMEMBERED = 1000 /* lines */, PATH_ROOM = 4096 };

struct cli_line_editor {
    const char *prompt;
    bool terminal;
    char *line; /* without editing */
    size_t room;
#if DM_LIBEDIT
    EditLine *editor; /* NULL: none, as the terminal cannot be told where to draw, or there is none */
    History *history;
    char file[PATH_ROOM]; /* "": kept nowhere */
    bool empty;           /* no key of this line yet */
#endif
};

#if DM_LIBEDIT

/* ---- Where the history is ------------------------------------------------ */

/* Makes the folders of a path that are not there, for their owner alone. */
static bool make_folders(char *path) {
    for (char *at = strchr(path + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        const bool fine = mkdir(path, S_IRWXU) == 0 || errno == EEXIST;
        *at = '/';
        if (!fine) {
            return false;
        }
    }
    return true;
}

static void find_file(char *out) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (state != NULL && *state == '/') {
        n = snprintf(out, PATH_ROOM, "%s/dilmodeli/history", state);
    } else if (home != NULL && *home == '/') {
        n = snprintf(out, PATH_ROOM, "%s/.local/state/dilmodeli/history", home);
    }
    if (n < 0 || n >= PATH_ROOM || !make_folders(out)) {
        *out = '\0';
    }
}

/* Written beside and renamed, so that a full disk leaves the old one. */
static void save(cli_line_editor *it) {
    char beside[PATH_ROOM + 16];
    HistEvent event;
    snprintf(beside, sizeof beside, "%s.%ld", it->file, (long)getpid());
    const int file = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
    if (file < 0) {
        return;
    }
    close(file);
    if (history(it->history, &event, H_SAVE, beside) < 0 || rename(beside, it->file) != 0) {
        unlink(beside);
    }
}

/* ---- Editing ------------------------------------------------------------- */

static char *prompt_of(EditLine *editor) {
    cli_line_editor *it;
    el_get(editor, EL_CLIENTDATA, &it);
    return (char *)(uintptr_t)it->prompt;
}

/* One character, once there is one; 0 is the end, of the input or because of a signal. */
static int read_character(EditLine *editor, wchar_t *out) {
    cli_line_editor *it;
    mbstate_t state = {0};
    el_get(editor, EL_CLIENTDATA, &it);
    const bool first = it->empty;
    it->empty = false;
    for (;;) {
        char byte;
        if (!cli_wait_input()) {
            return 0;
        }
        const ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n <= 0) {
            return n < 0 && errno != EIO ? -1 : 0; /* EIO: the terminal is gone */
        }
        if (byte == '\0' && first) { /* Ctrl-D from before the line could be edited: what the terminal makes of its end then */
            *out = L'\004';
            return 1;
        }
        const size_t used = mbrtowc(out, &byte, 1, &state);
        if (used == (size_t)-1) { /* no character of this locale */
            *out = L'?';
            return 1;
        }
        if (used != (size_t)-2) {
            return 1;
        }
    }
}

static bool begin_editing(cli_line_editor *it, bool keep) {
    HistEvent event;
    it->history = history_init();
    it->editor = it->history != NULL ? el_init("dilmodeli", stdin, stdout, stderr) : NULL;
    if (it->editor == NULL) {
        return false;
    }
    history(it->history, &event, H_SETSIZE, REMEMBERED);
    history(it->history, &event, H_SETUNIQUE, 1);
    el_set(it->editor, EL_CLIENTDATA, it);
    el_set(it->editor, EL_PROMPT, prompt_of);
    el_set(it->editor, EL_EDITOR, "emacs");
    el_set(it->editor, EL_SIGNAL, 0);
    el_set(it->editor, EL_HIST, history, it->history);
    el_set(it->editor, EL_GETCFN, read_character);
    el_set(it->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(it->editor, NULL); /* ~/.editrc, as every program of libedit */
    if (keep) {
        find_file(it->file);
    }
    if (*it->file != '\0') {
        history(it->history, &event, H_LOAD, it->file);
    }
    return true;
}

static const char *edit(cli_line_editor *it) {
    int length = 0;
    HistEvent event;
    it->empty = true;
    el_set(it->editor, EL_PREP_TERM, 1); /* before the prompt is there: keys that come at once are the editor's already */
    const char *line = el_gets(it->editor, &length);
    if (line == NULL || length <= 0 || cli_signal() != 0) {
        return NULL;
    }
    free(it->line);
    it->line = strndup(line, strcspn(line, "\n"));
    if (it->line != NULL && *it->line != '\0') {
        history(it->history, &event, H_ENTER, it->line);
    }
    return it->line;
}

static void end_editing(cli_line_editor *it) {
    if (it->editor != NULL) {
        if (*it->file != '\0') {
            save(it);
        }
        el_end(it->editor);
    }
    if (it->history != NULL) {
        history_end(it->history);
    }
}

static bool edits(const cli_line_editor *it) {
    return it->editor != NULL;
}

#else

static bool begin_editing(cli_line_editor *it, bool keep) {
    (void)it;
    (void)keep;
    return false;
}

static const char *edit(cli_line_editor *it) {
    (void)it;
    return NULL;
}

static void end_editing(cli_line_editor *it) {
    (void)it;
}

static bool edits(const cli_line_editor *it) {
    (void)it;
    return false;
}

#endif

/* ---- The editor ---------------------------------------------------------- */

cli_line_editor *cli_line_editor_open(const char *prompt, bool keep) {
    cli_line_editor *it = calloc(1, sizeof *it);
    if (it == NULL) {
        cli_fail("out of memory");
        return NULL;
    }
    it->prompt = prompt;
    it->terminal = isatty(STDIN_FILENO) != 0;
    const char *kind = getenv("TERM");
    if (it->terminal && isatty(STDOUT_FILENO) != 0 && kind != NULL && *kind != '\0' && strcmp(kind, "dumb") != 0) {
        begin_editing(it, keep); /* without, the terminal's own editing of a line is what there is */
    }
    return it;
}

void cli_line_editor_close(cli_line_editor *it) {
    if (it != NULL) {
        end_editing(it);
        free(it->line);
        free(it);
    }
}

bool cli_line_editor_is_terminal(const cli_line_editor *it) {
    return it->terminal;
}

const char *cli_line_editor_read(cli_line_editor *it) {
    if (edits(it)) {
        return edit(it);
    }
    if (it->terminal) {
        printf("%s", it->prompt);
        fflush(stdout);
    }
    /* A terminal hands out one line at a time, so that none waits in the stream's buffer. */
    if ((it->terminal && !cli_wait_input()) || getline(&it->line, &it->room, stdin) <= 0) {
        return NULL;
    }
    it->line[strcspn(it->line, "\n")] = '\0';
    return it->line;
}
