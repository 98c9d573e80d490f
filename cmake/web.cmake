# What pages need is embedded, so that the program is one file: DM_WEB is the C source made from it.
set(DM_WEB ${PROJECT_BINARY_DIR}/web.c)
set(DM_WEB_FILES ${PROJECT_SOURCE_DIR}/web/report/chart.css ${PROJECT_SOURCE_DIR}/web/report/page.css ${PROJECT_SOURCE_DIR}/web/report/page.js)
string(REPLACE ";" "," DM_WEB_LIST "${DM_WEB_FILES}")
add_custom_command(
    OUTPUT ${DM_WEB}
    COMMAND ${CMAKE_COMMAND} -D OUT=${DM_WEB} -D FILES=${DM_WEB_LIST} -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${DM_WEB_FILES} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    VERBATIM)

# Pictures of a run under way are sent by libmicrohttpd, where it is found.
if(NOT TARGET PkgConfig::MICROHTTPD)
    pkg_check_modules(MICROHTTPD IMPORTED_TARGET libmicrohttpd)
endif()
if(TARGET PkgConfig::MICROHTTPD)
    list(APPEND DM_LIBRARIES PkgConfig::MICROHTTPD)
endif()
set_property(SOURCE src/visualization/dashboard.c PROPERTY COMPILE_DEFINITIONS DM_DASHBOARD=$<TARGET_EXISTS:PkgConfig::MICROHTTPD>)
