/* The files of web/, which the build embeds (cmake/embed.cmake). */
#ifndef DM_BASE_WEB_H
#define DM_BASE_WEB_H

extern const char dm_web_report_chart_css[]; /* of charts, in a page or alone, and the colours of all pages */
extern const char dm_web_report_page_css[];
extern const char dm_web_report_page_js[];

/* The server's, where there is one. */
extern const char dm_web_page_index_html[];
extern const char dm_web_page_page_css[];
extern const char dm_web_page_page_js[];
extern const char dm_web_page_api_js[];
extern const char dm_web_page_work_js[];

#endif
