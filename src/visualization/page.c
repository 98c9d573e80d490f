#include "visualization/page.h"

#include <stdarg.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/web.h"

/* ---- Parts ---- */

void dm_page_begin(dm_page *page, const char *svg) {
    *page = (dm_page){.svg = svg};
    for (size_t i = 0; i < DM_PAGE_PARTS; i++) {
        dm_text_stream_begin(&page->parts[i]);
        if (page->parts[i].stream == NULL && page->status == DM_OK) {
            page->status = dm_fail(DM_ERR_MEMORY, "out of memory for a page");
        }
    }
    if (page->status == DM_OK && svg != NULL) {
        page->status = dm_make_directory(svg);
    }
}

FILE *dm_page_body(dm_page *page) {
    return page->parts[DM_PAGE_BODY].stream;
}

/* An entry of a list of names and what is said of them. */
static void write_pair(FILE *out, const char *name, const char *text) {
    fputs("<dt>", out);
    dm_markup_text(out, name);
    fputs("</dt><dd>", out);
    dm_markup_text(out, text);
    fputs("</dd>\n", out);
}

void dm_page_fact(dm_page *page, const char *name, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (page->status == DM_OK) {
        write_pair(page->parts[DM_PAGE_FACTS].stream, name, text);
    }
}

void dm_page_leave_out(dm_page *page, const char *what, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (page->status == DM_OK) {
        write_pair(page->parts[DM_PAGE_LEFT].stream, what, text);
    }
    page->left_out++;
}

static void end_section(dm_page *page) {
    if (page->in_section) {
        fputs("</section>\n", page->parts[DM_PAGE_BODY].stream);
    }
}

void dm_page_section(dm_page *page, const char *name, const char *title, const char *intro) {
    if (page->status != DM_OK) {
        return;
    }
    end_section(page);
    page->in_section = true;
    fprintf(page->parts[DM_PAGE_LINKS].stream, "<a href=\"#%s\">", name);
    dm_markup_text(page->parts[DM_PAGE_LINKS].stream, title);
    fputs("</a>\n", page->parts[DM_PAGE_LINKS].stream);
    fprintf(page->parts[DM_PAGE_BODY].stream, "<section id=\"%s\"><h2>", name);
    dm_markup_text(page->parts[DM_PAGE_BODY].stream, title);
    fputs("</h2><p>", page->parts[DM_PAGE_BODY].stream);
    dm_markup_text(page->parts[DM_PAGE_BODY].stream, intro);
    fputs("</p>\n", page->parts[DM_PAGE_BODY].stream);
}

/* ---- Charts ---- */

static dm_status write_svg(const char *folder, const dm_chart *chart) {
    char name[256];
    dm_replace file;
    snprintf(name, sizeof name, "%s.svg", chart->name);
    char *path = dm_path_join(folder, name);
    if (path == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for the path of a chart");
    }
    dm_status status = dm_replace_open(path, &file);
    free(path);
    DM_TRY(status);
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", file.stream);
    chart->kind->draw(chart, dm_web_report_chart_css, file.stream);
    return dm_replace_commit(&file);
}

void dm_page_chart(dm_page *page, const dm_chart *chart) {
    if (page->status != DM_OK) {
        return;
    }
    FILE *out = page->parts[DM_PAGE_BODY].stream;
    fprintf(out, "<figure id=\"chart-%s\">\n", chart->name);
    chart->kind->draw(chart, NULL, out);
    fputs("<figcaption>", out);
    dm_markup_text(out, chart->note);
    fputs("</figcaption>\n<details><summary>Table of these numbers</summary><div class=\"table\">\n", out);
    chart->kind->tabulate(chart, out);
    fputs("</div></details></figure>\n", out);
    page->charts++;
    if (page->svg != NULL) {
        page->status = write_svg(page->svg, chart);
    }
}

/* ---- The whole ---- */

/* Browsers and XML parsers both read it: what XML would take for markup stands in a section of its own. */
static void write_script(FILE *out, const char *script) {
    fprintf(out, "<script>//<![CDATA[\n%s//]]></script>\n", script);
}

/* A page that is alone may ask for nothing, a live one for what is new. */
static void write_head(FILE *out, const char *title, bool live) {
    fputs("<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n",
          out);
    fprintf(out,
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src "
            "'unsafe-inline'%s\"/>\n<title>",
            live ? "; connect-src 'self'" : "");
    dm_markup_text(out, title);
    fprintf(out, "</title>\n<style>\n%s%s</style>\n</head>\n", dm_web_report_chart_css, dm_web_report_page_css);
}

static void write_content(FILE *out, const dm_page *page) {
    fprintf(out, "<dl>\n%s</dl>\n<nav aria-label=\"Sections\">\n%s</nav>\n<main>\n%s", page->parts[DM_PAGE_FACTS].text,
            page->parts[DM_PAGE_LINKS].text, page->parts[DM_PAGE_BODY].text);
    if (page->left_out > 0) {
        fprintf(out, "<section id=\"left-out\"><h2>Not in this report</h2><dl>\n%s</dl></section>\n",
                page->parts[DM_PAGE_LEFT].text);
    }
    fputs("</main>\n", out);
}

/* `page` may be NULL: content is to come. */
static void write_page(FILE *out, const dm_page *page, const char *title, bool live) {
    write_head(out, title, live);
    fputs("<body>\n<header><h1>", out);
    dm_markup_text(out, title);
    fprintf(out, "</h1>\n<button id=\"theme\" type=\"button\" hidden=\"hidden\">Dark</button></header>\n<div id=\"content\"%s>\n",
            live ? " data-events=\"events\"" : "");
    if (page != NULL) {
        write_content(out, page);
    } else {
        fputs("<p>Nothing was drawn yet.</p>\n", out);
    }
    fputs("</div>\n", out);
    write_script(out, dm_web_report_page_js);
    fputs("</body>\n</html>\n", out);
}

static dm_status save_page(const dm_page *page, const char *path, const char *title) {
    dm_replace file;
    DM_TRY(dm_replace_open(path, &file));
    write_page(file.stream, page, title, false);
    return dm_replace_commit(&file);
}

/* Ends the parts; they are still to be freed. */
static void end_parts(dm_page *page) {
    if (page->status == DM_OK) {
        end_section(page);
    }
    for (size_t i = 0; i < DM_PAGE_PARTS; i++) {
        if (!dm_text_stream_end(&page->parts[i]) && page->status == DM_OK) {
            page->status = dm_fail(DM_ERR_MEMORY, "out of memory for a page");
        }
    }
}

static void free_parts(dm_page *page) {
    for (size_t i = 0; i < DM_PAGE_PARTS; i++) {
        free(page->parts[i].text);
    }
}

dm_status dm_page_end(dm_page *page, const char *path, const char *title) {
    end_parts(page);
    if (page->status == DM_OK && path != NULL) {
        page->status = save_page(page, path, title);
    }
    free_parts(page);
    return page->status;
}

dm_status dm_page_end_content(dm_page *page, char **out) {
    dm_text_stream text;
    *out = NULL;
    end_parts(page);
    if (page->status == DM_OK) {
        dm_text_stream_begin(&text);
        if (text.stream != NULL) {
            write_content(text.stream, page);
        }
        page->status = dm_text_stream_end(&text) ? DM_OK : dm_fail(DM_ERR_MEMORY, "out of memory for a page");
        *out = text.text;
    }
    free_parts(page);
    return page->status;
}

dm_status dm_page_live(const char *title, char **out) {
    dm_text_stream text;
    dm_text_stream_begin(&text);
    if (text.stream != NULL) {
        write_page(text.stream, NULL, title, true);
    }
    dm_status status = dm_text_stream_end(&text) ? DM_OK : dm_fail(DM_ERR_MEMORY, "out of memory for a page");
    *out = text.text;
    return status;
}
