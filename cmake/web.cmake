# What pages need is embedded, so that the program is one file: DM_WEB is the C source made from it.
set(DM_WEB ${PROJECT_BINARY_DIR}/web.c)
set(DM_WEB_FILES ${PROJECT_SOURCE_DIR}/web/report/chart.css ${PROJECT_SOURCE_DIR}/web/report/page.css ${PROJECT_SOURCE_DIR}/web/report/page.js)
string(REPLACE ";" "," DM_WEB_LIST "${DM_WEB_FILES}")
add_custom_command(
    OUTPUT ${DM_WEB}
    COMMAND ${CMAKE_COMMAND} -D OUT=${DM_WEB} -D FILES=${DM_WEB_LIST} -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${DM_WEB_FILES} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    VERBATIM)

# The server's pages.
if(DM_SERVER)
    set(DM_ASSETS ${PROJECT_BINARY_DIR}/assets_data.c)
    file(GLOB_RECURSE DM_PAGES CONFIGURE_DEPENDS web/page/*)
    add_custom_command(
        OUTPUT ${DM_ASSETS}
        COMMAND ${CMAKE_COMMAND} -DFOLDER=${PROJECT_SOURCE_DIR}/web/page -DOUT=${DM_ASSETS} -P ${PROJECT_SOURCE_DIR}/cmake/assets.cmake
        DEPENDS ${DM_PAGES} ${PROJECT_SOURCE_DIR}/cmake/assets.cmake
        VERBATIM)
    list(APPEND DM_WEB ${DM_ASSETS})
endif()

# Pictures of a run under way are sent by libmicrohttpd, where it is found.
set_property(SOURCE src/visualization/dashboard.c PROPERTY COMPILE_DEFINITIONS DM_DASHBOARD=$<BOOL:${DM_SERVER}>)
