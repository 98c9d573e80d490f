#include "server/assets.h"

#include <stddef.h>
#include <string.h>

#include "base/web.h"

#define CSS "text/css; charset=utf-8"
#define HTML "text/html; charset=utf-8"
#define SCRIPT "text/javascript; charset=utf-8"

static const dm_asset assets[] = {
    {"/", HTML, dm_web_page_index_html},          {"/index.html", HTML, dm_web_page_index_html},
    {"/chart.css", CSS, dm_web_report_chart_css}, {"/page.css", CSS, dm_web_page_page_css},
    {"/page.js", SCRIPT, dm_web_page_page_js},    {"/api.js", SCRIPT, dm_web_page_api_js},
    {"/work.js", SCRIPT, dm_web_page_work_js},
};

const dm_asset *dm_asset_find(const char *path) {
    for (size_t i = 0; i < sizeof assets / sizeof *assets; i++) {
        if (strcmp(assets[i].path, path) == 0) {
            return &assets[i];
        }
    }
    return NULL;
}
