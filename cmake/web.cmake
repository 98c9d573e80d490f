# What pages need is embedded, so that the program is one file: DM_WEB is the C source made from it.
set(DM_WEB ${PROJECT_BINARY_DIR}/web.c)
set(DM_WEB_FILES report/chart.css report/page.css report/page.js)
if(DM_SERVER)
    list(APPEND DM_WEB_FILES page/index.html page/page.css page/page.js page/api.js page/work.js)
endif()
string(REPLACE ";" "," DM_WEB_LIST "${DM_WEB_FILES}")
list(TRANSFORM DM_WEB_FILES PREPEND ${PROJECT_SOURCE_DIR}/web/)
add_custom_command(
    OUTPUT ${DM_WEB}
    COMMAND ${CMAKE_COMMAND} -D OUT=${DM_WEB} -D FOLDER=${PROJECT_SOURCE_DIR}/web -D FILES=${DM_WEB_LIST}
            -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${DM_WEB_FILES} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    VERBATIM)

# Pictures of a run under way are sent by libmicrohttpd, where it is found.
set_property(SOURCE src/visualization/dashboard.c PROPERTY COMPILE_DEFINITIONS DM_DASHBOARD=$<BOOL:${DM_SERVER}>)
