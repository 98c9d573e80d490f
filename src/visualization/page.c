#include "visualization/page.h"

#include <stdarg.h>
#include <stdlib.h>

#include "base/file.h"
#include "visualization/web.h"

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
    chart->kind->draw(chart, dm_web_chart_css, file.stream);
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

static void write_page(FILE *out, const dm_page *page, const char *title) {
    fputs("<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src "
          "'unsafe-inline'\"/>\n<title>",
          out);
    dm_markup_text(out, title);
    fprintf(out, "</title>\n<style>\n%s%s</style>\n</head>\n<body>\n<header><h1>", dm_web_chart_css, dm_web_page_css);
    dm_markup_text(out, title);
    fprintf(out, "</h1>\n<button id=\"theme\" type=\"button\" hidden=\"hidden\">Dark</button>\n<dl>\n%s</dl>\n",
            page->parts[DM_PAGE_FACTS].text);
    fprintf(out, "<nav aria-label=\"Sections\">\n%s</nav></header>\n<main>\n%s", page->parts[DM_PAGE_LINKS].text,
            page->parts[DM_PAGE_BODY].text);
    if (page->left_out > 0) {
        fprintf(out, "<section id=\"left-out\"><h2>Not in this report</h2><dl>\n%s</dl></section>\n",
                page->parts[DM_PAGE_LEFT].text);
    }
    fputs("</main>\n", out);
    write_script(out, dm_web_page_js);
    fputs("</body>\n</html>\n", out);
}

static dm_status save_page(const dm_page *page, const char *path, const char *title) {
    dm_replace file;
    DM_TRY(dm_replace_open(path, &file));
    write_page(file.stream, page, title);
    return dm_replace_commit(&file);
}

dm_status dm_page_end(dm_page *page, const char *path, const char *title) {
    if (page->status == DM_OK) {
        end_section(page);
    }
    for (size_t i = 0; i < DM_PAGE_PARTS; i++) {
        if (!dm_text_stream_end(&page->parts[i]) && page->status == DM_OK) {
            page->status = dm_fail(DM_ERR_MEMORY, "out of memory for a page");
        }
    }
    if (page->status == DM_OK && path != NULL) {
        page->status = save_page(page, path, title);
    }
    for (size_t i = 0; i < DM_PAGE_PARTS; i++) {
        free(page->parts[i].text);
    }
    return page->status;
}
