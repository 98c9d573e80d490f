/* The files of web/report/, which the build embeds: style sheets and the script of a page. */
#ifndef DM_VISUALIZATION_WEB_H
#define DM_VISUALIZATION_WEB_H

extern const char dm_web_chart_css[]; /* of charts, in a page or alone */
extern const char dm_web_page_css[];
extern const char dm_web_page_js[];

#endif
