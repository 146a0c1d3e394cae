/* Two tools over one text file: `count-lines` only reads, `append-line` writes.
 *
 * A tool is a function of `wit/lines.wit`; the names and types here are what `wit-bindgen c` makes of it. Files of the workspace
 * `work` are below `/work`: ordinary C reads and writes them, and what is written is staged until the host commits it. Memory is
 * never given back: an instance lives for one call.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

typedef exports_sample_lines_lines_problem_t problem_t;

/* Says why nothing was done, about the file or the value `what`. */
static bool refuse(problem_t *problem, uint8_t tag, const char *what, const char *why) {
    size_t room = strlen(what) + strlen(why) + 4;
    char *message = malloc(room);
    if (!message) abort();
    snprintf(message, room, "`%s` %s", what, why);
    problem->tag = tag;
    /* All cases hold a text, so this is the one of any of them. */
    tool_string_set(&problem->val.failed, message);
    return false;
}

/* Turns the error of a file into one that an agent can act on. */
static bool broken(problem_t *problem, const char *path, int error) {
    switch (error) {
    case ENOENT:
        return refuse(problem, EXPORTS_SAMPLE_LINES_LINES_PROBLEM_NOT_FOUND, path, "does not exist");
    case EACCES:
    case EPERM:
    case ENOTCAPABLE:
        return refuse(problem, EXPORTS_SAMPLE_LINES_LINES_PROBLEM_DENIED, path, "is not granted");
    default:
        return refuse(problem, EXPORTS_SAMPLE_LINES_LINES_PROBLEM_FAILED, path, strerror(error));
    }
}

/* `before`, then the bytes of a text, which has no end of its own in the component model. */
static char *joined(const char *before, const tool_string_t *text) {
    size_t begin = strlen(before);
    char *whole = malloc(begin + text->len + 1);
    if (!whole) abort();
    memcpy(whole, before, begin);
    memcpy(whole + begin, text->ptr, text->len);
    whole[begin + text->len] = '\0';
    return whole;
}

bool exports_sample_lines_lines_count_lines(tool_string_t *path, exports_sample_lines_lines_counted_t *counted,
                                            problem_t *problem) {
    char *name = joined("", path);
    FILE *file = fopen(joined("/work/", path), "rb");
    if (!file) return broken(problem, name, errno);
    bool begun = false, filled = false;
    *counted = (exports_sample_lines_lines_counted_t){0};
    for (int c; (c = getc(file)) != EOF;) {
        if (c == '\n') {
            counted->lines += 1;
            counted->filled += filled;
            begun = filled = false;
        } else {
            begun = true;
            filled |= !strchr(" \t\r\v\f", c);
        }
    }
    /* A last line need not end. */
    counted->lines += begun;
    counted->filled += filled;
    int error = ferror(file) ? errno : 0;
    fclose(file);
    return error ? broken(problem, name, error) : true;
}

bool exports_sample_lines_lines_append_line(tool_string_t *path, tool_string_t *line,
                                            exports_sample_lines_lines_appended_t *appended, problem_t *problem) {
    if (memchr(line->ptr, '\n', line->len) || memchr(line->ptr, '\r', line->len)) {
        return refuse(problem, EXPORTS_SAMPLE_LINES_LINES_PROBLEM_INVALID_INPUT, "line", "holds a line feed");
    }
    char *name = joined("", path);
    FILE *file = fopen(joined("/work/", path), "a+b");
    if (!file) return broken(problem, name, errno);
    *appended = (exports_sample_lines_lines_appended_t){0};
    int last = '\n';
    rewind(file);
    for (int c; (c = getc(file)) != EOF; last = c) appended->lines += c == '\n';
    /* What is written goes to the end, wherever was read before. */
    fseek(file, 0, SEEK_END);
    if (last != '\n') {
        putc('\n', file);
        appended->lines += 1;
    }
    fwrite(line->ptr, 1, line->len, file);
    putc('\n', file);
    appended->lines += 1;
    bool failed = ferror(file);
    failed |= fclose(file) != 0;
    return failed ? broken(problem, name, errno) : true;
}
